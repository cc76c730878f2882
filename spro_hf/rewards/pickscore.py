"""PickScore: how much people would prefer a picture for a caption (Kirstain et al. 2023, arXiv 2305.01569)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from spro_hf.errors import UserError
from spro_hf.rewards.base import Brief, captions_of
from spro_hf.rewards.clip import ClipTower

AGAINST = ("caption", "prompt")


class PickScore:
    """``exp(logit_scale) · cos(image, text)`` of a fine-tuned CLIP; about 17 to 24.

    The real one is ``yuvalkirstain/PickScore_v1`` with the processor of ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``.
    SPRO's paper does not say which text it is scored against; here it is the base caption. ``against`` "prompt" takes the
    text that the picture was drawn from instead. In bfloat16 the scale is rounded, and all scores are off by the same
    factor, up to 1.6 %.
    """

    differentiable = True
    FIELD = "scorers.pickscore"

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        processor: str | None = None,
        processor_revision: str | None = None,
        against: str = "caption",
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
    ):
        if against not in AGAINST:
            raise UserError(f"{self.FIELD}.against: '{against}' is no text of a brief; it is 'caption' or 'prompt'.")
        self.against = against
        self.fields = {"id": id, "revision": revision, "processor": processor,
                       "processor_revision": processor_revision, "against": against}  # fmt: skip
        self.tower = ClipTower(
            id, revision, processor, processor_revision, device, dtype, batch_size, field=f"{self.FIELD}.id"
        )

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return (self.tower.scale * (self.tower.images(images) * self._texts(briefs)).sum(-1)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients."""
        texts = self._texts(briefs).to(self.tower.device)
        return (self.tower.scale * (self.tower.of_pixels(pixels) * texts).sum(-1)).to(pixels.device)

    def _texts(self, briefs: Sequence[Brief | str]) -> Tensor:
        texts = captions_of(briefs)
        if self.against == "prompt":
            texts = [getattr(brief, "prompt", "") or text for brief, text in zip(briefs, texts, strict=True)]
        return self.tower.texts(texts)
