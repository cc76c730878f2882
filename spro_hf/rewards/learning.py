"""How a reward learns beside a generator: Adam on a few of its parameters, in updates that all processes make together.

What has learned is an artifact: ``reward.json``, the reward's kind and fields, and ``model.safetensors``, what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spro_hf import moments, parallel
from spro_hf.errors import UserError
from spro_hf.methods import Adversary
from spro_hf.parts import LEARNING
from spro_hf.steps import derive

CONFIG, WEIGHTS, STATE = "reward.json", "model.safetensors", "reward-state.safetensors"
Told = dict[str, float]
Place = tuple[int, int]  # a training step, and a picture's number in it


class Learning:
    """The parameters of a reward that learn, and their Adam. Everything random is derived from ``seed`` and the update.

    Attributes:
        updates: how many were made.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], spec: Adversary, seed: int):
        self.named, self.spec, self.seed, self.updates = dict(named), spec, seed, 0
        self.parameters = [parameter.requires_grad_(True) for parameter in self.named.values()]
        if parallel.world() > 1 and self.parameters[0].device != parallel.device():
            raise UserError(
                f"scorers.{spec.reward}.device: several processes add up gradients where each has its accelerator; leave it out."
            )
        self.optimizer = torch.optim.Adam(self.parameters, lr=spec.lr, betas=spec.betas)

    def meet(self, real: Tensor, fake: Tensor, places: Sequence[Place], loss: Callable[[list[int]], Tensor]) -> Told:
        """Compare this process's references and generated pictures by their scores, (n,) each, and learn from them, if by
        ``when`` it is to; see ``Adversarial.update`` for what is told.

        Args:
            places, loss: see ``run``; without places there is one process.
        """
        told = compared(real, fake)
        if self.spec.when == "references_lower" and told["references"] >= told["generated"]:
            return told | {"learned": 0, "loss": 0.0}
        mean = self.run(places or [(0, i) for i in range(len(fake))], loss)
        return told | {"learned": self.spec.head_steps, "loss": mean}

    def run(self, places: Sequence[Place], loss: Callable[[list[int]], Tensor]) -> float:
        """``head_steps`` updates on the pairs that all processes have between them; the mean loss of a pair.

        Args:
            places: of this process's pairs, each another one: by them a batch is the same however many processes there are.
            loss: of some of this process's pairs, by their numbers in this process, one each.
        """
        everyone, total = sorted(parallel.gather(list(places))), 0.0
        mine = {place: i for i, place in enumerate(places)}
        for _ in range(self.spec.head_steps):
            rng = np.random.default_rng(derive(self.seed, "update", self.updates))
            chosen = [everyone[k] for k in rng.permutation(len(everyone))[: self.spec.batch_size]]
            rows = sorted(mine[place] for place in chosen if place in mine)
            if rows:
                value = loss(rows).sum() / len(chosen)
                value.backward()
                total += value.item()
            self._step()
        return sum(parallel.gather([total])) / self.spec.head_steps

    def _step(self) -> None:
        parallel.sum_gradients(self.parameters)
        if not all(p.grad is None or torch.isfinite(p.grad).all() for p in self.parameters):
            raise UserError(
                f"adversary: the gradient of the reward '{self.spec.reward}' is not finite at its update {self.updates + 1}; "
                "lower adversary.lr."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on to ``folder``."""
        state = moments.state_of(self.named, self.optimizer) | {"updates": torch.tensor(self.updates)}
        save_file({name: value.contiguous() for name, value in state.items()}, folder / STATE)

    def restore(self, folder: Path) -> None:
        """Go on from what ``save`` wrote."""
        state = load_file(folder / STATE)
        self.updates = int(state["updates"])
        moments.restore(self.named, self.optimizer, state)


def compared(real: Tensor, fake: Tensor) -> Told:
    """How the references and the generated pictures of all processes score before an update: means, and the share of pairs
    in which the reference scores higher, a tie counting half."""
    pairs = parallel.gather(list(zip(real.tolist(), fake.tolist(), strict=True)))
    higher = [1.0 if r > f else 0.5 if r == f else 0.0 for r, f in pairs]
    means = np.mean(pairs, axis=0).tolist()
    return {"references": means[0], "generated": means[1], "told_apart": float(np.mean(higher))}


def save_reward(folder: Path, kind: str, fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a reward that has learned to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"kind": kind} | fields, indent=2) + "\n")


def read_reward(folder: Path, id: str, field: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Kind, fields and tensors of a reward that has learned.

    Raises:
        UserError: if ``folder`` holds none. ``id`` and the recipe's ``field`` are for the message.
    """
    try:
        told = json.loads((folder / CONFIG).read_text())
        kind = told.pop("kind")
        if kind not in LEARNING or kind == "trained":
            raise ValueError(f"'{kind}' is no kind that learns")
        return kind, told, load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"{field}: '{id}' holds no reward that has learned ({CONFIG} and {WEIGHTS}); name a repository that an adversary "
            "left."
        ) from error
