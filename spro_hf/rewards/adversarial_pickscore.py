"""Adversarial PickScore: its last vision layer learns to prefer references to what the generator draws (arXiv 2511.20256)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from spro_hf.errors import UserError
from spro_hf.memory import needing
from spro_hf.methods import Adversary
from spro_hf.rewards.base import Brief
from spro_hf.rewards.learning import Learning, Place, Told, save_reward
from spro_hf.rewards.pickscore import PickScore


class AdversarialPickScore(PickScore):
    """PickScore, ``exp(logit_scale) · cos(image, text)``, of a CLIP whose last vision layer is its own and learns.

    Published with learning rate 5e-6, and only while references score lower than what is drawn (``adversary.when``).
    """

    FIELD = "scorers.adversarial_pickscore"
    learning: Learning | None = None

    @cached_property
    def layer(self) -> dict[str, nn.Parameter]:
        """The parameters of the last vision layer by name. With the first look the model becomes this reward's own: towers of
        one model share their weights, and a PickScore that judges beside it must not learn with it."""
        self.tower.model = copy.deepcopy(self.tower.model)
        layers = self.tower.model.vision_model.encoder.layers
        before = f"vision_model.encoder.layers.{len(layers) - 1}."
        return {before + name: parameter for name, parameter in layers[-1].named_parameters()}

    def learn_by(self, spec: Adversary, seed: int) -> None:
        """Make ready for ``update``."""
        if self.tower.model.dtype != torch.float32:
            raise UserError(
                f"scorers.{spec.reward}.dtype: {self.tower.model.dtype} is too coarse for small updates; use float32."
            )
        self.learning = Learning(self.layer, spec, seed)

    def update(
        self,
        generated: Sequence[Image.Image],
        references: Sequence[Image.Image],
        briefs: Sequence[Brief | str],
        places: Sequence[Place] = (),
    ) -> Told:
        """Learn from pairs of one caption, this process's share of what all have: −log σ(score of the reference − score of
        the generated picture), the loss that PickScore was made by. Returns as ``Adversarial.update``; a loss of log 2 is that
        of one who knows nothing."""
        with needing(f"scorers.{self.learning.spec.reward}.batch_size", self.tower.batch_size):
            real, fake = (torch.tensor(self(images, briefs)) for images in (references, generated))

        def loss(rows: list[int]) -> Tensor:
            texts = self._texts([briefs[i] for i in rows]).to(self.tower.device)
            better, worse = (
                (self.tower.seen([images[i] for i in rows]) * texts).sum(-1) for images in (references, generated)
            )
            return F.softplus(self.tower.scale * (worse - better))

        return self.learning.meet(real, fake, places, loss)

    def save(self, folder: Path) -> None:
        """Write what has learned as an artifact: one layer; the rest is read from where it came from."""
        save_reward(folder, "adversarial_pickscore", self.fields, {name: p.data for name, p in self.layer.items()})

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take on a layer that was saved."""
        if set(tensors) != set(self.layer):
            raise UserError(
                f"scorers.trained.id: what has learned is not the last vision layer of '{self.fields['id']}'; name another "
                "repository."
            )
        for name, parameter in self.layer.items():
            parameter.copy_(tensors[name])
