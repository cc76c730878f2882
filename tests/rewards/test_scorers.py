"""The rewards against their formulas, worked with the model's own outputs, and against what pictures truly show."""

from __future__ import annotations

import gc
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from spro_hf import rewards
from spro_hf.errors import UserError
from spro_hf.rewards import Brief, clip
from spro_hf.rewards.clip import ClipTower, ImageSimilarity
from spro_hf.rewards.clip_iqa import ClipIQA
from spro_hf.tiny import home
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth

WORLD = "spro_hf/tiny/"
STAR = Truth((Thing("yellow", "star"),), "center", "navy")
TEXTS = ["a yellow star on navy", "a green cross on sand"]


def picture(*modifiers: str, truth: Truth = STAR, seed: int = 1) -> Image.Image:
    return Image.fromarray(render(replace(truth, modifiers=frozenset(modifiers)), seed))


def pixels_of(images):
    return torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1).float() / 255 for image in images])


@pytest.fixture(scope="module")
def tower():
    return ClipTower(WORLD + "clip")


def cosines(tower, images, texts):
    """cos(image, text), worked with the model's own outputs, row by row in float64."""
    found = []
    for image, text in zip(images, texts, strict=True):
        seen = tower.processor.image_processor([image], return_tensors="pt")
        said = tower.processor.tokenizer([text], padding="max_length", max_length=24, return_tensors="pt")
        x = tower.model.get_image_features(**seen).pooler_output[0].double()
        y = tower.model.get_text_features(**said).pooler_output[0].double()
        found.append((x @ y / x.norm() / y.norm()).item())
    return found


def test_aesthetic_is_the_linear_head_on_the_normalised_embedding(tower):
    reward = rewards.Aesthetic(WORLD + "aesthetic", WORLD + "clip")
    image = picture("gradient sky")
    inputs = tower.processor.image_processor([image], return_tensors="pt")
    embedding = tower.model.get_image_features(**inputs).pooler_output[0]
    by_hand = (reward.head.weight[0] * embedding / embedding.norm()).sum() + reward.head.bias[0]
    assert reward([image], [""])[0] == pytest.approx(by_hand.item(), abs=1e-5)


def test_scores_follow_what_pictures_show():
    good, plain, bad = picture("gradient sky", "warm palette"), picture(), picture("busy clutter", "heavy blur")
    aesthetic = rewards.Aesthetic(WORLD + "aesthetic", WORLD + "clip")([good, plain, bad], [""] * 3)
    assert aesthetic[0] > aesthetic[1] + 1 > aesthetic[2] + 2
    loud, dull = picture("high contrast", "bold outline"), picture("heavy blur")
    engagement = rewards.Engagement(WORLD + "engagement", WORLD + "clip")([loud, plain, dull], [""] * 3)
    assert engagement[0] > engagement[1] + 10 > engagement[2] + 15
    pick = rewards.PickScore(WORLD + "pickscore")
    right, wrong = pick([plain, plain], TEXTS)
    assert 18 < right < 23 and right > wrong + 1
    assert rewards.Judge(WORLD + "judge")([good, bad], [""] * 2)[0] > rewards.Judge(WORLD + "judge")([bad], [""])[0]


def test_pickscore_is_the_scaled_cosine_against_the_caption_or_the_prompt():
    images = [picture(), picture("film grain")]
    reward = rewards.PickScore(WORLD + "pickscore")
    scale = math.exp(reward.tower.model.logit_scale.item())
    # the first brief has no prompt of its own: there the prompt is the caption
    briefs = [Brief(TEXTS[0]), Brief(TEXTS[0], prompt=TEXTS[1])]
    captions, prompts = [TEXTS[0], TEXTS[0]], TEXTS
    by_caption = [scale * c for c in cosines(reward.tower, images, captions)]
    by_prompt = [scale * c for c in cosines(reward.tower, images, prompts)]
    assert reward(images, briefs) == pytest.approx(by_caption, abs=1e-4)
    against = rewards.PickScore(WORLD + "pickscore", against="prompt")
    assert against(images, briefs) == pytest.approx(by_prompt, abs=1e-4)
    assert against(images, captions) == pytest.approx(by_caption, abs=1e-4)  # plain texts are captions and prompts
    assert abs(by_prompt[1] - by_caption[1]) > 0.5
    with pytest.raises(UserError, match=r"scorers\.pickscore\.against: 'text'"):
        rewards.PickScore(WORLD + "pickscore", against="text")


