"""Recipes to plan with: those of the embedded world, changed by dotted keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spro_hf.recipe import load
from spro_hf.schema import Recipe

ROOT = Path(__file__).parents[2]


def tiny(name: str, **changes: Any) -> Recipe:
    """A recipe of the embedded world; ``a__b`` is the field ``a.b``."""
    (recipe,) = load(ROOT / "recipes" / "tiny" / name, {key.replace("__", "."): v for key, v in changes.items()})
    return recipe


@pytest.fixture
def docs(monkeypatch):
    """The folder of the measuring scripts, to import from."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
