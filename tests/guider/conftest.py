"""A tiny Idefics3 with random weights and a few tasks of the embedded world; tiny chat models of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spro_hf.guider.guider import Guider, Task
from spro_hf.tiny.make.guider import new_guider
from tests.shadow.guiders import CHATS, build

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


@pytest.fixture(scope="session")
def shadows(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny chat models by the id whose class they have."""
    root = tmp_path_factory.mktemp("guiders")
    folders = {id: root / id.replace("/", "--") for id in [*CHATS, "llava-hf/llava-1.5-13b-hf"]}
    for id, folder in folders.items():
        build(id, folder)
    return folders


@pytest.fixture
def scenes() -> list[Task]:
    """Pictures of several shapes, and captions as people write them."""
    rng = np.random.default_rng(0)
    shapes = [(48, 64, 3), (64, 40, 3), (32, 32, 3), (50, 50, 3)]
    captions = ["a dog on grass", "two red cars at the left of a tree", "a cup", "an old man reading"]
    pictures = [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
    return [Task(p, c, "aesthetics") for p, c in zip(pictures, captions, strict=True)]