def test_pickscore_takes_the_processor_that_is_named(tmp_path):
    """As PickScore_v1 on the Hub, which is used with the processor of the CLIP that it was made from."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(home.path("pickscore") / name, tmp_path)
    image = picture()
    with pytest.raises(UserError, match=r"scorers\.pickscore\.id: .* has no processor"):
        rewards.PickScore(str(tmp_path))
    with pytest.raises(UserError, match=r"scorers\.pickscore\.processor: .* has no processor"):
        rewards.PickScore(str(tmp_path), processor=WORLD + "aesthetic")
    named = rewards.PickScore(str(tmp_path), processor=WORLD + "clip")
    assert named([image], TEXTS[:1]) == pytest.approx(
        rewards.PickScore(WORLD + "pickscore")([image], TEXTS[:1]), abs=1e-5
    )


def test_clip_score_and_the_filters_similarity_by_hand(tower):
    images, texts = [picture(), picture("film grain")], ["a yellow star", "a blue ring"]
    by_hand = [100 * max(0.0, c) for c in cosines(tower, images, texts)]
    assert rewards.ClipScore(WORLD + "clip")(images, texts) == pytest.approx(by_hand, abs=1e-3)
    similarity = rewards.Similarity(WORLD + "clip")
    assert similarity(images, images) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert similarity([images[0]], [images[1]])[0] < 1


def test_similarity_to_the_base_picture_is_a_hundred_cosines(tower):
    base, near, far = picture(), picture("film grain"), picture(truth=replace(STAR, things=(Thing("red", "ring"),)))
    reward = ImageSimilarity(WORLD + "clip")
    scores = reward([base, near, far], [Brief("a", base=base)] * 3)
    x, y, z = tower.images([base, near, far]).double()
    assert scores == pytest.approx([100.0, 100 * (x @ y).item(), 100 * (x @ z).item()], abs=1e-3)
    assert 100 > scores[1] > scores[2]
    with pytest.raises(UserError, match=r"no base picture to compare with \(caption: 'b'\)"):
        reward([base, near], [Brief("a", base=base), Brief("b")])
    with pytest.raises(UserError, match=r"caption: 'c'"):
        reward([base], ["c"])


def test_clip_iqa_is_the_softmax_over_a_good_and_a_bad_photo(tower):
    """100 · e^(s·cos₁) / (e^(s·cos₁) + e^(s·cos₂)), so that log(score / (100 − score)) = s · (cos₁ − cos₂)."""
    images = [picture("gradient sky"), picture("heavy blur")]
    good, bad = cosines(tower, images, ["Good photo."] * 2), cosines(tower, images, ["Bad photo."] * 2)
    scale = math.exp(tower.model.logit_scale.item())
    by_hand = [scale * (g - b) for g, b in zip(good, bad, strict=True)]
    scores = ClipIQA(WORLD + "clip")(images, ["a", "b"])
    assert [math.log(s / (100 - s)) for s in scores] == pytest.approx(by_hand, abs=1e-3)
    assert abs(by_hand[0] - by_hand[1]) > 0.5


def test_clip_knows_shapes(tower):
    shapes = ("circle", "square", "star", "heart", "cross", "ring")
    images = [picture(truth=replace(STAR, things=(Thing("red", shape),))) for shape in shapes]
    best = (tower.images(images) @ tower.texts([f"a red {shape} on navy" for shape in shapes]).T).argmax(1)
    assert (best == torch.arange(len(shapes))).float().mean() >= 5 / 6


def test_a_score_does_not_depend_on_its_batch():
    images, captions = [picture(seed=i) for i in range(5)], [f"a yellow star, {i}" for i in range(5)]
    together = rewards.PickScore(WORLD + "pickscore")(images, captions)
    small = rewards.PickScore(WORLD + "pickscore", batch_size=2)
    assert together == pytest.approx(small(images, captions), abs=1e-4)
    assert together == pytest.approx([small([i], [c])[0] for i, c in zip(images, captions, strict=True)], abs=1e-4)


def test_towers_of_one_model_share_its_weights_while_one_of_them_lives():
    gc.collect()
    before = len(clip._HELD)
    first = rewards.PickScore(WORLD + "pickscore")
    again = rewards.PickScore(WORLD + "pickscore", against="prompt", batch_size=4)
    coarse = rewards.PickScore(WORLD + "pickscore", dtype="bfloat16")
    assert first.tower.model is again.tower.model and again.tower.batch_size == 4
    assert coarse.tower.model is not first.tower.model and coarse.tower.model.dtype == torch.bfloat16
    assert len(clip._HELD) == before + 2
    del first, again, coarse
    gc.collect()
    assert len(clip._HELD) == before


def test_load_makes_rewards_by_name_or_by_kind():
    scorers = {
        "pickscore": {"id": WORLD + "pickscore"},
        "prompted": {"kind": "pickscore", "id": WORLD + "pickscore", "against": "prompt"},
        "clip": {"id": WORLD + "clip", "batch_size": 3},
    }
    loaded = rewards.load(scorers, {"pickscore": 1.0})
    assert [type(part).__name__ for part in loaded.parts.values()] == ["PickScore", "PickScore", "ClipScore"]
    assert loaded.parts["prompted"].against == "prompt" and loaded.parts["clip"].tower.batch_size == 3
    (row,) = loaded.score([picture()], [Brief(TEXTS[0], prompt=TEXTS[1])])
    assert row["total"] == row["pickscore"] > row["prompted"] + 1
    assert scorers["prompted"]["kind"] == "pickscore"  # the recipe is left as it was


def test_rewards_stand_in_order_and_say_whether_gradients_flow_through_them():
    assert list(rewards.REWARDS) == sorted(rewards.REWARDS)
    for name, kind in rewards.REWARDS.items():
        if name != "trained":  # which becomes one of the others
            assert kind.differentiable == hasattr(kind, "of_pixels"), name


def test_what_is_no_whole_checkpoint_is_named(tmp_path):
    shutil.copy(home.path("clip") / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"scorers\.clip\.id: .* is no checkpoint of CLIPModel"):
        rewards.ClipScore(str(tmp_path))
    with pytest.raises(UserError, match=r"select\.similarity: .* is no checkpoint of CLIPModel"):
        rewards.Similarity(str(tmp_path))
    with pytest.raises(UserError, match=r"scorers\.judge\.id: 'spro_hf/tiny/clip' is no PictureNet"):
        rewards.Judge(WORLD + "clip")
    with pytest.raises(UserError, match=r"scorers\.engagement\.id: 'spro_hf/tiny/aesthetic' is no EngagementHead"):
        rewards.Engagement(WORLD + "aesthetic", WORLD + "clip")


DIFFERENTIABLE = {
    "aesthetic": lambda: rewards.Aesthetic(WORLD + "aesthetic", WORLD + "clip"),
    "clip": lambda: rewards.ClipScore(WORLD + "clip"),
    "clip_iqa": lambda: ClipIQA(WORLD + "clip"),
    "engagement": lambda: rewards.Engagement(WORLD + "engagement", WORLD + "clip"),
    "pickscore": lambda: rewards.PickScore(WORLD + "pickscore"),
    "similarity": lambda: ImageSimilarity(WORLD + "clip"),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_scores_of_pixels_are_those_of_pictures_and_their_gradients_reach_the_pixels(name):
    """On 32×32 pictures, where nothing is resized; the score then follows its gradient, as a derivative does."""
    reward = DIFFERENTIABLE[name]()
    images = [picture("film grain"), picture("gradient sky", seed=2)]
    briefs = [Brief(text, base=picture("busy clutter")) for text in TEXTS]
    pixels = pixels_of(images).requires_grad_()
    scores = reward.of_pixels(pixels, briefs)
    assert scores.shape == (2,) and scores.tolist() == pytest.approx(reward(images, briefs), abs=2e-3)
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    assert gradient.shape == pixels.shape and gradient.isfinite().all()
    if name == "clip":  # the second picture is nothing of a green cross: its cosine is below zero, and cut off there
        assert scores[1] == 0 and (gradient[1] == 0).all()
        gradient, pixels, scores, briefs = gradient[:1], pixels[:1], scores[:1], briefs[:1]
    norms = gradient.flatten(1).norm(dim=1)
    assert (norms > 0).all()
    # along its gradient g, by a step of h · g / |g|, a score rises by h · |g|
    h = 1e-3
    with torch.no_grad():
        ahead, back = (reward.of_pixels(pixels + s * h * gradient / norms.view(-1, 1, 1, 1), briefs) for s in (1, -1))
    assert ((ahead - back) / (2 * h)).tolist() == pytest.approx(norms.tolist(), rel=0.05)


def test_parameters_stay_without_gradients():
    reward = rewards.PickScore(WORLD + "pickscore")
    pixels = pixels_of([picture()]).requires_grad_()
    reward.of_pixels(pixels, TEXTS[:1]).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in reward.tower.model.parameters())
    assert pixels.grad.abs().sum() > 0


SIZES = [(80, 48), (48, 96), (33, 200), (31, 40), (20, 27), (257, 256), (32, 32)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("fixed", [False, True], ids=["shortest edge", "fixed"])
def test_pixels_are_prepared_as_the_processor_prepares_pictures(size, fixed):
    """CLIP's own steps, at a size of 32, against Pillow's resize of floats, which neither rounds nor clamps in between, and
    against the processor, which does: two roundings of a uniform error in ±½ leave about 0.3 of 255 in the mean."""
    side = {"height": 32, "width": 32}
    processor = CLIPImageProcessorPil(size=side if fixed else {"shortest_edge": 32}, crop_size=side)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    image = picture("film grain").resize(size, Image.Resampling.LANCZOS)
    ours = clip.preprocess(pixels_of([image]), processor)[0]
    scale = 32 / min(size)
    width, height = (32, 32) if fixed else (int(round(side * scale, 6)) for side in size)
    top, left = (height - 32) // 2, (width - 32) // 2
    bands = [Image.fromarray(np.asarray(band, np.float32), "F") for band in image.split()]
    exact = [np.asarray(band.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 255) / 255 for band in bands]
    exact = torch.tensor(np.stack(exact))[:, top : top + 32, left : left + 32]
    assert (ours - (exact - mean) / deviation).abs().max() < 1e-4
    off = (ours - processor([image], return_tensors="pt")["pixel_values"][0]).abs() * deviation * 255
    assert off.mean() < 0.5 and off.max() < 10


def test_embeddings_of_pixels_are_near_those_of_resized_pictures(tower):
    """Measured on these and on 512×512 and 1024×768: cosines above 1 − 1.5e-5, PickScores apart by 0.0052 at most."""
    pick = rewards.PickScore(WORLD + "pickscore")
    for i, size in enumerate(SIZES):
        image = picture("film grain", seed=i).resize(size)
        assert (tower.images([image]) * tower.of_pixels(pixels_of([image]))).sum() > 1 - 3e-5
        assert pick.of_pixels(pixels_of([image]), TEXTS[:1]).item() == pytest.approx(
            pick([image], TEXTS[:1])[0], abs=0.01
        )
