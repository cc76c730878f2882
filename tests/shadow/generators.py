"""Tiny, untrained pipelines of the classes behind the generators that the recipes name, each with its real scheduler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    ZImageTransformer2DModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.diffusion.families import builders
from tests.diffusion.families.words import seeded

CONTEXT = 77  # tokens
PNDM = dict(skip_prk_steps=True, set_alpha_to_one=False, **builders.SD_BETAS)
EULER = dict(timestep_spacing="leading", **builders.SD_BETAS)


def _checker() -> StableDiffusionSafetyChecker:
    """A safety checker that lets every picture pass: no cosine is above its thresholds of 1."""
    tower = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    vision = tower | dict(image_size=16, patch_size=8)
    return StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=tower, projection_dim=8)).eval()


@seeded
def sd15() -> DiffusionPipeline:
    """Stable Diffusion 1.5 as its repository has it: PNDM, which cannot be played, and a safety checker."""
    parts = builders.sd15().components | {
        "scheduler": PNDMScheduler(**PNDM),
        "safety_checker": _checker(),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    }
    return StableDiffusionPipeline(**parts, requires_safety_checker=True)


def sd_turbo() -> DiffusionPipeline:
    """SD-Turbo: the classes of Stable Diffusion, Euler steps from the last timestep on, no safety checker."""
    pipe = builders.sd15()
    pipe.scheduler = EulerDiscreteScheduler(**EULER | {"timestep_spacing": "trailing"})
    return pipe


def sdxl() -> DiffusionPipeline:
    pipe = builders.sdxl()
    pipe.scheduler = EulerDiscreteScheduler(**EULER)
    return pipe


@seeded
def z_image() -> DiffusionPipeline:
    """Z-Image whose rotary table is long enough for prompts of sixty words in letters."""
    pipe = builders.z_image()
    config = dict(pipe.transformer.config) | {"axes_lens": [1536, 64, 64]}
    pipe.transformer = ZImageTransformer2DModel.from_config(config).eval()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    return pipe


def _long(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """CLIP's text encoders with CLIP's own context of 77 tokens, since real captions are longer than the tiny world's."""
    for name, part in list(pipe.components.items()):
        if isinstance(part, CLIPTokenizer):
            longer = copy.deepcopy(part)
            longer.model_max_length = CONTEXT
            setattr(pipe, name, longer)
        elif isinstance(part, CLIPTextModel | CLIPTextModelWithProjection):
            config = copy.deepcopy(part.config)
            config.max_position_embeddings = CONTEXT
            setattr(pipe, name, type(part)(config).eval())
    return pipe


def _saved(make: Callable[[], DiffusionPipeline]) -> Callable[[Path], None]:
    """Write the pipeline that ``make`` makes, from the same random weights each time."""
    return lambda folder: seeded(lambda: _long(make()))().save_pretrained(folder)


GENERATORS: dict[str, Callable[[Path], None]] = {
    "stabilityai/stable-diffusion-xl-base-1.0": _saved(sdxl),
    "stabilityai/stable-diffusion-3.5-medium": _saved(builders.sd3),
    "black-forest-labs/FLUX.1-dev": _saved(builders.flux),
    "Qwen/Qwen-Image": _saved(builders.qwen_image),
    "Tongyi-MAI/Z-Image": _saved(z_image),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _saved(sd15),
    "stabilityai/sd-turbo": _saved(sd_turbo),
    "segmind/small-sd": _saved(sd15),
}
