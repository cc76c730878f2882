"""The embedded world's judge: an appeal that nobody trains on, for telling a better picture from a fooled scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from spro_hf.rewards.base import Brief
from spro_hf.rewards.heads import load_head
from spro_hf.tiny.oracle import PictureNet, pixels


class Judge:
    """A convolutional net of its own architecture, seed and pixels; 0 is a plain picture, about 2 a good one.

    It is a judge and gives no gradients: nothing is to be trained through it.
    """

    differentiable = False

    def __init__(self, id: str, revision: str | None = None):
        self.net = load_head(PictureNet, id, revision, "scorers.judge.id")

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return self.net(pixels(images))[:, 0].tolist()
