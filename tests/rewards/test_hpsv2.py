"""HPSv2 against the package hpsv2 itself, on weights that both can draw (data/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign_weights import pictures, reference, weights
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from spro_hf.errors import UserError
from spro_hf.rewards.base import Brief
from spro_hf.rewards.hpsv2 import HPSv2, config_of, from_open_clip

SAID = reference("hpsv2")
FILE = "HPS_tiny.pt"


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """CLIP's tokenizer with a small vocabulary, and CLIP's own mean and deviation."""
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): i for i, token in enumerate(SAID["vocabulary"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split()) for merge in SAID["merges"]])
    folder = tmp_path_factory.mktemp("processor")
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"state_dict": weights(SAID["shapes"], 1)}, folder / FILE)
    return folder


@pytest.fixture(scope="module")
def reward(folder, processor):
    return HPSv2(str(folder), file=FILE, processor=processor, device="cpu", batch_size=3)


def test_scores_are_those_of_the_package(reward):
    images = pictures(2)
    for i, caption in enumerate(SAID["captions"]):
        expected = [row[i] for row in SAID["scores"]]
        assert reward(images, [Brief(caption)] * 4) == pytest.approx(expected, abs=1e-5)
    own = [SAID["scores"][i][i] for i in range(4)]
    assert reward(images, SAID["captions"]) == pytest.approx(
        own, abs=1e-5
    )  # each its own caption, in batches of 3 and 1


def test_tokens_are_those_of_the_package(reward):
    # the third caption is longer than the context: cut to 77, the last of them the end of text, the highest id
    tokens = reward.tokenizer(SAID["captions"], truncation=True, max_length=77).input_ids
    assert tokens == SAID["tokens"] and tokens[2][-1] == len(SAID["vocabulary"]) - 1 and len(tokens[2]) == 77


def test_the_longest_side_becomes_the_models_and_the_rest_is_black(reward):
    wide = torch.ones(1, 3, 10, 64)  # white; 64 by 10 becomes 32 by 5, with 27 rows to share: 13 above, 14 below
    rows = (reward._fitted(wide) * reward.std + reward.mean)[0, 0].mean(-1)
    assert torch.allclose(rows, torch.tensor([0.0] * 13 + [1.0] * 5 + [0.0] * 14), atol=1e-5)
    # of the model's own longest side: nothing is resized, and it is padded all the same
    noise = torch.rand(1, 3, 32, 20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((reward._fitted(noise) * reward.std + reward.mean)[..., 6:26], noise, atol=1e-6)


def test_pixels_score_as_pictures_do_and_gradients_climb(reward):
    images = pictures(2)
    for i, image in enumerate(images):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        pixels.requires_grad_()
        score = reward.of_pixels(pixels, [SAID["captions"][i]])
        assert score.item() == pytest.approx(SAID["scores"][i][i], abs=1e-5)
        (slope,) = torch.autograd.grad(score.sum(), pixels)
        step = 1e-3 * slope / slope.norm()
        gain = reward.of_pixels(pixels + step, [SAID["captions"][i]]) - score
        assert gain.item() == pytest.approx(1e-3 * slope.norm().item(), rel=0.05)


def test_the_real_checkpoint_s_keys_make_vit_h(reward):
    """Names and shapes as the package makes ViT-H-14: all of them used, none missing, none of another shape."""
    shapes = reference("hpsv2_real")
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 986_109_441
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = config_of(state, reward.tokenizer)
        model = CLIPModel(config)
    found = {name: value.shape for name, value in from_open_clip(state).items()}
    assert found == {name: value.shape for name, value in model.state_dict().items()}
    vision, text = config.vision_config, config.text_config
    assert (vision.num_attention_heads, vision.patch_size, vision.image_size) == (16, 14, 224)  # 16 heads of 80
    assert (text.num_attention_heads, text.num_hidden_layers, text.hidden_act) == (16, 24, "gelu")


def test_a_repository_of_transformers_needs_no_file(reward, processor, tmp_path):
    reward.model.save_pretrained(tmp_path)
    CLIPProcessor.from_pretrained(processor).save_pretrained(tmp_path)
    again = HPSv2(str(tmp_path), device="cpu")
    own = [SAID["scores"][i][i] for i in range(4)]
    assert again(pictures(2), SAID["captions"]) == pytest.approx(own, abs=1e-5)


def test_the_score_is_the_cosine_of_the_model_s_own_embeddings(reward):
    image = pictures(2)[2]  # a square of 64: resized to 32 and not padded
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    small = F.interpolate(pixels, (32, 32), mode="bicubic", antialias=True)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    seen = reward.model.get_image_features((small - mean) / std).pooler_output
    read = reward.model.get_text_features(torch.tensor([SAID["tokens"][0]])).pooler_output
    assert reward([image], SAID["captions"][:1])[0] == pytest.approx(F.cosine_similarity(seen, read).item(), abs=1e-6)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda state: state.pop("ln_final.bias"), "it lacks text_model.final_layer_norm.bias"),
        (lambda state: state.pop("visual.conv1.weight"), "it has no 'visual.conv1.weight'"),
        (lambda state: state.update({"visual.attn_pool.query": torch.zeros(1)}), "the unknown visual.attn_pool.query"),
        (
            lambda state: state.update({"visual.ln_pre.weight": torch.zeros(2)}),
            "another shape vision_model.pre_layrnorm",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, said, processor, tmp_path):
    state = weights(SAID["shapes"], 1)
    change(state)
    torch.save({"state_dict": state}, tmp_path / FILE)
    with pytest.raises(UserError, match=said) as told:
        HPSv2(str(tmp_path), file=FILE, processor=processor, device="cpu")
    assert str(told.value).startswith("scorers.hpsv2.file: 'HPS_tiny.pt'") and "\n" not in str(told.value)


def test_files_that_are_absent_or_hold_more_than_tensors_are_refused(folder, processor, tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(1), "name": "HPS"}}, tmp_path / FILE)
    for where, file, said in [
        (folder, "HPS_v3.pt", "has no file 'HPS_v3.pt'"),
        (tmp_path, FILE, "no file of tensors"),
    ]:
        with pytest.raises(UserError, match=said):
            HPSv2(str(where), file=file, processor=processor, device="cpu")
    torch.save({"state_dict": Brief("a class of its own")}, tmp_path / FILE)
    with pytest.raises(UserError, match="no file of tensors"):
        HPSv2(str(tmp_path), file=FILE, processor=processor, device="cpu")
    with pytest.raises(UserError, match=r"scorers\.hpsv2\.processor: .* has no CLIP processor"):
        HPSv2(str(folder), file=FILE, device="cpu")
