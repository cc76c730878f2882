"""Pictures into the latents that a denoiser sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from spro_hf.errors import UserError


@torch.no_grad()
def encode(pipe: DiffusionPipeline, images: list[Image.Image], batch_size: int) -> Tensor:
    """Latents x0, float32 of shape (n, channels, height, width), in the space that the denoiser sees.

    The mean of the autoencoder's posterior, shifted and scaled as the pipeline's decoding undoes it.
    """
    if hasattr(pipe, "_pack_latents"):
        raise UserError(f"{type(pipe).__name__} packs its latents; fine-tuning it is not supported.")
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    with safe_dtype(pipe.vae) as vae:
        x0 = torch.cat([_posterior(pipe, vae, part) for part in parts])
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (x0.new_tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    else:
        mean, std = vae.config.get("shift_factor") or 0.0, 1.0
    return ((x0 - mean) / std * vae.config.scaling_factor).float()


def _posterior(pipe: DiffusionPipeline, vae: torch.nn.Module, images: list[Image.Image]) -> Tensor:
    pixels = pipe.image_processor.preprocess([image.convert("RGB") for image in images])
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


@contextmanager
def safe_dtype(vae: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The autoencoder in float32 for a while if it says that float16 is too narrow for it, as SDXL's does."""
    dtype = vae.dtype
    narrow = dtype == torch.float16 and vae.config.get("force_upcast")
    try:
        yield vae.to(torch.float32) if narrow else vae
    finally:
        vae.to(dtype)
