"""The benchmarks run, and their ratios are the right ones. Nothing here depends on how long anything takes."""

import re

import pytest
import torch

from benchmarks import environment, memory
from benchmarks.compare import Ratio, ratio, side_by_side
from benchmarks.generators import CASES, QUICK


@pytest.fixture(scope="module")
def learner():
    return QUICK[0].open()


def test_ratio_is_the_median_of_pairs_with_quartiles():
    # pairs: 2/1 = 2, 3/2 = 1.5, 12/4 = 3; sorted 1.5, 2, 3: quartiles half-way to the median
    assert ratio([2.0, 3.0, 12.0], [1.0, 2.0, 4.0]) == Ratio(median=2.0, low=1.75, high=2.5)
    assert str(Ratio(2.0, 1.75, 2.5)) == "2.000 [1.750, 2.500]"


def test_pairs_stand_side_by_side_in_alternating_order():
    order, now = [], [0.0, 0.0]

    def action(name, wall, cpu):
        def act():
            order.append(name)
            now[0] += wall
            now[1] += cpu

        return act

    times = side_by_side(action("a", 3.0, 1.0), action("b", 2.0, 0.5), 3, clock=lambda: tuple(now))
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"  # the first two are not timed
    assert times == ([(3.0, 1.0)] * 3, [(2.0, 0.5)] * 3)


def test_rows_tell_what_the_denoiser_was_asked(learner):
    rows = [row.strip("| ").split(" | ") for row in environment.ratios(QUICK[0], learner)]
    # 2 pictures with guidance: 4 latents; all 3 steps are rendered, 2 of them explored and learned from
    assert [row[:3] for row in rows] == [
        ["quick", "record / stock call, prompts known", "3 × 4, 3 × 4"],
        ["quick", "record / stock call, prompts new", "3 × 4, 3 × 4"],
        ["quick", "training step / bare passes", "2 × 4, 2 × 4"],
    ]
    assert [row[-1] for row in rows] == ["1.03", "1.03", "1.10"]
    assert all(re.fullmatch(r"\d+\.\d{3} \[\d+\.\d{3}, \d+\.\d{3}\]", cell) for row in rows for cell in row[4:6])


def test_other_gradients_are_not_compared(learner):
    case = QUICK[0]
    trajectory = learner.environment.record(case.prompts, [0, 1], case.play)[1]
    bare, start = environment.Bare(case, learner, trajectory), learner.copy()
    environment.require_same_update(case, learner, trajectory, bare)
    assert all(torch.equal(start[name], p) for name, p in learner.named.items()) and not learner.optimizer.state
    bare.worth = -bare.worth
    with pytest.raises(AssertionError, match="not close"):
        environment.require_same_update(case, learner, trajectory, bare)


def test_bytes_of_a_rollout(learner):
    case = QUICK[0]
    trajectory = learner.environment.record(case.prompts, [0, 1], case.play)[1]
    # 2 explored steps, each with x, y and mean of 16·8·8 float32 and one log-probability: 2·(3·1024·4 + 4)
    assert memory.kept(trajectory) == 24_584


def test_memory_is_told_with_its_growth(monkeypatch):
    told = {2: {"record": 10.0, "train": 20.0}, 8: {"record": 10.6, "train": 20.0}}
    monkeypatch.setattr(environment, "child", lambda case, count: {"kept": 24_584, "host": told[count]})
    assert list(environment.memory(QUICK[0])) == [
        "| quick | record, host | 2: 10.0 MB | 8: 10.6 MB | 100.0 kB | 24.6 kB |",  # 0.6 MB over 6 rollouts
        "| quick | train, host | 2: 20.0 MB | 8: 20.0 MB | 0.0 kB | 24.6 kB |",
    ]


def test_a_process_measures_its_own_memory():
    told = environment.child(QUICK[0], 2)
    assert told["kept"] == 24_584
    # training keeps what a backward pass needs: more than recording's latents, less than the whole machine
    assert 0 < told["host"]["record"] < told["host"]["train"] < 1000


def test_the_larger_generator_is_as_large_as_it_says():
    case = CASES[1]
    learner = case.open()
    trained = sum(p.numel() for p in learner.parameters)
    assert sum(p.numel() for p in learner.environment.denoiser.parameters()) - trained == 54_684_224
    assert case.name == "random, 55 M" and learner.environment.pipe.default_sample_size == 16
