"""Pictures into the latents that a denoiser sees."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from spro_hf.errors import UserError


@torch.no_grad()
def encode(
    pipe: DiffusionPipeline, images: list[Image.Image], batch_size: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Latents x0, float32, in the space and the layout that the denoiser sees: (n, channels, height, width), or packed as
    (n, tokens, channels) where the pipeline packs them.

    The mean of the autoencoder's posterior, shifted and scaled as the pipeline's decoding undoes it. ``size`` (width,
    height) is what pictures are brought to first, if they have another.
    """
    if size:
        images = [image if image.size == size else image.resize(size, Image.Resampling.LANCZOS) for image in images]
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    with safe_dtype(pipe.vae) as vae:
        x0 = torch.cat([_posterior(pipe, vae, part) for part in parts])
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (x0.new_tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    else:
        mean, std = vae.config.get("shift_factor") or 0.0, 1.0
    return _packed(pipe, ((x0 - mean) / std * vae.config.get("scaling_factor", 1.0)).float())


def _packed(pipe: DiffusionPipeline, x0: Tensor) -> Tensor:
    """Latents as the pipeline's loop has them: as they are, or packed by the pipeline's own method."""
    if not hasattr(pipe, "_pack_latents"):
        return x0
    if len(inspect.signature(pipe._pack_latents).parameters) != 5:  # FLUX.2 normalises patches by statistics of its own
        raise UserError(
            f"generator: {type(pipe).__name__} packs its latents in its own way; it cannot be fine-tuned yet."
        )
    return pipe._pack_latents(x0, *x0.shape)


def _posterior(pipe: DiffusionPipeline, vae: torch.nn.Module, images: list[Image.Image]) -> Tensor:
    pixels = pipe.image_processor.preprocess([image.convert("RGB") for image in images]).to(vae.device, vae.dtype)
    if video := hasattr(vae.config, "temperal_downsample"):  # Qwen-Image's encodes videos; a picture is one frame
        pixels = pixels.unsqueeze(2)
    encoded = vae.encode(pixels)
    # AutoencoderTiny and AutoencoderDC have no posterior, and a name each for what they give
    plain = next((getattr(encoded, name) for name in ("latents", "latent") if hasattr(encoded, name)), None)
    latents = encoded.latent_dist.mode() if plain is None else plain
    return latents.squeeze(2) if video else latents


@contextmanager
def safe_dtype(vae: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The autoencoder in float32 for a while if it says that float16 is too narrow for it, as SDXL's does."""
    if not (vae.dtype == torch.float16 and vae.config.get("force_upcast")):
        yield vae
        return
    try:
        yield vae.to(torch.float32)
    finally:
        vae.to(torch.float16)
