"""Regression heads on a CLIP image embedding."""

from __future__ import annotations

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn


class AestheticHead(nn.Linear, PyTorchModelHubMixin):
    """LAION's V1 aesthetic head: one linear map of the L2-normalised projected image embedding, (n, d) to (n,).

    Keys ``weight`` (1, d) and ``bias`` (1), as in ``sa_0_4_vit_l_14_linear``; scores lie about 0 to 10.
    """

    def __init__(self, dimension: int):
        super().__init__(dimension, 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(embeddings)[:, 0]


class EngagementHead(nn.Module, PyTorchModelHubMixin):
    """Two layers on a normalised image embedding, (n, d) to (n,), on EngageNet's scale of 0 to 100.

    A stand-in: EngageNet itself puts such a layer pair on a LLaVA's last hidden state, and its weights are not public.
    """

    def __init__(self, dimension: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dimension, width), nn.GELU(), nn.Linear(width, 1))
        nn.init.constant_(self.layers[2].bias, 0.35)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)[:, 0] * 100
