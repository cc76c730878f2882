"""Recipes to plan with: those of the embedded world, changed by dotted keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spro_hf.methods import Adversary
from spro_hf.parts import References
from spro_hf.recipe import load
from spro_hf.schema import Recipe, ReinforceRecipe

ROOT = Path(__file__).parents[2]


def tiny(name: str, **changes: Any) -> Recipe:
    """A recipe of the embedded world; ``a__b`` is the field ``a.b``."""
    (recipe,) = load(ROOT / "recipes" / "tiny" / name, {key.replace("__", "."): v for key, v in changes.items()})
    return recipe


def adversarial(steps: int, generator_steps: int = 1, when: str = "always", batch_size: int = 8) -> ReinforceRecipe:
    """Policy gradient of two captions in groups of four beside a head on the embedded world's CLIP: five updates a turn."""
    recipe = tiny("reinforce/flow_grpo.yaml", prompts=2, group=4, steps=steps, policy__checkpoint_every=12)
    return replace(
        recipe, scorers={"d": {"kind": "adversarial", "backbone": "spro_hf/tiny/clip"}}, reward={"d": 1.0},
        references=References("a/b", 20, columns={"caption": "caption", "image": "image"}),
        adversary=Adversary("d", 5, generator_steps, when, batch_size=batch_size),
        push={"generator": "me/it", "reward": "me/reward"},
    )  # fmt: skip


@pytest.fixture
def docs(monkeypatch):
    """The folder of the measuring scripts, to import from."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
