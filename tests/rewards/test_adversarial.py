"""Rewards that learn: their formulas by hand, every kind of backbone, what learning moves and what it leaves alone."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    BitImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from spro_hf import rewards
from spro_hf.errors import UserError
from spro_hf.methods import Adversary
from spro_hf.rewards.adversarial import Adversarial, Head
from spro_hf.tiny.render import render
from spro_hf.tiny.world import SHAPES, Thing, Truth

CLIP = "spro_hf/tiny/clip"
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7)
MORE = SMALL | {"intermediate_size": 32}
BACKBONES = {  # class, configuration, and how many tokens stand before the patches
    "dinov2": (Dinov2Model, Dinov2Config(**SMALL), 1),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3), 4),
    "dinov3": (DINOv3ViTModel, DINOv3ViTConfig(**MORE, num_register_tokens=4), 5),
    "siglip": (SiglipVisionModel, SiglipVisionConfig(**MORE), 0),
    "clip": (CLIPVisionModel, CLIPVisionConfig(**MORE), 1),
}
SPEC = Adversary(reward="it", head_steps=20, batch_size=8, lr=1e-3)


def picture(seed: int, *modifiers: str) -> Image.Image:
    truth = Truth((Thing("red", SHAPES[seed % 10]),), "center", "navy", frozenset(modifiers))
    return Image.fromarray(render(truth, seed))


PLAIN = [picture(i) for i in range(8)]
FRAMED = [picture(i, "neat frame") for i in range(8)]


def pixels_of(images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1).float() / 255 for image in images])


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request, tmp_path_factory) -> tuple[str, str]:
    """A folder with a small seeded model and its processor, and its name."""
    kind, config, _ = BACKBONES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    kind(config).save_pretrained(folder)
    BitImageProcessorPil(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]).save_pretrained(folder)
    return str(folder), request.param


def by_hand(reward: Adversarial, model, before: int, image: Image.Image, normal) -> float:
    """0.7 h(class) + 0.3 mean h(patches) of one picture, worked with the backbone's own outputs."""
    pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, size=(28, 28), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    out = model(pixel_values=(pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    patches = out.last_hidden_state[0, before:]
    if isinstance(model, CLIPVisionModel):
        patches = model.post_layernorm(patches)
    first, _, last = reward.head

    def h(token: torch.Tensor) -> float:
        return (last.weight @ F.gelu(first.weight @ normal(token) + first.bias) + last.bias).item()

    return 0.7 * h(out.pooler_output[0]) + 0.3 * sum(map(h, patches)) / len(patches)


@torch.no_grad()
def test_the_score_is_the_formula_on_every_backbone(backbone):
    folder, name = backbone
    kind, _, before = BACKBONES[name]
    model, images = kind.from_pretrained(folder, dtype=torch.float32).eval(), [picture(3), picture(4, "film grain")]
    reward = Adversarial(folder)
    assert reward.grid == 16 and model(pixel_values=torch.zeros(1, 3, 28, 28)).last_hidden_state.shape[1] == before + 16
    # tokens of length √16 = 4, whose entries are about one
    expected = [by_hand(reward, model, before, image, lambda t: 4 * t / t.norm()) for image in images]
    assert reward(images, ["", ""]) == pytest.approx(expected, abs=1e-5)
    published = Adversarial(folder, features="published")
    expected = [by_hand(published, model, before, image, lambda t: t / t.norm()) for image in images]
    assert published(images, ["", ""]) == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - reward(images, ["", ""])[0]) > 1e-3


def test_the_first_loss_is_the_hinge_by_hand(backbone):
    """½[max(0, 1 − h(real)) + max(0, 1 + h(fake))], 0.7 of class tokens and 0.3 of the mean over patch tokens."""
    for features in ("normalised", "published"):
        reward = Adversarial(backbone[0], features=features)
        reward.learn_by(replace(SPEC, head_steps=1, batch_size=2), 0)
        with torch.no_grad():
            real, fake = reward._features(FRAMED[:2]), reward._features(PLAIN[:2])
            rows = []
            for i in range(2):
                parts = []
                for place, weight in ((0, 0.7), (1, 0.3)):
                    tokens = [real[place][i], fake[place][i]]
                    if features == "normalised":  # published code learns from tokens as they are
                        tokens = [4 * t / t.norm(dim=-1, keepdim=True) for t in tokens]
                    h = [reward.head(t) for t in tokens]
                    parts.append(weight * ((1 - h[0]).relu() / 2 + (1 + h[1]).relu() / 2).mean().item())
                rows.append(sum(parts))
        told = reward.update(PLAIN[:2], FRAMED[:2])
        assert told["loss"] == pytest.approx(sum(rows) / 2, abs=1e-5) and told["learned"] == 1


@pytest.mark.parametrize("features", ["normalised", "published"])
def test_it_learns_to_tell_references_and_moves_its_head_alone(features):
    reward = Adversarial(CLIP, features=features)
    frozen = copy.deepcopy(reward.model.state_dict())
    reward.learn_by(SPEC, 0)
    before = [reward(images, [""] * 8) for images in (FRAMED, PLAIN)]
    first = reward.update(PLAIN, FRAMED)
    assert first["told_apart"] == np.mean([real > fake for real, fake in zip(*before, strict=True)])
    assert (first["references"], first["generated"]) == pytest.approx([np.mean(row) for row in before], abs=1e-6)
    assert first["learned"] == 20
    last = [reward.update(PLAIN, FRAMED) for _ in range(3)][-1]
    assert last["told_apart"] == 1.0 and last["loss"] < first["loss"]
    assert min(reward(FRAMED, [""] * 8)) > max(reward(PLAIN, [""] * 8))
    # of other pictures as well
    others = [picture(i, "neat frame") for i in range(20, 28)], [picture(i) for i in range(20, 28)]
    assert np.mean(reward(others[0], [""] * 8)) > np.mean(reward(others[1], [""] * 8))
    assert all(torch.equal(value, frozen[name]) for name, value in reward.model.state_dict().items())


def test_a_score_repeats_whatever_stands_beside_the_picture():
    reward = Adversarial(CLIP, patches=5)
    images = PLAIN + FRAMED
    alone = [reward([image], [""])[0] for image in images]
    assert reward(images, [""] * 16) == pytest.approx(alone, abs=1e-6)
    reward.batch_size = 3
    assert reward(images, [""] * 16) == pytest.approx(alone, abs=1e-6)
    assert Adversarial(CLIP, patches=5)(images, [""] * 16) == pytest.approx(alone, abs=1e-6)
    chosen = [tuple(reward._chosen(picture).tolist()) for picture in pixels_of(images)]
    assert all(len(set(c)) == 5 and max(c) < 64 for c in chosen) and len(set(chosen)) > 8
    assert reward.of_pixels(pixels_of(images), [""] * 16).tolist() == pytest.approx(alone, abs=1e-6)


def test_pictures_of_several_sizes_are_each_seen_whole():
    reward, sizes = Adversarial(CLIP), [(32, 32), (64, 48), (32, 32)]
    images = [picture(i).resize(size) for i, size in enumerate(sizes)]
    alone = [reward([image], [""])[0] for image in images]
    assert reward(images, [""] * 3) == pytest.approx(alone, abs=1e-6)


def test_gradients_reach_the_pixels():
    reward = Adversarial(CLIP)
    pixels = pixels_of(PLAIN[:2]).requires_grad_(True)
    reward.of_pixels(pixels, ["", ""]).sum().backward()
    assert pixels.grad.abs().sum() > 0 and all(p.grad is None for p in reward.head.parameters())


def test_a_backbone_without_patches_is_named(tmp_path):
    ConvNextModel(ConvNextConfig(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1], image_size=32)).save_pretrained(
        tmp_path
    )
    BitImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        Adversarial(str(tmp_path))
    assert str(error.value) == (
        f"scorers.adversarial.backbone: '{tmp_path}' is a ConvNextModel, which has no patch tokens; name a vision transformer, "
        "e.g. facebook/dinov2-base."
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"features": "normal"}, "scorers.adversarial.features: 'normal' is unknown; did you mean 'normalised'?"),
        ({"class_weight": 1.5}, "scorers.adversarial.class_weight: 1.5 is no share; give a number in [0, 1]."),
        ({"patches": 0}, "scorers.adversarial.patches: 0 patches show nothing; give at least 1."),
    ],
)
def test_wrong_fields_are_named(fields, told):
    with pytest.raises(UserError) as error:
        Adversarial(CLIP, **fields)
    assert str(error.value) == told


