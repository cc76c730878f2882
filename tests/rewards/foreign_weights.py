"""Weights and pictures that anyone can draw again, on which the packages hpsv2 and image-reward were run (data/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

DATA = Path(__file__).parent / "data"
SIZES = ((40, 56), (96, 50), (64, 64), (31, 45))  # width, height


def reference(name: str) -> dict[str, Any]:
    """What a package said, and of what."""
    return json.loads((DATA / f"{name}.json").read_text())


def weights(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """0.1 · N(0, 1) by NumPy's old generator, whose numbers are the same in every version; norms' weights lie about 1."""
    draws = np.random.RandomState(seed)
    state = {}
    for name in sorted(shapes):
        value = draws.standard_normal(shapes[name]) * 0.1 + (name.endswith("weight") and len(shapes[name]) == 1)
        state[name] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return state


def pictures(seed: int, times: int = 1) -> list[Image.Image]:
    """One picture of each size, coarse tiles with noise, ``times`` as large in each direction."""
    draws = np.random.RandomState(seed)
    found = []
    for width, height in SIZES:
        tiles = Image.fromarray(draws.randint(0, 256, (5, 7, 3)).astype(np.uint8))
        coarse = np.asarray(tiles.resize((width, height), Image.Resampling.NEAREST)).astype(np.int64)
        noisy = (coarse + draws.randint(-40, 41, coarse.shape)).clip(0, 255).astype(np.uint8)
        found.append(Image.fromarray(noisy.repeat(times, 0).repeat(times, 1)))
    return found
