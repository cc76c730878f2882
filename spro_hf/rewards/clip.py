"""CLIP towers: one copy of the weights for all scorers, embeddings with and without gradients, CLIP score, similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoProcessor, CLIPModel

from spro_hf import parallel
from spro_hf.errors import UserError
from spro_hf.models import load_model, locate
from spro_hf.rewards.base import Brief, captions_of

# The weights that some tower of this process still holds, by id, revision, device and type; they go with the last one.
_HELD: WeakValueDictionary[tuple, CLIPModel] = WeakValueDictionary()


class ClipTower:
    """A ``CLIPModel`` and its processor, for scoring: frozen and in evaluation mode.

    Towers of one model, revision, device and type share one copy of the weights.

    Args:
        processor: where the processor of pictures and texts comes from, if not from ``id``.
        device: an accelerator where there is one, else the CPU, if None.
        batch_size: pictures, or texts, at once.
        field: the recipe's field that names ``id``, for messages.

    Raises:
        UserError: if ``id`` is no whole CLIP, or no processor of pictures and texts is to be had.
    """

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        processor: str | None = None,
        processor_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
        field: str = "scorers.clip.id",
    ):
        self.device, self.batch_size = torch.device(device or parallel.device()), batch_size
        key = (id, revision, str(self.device), dtype)
        model = _HELD.get(key)
        if model is None:
            model = _HELD[key] = load_model(CLIPModel, id, revision, field, str(self.device), dtype)
        self.model = model
        if processor:
            self.processor = _processor(processor, processor_revision, field.rpartition(".")[0] + ".processor")
        else:
            self.processor = _processor(id, revision, field)

    @property
    def width(self) -> int:
        """How many numbers an embedding has."""
        return self.model.config.projection_dim

    @property
    def scale(self) -> float:
        """``exp(logit_scale)``: what the model multiplies cosines by. In bfloat16 its logarithm is rounded, by up to 0.016."""
        return self.model.logit_scale.float().exp().item()

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """L2-normalised projected image embeddings, float32 (n, d), on the CPU."""
        starts = range(0, len(images), self.batch_size)
        return torch.cat([self.seen(images[start : start + self.batch_size]).cpu() for start in starts])

    def seen(self, images: Sequence[Image.Image]) -> Tensor:
        """The same of one batch, on the tower's device, with gradients to the weights that learn."""
        inputs = self.processor.image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        return self._embed(inputs["pixel_values"].to(self.device))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """L2-normalised projected embeddings, float32 (n, d), of pixels (n, 3, h, w) in [0, 1], with gradients to them.

        The processor's own steps in torch, see :func:`preprocess`. The result lies on the tower's device.
        """
        return self._embed(preprocess(pixels.to(self.device), self.processor.image_processor))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised projected text embeddings, float32 (n, d), on the CPU; texts are cut to the tower's context."""
        distinct = list(dict.fromkeys(texts))
        length = self.model.config.text_config.max_position_embeddings
        rows = []
        for start in range(0, len(distinct), self.batch_size):
            inputs = self.processor.tokenizer(
                distinct[start : start + self.batch_size],
                padding="max_length", truncation=True, max_length=length, return_tensors="pt",
            ).to(self.device)  # fmt: skip
            rows.append(F.normalize(self.model.get_text_features(**inputs).pooler_output.float(), dim=-1).cpu())
        place = {text: i for i, text in enumerate(distinct)}
        return torch.cat(rows)[[place[text] for text in texts]]

    def _embed(self, pixel_values: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=pixel_values.to(self.model.dtype))
        return F.normalize(found.pooler_output.float(), dim=-1)


def _processor(id: str, revision: str | None, field: str) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(locate(id, revision, weights=False), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{field}: '{id}' has no processor ({said}); name a CLIP's repository that has one.") from error
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise UserError(
            f"{field}: '{id}' has no processor of pictures and texts; name a CLIP's repository that has one."
        )
    return processor


def preprocess(pixels: Tensor, processor: Any) -> Tensor:
    """What a CLIP image processor does to pictures, for pixels (n, 3, h, w) in [0, 1], with gradients; float32.

    Bicubic with antialiasing to the processor's shortest edge (or its fixed size), clamped to [0, 1], the middle cut out,
    normalised by its mean and deviation. Pillow does the same to floats. To pictures it does rows and columns one after the
    other and rounds and clamps in between: measured, a pixel differs by 0.3/255 in the mean, by up to 8/255 at hard edges.
    """
    pixels = pixels.float()
    if processor.do_resize:
        height, width = pixels.shape[-2:]
        edge = processor.size.get("shortest_edge")
        if edge is None:
            size = (processor.size["height"], processor.size["width"])
        else:
            size = (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    if processor.do_center_crop:
        height, width = processor.crop_size["height"], processor.crop_size["width"]
        top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
        pixels = pixels[..., top : top + height, left : left + width]
    mean, deviation = (pixels.new_tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (pixels - mean) / deviation


class ClipScore:
    """CLIP text–image score: 100 · max(0, cos(image, caption)), in [0, 100] (Hessel et al. 2021, without their 2.5)."""

    differentiable = True

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
    ):
        self.tower = ClipTower(id, revision, device=device, dtype=dtype, batch_size=batch_size)

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        cosine = (self.tower.images(images) * self.tower.texts(captions_of(briefs))).sum(-1)
        return (100 * cosine.clamp(min=0)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients; they are zero where the cosine is not above zero."""
        texts = self.tower.texts(captions_of(briefs)).to(self.tower.device)
        return (100 * (self.tower.of_pixels(pixels) * texts).sum(-1).clamp(min=0)).to(pixels.device)


class ImageSimilarity:
    """Likeness to the base picture: 100 · cos(image, base), in [−100, 100], of projected image embeddings.

    SPRO's paper does not say which CLIP it measures likeness with; ``openai/clip-vit-large-patch14`` is a guess.

    Raises:
        UserError: when a brief has no base picture; its caption is named.
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
            id, revision, device=device, dtype=dtype, batch_size=batch_size, field="scorers.similarity.id"
        )

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return (100 * (self.tower.images(images) * self._bases(briefs)).sum(-1)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients to the pictures; the base pictures stay as they are."""
        bases = self._bases(briefs).to(self.tower.device)
        return (100 * (self.tower.of_pixels(pixels) * bases).sum(-1)).to(pixels.device)

    def _bases(self, briefs: Sequence[Brief | str]) -> Tensor:
        """Embeddings of the base pictures, each picture embedded once: a seed's candidates share theirs."""
        for brief in briefs:
            if isinstance(brief, str) or brief.base is None:
                raise UserError(
                    f"scorers.similarity: there is no base picture to compare with (caption: {captions_of([brief])[0]!r}); "
                    "leave this scorer out where seeds have none."
                )
        distinct = {id(brief.base): brief.base for brief in briefs}
        place = {key: i for i, key in enumerate(distinct)}
        return self.tower.images(list(distinct.values()))[[place[id(brief.base)] for brief in briefs]]


class Similarity:
    """Image–image similarity of SPRO's filter: cosine of projected image embeddings, in [−1, 1]."""

    def __init__(self, id: str, revision: str | None = None, dtype: str = "float32"):
        self.tower = ClipTower(id, revision, dtype=dtype, field="select.similarity")

    def __call__(self, images: Sequence[Image.Image], others: Sequence[Image.Image]) -> list[float]:
        return (self.tower.images(images) * self.tower.images(others)).sum(-1).tolist()
