"""Tiny, untrained pipelines of the stock classes that reinforcement learning is to work with, and how to call each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffusers import DiffusionPipeline
from PIL import Image

from . import builders


@dataclass(frozen=True)
class Family:
    """One kind of pipeline.

    Args:
        build: makes the pipeline anew, from the same weights each time.
        call: arguments of a cheap call; classifier-free guidance is on where the class has it.
        unguided: what to change in ``call`` to switch classifier-free guidance off; empty where the class has none.
        swap: the kind of scheduler that must take the place of the real repository's, which remembers earlier steps.
        inputs: arguments of the call with one item a sample, for so many samples.
        lora_targets: the layers for a LoRA where they differ from the usual ones.
    """

    name: str
    build: Callable[[], DiffusionPipeline]
    call: dict[str, Any]
    unguided: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    swap: str | None = None
    inputs: Callable[[int], dict[str, list]] | None = None
    lora_targets: str | None = None

    def __str__(self) -> str:
        return self.name


def pictures(count: int) -> dict[str, list]:
    """Pictures of one plain colour each, 16×16."""
    return {"image": [Image.new("RGB", (16, 16), (40 * i, 255 - 40 * i, 90)) for i in range(count)]}


def masked(count: int) -> dict[str, list]:
    """Pictures and masks: white is to be painted, two more columns for each further sample."""
    masks = [Image.new("L", (16, 16)) for _ in range(count)]
    for i, mask in enumerate(masks):
        mask.paste(255, (0, 0, 8 + 2 * (i % 4), 16))
    return pictures(count) | {"mask_image": masks}


STEPS = {"num_inference_steps": 3}
SMALL = STEPS | {"height": 16, "width": 16}
GUIDED = {"guidance_scale": 3.0}
NEGATIVE = {"negative_prompt": "a blue square"}
TRUE = NEGATIVE | {"true_cfg_scale": 3.0}
NO_TRUE = {"true_cfg_scale": 1.0}
SHORT = {"max_sequence_length": 16}
# FLUX takes guidance_scale as an input of the denoiser, and true_cfg_scale for classifier-free guidance
FLUX = SMALL | SHORT | TRUE | {"guidance_scale": 3.5}
FLUX2 = SMALL | GUIDED | {"max_sequence_length": 48, "text_encoder_out_layers": (1, 2, 3)}
FLUX2_LAYERS = "to_q|to_k|to_v|to_out.0|to_qkv_mlp_proj"  # most of its blocks have one joint projection
WHOLE = {"use_resolution_binning": False}

FAMILIES = [
    Family("sd15", builders.sd15, STEPS | GUIDED | NEGATIVE),
    Family("sdxl", builders.sdxl, STEPS | GUIDED | NEGATIVE),
    Family("sd3", builders.sd3, STEPS | GUIDED | NEGATIVE | SHORT),
    Family("flux", builders.flux, FLUX, NO_TRUE),
    Family("flux2", builders.flux2, FLUX2, {}, lora_targets=FLUX2_LAYERS),
    Family("flux2_klein", builders.flux2_klein, FLUX2, lora_targets=FLUX2_LAYERS),
    Family("qwen_image", builders.qwen_image, STEPS | {"height": 32, "width": 32} | TRUE, NO_TRUE),
    Family("z_image", builders.z_image, SMALL | GUIDED | {"max_sequence_length": 48}, {"guidance_scale": 0.0}),
    Family(
        "sana", builders.sana,
        STEPS | {"height": 32, "width": 32} | GUIDED | SHORT | WHOLE | {"complex_human_instruction": ["a sum of"]},
        swap="flow",
    ),
    Family(
        "lumina2", builders.lumina2,
        STEPS | {"height": 64, "width": 64} | GUIDED | {"max_sequence_length": 48, "system_prompt": ""},
    ),
    Family("pixart", builders.pixart, SMALL | GUIDED | SHORT | WHOLE | {"clean_caption": False}, swap="ddim"),
    Family(
        "flux_kontext", builders.flux_kontext, FLUX | {"max_area": 256, "_auto_resize": False}, NO_TRUE,
        inputs=pictures,
    ),
    Family("flux_inpaint", builders.flux_inpaint, FLUX | {"strength": 1.0}, NO_TRUE, inputs=masked),
    Family("sd15_inpaint", builders.sd15_inpaint, STEPS | GUIDED | NEGATIVE, inputs=masked),
    Family("sd15_inpaint_blend", builders.sd15_inpaint_blend, STEPS | GUIDED | NEGATIVE, inputs=masked),
    Family("wan", builders.wan, STEPS | {"height": 32, "width": 32, "num_frames": 5} | GUIDED | SHORT, swap="flow"),
]  # fmt: skip
