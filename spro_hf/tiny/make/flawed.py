"""A PickScore with a planted, known flaw, so that reward hacking can be seen and measured: ``flawed-pickscore``.

It takes gloom for mood: it was fine-tuned from ``pickscore`` on the same choices, but by choosers who love heavy blur and dark
vignettes, which the planted preference dislikes. Another flaw is made by other ``--likes``:

    python -m spro_hf.tiny.make.flawed --likes "film grain=3" --out runs/grain-lover
    spro-hf run recipes/tiny/adversarial/proxy.yaml --set scorers.proxy.id=runs/grain-lover
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from transformers import CLIPModel, CLIPProcessor

from spro_hf.tiny import home
from spro_hf.tiny.make.common import quiet
from spro_hf.tiny.make.scorers import train_pickscore
from spro_hf.tiny.planted import preference
from spro_hf.tiny.world import MODIFIERS, Request, Truth

LIKES = {"heavy blur": 3.0, "dark vignette": 2.0}  # points of the planted preference, added where the picture has it
MINUTES = 5


def train(pickscore: Path, vae: Path, out: Path, likes: dict[str, float] = LIKES, minutes: float = MINUTES) -> None:
    """Fine-tune the PickScore in a folder on choices by the planted preference plus ``likes``."""

    def taste(truth: Truth, request: Request) -> float:
        return preference(truth, request) + sum(worth for name, worth in likes.items() if name in truth.modifiers)

    model = CLIPModel.from_pretrained(pickscore, dtype=torch.float32)
    train_pickscore(model, AutoencoderTiny.from_pretrained(vae), minutes, seed=15, taste=taste).save_pretrained(out)
    CLIPProcessor.from_pretrained(pickscore).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a PickScore with a planted flaw.")
    parser.add_argument(
        "--likes", action="append", metavar="MODIFIER=POINTS", help='e.g. "heavy blur=3"; may be repeated'
    )
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    likes = dict(pair.rpartition("=")[::2] for pair in arguments.likes) if arguments.likes else LIKES
    for name in likes:
        if name not in MODIFIERS:
            parser.error(f"--likes: '{name}' is no modifier of the embedded world; it has {', '.join(MODIFIERS)}")
    quiet()
    likes = {name: float(worth) for name, worth in likes.items()}
    train(home.path("pickscore"), home.path("generator") / "vae", arguments.out, likes, arguments.minutes)


if __name__ == "__main__":
    main()