def test_head_starts_the_same_and_leaves_the_generator_of_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = Head(8), Head(8)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# --- PickScore that learns ------------------------------------------------------------------------------------------------

PICK = "spro_hf/tiny/pickscore"
CAPTIONS = [f"a red {SHAPES[i]} on navy" for i in range(8)]


def test_pickscore_starts_as_it_was_and_only_its_last_layer_learns():
    fixed = rewards.PickScore(PICK)
    reward = rewards.REWARDS["adversarial_pickscore"](PICK)
    before = fixed(PLAIN, CAPTIONS)
    assert reward(PLAIN, CAPTIONS) == before
    start = copy.deepcopy(reward.tower.model.state_dict())
    grainy = [picture(i, "film grain") for i in range(8)]  # what PickScore likes less is the reference
    gap = np.subtract(reward(grainy, CAPTIONS), before)
    assert gap.mean() < 0
    reward.learn_by(replace(SPEC, head_steps=1, lr=1e-4), 0)
    told = reward.update(PLAIN, grainy, CAPTIONS)
    # all eight pairs are in the one batch: the mean of log(1 + exp(generated − reference))
    assert told["loss"] == pytest.approx(np.log1p(np.exp(-gap)).mean(), rel=1e-4)
    assert told["references"] == pytest.approx(np.mean(before) + gap.mean(), rel=1e-5)
    for _ in range(30):
        told = reward.update(PLAIN, grainy, CAPTIONS)
    assert told["references"] > told["generated"]
    moved = {name for name, value in reward.tower.model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved and all(name.startswith("vision_model.encoder.layers.3.") for name in moved)
    assert fixed(PLAIN, CAPTIONS) == before  # who shares the model's name does not learn with it


def test_it_waits_while_references_score_higher():
    reward = rewards.REWARDS["adversarial_pickscore"](PICK)
    reward.learn_by(replace(SPEC, when="references_lower"), 0)
    grainy, before = [picture(i, "film grain", "heavy blur") for i in range(8)], reward(PLAIN, CAPTIONS)
    told = reward.update(grainy, PLAIN, CAPTIONS)
    assert told["references"] > told["generated"] and told["learned"] == 0
    assert reward(PLAIN, CAPTIONS) == before
    assert reward.update(PLAIN, grainy, CAPTIONS)["learned"] == 20
    assert reward(PLAIN, CAPTIONS) != before


def test_too_coarse_a_type_is_refused():
    reward = rewards.REWARDS["adversarial_pickscore"](PICK, dtype="bfloat16")
    assert all(map(math.isfinite, reward(PLAIN, CAPTIONS)))  # to score by, it will do
    with pytest.raises(
        UserError, match=r"scorers.it.dtype: torch.bfloat16 is too coarse for small updates; use float32"
    ):
        reward.learn_by(SPEC, 0)


# --- as artifacts, and over a kill ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["adversarial", "adversarial_pickscore"])
def test_what_has_learned_is_left_and_loaded(kind, tmp_path):
    reward = rewards.REWARDS[kind](CLIP if kind == "adversarial" else PICK)
    reward.learn_by(SPEC, 0)
    reward.update(PLAIN, FRAMED, CAPTIONS)
    reward.save(tmp_path)
    assert json.loads((tmp_path / "reward.json").read_text())["kind"] == kind
    again = rewards.trained(str(tmp_path))
    assert again(PLAIN + FRAMED, CAPTIONS * 2) == reward(PLAIN + FRAMED, CAPTIONS * 2)
    loaded = rewards.load({"it": {"kind": "trained", "id": str(tmp_path)}}, {"it": 2.0})
    rows = loaded.score(PLAIN, CAPTIONS)
    assert [row["it"] for row in rows] == reward(PLAIN, CAPTIONS)


@pytest.mark.parametrize("kind", ["adversarial", "adversarial_pickscore"])
def test_learning_goes_on_where_it_was(kind, tmp_path):
    def fresh():
        reward = rewards.REWARDS[kind](CLIP if kind == "adversarial" else PICK)
        reward.learn_by(replace(SPEC, head_steps=3, batch_size=4), 7)
        return reward

    through, halted = fresh(), fresh()
    for reward in (through, halted):
        reward.update(PLAIN, FRAMED, CAPTIONS)
    halted.learning.save(tmp_path)
    resumed = fresh()
    resumed.learning.restore(tmp_path)
    told = [reward.update(PLAIN, FRAMED, CAPTIONS) for reward in (through, resumed)]
    assert told[0] == told[1] and resumed.learning.updates == 6
    assert through(PLAIN, CAPTIONS) == resumed(PLAIN, CAPTIONS)


def test_what_holds_no_reward_is_named(tmp_path):
    with pytest.raises(UserError) as error:
        rewards.trained(str(tmp_path))
    assert str(error.value) == (
        f"scorers.trained.id: '{tmp_path}' holds no reward that has learned (reward.json and model.safetensors); name a repository "
        "that an adversary left."
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "blur"}, "holds no reward that has learned"),
        ({"kind": "adversarial2"}, "holds no reward that has learned"),
        ({"temperature": 2}, "does not fit this version of spro_hf"),
        ({"backbone": PICK}, None),  # of the same width: it loads, and is another reward
    ],
)
def test_a_reward_of_another_version_is_one_sentence(change, told, tmp_path):
    reward = Adversarial(CLIP)
    reward.save(tmp_path)
    file = tmp_path / "reward.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    if told is None:
        assert rewards.trained(str(tmp_path))(PLAIN, CAPTIONS) != reward(PLAIN, CAPTIONS)
        return
    with pytest.raises(UserError, match=told):
        rewards.trained(str(tmp_path))


def test_a_download_that_was_cut_is_one_sentence(tmp_path):
    Adversarial(CLIP).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="holds no reward that has learned"):
        rewards.trained(str(tmp_path))


def test_batches_are_the_same_in_whatever_order_pairs_are_held():
    """As several processes hold a turn of several steps: process by process, and in each step by step."""
    places = [(step, row) for step in range(2) for row in range(4)]
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    heads = []
    for numbers in (range(8), order):
        reward = Adversarial(CLIP)
        reward.learn_by(replace(SPEC, batch_size=3), 0)
        reward.update([PLAIN[i] for i in numbers], [FRAMED[i] for i in numbers], (), [places[i] for i in numbers])
        heads.append(reward.head.state_dict())
    assert all(torch.allclose(heads[0][name], heads[1][name], atol=1e-5) for name in heads[0])


def test_a_gradient_that_is_not_finite_stops_it():
    reward = Adversarial(CLIP)
    reward.learn_by(SPEC, 0)
    with torch.no_grad():
        reward.head[2].weight.fill_(math.inf)
    with pytest.raises(
        UserError, match=r"the gradient of the reward 'it' is not finite at its update 1; lower adversary.lr"
    ):
        reward.update(PLAIN, FRAMED)
