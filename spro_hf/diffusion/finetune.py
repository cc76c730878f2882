"""SPRO-Image: the generator learns the winners' pictures under the base captions.

The paper fine-tunes all of SDXL with 8-bit Adam. Here a LoRA is trained by default, everything on request, with AdamW.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from spro_hf import parallel
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.errors import UserError
from spro_hf.losses import denoising_loss


def finetune(
    learner: Learner,
    captions: list[str],
    x0: Tensor,
    draws: Draws,
    steps: range,
    accumulation: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[float]:
    """Train the learner's denoiser on {base caption, winner picture} by reconstruction (SPRO, stage 2).

    Everything random is drawn on the CPU for the whole batch, of which each process takes its share.

    Args:
        captions, x0: captions and the pictures' latents as ``Environment.encode`` gives them, equally many; every pass
            over them is shuffled anew.
        draws: of as many; those of the updates before may have been taken from it.
        steps: the updates to make.
        accumulation: in how many parts a batch is learned from, one after the other, to save memory.
        advance: is called after each update with the number of samples it saw.

    Returns:
        The loss at each of ``steps``.
    """
    if not captions or len(captions) != len(x0):
        raise UserError(f"Fine-tuning has {len(captions)} captions and {len(x0)} pictures; give one for one.")
    environment, losses = learner.environment, []
    with remembered_prompts(environment.pipe):
        for step in steps:
            rows, dropped, noise, levels = draws.at(step)
            texts = ["" if drop else captions[row] for row, drop in zip(rows, dropped, strict=True)]
            mine, loss = list(parallel.share_of(len(rows))), 0.0
            for part in _parts(mine, accumulation):
                told = _loss(learner, [texts[i] for i in part], x0[rows][part], noise[part], levels[part])
                told = told * (len(part) / len(rows))
                told.backward()
                loss += told.item()
            loss = sum(parallel.gather([loss]))
            if not math.isfinite(loss):
                raise UserError(f"The reconstruction loss is {loss} at step {step + 1}; lower `lr`.")
            learner.update()
            losses.append(loss)
            if advance:
                advance(len(rows))
    return losses


class Draws:
    """What is random in a fine-tuning, update after update: rows, dropped captions, noise and levels.

    It is one sequence, so that a training that is continued sees what it would have seen: what comes before is drawn and
    left.

    Args:
        x0: the latents that are learned from; their number and shape are what counts.
        seed: the same seed gives the same weights.
        dropout: share of samples trained under the empty caption, for classifier-free guidance.
    """

    def __init__(self, x0: Tensor, environment: Environment, batch_size: int, seed: int, dropout: float = 0.0):
        self.generator = torch.Generator().manual_seed(seed)
        self.shape, self.environment, self.dropout, self.next = x0.shape[1:], environment, dropout, 0
        self.batches = _batches(len(x0), batch_size, self.generator)

    def at(self, step: int) -> tuple[list[int], Tensor, Tensor, Tensor]:
        """Those of an update that is not behind the last one asked for."""
        if step < self.next:
            raise ValueError(f"update {step} has been drawn; the next is {self.next}")
        while True:
            rows = next(self.batches)
            dropped = torch.rand(len(rows), generator=self.generator) < self.dropout
            noise = torch.randn((len(rows), *self.shape), generator=self.generator)
            levels = self.environment.draw_levels(len(rows), self.generator)
            self.next += 1
            if self.next > step:
                return rows, dropped, noise, levels


def _batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Row numbers of batches without end; they run on over the end of a pass, so that each is full."""
    order: list[int] = []
    while True:
        while len(order) < batch_size:
            order += torch.randperm(count, generator=generator).tolist()
        yield order[:batch_size]
        order = order[batch_size:]


def _parts(rows: list[int], count: int) -> list[list[int]]:
    """Rows in at most ``count`` parts of one length, or of two that differ by one."""
    edges = [i * len(rows) // count for i in range(count + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(edges) if b > a]


def _loss(learner: Learner, captions: list[str], x0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    environment = learner.environment
    denoiser = environment.denoiser
    latents = environment.noised(x0, noise, levels).to(denoiser.device, denoiser.dtype)
    prediction = environment.probe(captions, latents, levels)
    return denoising_loss(prediction, environment.target(x0, noise, levels).to(prediction.device))
