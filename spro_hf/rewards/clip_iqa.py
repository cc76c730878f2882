"""CLIP-IQA: how good a photo a picture is, by CLIP alone (Wang et al. 2022, arXiv 2207.12396)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from spro_hf.rewards.base import Brief
from spro_hf.rewards.clip import ClipTower

PROMPTS = ("Good photo.", "Bad photo.")


class ClipIQA:
    """100 · softmax(s · cos(image, "Good photo."), s · cos(image, "Bad photo."))[0], with s the model's own scale; in [0, 100].

    It stands where SPRO's paper has VILA as a judge that nobody trains on: VILA's weights are a TensorFlow SavedModel of a
    CoCa, which no class of transformers loads. Two departures from the paper: its ResNet-50 without position embeddings,
    which takes pictures of any size, is here any CLIP, after the processor's resize and crop; and it is the zero-shot
    form, without learned prompts (CLIP-IQA+).
    """

    differentiable = True

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
    ):
        self.tower = ClipTower(
            id, revision, device=device, dtype=dtype, batch_size=batch_size, field="scorers.clip_iqa.id"
        )
        self.prompts = self.tower.texts(PROMPTS)

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return self._good(self.tower.images(images)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients."""
        return self._good(self.tower.of_pixels(pixels)).to(pixels.device)

    def _good(self, embeddings: Tensor) -> Tensor:
        logits = self.tower.scale * embeddings @ self.prompts.to(embeddings.device).T
        return 100 * logits.softmax(-1)[:, 0]
