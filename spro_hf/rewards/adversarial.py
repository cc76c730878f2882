"""The image as its own reward: a head on a vision model learns to tell references from what the generator draws.

*The Image as Its Own Reward: Reinforcement Learning with Adversarial Reward for Image Generation* (arXiv 2511.20256).
Departures: features are normalised in the same way where the head learns and where it scores (``features: published`` has
them as the public code does); the patches that are looked at belong to the picture, so that scores repeat; the whole
picture is squeezed to the backbone's square, as there, but with antialiasing, on which the two paths of ours agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel

from spro_hf import parallel
from spro_hf.errors import UserError
from spro_hf.memory import needing
from spro_hf.methods import Adversary
from spro_hf.models import load_model, locate
from spro_hf.rewards.base import Brief
from spro_hf.rewards.learning import Learning, Place, Told, save_reward
from spro_hf.strict import nearest

FIELD = "scorers.adversarial"
FEATURES = ("normalised", "published")
WIDTH = 512


class Head(nn.Sequential):
    """(…, d) to (…): Linear(d → 512), GELU, Linear(512 → 1). One head for class tokens and patch tokens."""

    def __init__(self, dimension: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Linear(dimension, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features)[..., 0]


class Adversarial:
    """``w · h(class token) + (1 − w) · mean h(patch tokens)``, where ``h`` is the head and ``w`` the class weight.

    Above 0 it takes a picture for a reference, below for a generated one; there are no bounds, and while it learns the
    scale moves. Of each picture ``patches`` patch tokens are looked at, or all if it has no more, chosen at random by a
    checksum of the picture: the same picture has the same score, whatever stands beside it.

    Args:
        backbone: a vision transformer by id: DINOv2 (published: facebook/dinov2-base), DINOv2 with registers, DINOv3, SigLIP,
            CLIP. It is frozen. Its "class token" is what the model itself pools: SigLIP has no such token and pools by attention.
        features: "normalised" divides tokens by their length and multiplies by √d, when learning and when scoring, so that
            their entries are about one. "published" is as the public code: tokens as they are when learning, and divided by
            their length when scoring.
    """

    differentiable = True

    def __init__(
        self,
        backbone: str,
        backbone_revision: str | None = None,
        class_weight: float = 0.7,
        patches: int = 64,
        features: str = "normalised",
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 64,
    ):
        if features not in FEATURES:
            raise UserError(f"{FIELD}.features: '{features}' is unknown; {nearest(features, FEATURES)}")
        if not 0 <= class_weight <= 1:
            raise UserError(f"{FIELD}.class_weight: {class_weight} is no share; give a number in [0, 1].")
        if patches < 1:
            raise UserError(f"{FIELD}.patches: {patches} patches show nothing; give at least 1.")
        self.fields = {"backbone": backbone, "backbone_revision": backbone_revision, "class_weight": class_weight,
                       "patches": patches, "features": features}  # fmt: skip
        self.class_weight, self.patches, self.features, self.batch_size = class_weight, patches, features, batch_size
        self.device = torch.device(device or parallel.device())
        field = f"{FIELD}.backbone"
        self.model = vision(load_model(AutoModel, backbone, backbone_revision, field, str(self.device), dtype))
        self.mean, self.deviation = _colours(backbone, backbone_revision, field)
        self.side = getattr(self.model.config, "image_size", 0)
        self.grid = _patches(self.model, self.side, backbone, field)
        self.head = Head(self.model.config.hidden_size).to(self.device).requires_grad_(False)
        self.learning: Learning | None = None

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        scores = [self._score(*self._seen(part)).cpu() for part in self._parts(images)]
        return torch.cat(scores).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients."""
        return self._score(*self._tokens(pixels.to(self.device))).to(pixels.device)

    def learn_by(self, spec: Adversary, seed: int) -> None:
        """Make ready for ``update``."""
        self.learning = Learning(dict(self.head.named_parameters()), spec, seed)

    def update(
        self,
        generated: Sequence[Image.Image],
        references: Sequence[Image.Image],
        briefs: Sequence[Brief | str] = (),
        places: Sequence[Place] = (),
    ) -> Told:
        """Learn from pairs, this process's share of what all have; the head's gradients are of all processes. Several
        processes must give ``places``, see ``Learning.run``.

        The hinge loss ½[max(0, 1 − h(reference)) + max(0, 1 + h(generated))] of class tokens weighs ``w``, its mean over
        patch tokens 1 − w. The backbone sees each picture once, however many updates are made.

        Returns:
            ``references`` and ``generated``, mean scores before the updates; ``told_apart``, the share of pairs in which the
            reference had the higher one; ``learned``, updates made, and ``loss``, their mean (1 for a head that knows nothing,
            0 for one that has won completely).
        """
        with torch.no_grad(), needing(f"scorers.{self.learning.spec.reward}.batch_size", self.batch_size):
            real, fake = self._features(references), self._features(generated)
            scores = self._score(*real), self._score(*fake)
        scale = None if self.features == "published" else "length"

        def loss(rows: list[int]) -> Tensor:
            value: Tensor | float = 0.0
            for tokens, sign in ((real, -1), (fake, 1)):
                heads = [self.head(self._normal(some[rows], scale)) for some in tokens]
                hinges = [F.relu(1 + sign * h) / 2 for h in heads]
                value = value + self._mixed(*hinges)
            return value

        return self.learning.meet(*scores, places, loss)

    def save(self, folder: Path) -> None:
        """Write what has learned as an artifact."""
        save_reward(folder, "adversarial", self.fields, self.head.state_dict())

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take on a head that was saved."""
        self.head.load_state_dict(tensors)

    def _score(self, whole: Tensor, patches: Tensor) -> Tensor:
        scale = "unit" if self.features == "published" else "length"
        return self._mixed(*(self.head(self._normal(tokens, scale)) for tokens in (whole, patches)))

    def _mixed(self, whole: Tensor, patches: Tensor) -> Tensor:
        """Of class tokens (n,) and patch tokens (n, p) the weighted sum, (n,)."""
        return self.class_weight * whole + (1 - self.class_weight) * patches.mean(1)

    def _normal(self, tokens: Tensor, scale: str | None) -> Tensor:
        if scale is None:
            return tokens
        unit = F.normalize(tokens, dim=-1)
        return unit * tokens.shape[-1] ** 0.5 if scale == "length" else unit

    def _parts(self, images: Sequence[Image.Image]) -> list[Sequence[Image.Image]]:
        return [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]

    def _features(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Class tokens (n, d) and the chosen patch tokens (n, p, d) of pictures."""
        whole, patches = zip(*(self._seen(part) for part in self._parts(images)), strict=True)
        return torch.cat(whole), torch.cat(patches)

    def _seen(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """The same of one batch; pictures of one size go in together."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(image.size, []).append(i)
        found: list[tuple[Tensor, Tensor]] = [()] * len(images)
        for rows in sizes.values():
            pixels = torch.from_numpy(np.stack([np.asarray(images[i].convert("RGB")) for i in rows]))
            seen = self._tokens(pixels.to(self.device).permute(0, 3, 1, 2).float() / 255)
            for place, i in enumerate(rows):
                found[i] = (seen[0][place], seen[1][place])
        return torch.stack([whole for whole, _ in found]), torch.stack([patches for _, patches in found])

    def _tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (n, d) and the chosen patch tokens (n, p, d) of pixels (n, 3, h, w) in [0, 1]."""
        chosen = torch.stack([self._chosen(picture) for picture in pixels.detach()])
        whole, patches = tokens(self.model, self._prepared(pixels), self.grid)
        return whole, patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))

    def _prepared(self, pixels: Tensor) -> Tensor:
        if pixels.shape[-2:] != (self.side, self.side):
            size = (self.side, self.side)
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, deviation = (pixels.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.deviation))
        return ((pixels - mean) / deviation).to(self.model.dtype)

    def _chosen(self, picture: Tensor) -> Tensor:
        """The numbers of the patches that are looked at, by the picture's own bytes."""
        if self.patches >= self.grid:
            return torch.arange(self.grid, device=picture.device)
        seed = zlib.crc32((picture * 255).round().to(torch.uint8).cpu().contiguous().numpy().tobytes())
        order = torch.randperm(self.grid, generator=torch.Generator().manual_seed(seed))
        return order[: self.patches].to(picture.device)


