"""Tiny pipelines of the stock classes, untrained: pictures are nonsense, the arithmetic is the real one."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from spro_hf.tiny.make.common import clip_tokenizer


@pytest.fixture
def sd3(sd3_folder):
    from spro_hf.diffusion.environment import load_generator

    return load_generator(str(sd3_folder))


@pytest.fixture(scope="session")
def words():
    return clip_tokenizer()


def _text(words):
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2,
        projection_dim=32, max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def _vae():
    return AutoencoderKL(
        block_out_channels=(16, 16), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    ).eval()  # fmt: skip


def _unet(**more):
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **more,
    ).eval()  # fmt: skip


@pytest.fixture
def sd15(words):
    torch.manual_seed(0)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text(words)).eval(), tokenizer=words, scheduler=scheduler,
        unet=_unet(cross_attention_dim=32, attention_head_dim=4), safety_checker=None, feature_extractor=None,
    )  # fmt: skip


@pytest.fixture
def sdxl(words):
    torch.manual_seed(0)
    unet = _unet(
        cross_attention_dim=64, attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text(words)).eval(), tokenizer=words, tokenizer_2=words, unet=unet,
        text_encoder_2=CLIPTextModelWithProjection(_text(words)).eval(), scheduler=scheduler,
    )  # fmt: skip


@pytest.fixture(scope="session")
def pictures():
    """Eight plain 32×32 pictures, each of its own colour."""
    return [Image.new("RGB", (32, 32), (30 * i, 255 - 30 * i, 10 * i)) for i in range(8)]
