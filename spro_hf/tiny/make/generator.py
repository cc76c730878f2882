"""The generator of the embedded world: a stock ``StableDiffusion3Pipeline``, rectified flow on 8×8×16 latents.

The encoder of its autoencoder is linear: the 16 leading principal components of 4×4 patches, half whitened, carried
exactly by an ``AutoencoderTiny`` without blocks. So the transformer can be trained before the decoder is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from spro_hf.tiny.make.common import Diary, Pace, clip_tokenizer, every, scenes, token_ids
from spro_hf.tiny.world import MAX_TOKENS, Truth, caption

log = logging.getLogger(__name__)
CHANNELS = 16
SCALING = 3.0  # the decoder squashes its input by 3·tanh(x/3): the autoencoder's latents must stay well inside it


def linear_encoder(vae: AutoencoderTiny, pictures: torch.Tensor) -> None:
    """Write the principal components of 4×4 patches into the encoder's four convolutions.

    The first carries RGB, the second gathers 2×2 pixels, the third 4×4, the last projects; each kernel is 3×3 and only
    the taps of its own block are set, so that the padding never enters.
    """
    unit = pictures.add(1).div(2)
    patches = unit.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(-1, 48)  # row, column, channel
    mean = patches.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov(patches.T.double()))
    variance, axes = variance.flip(0)[:CHANNELS].float(), axes.flip(1)[:, :CHANNELS].float()
    projection = (axes / variance.pow(0.25)).T  # half whitened: component i keeps a spread of variance_i ** 0.25
    scale = ((patches - mean) @ projection.T).std()
    projection = projection / (scale * SCALING)
    convs = [m for m in vae.encoder.layers if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for conv in convs:
            conv.weight.zero_()
            if conv.bias is not None:
                conv.bias.zero_()
        for c in range(3):
            convs[0].weight[c, c, 1, 1] = 1
        for row in range(2):
            for column in range(2):
                for c in range(3):
                    convs[1].weight[(row * 2 + column) * 3 + c, c, 1 + row, 1 + column] = 1
                for c in range(12):
                    convs[2].weight[(row * 2 + column) * 12 + c, c, 1 + row, 1 + column] = 1
        # channel of the third = ((R*2 + C) * 2 + r) * 2 + c) * 3 + rgb, pixel row 2R + r, column 2C + c
        index = torch.arange(48)
        big, rest = index // 12, index % 12
        small, rgb = rest // 3, rest % 3
        pixel = ((big // 2) * 2 + small // 2) * 4 + (big % 2) * 2 + small % 2
        convs[3].weight[:, :, 1, 1] = projection[:, pixel * 3 + rgb]
        convs[3].bias.copy_(-(projection @ mean))


def blank_t5() -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
    """A T5 that says nothing: one layer whose last norm is zero, so that each of its tokens is the zero vector.

    diffusers feeds SD3 the same zeros where there is no T5, but loads a pipeline without one only if it is told so; with
    this, stock loaders need no word. Its tokenizer drops every text, so that none is ever said to be cut off.
    """
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(vocab_size=3, d_model=128, d_kv=8, d_ff=8, num_layers=1, num_heads=1)).eval()
    torch.nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    silent = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    silent.normalizer = normalizers.Replace(Regex(r"[\s\S]+"), "")
    silent.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return encoder, PreTrainedTokenizerFast(
        tokenizer_object=silent, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def build(seed: int = 0) -> StableDiffusion3Pipeline:
    """The untrained pipeline: 3.4 M transformer, two small CLIP text encoders, a T5 that is silent."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    text = dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_attention_heads=2, projection_dim=64,
        max_position_embeddings=MAX_TOKENS, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vae = AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48), num_encoder_blocks=(0, 0, 0), latent_channels=CHANNELS,
        decoder_block_out_channels=(32, 32, 32), num_decoder_blocks=(3, 2, 1), scaling_factor=SCALING, shift_factor=0.0,
    )  # fmt: skip
    linear_encoder(vae, scenes(np.random.default_rng(1), 3000)[1])
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=6, attention_head_dim=32,
        num_attention_heads=4, joint_attention_dim=128, caption_projection_dim=128, pooled_projection_dim=128,
        pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    torch.nn.init.zeros_(transformer.proj_out.weight)
    t5, t5_tokenizer = blank_t5()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae.eval(),
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(num_hidden_layers=2, **text)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(num_hidden_layers=1, **text)),
        tokenizer_2=tokenizer,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
    )


