"""What is changed on a pipeline for the length of one call, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from spro_hf.diffusion.player import Player
from spro_hf.errors import UserError


@contextmanager
def played_by(pipe: DiffusionPipeline, player: Player) -> Iterator[None]:
    """The pipeline with ``player`` in place of its scheduler."""
    scheduler = pipe.scheduler
    try:
        object.__setattr__(pipe, "scheduler", player)  # the pipeline's own setter would rewrite its config
        yield
    finally:
        object.__setattr__(pipe, "scheduler", scheduler)


@contextmanager
def starting_from(pipe: DiffusionPipeline, latents: Tensor) -> Iterator[None]:
    """The pipeline beginning its loop with ``latents``, in the very layout that its loop has them."""
    before, prepare = pipe.__dict__.get("prepare_latents"), pipe.prepare_latents

    def prepare_latents(*args, **kwargs) -> Any:
        made = prepare(*args, **kwargs)
        first, *rest = made if isinstance(made, tuple) else (made,)
        if first.shape != latents.shape:
            raise UserError(
                f"{type(pipe).__name__} has latents of shape {tuple(first.shape)} and was given {tuple(latents.shape)}; "
                "give the call the height and width that belong to them."
            )
        start = latents.to(first.device, first.dtype)
        return (start, *rest) if isinstance(made, tuple) else start

    try:
        pipe.prepare_latents = prepare_latents
        yield
    finally:
        del pipe.prepare_latents
        if before is not None:
            pipe.prepare_latents = before


@contextmanager
def counted(denoiser: torch.nn.Module) -> Iterator[list[int]]:
    """A list that gets, at every call of the denoiser, the number of latents in it."""
    sizes: list[int] = []

    def count(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = (
            v for v in (*args, *kwargs.values()) if isinstance(v, list) or (isinstance(v, torch.Tensor) and v.ndim > 1)
        )
        sizes.append(len(next(given)))

    handle = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()
