"""Sizes: real architectures against their own classes, built-in models against their files, LoRAs by hand and by PEFT."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from spro_hf.hub.server import client_environment, start
from spro_hf.methods import Lora
from spro_hf.models import RENDERER
from spro_hf.plan import sizes
from spro_hf.plan.sizes import picture_tokens, size, spread
from spro_hf.tiny import home

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
LLAMA = "meta-llama/Llama-3.2-11B-Vision-Instruct"


@pytest.mark.parametrize(
    ("id", "component", "make", "parameters"),
    [
        (SDXL, "unet", "sdxl_unet", 2_567_463_684),
        (SDXL, "text_encoder", "large_text", 123_060_480),
        ("yuvalkirstain/PickScore_v1", "model", "clip_huge", 986_109_441),
        ("facebook/dinov2-base", "model", "dino_base", 86_580_480),
    ],
)
def test_what_is_written_down_is_what_the_class_has(docs, id, component, make, parameters):
    import architectures

    with torch.device("meta"):
        module = getattr(architectures, make)()
    assert sum(p.numel() for p in module.parameters()) == parameters == size(id).components[component]


def test_a_generator_is_the_sum_of_its_components():
    known = size(SDXL)
    # U-Net, CLIP-L and bigG text towers, autoencoder
    assert known.numbers == 2_567_463_684 + 123_060_480 + 694_659_840 + 83_653_863
    assert known.bytes("bfloat16") == 2 * known.numbers and known.download == 4 * known.numbers  # stored as float32
    assert not known.exact and known.denoiser == "unet"


def test_buffers_that_are_stored_are_held_and_not_trained():
    known = size("stabilityai/stable-diffusion-3.5-medium")
    # a position embedding of 384 x 384 places and 1536 numbers
    assert known.components["transformer"] - known.parameters["transformer"] == 384 * 384 * 1536


def test_lora_of_sdxl_by_hand():
    # blocks of width c have four projections of attention and four of cross-attention over 2048 numbers:
    # 4 · 2c + 2 · 2c + 2 · (2048 + c) = 14c + 4096. Width 640: 2 · 2 going down, 3 · 2 going up; width 1280: 2 · 10, 3 · 10, 10
    narrow, wide = 14 * 640 + 4096, 14 * 1280 + 4096
    assert size(SDXL).lora(Lora(32, 32)) == 32 * (10 * narrow + 60 * wide) == 46_448_640
    assert size(SDXL).lora(Lora(1, 1, "to_q")) == 2 * (10 * 640 * 2 + 60 * 1280 * 2)


def test_lora_of_a_guider_is_on_its_language_part():
    # width 4096, keys and values 1024, inner width 14336, 32 layers: q and o 8192 each, k and v 5120 each, three of 18432
    layer = 2 * 8192 + 2 * 5120 + 3 * 18432
    assert size("HuggingFaceM4/Idefics3-8B-Llama3").lora(Lora(1, 1)) == 32 * layer
    # Mllama: as wide, and its 8 layers that look at the picture have the same projections
    assert size(LLAMA).lora(Lora(1, 1)) == 40 * layer
    # a text-only model: width 4096, keys and values 1024, inner width 12288, 36 layers
    assert size("Qwen/Qwen3-8B").lora(Lora(2, 2, "q_proj")) == 2 * 36 * (4096 + 4096)
    assert size(LLAMA).lora(Lora(1, 1, r".*vision_model\.transformer.*\.q_proj")) == 32 * 2 * 1280


def test_loras_are_what_peft_makes():
    from spro_hf.diffusion.environment import load_generator
    from spro_hf.diffusion.lora import add_lora
    from spro_hf.guider.guider import Guider
    from spro_hf.guider.lora import add_lora as add_to_guider

    for id in ("spro_hf/tiny/generator", "spro_hf/tiny/ddim-generator"):
        for targets in (None, "to_q|to_v", r".*attn.*\.to_k"):
            made = sum(p.numel() for p in add_lora(load_generator(id), 4, 4, targets))
            assert size(id).lora(Lora(4, 4, targets)) == made > 0, (id, targets)
    for targets in (None, "q_proj|v_proj"):
        guider = Guider.load("spro_hf/tiny/guider")
        add_to_guider(guider, {"rank": 4, "alpha": 4, "targets": targets}, 0)
        made = sum(p.numel() for p in guider.model.parameters() if p.requires_grad)
        assert size("spro_hf/tiny/guider").lora(Lora(4, 4, targets)) == made > 0, targets


def test_default_targets_are_those_of_training():
    from spro_hf.diffusion import lora
    from spro_hf.guider import lora as guiders

    assert sizes.GENERATOR_TARGETS == lora.TARGETS
    assert (sizes.GUIDER_LAYERS, sizes.GUIDER_PROJECTIONS) == (guiders.LAYERS, guiders.PROJECTIONS)


def test_what_an_adversary_learns_by_hand():
    # Linear(768 → 512) and Linear(512 → 1), with their biases; two bytes are kept of each of a token's 768 numbers
    dino = size("facebook/dinov2-base").about["adversary"]
    assert dino["parameters"] == 768 * 512 + 512 + 512 + 1 and dino["kept"] == 2 * 768
    # a layer of width 1280: four projections, two linear maps by way of 5120, two norms
    layer = size("yuvalkirstain/PickScore_v1").about["adversary"]
    assert layer["parameters"] == 4 * (1280**2 + 1280) + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280
    # what a token leaves for its gradients: of each of 512 inner numbers two, before and behind the GELU, at the least
    assert dino["train"] >= 2 * 2 * 512 and layer["train"] >= 257 * 2 * 1280


def test_the_renderer_has_no_size():
    known = size(RENDERER)
    assert known.numbers == known.download == 0 and known.exact and known.about["side"] == 32


@pytest.mark.parametrize("name", home.NAMES)
def test_built_in_models_are_read_from_their_files(name):
    known = size(f"spro_hf/tiny/{name}")
    files = home.path(name).rglob("*.safetensors")
    assert known.numbers == sum(t.numel() for file in files for t in load_file(file).values())
    assert known.download == 0 and known.exact


def test_a_folder_tells_of_its_pipeline(sd3_folder):
    known = size(str(sd3_folder))
    assert known.about == {
        "pipeline": "StableDiffusion3Pipeline", "scheduler": "FlowMatchEulerDiscreteScheduler", "side": 32
    }  # fmt: skip
    assert known.denoiser == "transformer" and set(known.components) > {"transformer", "vae", "text_encoder"}


def test_an_unknown_model_has_no_size():
    assert size("somebody/something") is None and size("somebody/something", hub=False) is None


def test_the_hub_is_asked_for_what_is_not_known(tmp_path):
    """A model and a pipeline pushed to a local Hub: parameters from their headers, bytes from the listing."""
    script = """
