"""Each family's denoiser called by hand, with that family's own conventions: what its pipeline gives to ``scheduler.step``.

The one thing taken from the pipeline is the text: ``encode_prompt``, and what its call hands on to it by itself.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """What a denoiser is asked: about ``latents`` (n, ...) under ``prompts`` at ``t`` (n,), timesteps of 0 to 1000."""

    pipe: DiffusionPipeline
    call: dict[str, Any]
    prompts: list[str]
    latents: Tensor
    t: Tensor
    inputs: dict[str, list]

    @property
    def core(self) -> torch.nn.Module:
        return self.pipe.unet if hasattr(self.pipe, "unet") else self.pipe.transformer

    def text(self, *also: str, **more: Any) -> tuple:
        """The prompts' embeddings and whatever comes with them, from those arguments of the call that belong to text."""
        defaults = inspect.signature(type(self.pipe).__call__).parameters
        more |= {name: self.call.get(name, defaults[name].default) for name in also}
        if "do_classifier_free_guidance" in inspect.signature(type(self.pipe).encode_prompt).parameters:
            more["do_classifier_free_guidance"] = False
        return self.pipe.encode_prompt(list(self.prompts), **more)

    def full(self, value: float) -> Tensor:
        return torch.full((len(self.prompts),), value)


def places(first: float, columns: int = 3) -> Tensor:
    """Positions of a 4×4 grid of packed latents, row by row: (first, row, column[, 0])."""
    rows = [[first, row, column, 0][:columns] for row in range(4) for column in range(4)]
    return torch.tensor(rows, dtype=torch.float32)


def pixels(pictures: list) -> Tensor:
    """Pictures as (n, 3, height, width) in [−1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 * 2 - 1


def packed(latents: Tensor) -> Tensor:
    """(n, c, h, w) to (n, h/2·w/2, c·4): squares of 2×2 latents become one token, channel by channel."""
    n, c, h, w = latents.shape
    return latents.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, c * 4)


def sd15(ask):
    embeds, _ = ask.text(device="cpu", num_images_per_prompt=1)
    return ask.core(ask.latents, ask.t, embeds).sample


def sdxl(ask):
    embeds, _, pooled, _ = ask.text()
    sizes = torch.tensor([[16, 16, 0, 0, 16, 16]] * len(embeds), dtype=torch.float32)  # original, corner, target
    return ask.core(ask.latents, ask.t, embeds, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample


def sd3(ask):
    embeds, _, pooled, _ = ask.text("max_sequence_length", prompt_2=None, prompt_3=None)
    return ask.core(ask.latents, embeds, pooled, ask.t).sample


def flux(ask):
    embeds, pooled, ids = ask.text("max_sequence_length")
    guidance = ask.full(ask.call["guidance_scale"])
    return ask.core(ask.latents, embeds, pooled, ask.t / 1000, places(0), ids, guidance).sample


def flux_kontext(ask):
    """The picture to edit comes behind the latents, on a plane of positions of its own."""
    embeds, pooled, ids = ask.text("max_sequence_length")
    vae = ask.pipe.vae
    encoded = torch.cat([vae.encode(picture).latent_dist.mean for picture in pixels(ask.inputs["image"]).split(1)])
    picture = packed((encoded - vae.config.shift_factor) * vae.config.scaling_factor)
    both, where = torch.cat([ask.latents, picture], 1), torch.cat([places(0), places(1)])
    guidance = ask.full(ask.call["guidance_scale"])
    return ask.core(both, embeds, pooled, ask.t / 1000, where, ids, guidance).sample[:, : ask.latents.shape[1]]


def flux2(ask):
    embeds, ids = ask.text("max_sequence_length", "text_encoder_out_layers")
    guidance = ask.full(ask.call["guidance_scale"]) if ask.core.config.guidance_embeds else None
    where = places(0, 4).expand(len(embeds), -1, -1)
    return ask.core(ask.latents, embeds, ask.t / 1000, where, ids, guidance).sample


def qwen_image(ask):
    embeds, mask = ask.text("max_sequence_length")
    assert mask is not None  # prompts of several lengths
    return ask.core(ask.latents, embeds, mask, ask.t / 1000, [[(1, 4, 4)]] * len(embeds)).sample


def z_image(ask):
    """Time runs from 0, which is noise, to 1; lists of single pictures, with an axis for frames; the sign is turned."""
    embeds, _ = ask.text("max_sequence_length")
    out = ask.core([x[:, None] for x in ask.latents], (1000 - ask.t) / 1000, embeds).sample
    return -torch.stack(out)[:, :, 0]


def sana(ask):
    embeds, mask, _, _ = ask.text("max_sequence_length", "complex_human_instruction")
    return ask.core(ask.latents, embeds, ask.t, encoder_attention_mask=mask).sample


def lumina2(ask):
    """Time runs from 0, which is noise, to 1, and the sign is turned."""
    embeds, mask, _, _ = ask.text("max_sequence_length", "system_prompt")
    return -ask.core(ask.latents, 1 - ask.t / 1000, embeds, mask).sample


def pixart(ask):
    """The first half of the channels is the noise, the second a variance that nobody uses."""
    embeds, mask, _, _ = ask.text("max_sequence_length", "clean_caption")
    nothing = {"resolution": None, "aspect_ratio": None}
    out = ask.core(ask.latents, embeds, ask.t, nothing, encoder_attention_mask=mask).sample
    return out[:, :4]


def sd15_inpaint(ask):
    """Beside the latents: the mask, a pixel in two, and the picture without what it covers, as drawn by the autoencoder.

    The sample's generator has drawn the initial noise before; a probe's are seeded with 0.
    """
    embeds, _ = ask.text(device="cpu", num_images_per_prompt=1)
    masks = torch.from_numpy(np.stack(ask.inputs["mask_image"]))[:, None] / 255
    vae, kept = ask.pipe.vae, []
    for picture in (pixels(ask.inputs["image"]) * (masks < 0.5)).split(1):
        generator = torch.Generator().manual_seed(0)
        torch.randn(1, *ask.latents.shape[1:], generator=generator)
        kept.append(vae.encode(picture).latent_dist.sample(generator) * vae.config.scaling_factor)
    beside = torch.cat([ask.latents, masks[:, :, ::2, ::2], torch.cat(kept)], 1)
    return ask.core(beside, ask.t, embeds).sample


def wan(ask):
    embeds, _ = ask.text("max_sequence_length")
    return ask.core(ask.latents, ask.t, embeds).sample


BY_HAND: dict[str, Callable[[Ask], Tensor]] = {
    **{f.__name__: f for f in (sd15, sdxl, sd3, flux, flux2, qwen_image, z_image, sana, lumina2, pixart, wan)},
    "flux_kontext": flux_kontext, "flux_inpaint": flux, "flux2_klein": flux2,
    "sd15_inpaint": sd15_inpaint, "sd15_inpaint_blend": sd15,
}  # fmt: skip
