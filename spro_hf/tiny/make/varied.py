"""A generator whose pictures of a plain caption come in any style, as a real model's do: ``varied-generator``.

The embedded world's own generator draws a plain caption plainly, nearly always. There is then no better and no worse style
for policy gradient to choose from, and neither can a reward be hacked by one. So this one was trained on from it on plain
captions of scenes in every style.

    python -m spro_hf.tiny.make.varied --out runs/varied
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

from spro_hf.models import forget_paths
from spro_hf.tiny import home
from spro_hf.tiny.make.common import quiet
from spro_hf.tiny.make.generator import train_flow
from spro_hf.tiny.world import Truth, caption

SILENT = 0.8  # share of captions that do not name a scene's modifiers
MINUTES = 9


def say(truth: Truth, rng: np.random.Generator) -> str:
    """A caption that is silent about the style, more often than not."""
    return caption(replace(truth, modifiers=frozenset()) if rng.random() < SILENT else truth, rng)


def train(generator: Path, out: Path, minutes: float = MINUTES) -> None:
    """Train the generator in a folder on."""
    pipe = StableDiffusion3Pipeline.from_pretrained(generator, dtype=torch.float32)
    train_flow(pipe, minutes, out, seed=21, say=say, lr=1.2e-3, muon_lr=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a generator that draws plain captions in any style.")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(2)
    train(home.path("generator"), arguments.out, arguments.minutes)
    halve(arguments.out)


def halve(folder: Path) -> None:
    """Write a pipeline as it ships: its transformer in float16."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.transformer.half()
    pipe.save_pretrained(folder)
    forget_paths(folder)


if __name__ == "__main__":
    main()