def vision(model: Any) -> Any:
    """The model of pictures in a model of pictures and texts, or the model itself."""
    return getattr(model, "vision_model", model)


def tokens(model: Any, pixel_values: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Pooled tokens (n, d) and patch tokens (n, grid, d) of a vision transformer, float32.

    Patch tokens stand last, behind class token and registers. CLIP alone leaves its last norm to the pooled token; here the
    patches get it as well.
    """
    out = model(pixel_values=pixel_values)
    patches = out.last_hidden_state[:, -grid:]
    if model.config.model_type == "clip_vision_model":
        patches = model.post_layernorm(patches)
    return out.pooler_output.float(), patches.float()


def _colours(id: str, revision: str | None, field: str) -> tuple[list[float], list[float]]:
    """Mean and deviation by which the backbone's own processor normalises colours."""
    try:
        processor = AutoImageProcessor.from_pretrained(locate(id, revision, weights=False), trust_remote_code=False)
        return processor.image_mean, processor.image_std
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(
            f"{field}: '{id}' has no processor of pictures ({said}); name a repository that has one."
        ) from error


@torch.no_grad()
def _patches(model: Any, side: int, id: str, field: str) -> int:
    """How many patch tokens a picture has; a UserError if the model has none."""
    size = getattr(model.config, "patch_size", None)
    if isinstance(size, int) and side:
        grid, example = (side // size) ** 2, torch.zeros(1, 3, side, side, device=model.device, dtype=model.dtype)
        out = model(pixel_values=example)
        found = out.last_hidden_state
        if found.ndim == 3 and found.shape[1] >= grid and getattr(out, "pooler_output", None) is not None:
            return grid
    raise UserError(
        f"{field}: '{id}' is a {type(model).__name__}, which has no patch tokens; name a vision transformer, e.g. "
        "facebook/dinov2-base."
    )
