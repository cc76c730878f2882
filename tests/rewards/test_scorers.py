"""The rewards against their formulas, worked with the model's own outputs, and against what pictures truly show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spro_hf import rewards
from spro_hf.rewards.heads import AestheticHead
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth

WORLD = "spro_hf/tiny/"
STAR = Truth((Thing("yellow", "star"),), "center", "navy")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "laion-aesthetic"


def picture(*modifiers: str, truth: Truth = STAR, seed: int = 1) -> Image.Image:
    return Image.fromarray(render(replace(truth, modifiers=frozenset(modifiers)), seed))


@pytest.fixture(scope="module")
def tower():
    return rewards.clip.ClipTower(WORLD + "clip")


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
    right, wrong = pick([plain, plain], ["a yellow star on navy", "a green cross on sand"])
    assert 18 < right < 23 and right > wrong + 1
    assert rewards.Judge(WORLD + "judge")([good, bad], [""] * 2)[0] > rewards.Judge(WORLD + "judge")([bad], [""])[0]


def test_clip_score_and_similarity_by_hand(tower):
    images, texts = [picture(), picture("film grain")], ["a yellow star", "a blue ring"]
    cosines = tower.images(images) @ tower.texts(texts).T
    assert rewards.ClipScore(WORLD + "clip")(images, texts) == pytest.approx(
        [100 * max(0.0, c) for c in cosines.diag().tolist()], abs=1e-3
    )
    similarity = rewards.Similarity(WORLD + "clip")
    assert similarity(images, images) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert similarity([images[0]], [images[1]])[0] < 1


def test_clip_knows_shapes(tower):
    shapes = ("circle", "square", "star", "heart", "cross", "ring")
    images = [picture(truth=replace(STAR, things=(Thing("red", shape),))) for shape in shapes]
    best = (tower.images(images) @ tower.texts([f"a red {shape} on navy" for shape in shapes]).T).argmax(1)
    assert (best == torch.arange(len(shapes))).float().mean() >= 5 / 6


def test_a_score_does_not_depend_on_its_batch():
    reward = rewards.PickScore(WORLD + "pickscore")
    images, captions = [picture(seed=i) for i in range(5)], ["a yellow star"] * 5
    together = reward(images, captions)
    assert together == pytest.approx([reward([i], [c])[0] for i, c in zip(images, captions, strict=True)], abs=1e-4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real LAION heads are not beside this checkout")
def test_the_real_laion_head_scores_its_published_embeddings_in_order(tmp_path):
    state = torch.load(SHARED / "sa_0_4_vit_l_14_linear.pth", weights_only=True)
    head = AestheticHead(768)
    head.load_state_dict(state)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    scores = []
    for rating in range(10):
        embedding = np.load(SHARED / "embeddings_vit_l_14" / f"rating{rating}.npy").astype(np.float64)[0]
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
        scores.append(head(torch.from_numpy(embedding[None]).float()).item())
        by_hand = float(state["weight"].double().numpy()[0] @ embedding + state["bias"].item())
        assert scores[-1] == pytest.approx(by_hand, abs=1e-4)
    assert scores == sorted(scores) and 3 < scores[3] < 4 and 5 < scores[4] < 6  # the embeddings' ratings go up
