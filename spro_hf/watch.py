"""The hacking watch: what is looked at beside a reward while it climbs, since a scorer that is deceived says nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from spro_hf.schema import Recipe


def saturation(image: Image.Image) -> float:
    """How colourful a picture is: the mean of HSV's saturation, (max − min) / max of a pixel's R, G and B, in [0, 1].

    A black pixel counts as 0. Scorers like strong colours, so that a picture that is made to please one often has more.
    """
    # channel by channel: a large picture takes a fifth of the time that it takes pixel by pixel
    red, green, blue = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(np.float32)
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float(np.divide(high - low, high, out=np.zeros_like(high), where=high > 0).mean(dtype=np.float64))


def diversity(captions: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
    """Mean absolute pixel difference, in 1/255, of each picture to the others of the same caption; 0 of one that is alone.

    Pictures of one caption must be of one size.
    """
    groups: dict[str, list[int]] = {}
    for i, caption in enumerate(captions):
        groups.setdefault(caption, []).append(i)
    found = [0.0] * len(images)
    for group in groups.values():
        arrays = [np.asarray(images[i]) for i in group]
        apart = np.zeros((len(group), len(group)))
        for i in range(len(group)):
            for j in range(i):
                apart[i, j] = apart[j, i] = (np.maximum(arrays[i], arrays[j]) - np.minimum(arrays[i], arrays[j])).mean()
        for i, row in zip(group, apart.sum(1), strict=True):
            found[i] = float(row / max(1, len(group) - 1))
    return found


def judges(recipe: Recipe) -> list[str]:
    """The scorers of a recipe that it does not train on, nor lets learn, nor asks the same model as those in another way."""
    adversary = getattr(recipe, "adversary", None)
    learning = adversary.reward if adversary else None
    used = {name for name in recipe.scorers if recipe.reward.get(name) or name == learning}
    models = [_model(name, recipe.scorers[name]) for name in used]
    return [name for name, spec in recipe.scorers.items() if name not in used and _model(name, spec) not in models]


def _model(name: str, spec: dict[str, Any]) -> tuple[Any, ...]:
    """What a scorer is, whichever text it is asked about."""
    return (spec.get("kind", name), *(spec.get(key) for key in ("id", "backbone", "mode", "question")))
