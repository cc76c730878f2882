"""Engagement: how much a picture would be liked, 0 to 100, by a stand-in for EngageNet (whose weights are not public)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from spro_hf.models import locate
from spro_hf.rewards.clip import ClipTower
from spro_hf.rewards.heads import EngagementHead


class Engagement:
    """A two-layer regressor on the CLIP image embedding of ``backbone``; about 0 to 100, not clipped."""

    def __init__(self, id: str, backbone: str, revision: str | None = None, backbone_revision: str | None = None):
        self.tower = ClipTower(backbone, backbone_revision)
        self.head = EngagementHead.from_pretrained(locate(id, revision)).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        return self.head(self.tower.images(images)).tolist()