import json
from spro_hf.hub.push import push
from spro_hf.plan.sizes import size
from spro_hf.tiny import home
told = {}
for name in ("clip", "generator"):
    push(home.path(name), f"spro/{name}", "model", "v1", "as it is")
    known, here = size(f"spro/{name}", "v1", hub=True), size(f"spro_hf/tiny/{name}")
    told[name] = [known.components == here.components, known.layers == here.layers, known.download, known.exact]
told["none"] = size("spro/none", hub=True)
print(json.dumps(told))
"""
    with start(tmp_path / "hub") as server:
        environment = os.environ | client_environment(server, tmp_path / "cache")
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    told = json.loads(done.stdout)

    def held(
        name,
    ):  # all but what is pictures or weights of other kinds, of which there are none; .gitattributes is the Hub's
        return sum(f.stat().st_size for f in home.path(name).rglob("*") if f.is_file())

    rules = told["clip"][2] - held("clip")
    assert 0 < rules < 5000
    assert told == {"clip": [True, True, held("clip") + rules, True], "none": None,
                    "generator": [True, True, held("generator") + rules, True]}  # fmt: skip


def test_names_in_braces(docs):
    from sizes import packed  # docs/sizes.py

    assert list(spread("a.{0-2,5}.b.{1,3}.c")) == [f"a.{i}.b.{j}.c" for i in (0, 1, 2, 5) for j in (1, 3)]
    names = [f"up.{i}.at.{j}.to_q" for i in range(4) for j in range(3 if i else 2)] + ["in.0.w", "plain"]
    short = packed(names)
    assert sorted(name for one in short for name in spread(one)) == sorted(names) and len(short) == 4
    assert "up.{1-3}.at.{0-2}.to_q" in short


def test_pictures_as_tokens():
    assert picture_tokens({"tokens": 576}, 1024, 1024) == 576
    assert picture_tokens({"patch": 28}, 1024, 512) == 37 * 19  # 36.6 and 18.3 patches
    # a square becomes 1456 x 1456: 4 x 4 tiles of 364 and the whole, each 169 tokens and 12 around them
    assert picture_tokens({"tile": 364, "longest": 1456, "each": 169}, 512, 512) == 17 * (169 + 12)
    # twice as wide as high: 1456 x 728, 2 x 4 tiles
    assert picture_tokens({"tile": 364, "longest": 1456, "each": 169}, 512, 1024) == 9 * (169 + 12)


def test_tiles_are_those_of_the_processor():
    from PIL import Image
    from transformers import Idefics3ImageProcessorPil

    processor = Idefics3ImageProcessorPil()  # tiles of 364 pixels, the longest side 1456, as published
    for height, width in ((512, 512), (512, 1024), (1024, 768)):
        tiles = processor(Image.new("RGB", (width, height)), return_tensors="pt")["pixel_values"].shape[1]
        assert picture_tokens({"tile": 364, "longest": 1456, "each": 0}, height, width) == tiles * 12


def test_bytes_of_a_pass_by_hand(docs):
    from passes import Alive, weightless

    with weightless():
        layer, given = torch.nn.Linear(4, 8, bias=False), torch.empty(2, 4, requires_grad=True)
        alive = Alive(layer)
        with alive:
            out = torch.relu(layer(given))  # two times 2 x 8 numbers of four bytes; relu keeps its own result alone
            assert alive.peak == 128 and alive.now == 64
            out.sum().backward()
    # at the most: the result, its gradient through relu (64) and the gradient of the weights (4 x 8 x 4 = 128),
    # which is made before the one of the input (2 x 4 x 4 = 32)
    assert 64 + 64 + 128 <= alive.peak <= 64 + 2 * 64 + 128 + 32 + 8
