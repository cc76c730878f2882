"""Means, errors, win rates and strategies, by hand."""

import math

import pytest

from spro_hf.statistics import group_means, mean_se, phrases, relative_gain, strategies, win_rate


def test_mean_and_standard_error():
    assert mean_se([1.0, 2.0, 3.0]) == {"mean": 2.0, "se": pytest.approx(1 / math.sqrt(3)), "n": 3}  # spread 1
    assert mean_se([4.0]) == {"mean": 4.0, "se": 0.0, "n": 1}


def test_group_means_keep_the_order_of_names():
    assert group_means(["b", "a", "b"], [1.0, 5.0, 3.0]) == [2.0, 5.0]


def test_win_rate_counts_ties_half():
    told = win_rate([1, 2, 3, 4], [0, 2, 5, 1])
    assert told["rate"] == (1 + 0.5 + 0 + 1) / 4 and told["n"] == 4


def test_relative_gain_and_its_error():
    told = relative_gain([2.0, 4.0], [1.0, 3.0])
    assert told["gain"] == 0.5  # 3 / 2 − 1
    # residuals a − 1.5 b: 0.5 and −0.5, spread √0.5, over √2 and the base mean 2: 0.25
    assert told["se"] == pytest.approx(0.25)
    assert relative_gain([-1.0, -1.0], [-2.0, -2.0])["gain"] == 0.5  # less bad is a gain


def row(seed, total, prompt, plan=()):
    return {"parsed": True, "round": 1, "seed_id": seed, "total": total, "prompt": prompt, "plan": list(plan),
            "base_caption": "a star"}  # fmt: skip


def test_strategies_compare_within_a_seed():
    rows = [row("s1", 5.0, "a star, glow"), row("s1", 2.0, "a star"), row("s1", 3.0, "a star, grain"),
            row("s2", 9.0, "a star, glow", ["Add glow"]), row("s2", 6.0, "a star, grain")]  # fmt: skip
    told = {t["phrase"]: t for t in strategies(rows, least=2)}
    # glow: 5 − (2 + 3)/2 = 2.5 in s1, 9 − 6 = 3 in s2
    assert told["glow"]["effect"] == 2.75 and told["glow"]["wins"] == 2 and told["glow"]["losses"] == 0
    assert told["grain"]["effect"] == pytest.approx(((3 - 3.5) + (6 - 9)) / 2) and told["grain"]["losses"] == 1
    assert "add glow" not in told  # seen in one seed only


def test_phrases_leave_out_what_the_base_caption_said():
    one = row("s", 1.0, "a star, glow, frame", ["Add frame"]) | {"base_caption": "a star, glow"}
    assert phrases(one) == {("modifier", "frame"), ("plan", "add frame")}
