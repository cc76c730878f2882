"""What trains a denoiser: its LoRA (or all of it), AdamW, an average of the weights, and checkpoints of the three.

SPRO-Image and the reinforcement recipes share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from spro_hf import moments, parallel
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.lora import add_lora, freeze, save_lora
from spro_hf.errors import UserError

STATE = "state.safetensors"


class Learner:
    """The parameters that learn, their optimiser and their average.

    Args:
        environment: its pipeline is changed in place.
        lora: ``{"rank": int, "alpha": float, "targets": str | None}``; None trains the whole denoiser.
        lr: reached after ``warmup`` updates, then held.
        ema: decay in (0, 1) of an average of the weights, which is what is saved as the result; young averages forget
            faster. It takes in the weights at every ``ema_every``-th update.
        seed: of the LoRA's start.
        checkpointing: recompute activations in the backward pass, to save memory.
    """

    def __init__(
        self,
        environment: Environment,
        lora: dict[str, Any] | None,
        lr: float,
        seed: int,
        warmup: int = 0,
        ema: float | None = None,
        ema_every: int = 1,
        checkpointing: bool = False,
    ):
        self.environment, self.lora, self.lr, self.warmup, self.ema_every = environment, lora, lr, warmup, ema_every
        if lora is None:
            freeze(environment.pipe)
            environment.denoiser.requires_grad_(True)
        else:
            add_lora(environment.pipe, lora["rank"], lora["alpha"], lora.get("targets"), seed)
        self.named = {n: p for n, p in environment.denoiser.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr)
        self.average = EMAModel(self.parameters, decay=ema) if ema is not None else None
        self.updates = 0
        if checkpointing:
            try:
                environment.denoiser.enable_gradient_checkpointing()
            except ValueError as error:
                name = type(environment.denoiser).__name__
                raise UserError(
                    f"'gradient_checkpointing' is true, but {name} cannot do it; set it to false."
                ) from error

    def update(self) -> float:
        """One step of the optimiser with the gradients of all processes added up; returns their norm before clipping.

        Raises:
            UserError: if the norm is not finite.
        """
        parallel.sum_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise UserError(f"The gradient's norm is {norm.item()} at update {self.updates + 1}; lower `lr`.")
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (self.updates + 1) / max(1, self.warmup))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.average and self.updates % self.ema_every == 0:
            self.average.step(self.parameters)
        return norm.item()

    @contextmanager
    def holding(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """The parameters with other values for a while, as ``copy`` gave them."""
        live = self.copy()
        self._set(weights)
        try:
            yield
        finally:
            self._set(live)

    def copy(self) -> dict[str, Tensor]:
        """The parameters' values as they are now."""
        return {name: p.detach().clone() for name, p in self.named.items()}

    def save(self, folder: Path) -> None:
        """Write the result so far to ``folder``/generator and all that is needed to go on to ``folder``/state.

        The result is the average, if there is one: a LoRA as diffusers reads it, or the whole pipeline.
        """
        states = parallel.generator_states()
        if parallel.first():
            with self.holding(self._averaged()):
                if self.lora is None:
                    self.environment.pipe.save_pretrained(folder / "generator")
                else:
                    save_lora(self.environment.pipe, folder / "generator")
            (folder / "state").mkdir()
            save_file(self._state(), folder / "state" / STATE)
            counts = {"updates": self.updates, "average": self.average.optimization_step if self.average else 0}
            (folder / "state" / "counts.json").write_text(json.dumps(counts))
            for number, state in enumerate(states):
                save_file(state, folder / "state" / f"generators-{number}.safetensors")

    def restore(self, folder: Path) -> None:
        """Go on from what ``save`` wrote: weights, optimiser, average, and torch's random generators of every process."""
        state, counts = load_file(folder / "state" / STATE), json.loads((folder / "state" / "counts.json").read_text())
        moments.restore(self.named, self.optimizer, state)
        self.updates = counts["updates"]
        if self.average:
            self.average.optimization_step = counts["average"]
            for name, kept in zip(self.named, self.average.shadow_params, strict=True):
                kept.copy_(state[f"average.{name}"])
        files = sorted((folder / "state").glob("generators-*"), key=lambda f: int(f.stem.rpartition("-")[2]))
        parallel.restore_generators([load_file(file) for file in files])

    def _averaged(self) -> dict[str, Tensor]:
        if self.average is None:
            return self.copy()
        return dict(zip(self.named, self.average.shadow_params, strict=True))

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(weights[name])

    def _state(self) -> dict[str, Tensor]:
        state = moments.state_of(self.named, self.optimizer)
        if self.average:
            state |= {f"average.{n}": kept for n, kept in zip(self.named, self.average.shadow_params, strict=True)}
        return {name: tensor.contiguous() for name, tensor in state.items()}
