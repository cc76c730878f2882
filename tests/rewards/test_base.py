"""The sum of rewards by hand, and that a failed reward stops the run and names its row."""

import math

import pytest

from spro_hf.errors import UserError
from spro_hf.rewards import Rewards


def test_total_is_the_weighted_sum_and_keeps_the_parts():
    rewards = Rewards({"a": lambda i, c: [1.0, 2.0], "b": lambda i, c: [10.0, 20.0]}, {"a": 2.0, "b": -0.5})
    assert rewards.score([None, None], ["x", "y"]) == [
        {"a": 1.0, "b": 10.0, "total": 2 - 5.0},
        {"a": 2.0, "b": 20.0, "total": 4 - 10.0},
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_names_the_row(bad):
    rewards = Rewards({"a": lambda i, c: [1.0, bad]}, {"a": 1.0})
    with pytest.raises(UserError, match=r"'a' returned .* for row 1 \(caption: 'y'\)"):
        rewards.score([None, None], ["x", "y"])


def test_a_wrong_length_and_an_unknown_weight_are_named():
    with pytest.raises(UserError, match="'a' returned 1 scores for 2 pictures"):
        Rewards({"a": lambda i, c: [1.0]}, {"a": 1.0}).score([None, None], ["x", "y"])
    with pytest.raises(UserError, match="'b' is weighed but no scorer"):
        Rewards({"a": lambda i, c: [1.0]}, {"b": 1.0})
