"""The embedded world: captions and their reading, the split, the planted truths by hand, the renderer's promises."""

from dataclasses import replace

import numpy as np
import pytest

from spro_hf.tiny.planted import aesthetics, engagement, preference
from spro_hf.tiny.render import render
from spro_hf.tiny.world import (
    MODIFIERS,
    Request,
    Thing,
    Truth,
    alignment,
    caption,
    held_out,
    read,
    sample_truth,
)

RED, BLUE = Thing("red", "circle"), Thing("blue", "square")
PLAIN = Truth((RED,), "left", "gray")
PAIR = Truth((RED, BLUE), "side by side", "navy", frozenset({"soft shadow"}))


def test_captions_say_the_scene_and_are_read_back():
    assert caption(PLAIN) == "a red circle at the left on gray"
    assert caption(PAIR) == "a red circle left of a blue square on navy, soft shadow"
    assert read("An orange star at the top on navy, film grain, soft shadow") == Request(
        (Thing("orange", "star"),), None, "top", "navy", ("film grain", "soft shadow")
    )
    assert read("a red circle right of a blue square").ordered() == ((BLUE, RED), "side by side")
    assert read("a cat beside a red circle").unknown == ("cat", "beside")


def test_every_caption_is_obeyed_by_its_own_scene():
    rng = np.random.default_rng(1)
    for _ in range(300):
        truth = sample_truth(rng, None)
        assert alignment(read(caption(truth, rng)), truth) == 1.0


def test_alignment_counts_each_named_thing():
    # a red circle (2), at the left (1), on gray (1): the picture has the colour and the background only
    wrong = Truth((Thing("red", "star"),), "right", "gray")
    assert alignment(read("a red circle at the left on gray"), wrong) == 2 / 4
    assert alignment(read("a red circle left of a blue square"), PLAIN) == 2 / 5  # one thing of two, no order
    assert alignment(read("something lovely"), PLAIN) == 1.0


def test_split_is_by_content_not_by_style():
    rng = np.random.default_rng(0)
    held = [sample_truth(rng, "held-out") for _ in range(50)]
    assert all(held_out(t) and held_out(replace(t, modifiers=frozenset({"film grain"}))) for t in held)
    assert not any(held_out(sample_truth(rng, "train")) for _ in range(200))
    share = np.mean([held_out(sample_truth(rng, None)) for _ in range(3000)])
    assert 0.09 < share < 0.15  # 12 in 100


def test_planted_truths_by_hand():
    assert aesthetics(PLAIN) == 3.0
    assert aesthetics(replace(PLAIN, arrangement="center", background="sand")) == pytest.approx(3.7)
    three = frozenset({"gradient sky", "warm palette", "soft shadow"})
    assert aesthetics(replace(PLAIN, modifiers=three)) == pytest.approx(3.0 + 1.5 + 1.1 + 0.9)
    four = three | {"gentle glow"}
    assert aesthetics(replace(PLAIN, modifiers=four)) == pytest.approx(
        6.5 + 0.8 - 0.9
    )  # a fourth costs more than it gives
    assert engagement(PLAIN) == 26 + 5
    assert engagement(replace(PLAIN, modifiers=frozenset({"high contrast"}))) == 26 + 5 + 16
    assert preference(PLAIN, read("a red circle")) == 20.5
    assert preference(PLAIN, read("a blue circle")) == 17.5 + 1.5
    assert preference(replace(PLAIN, modifiers=frozenset({"neat frame"})), read("a red circle")) == pytest.approx(21.1)


def test_pictures_repeat_and_each_modifier_shows():
    again = render(PLAIN, 7)
    assert again.shape == (32, 32, 3) and again.dtype == np.uint8
    assert np.array_equal(again, render(PLAIN, 7)) and not np.array_equal(again, render(PLAIN, 8))
    for modifier in MODIFIERS:
        changed = render(replace(PLAIN, modifiers=frozenset({modifier})), 7)
        assert (changed != again).any(-1).sum() >= 20, modifier


def test_the_object_stands_where_the_truth_says():
    canvas = render(PLAIN, 3).astype(int)
    red = (canvas[..., 0] > 200) & (canvas[..., 1] < 80)
    rows, columns = np.nonzero(red)
    assert 7 <= columns.mean() <= 11 and 14 <= rows.mean() <= 18  # centre (9, 16), a pixel of jitter
    assert 100 < red.sum() < 220  # a disc of radius 0.95 · 7 or 8 pixels: 139 or 181
