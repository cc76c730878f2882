"""Filters and pairs on rounds worked out by hand."""

import pytest

from spro_hf.errors import UserError
from spro_hf.selection import Candidate, select


def round_of(*entries):
    return [Candidate(i, seed, total, base, similar) for i, (seed, total, base, similar) in enumerate(entries)]


ROUND = round_of(
    ("a", 5.0, 3.0, 0.9),  # 0 winner of a, gain 2
    ("a", 4.0, 3.0, 0.9),  # 1
    ("a", 9.0, 3.0, 0.5),  # 2 too far from its base picture
    ("a", 2.0, 3.0, 0.8),  # 3 loser of a
    ("b", 6.0, 6.0, 0.9),  # 4 winner of b, gain 0
    ("b", 1.0, 6.0, 0.9),  # 5 loser of b
    ("c", 4.0, 4.0, 0.9),  # 6 alone in c
)


def rows(pairs):
    return [(p.winner.row, p.loser.row) for p in pairs]


def test_above_mean_gain_keeps_winners_of_at_least_the_mean():
    pairs, why = select(ROUND, 0.75, "above_mean_gain")  # gains 2 and 0, mean 1
    assert rows(pairs) == [(0, 3)]
    assert why == {
        0: "",
        1: "neither best nor worst of its seed",
        2: "similarity below 0.75",
        3: "",
        4: "pair dropped by above_mean_gain",
        5: "pair dropped by above_mean_gain",
        6: "no rival of another reward",
    }


def test_above_mean_reward_looks_at_the_reward_itself():
    assert rows(select(ROUND, 0.75, "above_mean_reward")[0]) == [(4, 5)]  # rewards 5 and 6, mean 5.5


def test_above_base_mean_compares_with_the_base_captions():
    assert rows(select(ROUND, 0.75, "above_base_mean")[0]) == [(0, 3), (4, 5)]  # bases 3 and 6, mean 4.5


def test_without_the_similarity_filter_the_far_candidate_wins():
    assert rows(select(ROUND, -1.0, "above_mean_gain")[0]) == [(2, 3)]  # gains 6 and 0


def test_empty_and_unknown():
    assert select([], 0.75, "above_mean_gain") == ([], {})
    with pytest.raises(UserError, match="above_mean_gain"):
        select(ROUND, 0.75, "above_average")


def two(*entries):
    return [
        Candidate(i, seed, total, 0.0, 1.0, {"aesthetic": a, "pickscore": p})
        for i, (seed, total, a, p) in enumerate(entries)
    ]


def test_two_objectives_at_once_keep_a_pair_whose_winner_improves_by_both():
    candidates = two(("a", 3.0, 4.0, -1.0), ("a", 1.0, 0.5, 0.5), ("b", 2.0, 1.0, 1.0), ("b", -2.0, -1.0, -1.0))
    pairs, why = select(candidates, 0.75, "above_base_mean", ("aesthetic", "pickscore"))
    assert rows(pairs) == [(2, 3)]  # a's winner has the higher sum, and loses by PickScore
    assert why[0] == why[1] == "pair dropped: pickscore is not improved"
    assert rows(select(candidates, 0.75, "above_base_mean", ("aesthetic",))[0]) == [(0, 1), (2, 3)]


def test_an_improvement_of_nothing_is_none():
    assert select(two(("a", 3.0, 0.0, 1.0), ("a", 1.0, 0.0, 0.0)), 0.75, "above_base_mean", ("aesthetic",))[0] == []


def test_at_most_so_many_pairs_of_the_first_seeds():
    pairs, why = select(ROUND, 0.75, "above_base_mean", most=1)
    assert rows(pairs) == [(0, 3)] and why[4] == why[5] == "pair dropped: 1 are enough"
