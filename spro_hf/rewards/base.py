"""What every reward shares: what it is told of a picture, the shape of a call, and the check of what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image
from torch import Tensor

from spro_hf.errors import UserError
from spro_hf.memory import needing


@dataclass(frozen=True)
class Brief:
    """What a picture was to be: the base caption that the user wrote, the prompt that it was drawn from (the caption
    itself if ""), the base picture, and the post it belongs to ("tweet", "company", "date", "tags" ...)."""

    caption: str
    prompt: str = ""
    base: Image.Image | None = None
    context: Mapping[str, str] = field(default_factory=dict)


class Reward(Protocol):
    """Scores pictures, each under its brief. All pictures are RGB.

    Attributes:
        differentiable: whether it also has ``of_pixels(pixels, briefs) -> Tensor``, with ``pixels`` of shape (n, 3, h, w) in
            [0, 1], which gives the same scores, (n,), with gradients to the pixels.
    """

    differentiable: bool

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]: ...


class DifferentiableReward(Reward, Protocol):
    """A reward through which gradients flow to the pixels."""

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor: ...


def captions_of(briefs: Sequence[Brief | str]) -> list[str]:
    """The base captions of briefs; a plain text is a brief of nothing else."""
    return [brief if isinstance(brief, str) else brief.caption for brief in briefs]


class Rewards:
    """Named rewards with weights: ``score`` gives every part by name and the weighted total."""

    def __init__(self, parts: dict[str, Reward], weights: dict[str, float]):
        missing = [name for name in weights if name not in parts]
        if missing:
            raise UserError(
                f"reward: '{missing[0]}' is weighed but no scorer of that name is loaded; add it to scorers."
            )
        self.parts, self.weights = parts, weights

    def score(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[dict[str, float]]:
        """One dictionary per picture with every part and ``total`` = Σ weight · part.

        Raises:
            UserError: if a picture is not RGB, a reward fails, it returns another number of scores than pictures, or a
                score is not finite; the picture is named. A failed score never becomes zero.
        """
        if not len(images):
            return []
        rows: list[dict[str, float]] = [{} for _ in images]
        captions = captions_of(briefs)
        for i, image in enumerate(images):
            mode = getattr(image, "mode", None)
            if mode != "RGB":
                raise UserError(
                    f"Picture {i} (caption: {captions[i]!r}) has the mode {mode}, and rewards take RGB; call convert('RGB')."
                )
        for name, reward in self.parts.items():
            try:
                with needing(f"scorers.{name}.batch_size", getattr(reward, "batch_size", None)):
                    scores = reward(images, briefs)
            except UserError:
                raise
            except Exception as error:
                culprit = _blamed(name, reward, images, briefs)
                if culprit is None:
                    raise
                raise culprit from error
            if len(scores) != len(rows):
                raise UserError(f"The reward '{name}' returned {len(scores)} scores for {len(rows)} pictures.")
            for i, score in enumerate(scores):
                if score is None or not math.isfinite(score):
                    raise UserError(f"The reward '{name}' returned {score} for row {i} (caption: {captions[i]!r}).")
                rows[i][name] = float(score)
        for row in rows:
            row["total"] = sum(weight * row[name] for name, weight in self.weights.items())
        return rows


def _blamed(
    name: str, reward: Reward, images: Sequence[Image.Image], briefs: Sequence[Brief | str]
) -> UserError | None:
    """The first picture that the reward cannot score alone either, in one sentence; None if each of them alone is fine."""
    for i, (image, brief) in enumerate(zip(images, briefs, strict=True)):
        try:
            reward([image], [brief])
        except Exception as error:
            caption = captions_of([brief])[0]
            return UserError(
                f"The reward '{name}' failed on row {i} (caption: {caption!r}, {image.width}×{image.height} pixels): {error}"
            )
    return None
