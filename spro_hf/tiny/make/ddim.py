"""The DDIM generator of the embedded world: a stock ``StableDiffusionPipeline`` on the latents of the other generator.

It is what Stable Diffusion 1.5 is, small: a UNet that predicts the noise, its betas, its scheduler, one CLIP text encoder.
Autoencoder and text encoder start as those of the other generator; the text encoder is trained on with the UNet.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from spro_hf.tiny.make.common import Diary, Pace, clip_tokenizer, scenes, token_ids
from spro_hf.tiny.make.generator import CHANNELS, SCALING
from spro_hf.tiny.world import caption

log = logging.getLogger(__name__)
HEAVIEST = 20.0  # the most that an error of the predicted noise may weigh, see `weights`


def build(generator: Path, seed: int = 0) -> StableDiffusionPipeline:
    """The untrained pipeline: a 3.6 M UNet that attends at 4×4 only; autoencoder and text encoder of ``generator``."""
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel.from_pretrained(generator / "text_encoder", dtype=torch.float32)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None, transformer_layers_per_block=(1, 1), reverse_transformer_layers_per_block=[2, 1],
        attention_head_dim=4, use_linear_projection=True, norm_num_groups=16,
        cross_attention_dim=text_encoder.config.hidden_size,
    )  # fmt: skip
    pass_noise_through(unet)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(generator / "vae"), text_encoder=text_encoder, tokenizer=clip_tokenizer(),
        unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def pass_noise_through(unet: UNet2DConditionModel) -> None:
    """Start the UNet as the identity (up to its last norm), for at high noise the noise is nearly all of its input.

    The first convolution writes each latent x twice, as x and −x; the last block takes both over from its skip
    connection; the last convolution subtracts them behind the SiLU, and silu(x) − silu(−x) = x.
    """
    block = unet.up_blocks[-1].resnets[-1]
    own = block.conv_shortcut.in_channels - unet.conv_in.out_channels  # the skip's channels stand behind these
    with torch.no_grad():
        unet.conv_in.weight[: 2 * CHANNELS] = 0
        unet.conv_in.bias[: 2 * CHANNELS] = 0
        for parameter in (block.conv2.weight, block.conv2.bias, unet.conv_out.weight, unet.conv_out.bias):
            parameter.zero_()
        block.conv_shortcut.weight[: 2 * CHANNELS] = 0
        block.conv_shortcut.bias[: 2 * CHANNELS] = 0
        for i in range(2 * CHANNELS):
            sign = 1 - 2 * (i % 2)
            unet.conv_in.weight[i, i // 2, 1, 1] = sign
            block.conv_shortcut.weight[i, own + i] = 1
            unet.conv_out.weight[i // 2, i, 1, 1] = sign


def weights(alpha: torch.Tensor) -> torch.Tensor:
    """What the squared error of the predicted noise weighs at ᾱ: 1/ᾱ, which makes it the error of v, up to 20.

    v = √ᾱ·ε − √(1−ᾱ)·x0 (Salimans & Ho 2022, appendix D). Unweighted, the steps that settle what is drawn, where
    nearly all is noise, would hardly count.
    """
    return (1 / alpha).clamp(max=HEAVIEST)


def train_ddim(pipe: StableDiffusionPipeline, minutes: float, out: Path, seed: int = 0, batch: int = 64) -> None:
    """DDPM on the noise at uniform timesteps, a tenth of the captions dropped, averaged weights kept."""
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parts = [pipe.unet, pipe.text_encoder]
    pace = Pace([x for m in parts for x in m.named_parameters()], minutes, lr=1e-3, muon_lr=5e-3)
    diary = Diary(pipe, parts, pace, out, "ddim", saving=300)
    alphas = pipe.scheduler.alphas_cumprod
    while pace.progress < 1:
        truths, pictures = scenes(rng, batch)
        captions = ["" if rng.random() < 0.1 else caption(t, rng) for t in truths]
        with torch.no_grad():
            x0 = pipe.vae.encode(pictures).latents * SCALING
        timesteps = torch.randint(len(alphas), (batch,), generator=torch_rng)
        noise = torch.randn(x0.shape, generator=torch_rng)
        embeds = pipe.text_encoder(token_ids(pipe.tokenizer, captions)).last_hidden_state
        predicted = pipe.unet(pipe.scheduler.add_noise(x0, noise, timesteps), timesteps, embeds).sample
        loss = ((predicted - noise).pow(2).mean((1, 2, 3)) * weights(alphas[timesteps])).mean()
        pace.step(loss)
        diary.note(loss.item())
    diary.finish()
