import math

import pytest
import torch

from spro_hf.diffusion.transitions import log_prob
from spro_hf.losses import clipped_policy_loss, denoising_loss, gaussian_kl, guarded_ratio, ratio

PREDICTION = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]])
TARGET = torch.tensor([[[0.0, 2.0], [3.0, 2.0]], [[0.0, 1.0], [0.0, 0.0]]])


def test_mean_over_pixels_then_samples():
    # sample 1: (1² + 0 + 0 + 2²) / 4 = 1.25; sample 2: (0 + 1² + 0 + 2²) / 4 = 1.25 → mean 1.25
    assert denoising_loss(PREDICTION, TARGET).item() == 1.25


def test_weights_are_not_normalised():
    # (2 · 1.25 + 0 · 1.25) / 2 = 1.25; (1 · 1.25 + 0.5 · 1.25) / 2 = 0.9375
    assert denoising_loss(PREDICTION, TARGET, torch.tensor([2.0, 0.0])).item() == 1.25
    assert denoising_loss(PREDICTION, TARGET, torch.tensor([1.0, 0.5])).item() == 0.9375


def test_gradient_by_hand():
    # dL/dv = 2·(v − u) / (4 pixels · 2 samples): the first pixel's is 2·1/8 = 0.25, the last one's 2·2/8 = 0.5
    prediction = PREDICTION.clone().requires_grad_()
    denoising_loss(prediction, TARGET).backward()
    assert prediction.grad.flatten().tolist() == [0.25, 0, 0, 0.5, 0, -0.25, 0, 0.5]


def test_half_precision_is_summed_in_float32():
    # 1 + 2⁻⁷ is a bfloat16; its square is not: in float32 (2⁻⁷)² = 2⁻¹⁴ survives the difference and the mean
    one = torch.ones(1, 4, dtype=torch.bfloat16)
    loss = denoising_loss(one + 2**-7, one)
    assert loss.dtype == torch.float32
    assert loss.item() == 2**-14


def test_ratio():
    # exp(−.2 + .2) = 1 exactly; exp(ln 2) = 2; exp(−1)
    got = ratio(torch.tensor([-0.2, math.log(2), -1.5]).double(), torch.tensor([-0.2, 0.0, -0.5]).double())
    assert got.tolist() == pytest.approx([1, 2, math.exp(-1)], rel=1e-7)
    assert got[0] == 1


def test_guarded_ratio_by_hand():
    # k = .5: mean (Δμ)² = (.04 + .16)/2 = .1, over 2·.25 = .2; exponents (.3 + .2)·.5 = .25 and (−.4 + 0)·.5 = −.2
    mean = torch.tensor([[[0.2, 0.4]], [[1.0, 2.0]]], dtype=torch.float64)
    old_mean = torch.tensor([[[0.0, 0.0]], [[1.0, 2.0]]], dtype=torch.float64)
    now, old = torch.tensor([-0.7, -1.4], dtype=torch.float64), torch.tensor([-1.0, -1.0], dtype=torch.float64)
    got = guarded_ratio(now, old, mean, old_mean, 0.5)
    assert got.tolist() == pytest.approx([math.exp(0.25), math.exp(-0.2)], abs=1e-12)


@pytest.mark.parametrize("std", [0.05, 0.6, 2.0])
def test_guarded_ratio_has_one_scale_at_all_steps(std):
    # for y = μ_old + std·z the exponent is mean z·Δμ, whatever the std, and its gradient in μ is ρ·z/d
    draw = torch.Generator().manual_seed(0)
    old_mean, z = (torch.randn(2, 3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    mean = (old_mean + 0.1 * torch.randn(2, 3, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    y = old_mean + std * z
    got = guarded_ratio(log_prob("dance", y, mean, std), log_prob("dance", y, old_mean, std), mean, old_mean, std)
    expected = (z * (mean.detach() - old_mean)).mean((1, 2)).exp()
    torch.testing.assert_close(got.detach(), expected, rtol=0, atol=1e-10)
    got.sum().backward()
    torch.testing.assert_close(mean.grad, expected[:, None, None] * z / 12, rtol=0, atol=1e-10)


def test_clipped_policy_loss_by_hand():
    # ε = .2; A = 2: ρ 1.5 → max(−3, −2.4); ρ .5 → max(−1, −1.6); A = −2: ρ 1.5 → max(3, 2.4); ρ .5 → max(1, 1.6)
    rho = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0], dtype=torch.float64)
    loss = clipped_policy_loss(rho, advantage, 0.2)
    assert loss.tolist() == pytest.approx([-2.4, -1, 3, 1.6, -2.2], abs=1e-12)
    loss.sum().backward()  # −A, and nothing where the clip holds
    assert rho.grad[:4].tolist() == [0, -2, 2, 0]


def test_first_update_is_plain_policy_gradient():
    # ρ = 1: the loss is −A and its gradient −A, however small the clip
    rho = torch.ones(2, requires_grad=True)
    loss = clipped_policy_loss(rho, torch.tensor([3.0, -0.5]), 1e-5)
    loss.sum().backward()
    assert loss.tolist() == [-3, 0.5]
    assert rho.grad.tolist() == [-3, 0.5]


def test_gaussian_kl_by_hand():
    # Δμ² are 1, 0, 0, 4 and 0, 1, 0, 4: both means 1.25; over 2·.25 = 2.5; Adv-GRPO's number, variance ½, is the mean itself
    assert gaussian_kl(PREDICTION, TARGET, 0.25).tolist() == [2.5, 2.5]
    assert gaussian_kl(PREDICTION, TARGET, 0.5).tolist() == [1.25, 1.25]


def test_gaussian_kl_is_torchs():
    draw = torch.Generator().manual_seed(0)
    mean, reference = (torch.randn(3, 2, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, 0.3), normal(reference, 0.3)).mean((1, 2))
    torch.testing.assert_close(gaussian_kl(mean, reference, 0.3**2), expected, rtol=0, atol=1e-10)
