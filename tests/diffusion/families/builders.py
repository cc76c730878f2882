"""One builder for each family of pipelines: the stock classes and the schedulers of the real repositories, tiny."""

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from . import words
from .words import WIDTH, seeded

SD_BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)


def vae(blocks=2, **more):
    """2^(blocks − 1) pixels to a latent."""
    return AutoencoderKL(
        block_out_channels=(8,) * blocks, latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=16,
        down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks, **more,
    ).eval()  # fmt: skip


def unet(**more):
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **more,
    ).eval()  # fmt: skip


def attentive(core):
    """The attention's matrices three times as large, where a prompt would otherwise hardly show in a prediction."""
    with torch.no_grad():
        for name, weight in core.named_parameters():
            if "attn" in name and weight.ndim == 2:
                weight.mul_(3)
    return core.eval()


def ddim():
    return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SD_BETAS)


def _sd15(pipeline, channels=4):
    return pipeline(
        vae=vae(), text_encoder=words.clip_text(), tokenizer=words.clip_words(), scheduler=ddim(),
        unet=unet(cross_attention_dim=WIDTH, attention_head_dim=4, in_channels=channels),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@seeded
def sd15():
    return _sd15(StableDiffusionPipeline)


@seeded
def sd15_inpaint():
    return _sd15(StableDiffusionInpaintPipeline, channels=9)


@seeded
def sd15_inpaint_blend():
    """The UNet knows nothing of the mask: the pipeline blends the latents after each step."""
    return _sd15(StableDiffusionInpaintPipeline)


@seeded
def sdxl():
    core = unet(
        cross_attention_dim=2 * WIDTH, attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + WIDTH,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=words.clip_text(), tokenizer=words.clip_words(), tokenizer_2=words.clip_words(),
        text_encoder_2=words.clip_text(projected=True), unet=core, scheduler=ddim(),
    )  # fmt: skip


@seeded
def sd3():
    core = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=2 * WIDTH, caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=core.eval(), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(shift_factor=0.1),
        text_encoder=words.clip_text(projected=True), tokenizer=words.clip_words(),
        text_encoder_2=words.clip_text(projected=True), tokenizer_2=words.clip_words(),
        text_encoder_3=words.t5_text(width=2 * WIDTH), tokenizer_3=words.t5_words(),
    )  # fmt: skip


def _flux(pipeline):
    core = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return pipeline(
        transformer=core.eval(), vae=vae(shift_factor=0.1, scaling_factor=0.36),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        text_encoder=words.clip_text(), tokenizer=words.clip_words(),
        text_encoder_2=words.t5_text(), tokenizer_2=words.t5_words(),
    )  # fmt: skip


@seeded
def flux():
    return _flux(FluxPipeline)


@seeded
def flux_kontext():
    return _flux(FluxKontextPipeline)


@seeded
def flux_inpaint():
    """The pipeline blends the latents after each step, at the level that its scheduler has come to."""
    return _flux(FluxInpaintPipeline)


def _flux2(pipeline, text, **more):
    core = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=pipeline is Flux2Pipeline,
    )  # fmt: skip
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=16,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    return pipeline(
        transformer=attentive(core), vae=autoencoder.eval(), text_encoder=text, tokenizer=words.qwen_words(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), **more,
    )  # fmt: skip


@seeded
def flux2():
    return _flux2(Flux2Pipeline, words.mistral_text())


@seeded
def flux2_klein():
    return _flux2(Flux2KleinPipeline, words.qwen3_text(layers=3), is_distilled=False)


@seeded
def qwen_image():
    core = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.0, 0.1, -0.1, 0.2], latents_std=[1.0, 1.5, 2.0, 0.5],
    )  # fmt: skip
    shift = dict(use_dynamic_shifting=True, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02)
    return QwenImagePipeline(
        transformer=attentive(core), vae=autoencoder.eval(), text_encoder=words.qwen_vl_text(),
        tokenizer=words.qwen_words(), scheduler=FlowMatchEulerDiscreteScheduler(**shift),
    )  # fmt: skip


@seeded
def z_image():
    core = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[256, 32, 32],
    )  # fmt: skip
    return ZImagePipeline(
        transformer=core.eval(), vae=vae(shift_factor=0.1, scaling_factor=0.36), text_encoder=words.qwen3_text().model,
        tokenizer=words.qwen_words(), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


@seeded
def lumina2():
    core = Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=2, multiple_of=16, axes_dim_rope=(4, 6, 6), axes_lens=(300, 16, 16), cap_feat_dim=WIDTH,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=core.eval(), vae=vae(blocks=4, shift_factor=0.1, scaling_factor=0.36),
        text_encoder=words.gemma_text(), tokenizer=words.gemma_words(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


@seeded
def sana():
    core = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
        sample_size=32,
    )  # fmt: skip
    autoencoder = AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8), encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()), decoder_qkv_multiscales=((), (), ()), scaling_factor=0.41,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(
        transformer=core.eval(), vae=autoencoder.eval(), text_encoder=words.gemma_text(),
        tokenizer=words.gemma_words(), scheduler=scheduler,
    )  # fmt: skip


@seeded
def pixart():
    core = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=32, sample_size=8, caption_channels=WIDTH, norm_num_groups=4,
    )  # fmt: skip
    return PixArtAlphaPipeline(
        transformer=core.eval(), vae=vae(), text_encoder=words.t5_text(), tokenizer=words.t5_words(),
        scheduler=DPMSolverMultistepScheduler(),
    )  # fmt: skip


@seeded
def wan():
    core = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=WIDTH, freq_dim=32,
        ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    autoencoder = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.0, 0.1, -0.1, 0.2], latents_std=[1.0, 1.5, 2.0, 0.5],
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(
        transformer=attentive(core), vae=autoencoder.eval(), text_encoder=words.t5_text(many=True),
        tokenizer=words.t5_words(), scheduler=scheduler,
    )  # fmt: skip
