"""The sum of rewards by hand, and that a failed reward stops the run and names its picture."""

import math

import pytest
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.rewards import Brief, Rewards, base

PICTURES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
BRIEFS = ["x", Brief("y", prompt="a bright y")]  # a plain text is a brief of nothing else


def always(*scores):
    return lambda images, briefs: list(scores)


def test_total_is_the_weighted_sum_and_keeps_the_parts():
    rewards = Rewards({"a": always(1.0, 2.0), "b": always(10.0, 20.0)}, {"a": 2.0, "b": -0.5})
    assert rewards.score(PICTURES, BRIEFS) == [
        {"a": 1.0, "b": 10.0, "total": 2 - 5.0},
        {"a": 2.0, "b": 20.0, "total": 4 - 10.0},
    ]


def test_a_reward_without_a_weight_is_told_and_does_not_count():
    rewards = Rewards({"a": always(1.0, 2.0), "seen": always(7.0, 8.0)}, {"a": 1.0})
    assert [row["total"] for row in rewards.score(PICTURES, BRIEFS)] == [1.0, 2.0]
    assert [row["seen"] for row in rewards.score(PICTURES, BRIEFS)] == [7.0, 8.0]


def test_rewards_get_the_briefs_as_they_are():
    got = []

    def reward(images, briefs):
        got.extend(briefs)
        return [0.0] * len(images)

    Rewards({"a": reward}, {"a": 1.0}).score(PICTURES, BRIEFS)
    assert got == BRIEFS and base.captions_of(got) == ["x", "y"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_names_the_row(bad):
    rewards = Rewards({"a": always(1.0, bad)}, {"a": 1.0})
    with pytest.raises(UserError, match=r"'a' returned .* for row 1 \(caption: 'y'\)"):
        rewards.score(PICTURES, BRIEFS)


def test_a_wrong_length_and_an_unknown_weight_are_named():
    with pytest.raises(UserError, match="'a' returned 1 scores for 2 pictures"):
        Rewards({"a": always(1.0)}, {"a": 1.0}).score(PICTURES, BRIEFS)
    with pytest.raises(UserError, match="'b' is weighed but no scorer"):
        Rewards({"a": always(1.0)}, {"b": 1.0})


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_a_picture_that_is_not_rgb_is_refused_before_any_reward_sees_it(mode):
    def reward(images, briefs):
        raise AssertionError("called")

    with pytest.raises(UserError, match=rf"Picture 1 \(caption: 'y'\) has the mode {mode}"):
        Rewards({"a": reward}, {"a": 1.0}).score([PICTURES[0], Image.new(mode, (4, 4))], BRIEFS)


def test_a_reward_that_fails_on_one_picture_names_it():
    def reward(images, briefs):
        for image in images:
            if image.getpixel((0, 0)) == (0, 0, 255):
                raise ValueError("no blue")
        return [1.0] * len(images)

    with pytest.raises(UserError, match=r"'a' failed on row 1 \(caption: 'y', 4×4 pixels\): no blue") as caught:
        Rewards({"a": reward}, {"a": 1.0}).score(PICTURES, BRIEFS)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_reward_that_fails_only_on_the_batch_flies_as_it_is():
    def reward(images, briefs):
        if len(images) > 1:
            raise RuntimeError("too many")
        return [1.0]

    with pytest.raises(RuntimeError, match="too many"):
        Rewards({"a": reward}, {"a": 1.0}).score(PICTURES, BRIEFS)
