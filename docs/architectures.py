"""The models that the real recipes name, each as its published configuration has it, built without weights.

Where a class's defaults are the published values, nothing stands here but the class. Each entry of ``GENERATORS`` and
``MODELS`` has under ``card`` the billions of parameters that the model's card, or the size of its files, states, as a check
on the configuration: of a generator its denoiser's. ``stored`` is the type of the published weights, None where it was not
to be had; then two bytes a number, the least that is usual, are counted for the download.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from spro_hf.rewards.adversarial import Head
from spro_hf.rewards.heads import ImprovedAestheticHead

Make = Callable[[], torch.nn.Module]
F32, F16, BF16 = "float32", "float16", "bfloat16"


def transformer(hidden: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """What every transformer's configuration has."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return sizes | {"num_attention_heads": heads} | more


LARGE_TEXT, LARGE_VISION = transformer(768, 3072, 12, 12), transformer(1024, 4096, 24, 16)
HUGE_TEXT, HUGE_VISION = transformer(1024, 4096, 24, 16), transformer(1280, 5120, 32, 16)
SIGLIP = transformer(1152, 4304, 27, 16, patch_size=14)


def clip(text: dict[str, Any], vision: dict[str, Any], projection: int) -> CLIPConfig:
    """A CLIP that sees 224 × 224 pixels in patches of 14."""
    return CLIPConfig(projection_dim=projection, text_config=text, vision_config=vision | {"patch_size": 14})


def clip_large() -> CLIPModel:
    return CLIPModel(clip(LARGE_TEXT, LARGE_VISION, 768))


def clip_huge() -> CLIPModel:
    return CLIPModel(clip(HUGE_TEXT, HUGE_VISION, 1024))


def dino_base() -> Dinov2Model:
    """DINOv2 base, which sees 518 × 518 pixels in patches of 14."""
    return Dinov2Model(Dinov2Config(image_size=518))


def large_text() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**LARGE_TEXT))


def large_text_projected() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(CLIPTextConfig(**LARGE_TEXT, projection_dim=768))


def giant_text() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(CLIPTextConfig(**transformer(1280, 5120, 32, 20), projection_dim=1280))


def turbo_text() -> CLIPTextModel:
    """OpenCLIP's ViT-H without its last layer, as Stable Diffusion 2.1 has it."""
    return CLIPTextModel(CLIPTextConfig(**transformer(1024, 4096, 23, 16)))


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    )


def safety_checker() -> StableDiffusionSafetyChecker:
    return StableDiffusionSafetyChecker(clip(LARGE_TEXT, LARGE_VISION, 768))


def vae(channels: int = 4) -> AutoencoderKL:
    """Stable Diffusion's, or with 16 channels that of SD3, FLUX and Z-Image, which has no quantisation layers."""
    quantised = channels == 4
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=quantised, use_post_quant_conv=quantised,
    )  # fmt: skip


def sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def sd3_medium() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=24, attention_head_dim=64,
        num_attention_heads=24, joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048,
        pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm",
    )  # fmt: skip


def qwen_eyes(width: int) -> dict[str, Any]:
    """The vision tower of Qwen2.5-VL in front of a language model of ``width`` numbers."""
    return {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": width}


def qwen25vl(text: dict[str, Any], tied: bool) -> Qwen2_5_VLForConditionalGeneration:
    text = text | {"tie_word_embeddings": tied}
    vision = qwen_eyes(text["hidden_size"])
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    )


def qwen25vl_3b() -> Qwen2_5_VLForConditionalGeneration:
    return qwen25vl(transformer(2048, 11008, 36, 16, num_key_value_heads=2, vocab_size=151936), True)


def qwen25vl_7b() -> Qwen2_5_VLForConditionalGeneration:
    return qwen25vl(transformer(3584, 18944, 28, 28, num_key_value_heads=4, vocab_size=152064), False)


def qwen3(hidden: int, inner: int, tied: bool) -> Qwen3Config:
    """A Qwen3 of 36 layers."""
    sizes = transformer(hidden, inner, 36, 32, num_key_value_heads=8, head_dim=128, vocab_size=151936)
    return Qwen3Config(**sizes, tie_word_embeddings=tied)


