"""SPRO-Image: the generator learns the winners' pictures under the base captions.

The paper fine-tunes all of SDXL with 8-bit Adam. Here a LoRA is trained by default, everything on request, with AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor

from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.lora import add_lora, freeze
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.errors import UserError
from spro_hf.losses import denoising_loss


def finetune(
    environment: Environment,
    captions: list[str],
    images: list[Image.Image],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    lora: dict[str, Any] | None,
    warmup: int = 0,
    ema: float | None = None,
    caption_dropout: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> dict[str, float | int]:
    """Train the denoiser on {base caption, winner picture} by reconstruction (SPRO, stage 2).

    Args:
        environment: its pipeline is changed in place. Afterwards nothing in it asks for gradients.
        captions, images: equally many; every pass over them is shuffled anew.
        steps: of the optimiser.
        lr: reached after ``warmup`` steps, then held.
        seed: of order, noise, levels, dropout and the LoRA's start; the same seed gives the same weights.
        lora: ``{"rank": int, "alpha": float, "targets": str | None}``; None trains the whole denoiser.
        ema: decay in (0, 1) of an average of the weights, which is what remains; None keeps the last weights.
        caption_dropout: share of samples trained under the empty caption, for classifier-free guidance.
        advance: is called after each step with the number of samples it saw.

    Returns:
        ``loss_first`` and ``loss_last`` (means over the first and last tenth of the steps), ``samples`` (seen) and
        ``parameters`` (trained).
    """
    if not captions or len(captions) != len(images):
        raise UserError(f"Fine-tuning has {len(captions)} captions and {len(images)} pictures; give one for one.")
    x0 = environment.encode(images).cpu()
    parameters = _trainable(environment, lora, seed)
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    average = EMAModel(parameters, decay=ema) if ema is not None else None
    generator = torch.Generator().manual_seed(seed)
    losses = []
    with remembered_prompts(environment.pipe):
        for step, rows in enumerate(_batches(len(captions), batch_size, steps, generator)):
            dropped = torch.rand(len(rows), generator=generator) < caption_dropout
            texts = ["" if drop else captions[row] for row, drop in zip(rows, dropped, strict=True)]
            loss = _loss(environment, texts, x0[rows], generator)
            if not torch.isfinite(loss):
                raise UserError(f"The reconstruction loss is {loss.item()} at step {step + 1}; lower `lr`.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / max(1, warmup))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.step(parameters)
            losses.append(loss.item())
            if advance:
                advance(len(rows))
    if average:
        average.copy_to(parameters)
    freeze(environment.pipe)
    tenth = math.ceil(steps / 10)
    return {
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "samples": steps * batch_size,
        "parameters": sum(p.numel() for p in parameters),
    }


def _trainable(environment: Environment, lora: dict[str, Any] | None, seed: int) -> list[torch.nn.Parameter]:
    """The LoRA's parameters, or all of the denoiser's."""
    if lora is not None:
        return add_lora(environment.pipe, lora["rank"], lora["alpha"], lora.get("targets"), seed)
    freeze(environment.pipe)
    return list(environment.denoiser.requires_grad_(True).parameters())


def _batches(count: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Row numbers of ``steps`` batches; batches run on over the end of a pass, so that each is full."""
    order: list[int] = []
    for _ in range(steps):
        while len(order) < batch_size:
            order += torch.randperm(count, generator=generator).tolist()
        yield order[:batch_size]
        order = order[batch_size:]


def _loss(environment: Environment, captions: list[str], x0: Tensor, generator: torch.Generator) -> Tensor:
    """Reconstruction at fresh noise and levels, all drawn on the CPU so that devices agree."""
    noise = torch.randn(x0.shape, generator=generator)
    levels = environment.draw_levels(len(x0), generator)
    denoiser = environment.denoiser
    latents = environment.noised(x0, noise, levels).to(denoiser.device, denoiser.dtype)
    prediction = environment.probe(captions, latents, levels)
    return denoising_loss(prediction, environment.target(x0, noise, levels).to(prediction.device))
