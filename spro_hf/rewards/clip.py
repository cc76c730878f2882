"""CLIP towers: shared loading, image embeddings, CLIP score and image–image similarity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoProcessor, CLIPModel

from spro_hf.models import locate

BATCH = 128


class ClipTower:
    """A ``CLIPModel`` and its processor, for scoring: no gradients, in evaluation mode."""

    def __init__(self, id: str, revision: str | None = None, processor: str | None = None, device: str = "cpu"):
        folder = locate(id, revision)
        self.model = CLIPModel.from_pretrained(folder).to(device).eval().requires_grad_(False)
        self.processor = AutoProcessor.from_pretrained(locate(processor) if processor else folder)
        self.device = device

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """L2-normalised projected image embeddings, float32 (n, d)."""
        rows = []
        for start in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[start : start + BATCH]]
            inputs = self.processor.image_processor(part, return_tensors="pt").to(self.device)
            rows.append(F.normalize(self.model.get_image_features(**inputs).pooler_output.float(), dim=-1).cpu())
        return torch.cat(rows)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised projected text embeddings, float32 (n, d); texts are padded and cut to the tower's context."""
        distinct = list(dict.fromkeys(texts))
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.processor.tokenizer(
            distinct, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        rows = F.normalize(self.model.get_text_features(**inputs).pooler_output.float(), dim=-1).cpu()
        return rows[[distinct.index(text) for text in texts]]


class ClipScore:
    """CLIP text–image score: 100 · max(0, cos(image, caption)), in [0, 100] (Hessel et al. 2021, without their 2.5)."""

    def __init__(self, id: str, revision: str | None = None):
        self.tower = ClipTower(id, revision)

    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        return (100 * (self.tower.images(images) * self.tower.texts(captions)).sum(-1).clamp(min=0)).tolist()


class Similarity:
    """Image–image similarity of SPRO's filter: cosine of projected image embeddings, in [−1, 1]."""

    def __init__(self, id: str, revision: str | None = None):
        self.tower = ClipTower(id, revision)

    def __call__(self, images: Sequence[Image.Image], others: Sequence[Image.Image]) -> list[float]:
        return (self.tower.images(images) * self.tower.images(others)).sum(-1).tolist()
