"""What every reward shares: the shape of a call, and the check of what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from spro_hf.errors import UserError


class Reward(Protocol):
    """Scores pictures. ``captions`` are the base captions, what the user asked for, not the rewritten prompts."""

    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]: ...


class Rewards:
    """Named rewards with weights: ``score`` gives every part by name and the weighted total."""

    def __init__(self, parts: dict[str, Reward], weights: dict[str, float]):
        missing = [name for name in weights if name not in parts]
        if missing:
            raise UserError(
                f"reward: '{missing[0]}' is weighed but no scorer of that name is loaded; add it to scorers."
            )
        self.parts, self.weights = parts, weights

    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[dict[str, float]]:
        """One dictionary per picture with every part and ``total`` = Σ weight · part.

        Raises:
            UserError: if a reward returns another number of scores than pictures, or a score that is not finite;
                the row is named. A failed score never becomes zero.
        """
        rows: list[dict[str, float]] = [{} for _ in images]
        for name, reward in self.parts.items():
            scores = reward(images, captions)
            if len(scores) != len(rows):
                raise UserError(f"The reward '{name}' returned {len(scores)} scores for {len(rows)} pictures.")
            for i, score in enumerate(scores):
                if score is None or not math.isfinite(score):
                    raise UserError(f"The reward '{name}' returned {score} for row {i} (caption: {captions[i]!r}).")
                rows[i][name] = float(score)
        for row in rows:
            row["total"] = sum(weight * row[name] for name, weight in self.weights.items())
        return rows
