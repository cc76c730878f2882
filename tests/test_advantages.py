"""Advantages by hand."""

import math

import numpy as np
import pytest
import torch

from spro_hf.advantages import advantages

# group 0: 1 and 3, mean 2, std 1; group 7: 4, 4 and 10, mean 6, std √((4 + 4 + 16)/3) = √8; interleaved on purpose
REWARDS = torch.tensor([1.0, 4.0, 3.0, 4.0, 10.0], dtype=torch.float64)
GROUPS = torch.tensor([0, 7, 0, 7, 7])


def near(got, expected):
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype), rtol=0, atol=1e-12)


def test_group():
    one, eight = 1 + 1e-4, math.sqrt(8) + 1e-4
    near(advantages(REWARDS, GROUPS, "group"), [-1 / one, -2 / eight, 1 / one, -2 / eight, 4 / eight])


def test_batch_std():
    # batch: mean 22/5 = 4.4, squares (3.4² + .4² + 1.4² + .4² + 5.6²)/5 = (11.56 + .16 + 1.96 + .16 + 31.36)/5 = 9.04
    std = math.sqrt(9.04) + 1e-4
    near(advantages(REWARDS, GROUPS, "batch_std"), [-1 / std, -2 / std, 1 / std, -2 / std, 4 / std])


def test_batch():
    std = math.sqrt(9.04) + 1e-4
    near(advantages(REWARDS, GROUPS, "batch"), [-3.4 / std, -0.4 / std, -1.4 / std, -0.4 / std, 5.6 / std])


@pytest.mark.parametrize("over", ["group", "batch_std", "batch"])
def test_as_numpy_has_it(over):
    rewards = torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = torch.arange(24) % 4
    values, of = rewards.numpy(), groups.numpy()
    own = [values if over == "batch" else values[of == g] for g in of]
    std = np.array([values.std() if over == "batch_std" else peers.std() for peers in own])
    expected = (values - np.array([peers.mean() for peers in own])) / (std + 1e-4)
    near(advantages(rewards, groups, over), expected.tolist())


@pytest.mark.parametrize("over", ["group", "batch_std"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_nothing(over, dtype):
    # the mean of 0.1, 0.1, 0.1 is 0.10000000000000002 in floats; a group of one is equal to itself
    rewards = torch.tensor([0.1, 0.1, 0.1, 5.0, 9.0, 7.7], dtype=dtype)
    got = advantages(rewards, torch.tensor([2, 2, 2, 1, 1, 0]), over)
    assert got[[0, 1, 2, 5]].tolist() == [0, 0, 0, 0]
    assert got[3] < 0 < got[4]


def test_clip():
    # 99 zeros and a one: mean .01, std √(.01·.99) = .0995, advantage .99/.0996 = 9.94 for the one
    rewards, groups = torch.zeros(100), torch.zeros(100, dtype=torch.long)
    rewards[0] = 1
    assert advantages(rewards, groups, "group")[0] == 5
    assert advantages(-rewards, groups, "group")[0] == -5
    assert advantages(-rewards, groups, "group", clip=2.0)[0] == -2
    free = advantages(rewards, groups, "group", clip=20.0)[0].item()
    assert free == pytest.approx(0.99 / (math.sqrt(0.0099) + 1e-4), rel=1e-6)


@pytest.mark.parametrize("over", ["group", "batch_std", "batch"])
def test_float32_rewards_are_worked_out_in_float64(over):
    rewards = 20 + torch.randn(24, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(24) % 4
    got = advantages(rewards, groups, over)
    assert got.dtype == torch.float32
    assert torch.equal(got, advantages(rewards.double(), groups, over).float())


def test_whole_numbers():
    # mean 1, std 1: ±1/1.0001
    got = advantages(torch.tensor([0, 2]), torch.tensor([0, 0]), "group")
    assert got.tolist() == pytest.approx([-1 / 1.0001, 1 / 1.0001], rel=1e-6)


def test_unknown_switch():
    with pytest.raises(ValueError, match="'prompt' is not one of group, batch_std, batch"):
        advantages(REWARDS, GROUPS, "prompt")
