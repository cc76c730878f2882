"""Engagement: how much a picture would be liked, 0 to 100, by a small stand-in for EngageNet (see ``engagenet.py``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from spro_hf.rewards.base import Brief
from spro_hf.rewards.clip import ClipTower
from spro_hf.rewards.heads import EngagementHead, load_head, require_width

FIELD = "scorers.engagement.id"


class Engagement:
    """A two-layer regressor on the CLIP image embedding of ``backbone``; about 0 to 100, not clipped.

    A stand-in: it sees the picture alone, nothing of the post, and was taught the embedded world's planted engagement.
    """

    differentiable = True

    def __init__(
        self,
        id: str,
        backbone: str,
        revision: str | None = None,
        backbone_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
    ):
        self.head = load_head(EngagementHead, id, revision, FIELD)
        self.tower = ClipTower(
            backbone, backbone_revision, device=device, dtype=dtype, batch_size=batch_size,
            field="scorers.engagement.backbone",
        )  # fmt: skip
        require_width(self.head.layers[0].in_features, backbone, self.tower.width, FIELD)
        self.head.to(self.tower.device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return self.head(self.tower.images(images).to(self.tower.device)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients."""
        return self.head(self.tower.of_pixels(pixels)).to(pixels.device)
