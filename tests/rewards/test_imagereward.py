"""ImageReward against the package image-reward itself, on weights that both can draw (data/README.md)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from foreign_weights import pictures, reference, weights
from transformers import BertTokenizer, BlipTextModel, BlipVisionModel

from spro_hf.errors import UserError
from spro_hf.rewards.base import Brief
from spro_hf.rewards.imagereward import ImageReward, frame, parts_of, square, text_config, vision_config

SAID = reference("imagereward")
FILE = "ImageReward.pt"


def state():
    """What the package was given, with the numbered positions that older versions of transformers save."""
    drawn = {name: shape for name, shape in SAID["shapes"].items() if not name.endswith("position_ids")}
    return weights(drawn, 3) | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


def save(folder, state, med_config=SAID["med_config"]):
    torch.save(state, folder / FILE)
    (folder / "med_config.json").write_text(json.dumps(med_config))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={token: i for i, token in enumerate(SAID["vocabulary"])}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def reward(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("imagereward")
    save(folder, state())
    return ImageReward(str(folder), tokenizer=tokenizer, device="cpu", batch_size=3)


def test_scores_are_those_of_the_package(reward):
    images = pictures(4, times=6)
    for i, caption in enumerate(SAID["captions"]):
        expected = [row[i] for row in SAID["scores"]]
        assert reward(images, [Brief(caption)] * 4) == pytest.approx(expected, abs=1e-4)
    own = [SAID["scores"][i][i] for i in range(4)]
    assert reward(images, SAID["captions"]) == pytest.approx(
        own, abs=1e-4
    )  # each its own caption, in batches of 3 and 1


def test_tokens_are_those_of_the_package(reward):
    tokens = reward.tokenizer(SAID["captions"], padding="max_length", truncation=True, max_length=35).input_ids
    assert tokens == SAID["tokens"]
    assert all(row[0] == SAID["vocabulary"].index("[CLS]") for row in tokens)  # and not BLIP's [ENC]


def test_the_middle_square_begins_where_torchvision_cuts_it():
    # 300 by 403 to 224: the longer side is int(224 · 403 / 300) = 300, and 76 of it are cut, 38 on the left
    assert frame(300, 403, 224) == (224, 300, 0, 38)
    # 100 by 102: int(228.48) = 228, 4 are cut, 2 above; 100 by 101: 226; and 3 cut is 1.5, to the even neighbour, 2
    assert frame(102, 100, 224) == (228, 224, 2, 0)
    assert frame(224, 227, 224) == (224, 227, 0, 2)
    assert frame(224, 229, 224) == (224, 229, 0, 2)  # 2.5 to the even neighbour too


def test_pixels_score_as_pictures_do_and_gradients_climb(reward):
    for i, image in enumerate(pictures(4, times=6)):
        caption = SAID["captions"][i]
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        pixels.requires_grad_()
        score = reward.of_pixels(pixels, [caption])
        # Pillow rounds what it resizes to bytes, twice: up to 0.042 in all 16 pairs, of scores that lie 9.7 apart
        assert score.item() == pytest.approx(SAID["scores"][i][i], abs=0.06)
        (slope,) = torch.autograd.grad(score.sum(), pixels)
        step = 1e-2 * slope / slope.norm()
        gain = reward.of_pixels(pixels + step, [caption]) - score
        assert gain.item() == pytest.approx(1e-2 * slope.norm().item(), rel=0.05)


def test_pixels_are_resized_as_pillow_does_but_for_its_rounding(reward):
    for image in pictures(4, times=6):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        by_pillow = torch.from_numpy(np.array(square(image, 224))).permute(2, 0, 1)[None] / 255
        assert (reward._squares(pixels) - by_pillow).abs().max() < 1.5 / 255  # 1.02, since it rounds twice
    # a picture of that size is resized by neither
    image = square(image, 224)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    assert reward.of_pixels(pixels, ["a star"]).tolist() == pytest.approx(reward([image], ["a star"]), abs=1e-4)


def test_the_score_is_standardised(reward):
    """The head is five linear maps; with all weights 0 but the last bias 1.2 it says 1.2: (1.2 − 0.16717) / 1.03334."""
    kept = {name: value.clone() for name, value in reward.head.state_dict().items()}
    try:
        for value in reward.head.parameters():
            value.zero_()
        reward.head.layers[7].bias.fill_(1.2)
        assert reward(pictures(4)[:1], ["a star"]) == pytest.approx([0.999503], abs=1e-5)
    finally:
        reward.head.load_state_dict(kept)


def test_the_real_checkpoint_s_keys_make_both_towers():
    """Names and shapes as the package makes ViT-L and BERT: all of both towers used, none missing or of another shape."""
    shapes = reference("imagereward_real")
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 446_666_465
    med_config = SAID["med_config"]
    with torch.device("meta"):
        vision, text, head = parts_of({name: torch.empty(shape) for name, shape in shapes.items()})
        configs = vision_config(vision), text_config(text, med_config, vision)
        towers = BlipVisionModel(configs[0]), BlipTextModel(configs[1], add_pooling_layer=False)
    for found, tower in zip((vision, text), towers, strict=True):
        assert {n: p.shape for n, p in found.items()} == {n: p.shape for n, p in tower.state_dict().items()}
    assert (configs[0].num_attention_heads, configs[0].image_size, configs[0].patch_size) == (16, 224, 16)
    assert (configs[1].num_attention_heads, configs[1].num_hidden_layers, configs[1].vocab_size) == (12, 12, 30524)
    left_out = {"blip.text_encoder.embeddings.position_ids"} | {
        f"blip.{name}_proj.{kind}" for name in ("vision", "text") for kind in ("weight", "bias")
    }
    assert len(vision) + len(text) + len(head) == len(shapes) - len(left_out) and left_out <= set(shapes)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda state: state.pop("blip.visual_encoder.norm.bias"), "it lacks post_layernorm.bias"),
        (lambda state: state.pop("mlp.layers.4.bias"), "layers.4.bias"),
        (lambda state: state.pop("blip.text_encoder.embeddings.word_embeddings.weight"), "it has no 'embeddings.word"),
        (lambda state: state.update({"blip.text_encoder.pooler.dense.bias": torch.zeros(1)}), "the unknown pooler"),
        (lambda state: state.update({"blip.visual_encoder.cls_token": torch.zeros(1, 1, 2)}), "in another shape"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, said, tokenizer, tmp_path):
    changed = state()
    change(changed)
    save(tmp_path, changed)
    with pytest.raises(UserError, match=said) as told:
        ImageReward(str(tmp_path), tokenizer=tokenizer, device="cpu")
    assert str(told.value).startswith("scorers.imagereward.file: 'ImageReward.pt'") and "\n" not in str(told.value)


def test_what_lies_beside_the_weights_is_needed(tokenizer, tmp_path):
    save(tmp_path, {"mlp.layers.0.weight": torch.zeros(1)}, {"hidden_act": "gelu"})
    with pytest.raises(UserError, match=r"scorers\.imagereward\.id: .* no med_config.json with 'num_attention_heads'"):
        ImageReward(str(tmp_path), tokenizer=tokenizer, device="cpu")
    with pytest.raises(UserError, match=r"scorers\.imagereward\.tokenizer: .* has no tokenizer"):
        ImageReward(str(tmp_path), device="cpu")
