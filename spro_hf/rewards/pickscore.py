"""PickScore: how much people would prefer a picture for a caption (Kirstain et al. 2023, arXiv 2305.01569)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from spro_hf.rewards.clip import ClipTower


class PickScore:
    """``exp(logit_scale) · cos(image, caption)`` of a fine-tuned CLIP; about 17 to 24.

    The real one is ``yuvalkirstain/PickScore_v1`` with the processor of ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``.
    SPRO's paper does not say which text it is scored against; here it is the base caption.
    """

    def __init__(self, id: str, revision: str | None = None, processor: str | None = None):
        self.tower = ClipTower(id, revision, processor)

    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        cosine = (self.tower.images(images) * self.tower.texts(captions)).sum(-1)
        return (self.tower.model.logit_scale.exp().cpu() * cosine).tolist()
