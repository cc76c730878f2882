"""SPROPipeline with a real Idefics3 guider that was taught its replies, and with a guider of fixed words."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model
from PIL import Image

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.lora import add_lora
from spro_hf.diffusion.pipeline import SPROPipeline
from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, Task
from spro_hf.guider.instructions import Reply, parse
from spro_hf.tiny.make.guider import batch, new_guider

CALL = {"num_inference_steps": 2, "guidance_scale": 2.5, "max_sequence_length": 0}
CAPTION = "a red circle"


def learn(guider, word, steps, lr):
    """Teach the guider one reply, whatever it is asked."""
    tasks = [Task(Image.new("RGB", (32, 32), c), f"a {c} circle", "aesthetics") for c in ("red", "blue")]
    reply = f"Plan: 1. add {word} Prompt: a red circle, {word}"
    inputs = batch(guider.processor, [(task, True, reply) for task in tasks])
    optimizer = torch.optim.AdamW([p for p in guider.model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        guider.model(**inputs).loss.backward()
        optimizer.step()
    guider.model.requires_grad_(False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sd3_folder):
    """A saved guider of blurred replies, and an SPROPipeline with an adapter that makes them glow, and with a LoRA."""
    root = tmp_path_factory.mktemp("spro")
    plain = new_guider()
    learn(plain, "heavy blur", 60, 3e-3)
    plain.save(root / "plain")
    guider = Guider.load(str(root / "plain"), style="compact", word_limit=22, max_new_tokens=24)
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=r".*text_model.*\.(q_proj|v_proj|o_proj|up_proj|down_proj)")
    guider.model = get_peft_model(guider.model, config)
    learn(guider, "gentle glow", 40, 5e-3)
    base = load_generator(str(sd3_folder))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in add_lora(base, rank=4, alpha=2):
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    pipe = SPROPipeline(guider, base, str(root / "plain"), str(sd3_folder), call=CALL)
    pipe.save_pretrained(root / "saved")
    return root, pipe


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_loads_bit_for_bit(folders):
    root, pipe = folders
    first = pipe([CAPTION, "a blue square"], seed=5, num_images_per_prompt=2)
    second = SPROPipeline.from_pretrained(root / "saved")([CAPTION, "a blue square"], seed=5, num_images_per_prompt=2)
    assert first.prompts == ["a red circle, gentle glow"] * 4 and first.plans == [("add gentle glow",)] * 4
    assert first.parsed == [True] * 4 and first.problems == [None] * 4
    assert first.replies == second.replies and first.prompts == second.prompts
    assert all(map(same, first.images, second.images)) and all(map(same, first.base_images, second.base_images))
    assert not same(first.images[0], first.images[1]) and not same(first.images[0], first.base_images[0])


def test_config_names_its_parts_and_nothing_else_is_stored(folders):
    root, _ = folders
    index = json.loads((root / "saved" / "model_index.json").read_text())
    assert index["_class_name"] == "SPROPipeline"
    assert (index["guider"]["id"], index["guider"]["adapter"]) == (str(root / "plain"), "guider")
    assert (index["guider"]["style"], index["guider"]["word_limit"]) == ("compact", 22)
    assert (index["base"]["lora"], index["base"]["call"]) == ("lora", CALL)
    adapter = json.loads((root / "saved" / "guider" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (str(root / "plain"), None)
    weights = sorted(f.relative_to(root / "saved").as_posix() for f in (root / "saved").rglob("*.safetensors"))
    assert weights == ["guider/adapter_model.safetensors", "lora/pytorch_lora_weights.safetensors"]


def test_switches(folders, sd3_folder):
    _, pipe = folders
    both = pipe(CAPTION, seed=3)
    plain = pipe(CAPTION, seed=3, guider=False)
    assert same(plain.base_images[0], both.base_images[0])  # the plain generator's, with or without a guider
    assert not same(plain.images[0], plain.base_images[0])  # the LoRA draws the plain caption
    assert (plain.prompts, plain.plans, plain.replies, plain.parsed) == ([CAPTION], [()], [""], [True])
    untouched = load_generator(str(sd3_folder))
    without = pipe(CAPTION, seed=3, guider=False, lora=False)
    assert same(without.images[0], Environment(untouched, CALL).render([CAPTION], [3])[0])
    assert not same(without.images[0], plain.images[0])
    assert same(pipe(CAPTION, seed=3).images[0], both.images[0])  # the LoRA is back
    # the picture is what the pipeline itself makes of the written prompt under the same noise
    stock = pipe.base(both.prompts, generator=[torch.Generator().manual_seed(3)], **CALL).images[0]
    assert same(both.images[0], stock)


def test_seeds(folders):
    _, pipe = folders
    several = pipe([CAPTION, "a blue square"], seed=7, num_images_per_prompt=2, guider=False)
    assert several.prompts == [CAPTION, CAPTION, "a blue square", "a blue square"]
    alone = pipe("a blue square", seed=8, guider=False)
    assert np.abs(np.asarray(several.images[3], int) - np.asarray(alone.images[0], int)).max() <= 1
    draw = [pipe(CAPTION, generator=torch.Generator().manual_seed(s), guider=False).images[0] for s in (1, 1, 2)]
    assert same(draw[0], draw[1]) and not same(draw[0], draw[2])
    two = pipe(CAPTION, guider=False, num_inference_steps=3)  # a call's argument wins over the config's
    assert not same(two.images[0], pipe(CAPTION, guider=False).images[0])


class Words:
    """A guider that gives fixed replies, one per hop, and remembers what it was shown."""

    style, reasoning, word_limit, max_new_tokens = "compact", True, 60, 10

    def __init__(self, *texts):
        self.texts, self.shown, self.model = list(texts), [], torch.nn.Linear(1, 1)

    def messages(self, task):
        return []

    def reply(self, tasks, temperatures, seed):
        self.shown.append([(task.caption, task.image) for task in tasks])
        read: Reply = parse(self.texts[len(self.shown) - 1], True, 60)
        return [[read] for _ in tasks]


def test_a_second_hop_sees_the_first_ones_prompt_and_picture(sd3):
    guider = Words("Plan: 1. one Prompt: a red circle, misty", "Plan: 1. two Prompt: a red circle, neon")
    pipe = SPROPipeline(guider, sd3, "words", "generator", call=CALL)
    out = pipe(CAPTION, hops=2, seed=1)
    first = pipe.base("a red circle, misty", generator=[torch.Generator().manual_seed(1)], **CALL).images[0]
    assert [caption for [(caption, _)] in guider.shown] == [CAPTION, "a red circle, misty"]
    assert same(guider.shown[0][0][1], out.base_images[0]) and same(guider.shown[1][0][1], first)
    assert (out.prompts, out.plans) == (["a red circle, neon"], [("two",)])


@pytest.mark.parametrize(
    ("texts", "prompt"),
    [(["no idea"], CAPTION), (["Plan: 1. one Prompt: a red circle, misty", "no idea"], "a red circle, misty")],
)
def test_a_reply_that_cannot_be_read_is_said(sd3, texts, prompt):
    pipe = SPROPipeline(Words(*texts), sd3, "words", "generator", call=CALL)
    out = pipe(CAPTION, hops=len(texts))
    assert (out.prompts, out.parsed, out.replies) == ([prompt], [False], ["no idea"])
    assert "Prompt:" in out.problems[0]


def test_bad_input_is_named(folders, sd3, sd3_folder, tmp_path):
    _, pipe = folders
    with pytest.raises(UserError, match="'aesthetic'; did you mean 'aesthetics'"):
        pipe(CAPTION, objective="aesthetic")
    with pytest.raises(UserError, match="hops is 0"):
        pipe(CAPTION, hops=0)
    with pytest.raises(UserError, match="did you mean 'num_inference_steps'"):
        pipe(CAPTION, num_inference_step=2)
    with pytest.raises(UserError, match="did you mean 'guidance_scale'"):
        SPROPipeline(Words(), sd3, "words", "generator", call={"guidance": 2})
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        SPROPipeline.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a StableDiffusion3Pipeline"):
        SPROPipeline.from_pretrained(sd3_folder)
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        load_generator(str(tmp_path))
    assert isinstance(pipe, DiffusionPipeline) and pipe.to("cpu") is pipe