def qwen3vl_8b() -> Qwen3VLForConditionalGeneration:
    text = transformer(4096, 12288, 36, 32, num_key_value_heads=8, head_dim=128, vocab_size=151936)
    vision = {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
        "out_hidden_size": 4096, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
    }  # fmt: skip
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    )


def llava(text: dict[str, Any]) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration(LlavaConfig(text_config={"model_type": "llama", "vocab_size": 32064} | text))


def idefics3(text: dict[str, Any], image: int, factor: int) -> Idefics3ForConditionalGeneration:
    vision = SIGLIP | {"image_size": image}
    text = {"model_type": "llama"} | text
    return Idefics3ForConditionalGeneration(Idefics3Config(text_config=text, vision_config=vision, scale_factor=factor))


def gemma3_4b() -> Gemma3ForConditionalGeneration:
    text = transformer(2560, 10240, 34, 8, num_key_value_heads=4, head_dim=256, vocab_size=262208)
    vision = SIGLIP | {"image_size": 896, "vision_use_head": False}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))


def llama_vision() -> MllamaForConditionalGeneration:
    return MllamaForConditionalGeneration(MllamaConfig(vision_config={"image_size": 560}))


def image_reward() -> torch.nn.Module:
    """BLIP large with BERT as its text encoder, and five linear layers."""
    text = BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024, **transformer(768, 3072, 12, 12))
    vision = BlipVisionConfig(image_size=224, patch_size=16, **LARGE_VISION)
    parts = {"vision": BlipVisionModel(vision), "text": BlipTextModel(text, add_pooling_layer=False)}
    return torch.nn.ModuleDict(parts | {"head": ImprovedAestheticHead(768)})


# Of a generator: its pipeline's class and scheduler, its own height and width in pixels, the numbers that a prompt's
# embeddings take (without guidance's empty prompt), and its components with the type they are stored in.
GENERATORS: dict[str, dict[str, Any]] = {
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "card": 2.57, "pipeline": "StableDiffusionXLPipeline", "scheduler": "EulerDiscreteScheduler", "side": 1024,
        "prompt": 77 * 2048 + 1280,
        "components": {"unet": (sdxl_unet, F32), "text_encoder": (large_text, F32),
                       "text_encoder_2": (giant_text, F32), "vae": (vae, F32)},
    },
    "stabilityai/stable-diffusion-3.5-medium": {
        "card": 2.47, "pipeline": "StableDiffusion3Pipeline", "scheduler": "FlowMatchEulerDiscreteScheduler",
        "side": 1024, "prompt": 333 * 4096 + 2048,
        "components": {"transformer": (sd3_medium, BF16), "text_encoder": (large_text_projected, F16),
                       "text_encoder_2": (giant_text, F16), "text_encoder_3": (t5, F16),
                       "vae": (lambda: vae(16), BF16)},
    },
    "black-forest-labs/FLUX.1-dev": {
        "card": 11.9, "pipeline": "FluxPipeline", "scheduler": "FlowMatchEulerDiscreteScheduler", "side": 1024,
        "prompt": 512 * 4096 + 768,
        "components": {"transformer": (lambda: FluxTransformer2DModel(guidance_embeds=True), BF16),
                       "text_encoder": (large_text, BF16), "text_encoder_2": (t5, BF16),
                       "vae": (lambda: vae(16), BF16)},
    },
    "Qwen/Qwen-Image": {
        "card": 20.4, "pipeline": "QwenImagePipeline", "scheduler": "FlowMatchEulerDiscreteScheduler", "side": 1024,
        "prompt": 512 * 3584,
        "components": {"transformer": (QwenImageTransformer2DModel, BF16), "text_encoder": (qwen25vl_7b, BF16),
                       "vae": (AutoencoderKLQwenImage, BF16)},
    },
    "Tongyi-MAI/Z-Image": {
        "card": 6.15, "pipeline": "ZImagePipeline", "scheduler": "FlowMatchEulerDiscreteScheduler", "side": 1024,
        "prompt": 512 * 2560,
        "components": {"transformer": (ZImageTransformer2DModel, None),
                       "text_encoder": (lambda: Qwen3Model(qwen3(2560, 9728, True)), BF16),
                       "vae": (lambda: vae(16), BF16)},
    },
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "card": 0.86, "pipeline": "StableDiffusionPipeline", "scheduler": "PNDMScheduler", "side": 512,
        "prompt": 77 * 768,
        "components": {"unet": (lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768), F32),
                       "text_encoder": (large_text, F32), "vae": (vae, F32),
                       "safety_checker": (safety_checker, F32)},
    },
    "stabilityai/sd-turbo": {
        "card": 0.866, "pipeline": "StableDiffusionPipeline", "scheduler": "EulerDiscreteScheduler", "side": 512,
        "prompt": 77 * 1024,
        "components": {"unet": (lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=1024, use_linear_projection=True,
                                                             attention_head_dim=(5, 10, 20, 20)), F32),
                       "text_encoder": (turbo_text, F32), "vae": (vae, F32)},
    },
    "segmind/small-sd": {
        "card": 0.58, "pipeline": "StableDiffusionPipeline", "scheduler": None, "side": 512, "prompt": 77 * 768,
        "components": {"unet": (lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768, layers_per_block=1), None),
                       "text_encoder": (large_text, None), "vae": (vae, None)},
    },
}  # fmt: skip