def condition(pipe: StableDiffusion3Pipeline, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings (n, tokens, 128) and pooled (n, 128) as the pipeline's ``encode_prompt`` makes them."""
    outputs = [encoder(ids, output_hidden_states=True) for encoder in (pipe.text_encoder, pipe.text_encoder_2)]
    return torch.cat([o.hidden_states[-2] for o in outputs], -1), torch.cat([o.text_embeds for o in outputs], -1)


def train_flow(
    pipe: StableDiffusion3Pipeline,
    minutes: float,
    out: Path,
    seed: int = 0,
    batch: int = 64,
    say: Callable[[Truth, np.random.Generator], str] = caption,
    lr: float = 1e-3,
    muon_lr: float = 5e-3,
) -> None:
    """Rectified flow: v ≈ ε − x0 at logit-normal σ, a tenth of the captions dropped, averaged weights kept.

    ``say`` puts a scene into words. Stock callers of the pipeline get 256 blank tokens from T5, recipes ask for one; now
    and then a batch is trained with many, so that the model is at home with any number.
    """
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parts = [pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]
    pace = Pace([x for m in parts for x in m.named_parameters()], minutes, lr=lr, muon_lr=muon_lr)
    diary = Diary(pipe, parts, pace, out, "flow", saving=600)
    while pace.progress < 1:
        blanks = int(rng.choice([0, 16, 256], p=[0.9, 0.05, 0.05]))
        truths, pictures = scenes(rng, batch if blanks < 256 else batch // 4)
        captions = ["" if rng.random() < 0.1 else say(t, rng) for t in truths]
        with torch.no_grad():
            x0 = pipe.vae.encode(pictures).latents * SCALING
        embeds, pooled = condition(pipe, token_ids(pipe.tokenizer, captions))
        embeds = torch.cat([embeds, embeds.new_zeros(len(embeds), blanks, embeds.shape[-1])], 1)
        sigma = torch.sigmoid(torch.randn(len(x0), generator=torch_rng))
        noise = torch.randn(x0.shape, generator=torch_rng)
        s = sigma.view(-1, 1, 1, 1)
        v = pipe.transformer(
            hidden_states=(1 - s) * x0 + s * noise, timestep=sigma * 1000, encoder_hidden_states=embeds,
            pooled_projections=pooled, return_dict=False,
        )[0]  # fmt: skip
        loss = (v - (noise - x0)).pow(2).mean()
        pace.step(loss)
        diary.note(loss.item())
    diary.finish()


def train_decoder(vae: AutoencoderTiny, minutes: float, seed: int = 0, batch: int = 64) -> float:
    """Train the decoder alone against the linear encoder's latents, a little noise on them. Returns the PSNR in dB.

    The noise (σ 0.05 of the latents' spread) makes it forgiving to a generator whose latents are not exact.
    """
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    vae.encoder.requires_grad_(False)
    pace, due = Pace(vae.decoder.named_parameters(), minutes, lr=2e-3), every(60)
    while pace.progress < 1:
        pictures = scenes(rng, batch)[1]
        latents = vae.encode(pictures).latents
        latents = latents + torch.randn(latents.shape, generator=torch_rng) * 0.05 / SCALING
        loss = (vae.decode(latents).sample - pictures).pow(2).mean()
        pace.step(loss)
        if due():
            log.info("decoder %.0f%% step %d mse %.5f", 100 * pace.progress, pace.steps, loss.item())
    with torch.no_grad():
        pictures = scenes(rng, 512, "held-out")[1]
        error = (vae.decode(vae.encode(pictures).latents).sample.clamp(-1, 1) - pictures).pow(2).mean()
    return float(10 * torch.log10(4 / error))
