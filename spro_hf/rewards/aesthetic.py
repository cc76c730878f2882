"""LAION's aesthetic score: a linear head on a CLIP image embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from spro_hf.models import locate
from spro_hf.rewards.clip import ClipTower
from spro_hf.rewards.heads import AestheticHead


class Aesthetic:
    """``w · x + b`` with ``x`` the L2-normalised projected image embedding of ``backbone``; about 0 to 10."""

    def __init__(self, id: str, backbone: str, revision: str | None = None, backbone_revision: str | None = None):
        self.tower = ClipTower(backbone, backbone_revision)
        self.head = AestheticHead.from_pretrained(locate(id, revision)).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        return self.head(self.tower.images(images)).tolist()