# Of a scorer that sees other than 224 pixels a side: how many; of one that an adversary can be: what of it ``learns``. Of a chat
# model that sees pictures: how many tokens a picture becomes (see ``spro_hf.plan.sizes.picture_tokens``), and the
# width, inner width and patches of a picture in its vision tower.
MODELS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-11B-Vision-Instruct": {
        "card": 10.67, "make": llama_vision, "stored": BF16, "picture": {"tokens": 1},
        "tower": (1280, 5120, 4 * 1601), "seen": 4 * 1601,
    },
    "llava-hf/llava-1.5-7b-hf": {
        "card": 7.06, "make": lambda: llava({}), "stored": F16, "picture": {"tokens": 576}, "tower": (1024, 4096, 577),
    },
    "Qwen/Qwen3-8B": {
        "card": 8.19, "make": lambda: Qwen3ForCausalLM(qwen3(4096, 12288, False)), "stored": BF16,
        "picture": {"tokens": 0},
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "card": 8.77, "make": qwen3vl_8b, "stored": BF16, "picture": {"patch": 32}, "tower": (1152, 4304, 4),
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "card": 3.75, "make": qwen25vl_3b, "stored": BF16, "picture": {"patch": 28}, "tower": (1280, 3420, 4),
    },
    "HuggingFaceTB/SmolVLM-Instruct": {
        "card": 2.25, "stored": BF16, "picture": {"tile": 384, "longest": 1536, "each": 81}, "tower": (1152, 4304, 9),
        "make": lambda: idefics3(transformer(2048, 8192, 24, 32, num_key_value_heads=32, vocab_size=49155), 384, 3),
    },
    "google/gemma-3-4b-it": {
        "card": 4.30, "make": gemma3_4b, "stored": BF16, "picture": {"tokens": 256}, "tower": (1152, 4304, 4096),
    },
    "HuggingFaceM4/Idefics3-8B-Llama3": {
        "card": 8.46, "stored": BF16, "picture": {"tile": 364, "longest": 1456, "each": 169}, "tower": (1152, 4304, 4),
        "make": lambda: idefics3(transformer(4096, 14336, 32, 32, num_key_value_heads=8, vocab_size=128259), 364, 2),
    },
    "llava-hf/llava-1.5-13b-hf": {
        "card": 13.35, "make": lambda: llava(transformer(5120, 13824, 40, 40, num_key_value_heads=40)), "stored": F16,
        "picture": {"tokens": 576}, "tower": (1024, 4096, 577),
    },
    "openai/clip-vit-large-patch14": {"card": 0.428, "make": clip_large, "stored": F32},
    "yuvalkirstain/PickScore_v1": {
        "card": 0.986, "make": clip_huge, "stored": F32, "learns": lambda clip: clip.vision_model.encoder.layers[-1],
    },
    "xswu/HPSv2": {"card": 0.986, "make": clip_huge, "stored": F16},
    "zai-org/ImageReward": {"card": 0.447, "make": image_reward, "stored": F32},
    "facebook/dinov2-base": {
        "card": 0.0866, "make": dino_base, "stored": F32, "side": 518, "learns": lambda dino: Head(dino.config.hidden_size),
    },
    "trl-lib/ddpo-aesthetic-predictor": {"card": 0.00093, "make": lambda: ImprovedAestheticHead(768), "stored": F32},
}  # fmt: skip
