"""A tiny Idefics3 with random weights and a few tasks of the embedded world."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spro_hf.guider.guider import Guider, Task
from spro_hf.tiny.make.guider import new_guider

CAPTIONS = (
    "a red circle",
    "a blue star at the left on navy",
    "a green moon above a pink ring",
    "a black cross on mint",
)


@pytest.fixture
def guider() -> Guider:
    return new_guider(seed=0)


@pytest.fixture
def tasks() -> list[Task]:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in CAPTIONS]
    return [Task(p, c, "aesthetics") for p, c in zip(pictures, CAPTIONS, strict=True)]
