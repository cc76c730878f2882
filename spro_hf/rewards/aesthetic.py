"""LAION's aesthetic scores: a head on a CLIP image embedding, in either of its two public forms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.rewards.base import Brief
from spro_hf.rewards.clip import ClipTower
from spro_hf.rewards.heads import AestheticHead, ImprovedAestheticHead, read_weights, require_width

FIELD = "scorers.aesthetic.id"


class Aesthetic:
    """A head on ``x``, the L2-normalised projected image embedding of ``backbone``; about 0 to 10.

    V1, ``spro_hf/laion/v1`` here: ``w · x + b`` (github.com/LAION-AI/aesthetic-predictor). V2, "improved":
    ``trl-lib/ddpo-aesthetic-predictor`` with ``file: aesthetic-model.pth``, a chain of linear layers
    (github.com/christophschuhmann/improved-aesthetic-predictor). Both were trained on ``openai/clip-vit-large-patch14``.
    Which of them a file holds is told by its keys. SPRO's paper most likely rewards by V1 and judges by V2.

    Args:
        file: the head's file in ``id``, if it is not the only one; must be named where it is no safetensors file on the Hub.
    """

    differentiable = True

    def __init__(
        self,
        id: str,
        backbone: str,
        revision: str | None = None,
        file: str | None = None,
        backbone_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 128,
    ):
        self.head = aesthetic_head(read_weights(locate(id, revision, keep=file), file, FIELD), id)
        self.tower = ClipTower(
            backbone, backbone_revision, device=device, dtype=dtype, batch_size=batch_size,
            field="scorers.aesthetic.backbone",
        )  # fmt: skip
        require_width(next(self.head.parameters()).shape[1], backbone, self.tower.width, FIELD)
        self.head.to(self.tower.device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        return self.head(self.tower.images(images).to(self.tower.device)).tolist()

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """The same with gradients."""
        return self.head(self.tower.of_pixels(pixels)).to(pixels.device)


def aesthetic_head(state: dict[str, Tensor], id: str) -> nn.Module:
    """The head that a file's keys and shapes tell of; a UserError if they are neither V1's nor V2's."""
    for kind, first in ((AestheticHead, "weight"), (ImprovedAestheticHead, "layers.0.weight")):
        if first in state and state[first].ndim == 2:
            head = kind(state[first].shape[1])
            if {n: p.shape for n, p in head.state_dict().items()} == {n: p.shape for n, p in state.items()}:
                head.load_state_dict(state)
                return head.eval().requires_grad_(False)
    keys = ", ".join(list(state)[:4])
    raise UserError(
        f"{FIELD}: '{id}' holds neither LAION's V1 head (weight, bias) nor its V2 (layers.0 to layers.7), but {keys} …; name one "
        "of them."
    )
