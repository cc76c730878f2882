"""Means, errors, win rates and strategies, by hand."""

import math

import pytest

from spro_hf.statistics import (
    bar,
    group_means,
    mean_se,
    paired_change,
    phrases,
    pooled_errors,
    relative_gain,
    strategies,
    win_rate,
)


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


def test_a_change_over_pairs():
    # differences 1, 2 and 6: mean 3, spread √((4 + 1 + 9) / 2) = √7, over √3
    assert paired_change([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == {
        "change": 3.0,
        "se": pytest.approx(math.sqrt(7 / 3)),
        "n": 3,
    }


def test_points_lend_each_other_their_spread():
    points = [{"n": 2, "se": 1.0}, {"n": 3, "se": 2.0}, {"n": 1, "se": 0.0}]
    # s² of each: 2 · 1² = 2 and 3 · 2² = 12; together (1 · 2 + 2 · 12) / 3 = 26/3
    assert pooled_errors(points, free=3) == pytest.approx([math.sqrt(26 / 6), math.sqrt(26 / 9), math.sqrt(26 / 3)])
    assert pooled_errors(points) is None  # three values are left, four are asked for
    assert pooled_errors([{"n": 1, "se": 0.0}] * 8) is None


def test_the_bar_is_higher_for_one_of_many():
    assert bar(1) == pytest.approx(2.0) and bar(0) == pytest.approx(2.0) and bar(1, 1.0) == pytest.approx(1.0)
    # tables of the normal distribution: beyond 2 lie 2.275 %, and beyond 2.428 a third of that, 0.758 %
    assert bar(3) == pytest.approx(2.428, abs=5e-4)
    # each of two no further than 1.4096 half as often as one beyond 1, 7.93 %
    assert 2 * math.erfc(bar(2, 1.0) / math.sqrt(2)) == pytest.approx(math.erfc(1 / math.sqrt(2)))


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
