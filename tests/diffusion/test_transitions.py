"""Transitions against worked numbers, diffusers' schedulers, torch's Gaussian and the marginals they have to keep."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from spro_hf.diffusion.transitions import TRANSITIONS, cps, dance, ddim, flow_sde, log_prob

X, V, Y = [0.5, -1.0, 0.25, 2.0], [0.1, 0.2, -0.3, 0.4], [0.3, -0.9, 0.4, 1.7]

# kind, (level, next level, exploration, second level), std, mean, log p
WORKED = [
    ("flow_sde", (0.75, 0.5, 0.7, 0.9), 0.6062177826, [0.346375, -0.81725, 0.282125, 1.3855], -0.4598521342),
    ("flow_sde", (1.0, 0.9, 0.7, 0.9), 0.7, [0.3675, -0.775, 0.21875, 1.47], -0.5892872659),
    ("cps", (0.75, 0.5, 0.8, None), 0.4755282581, [0.293616961, -0.7217830723, 0.264538987, 1.1744678441], -0.0815839374),
    ("dance", (0.75, 0.5, 0.3, None), 0.15, [0.467125, -1.03575, 0.322375, 1.8685], 0.5294219031),
    ("ddim", (0.5, 0.8, 1.0, None), 0.3872983346, [0.5653734927, -1.3990751427, 0.517473884, 2.2614939708], -0.5108574419),
]  # fmt: skip


def rows(*values, dtype=torch.float64):
    """Each list twice: a batch of two, in two dimensions, whose second sample is the first one with its sign turned."""
    return [torch.stack([t, -t]).reshape(2, 2, 2) for t in torch.tensor(values, dtype=dtype)]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("kind", "levels", "std", "mean", "expected"), WORKED)
def test_worked_numbers(kind, levels, std, mean, expected, dtype, near):
    x, v, y = rows(X, V, Y, dtype=dtype)
    got_mean, got_std = TRANSITIONS[kind](x, v, *levels)
    got = log_prob(kind, y, got_mean, got_std)
    assert type(got_std) is float and got_std == pytest.approx(std, abs=1e-9)
    assert got_mean.dtype == got.dtype == dtype
    torch.testing.assert_close(got_mean, rows(mean, dtype=dtype)[0], rtol=0, atol=near)
    # all four are linear in x and v, and the densities are even: sample two has the same log-probability
    torch.testing.assert_close(got, torch.full((2,), expected, dtype=dtype), rtol=0, atol=near)


def test_last_flow_step_by_hand():
    # σ .5 → 0, a = 1: s² = .5/.5 = 1, Δ = −.5: μ = x(1 − .5/1) + v(1 + 1·.5/1)(−.5) = x/2 − .75v, std = √.5
    x, v = rows(X, V)
    mean, std = flow_sde(x, v, 0.5, 0.0, 1.0, 0.9)
    torch.testing.assert_close(mean, x / 2 - 0.75 * v, rtol=0, atol=1e-12)
    assert std == pytest.approx(math.sqrt(0.5), abs=1e-15)


def test_second_level_stands_in_at_one_only():
    x, v = rows(X, V)
    assert flow_sde(x, v, 0.75, 0.5, 0.7, 0.9)[1] == flow_sde(x, v, 0.75, 0.5, 0.7, 0.1)[1]
    # σ = 1, second .75: s² = .49·1/.25 = 1.96, Δ = −.25, std = 1.4·.5
    assert flow_sde(x, v, 1.0, 0.75, 0.7, 0.75)[1] == pytest.approx(0.7, abs=1e-15)


def test_dance_as_the_paper_writes_it():
    x, v = noise(2, 3, 4), noise(2, 3, 4, seed=1)
    for sigma, after, a in [(1.0, 0.9, 0.3), (0.6, 0.35, 0.5), (0.1, 0.0, 0.2)]:
        delta, clean = after - sigma, x - sigma * v
        expected = x + v * delta + 0.5 * a**2 * ((x - (1 - sigma) * clean) / sigma**2) * delta
        torch.testing.assert_close(dance(x, v, sigma, after, a)[0], expected, rtol=0, atol=1e-12)


def test_flow_sde_turns_into_the_euler_step():
    x, v = noise(2, 3, 4), noise(2, 3, 4, seed=1)
    euler = x - 0.25 * v
    far = [(flow_sde(x, v, 0.75, 0.5, a, 0.9)[0] - euler).abs().max().item() for a in (1e-1, 1e-2, 0.0)]
    assert far[2] == 0
    assert far[1] == pytest.approx(far[0] / 100, rel=1e-6)  # the pull of the score goes with a²


@pytest.mark.parametrize("kind", ["flow_sde", "cps", "dance"])
def test_no_exploration_is_diffusers_euler_step(kind):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    sigmas, x = scheduler.sigmas, noise(2, 3, 4, dtype=torch.float32)
    for i, t in enumerate(scheduler.timesteps):
        v = noise(2, 3, 4, seed=i + 1, dtype=torch.float32)
        mean, std = TRANSITIONS[kind](x, v, sigmas[i], sigmas[i + 1], 0.0, sigmas[1])
        x = scheduler.step(v, t, x).prev_sample
        assert std == 0
        torch.testing.assert_close(mean, x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("exploration", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers_ddim(exploration):
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = (
        scheduler.alphas_cumprod.double(),
        torch.tensor(1.0).double(),
    )
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps.tolist():
        x, epsilon = noise(2, 3, 4, seed=t), noise(2, 3, 4, seed=t + 1)
        after = t - 200
        alphas = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[after] if after >= 0 else 1.0
        mean, std = ddim(x, epsilon, *alphas, exploration)
        still = torch.zeros_like(x)
        expected = scheduler.step(epsilon, t, x, eta=exploration, variance_noise=still).prev_sample
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-10)
        variance = exploration**2 * scheduler._get_variance(t, after).item()
        assert std**2 == pytest.approx(variance, abs=1e-12)


def test_ddim_from_next_to_pure_noise():
    # ᾱ = 1e-20: 1 − ᾱ is 1 in floats, all of ε is new noise: μ = √(.5/1e-20)·(x − ε) with st = √.5
    x, epsilon = rows(X, V)
    mean, std = ddim(x, epsilon, 1e-20, 0.5, 1.0)
    torch.testing.assert_close(mean, (x - epsilon) * math.sqrt(0.5e20), rtol=1e-12, atol=0)
    assert std == pytest.approx(math.sqrt(0.5), abs=1e-15)


@pytest.mark.parametrize("exploration", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize(("sigma", "after"), [(1.0, 0.9), (0.6, 0.35), (0.2, 0.0)])
def test_cps_keeps_the_coefficients(sigma, after, exploration):
    # told the truth about x0 and ε, the next latent has 1 − σ' of x0, and ε and z add up to σ': √(σ'² − st²) of ε, st of z
    x0, epsilon = noise(2, 3, 4), noise(2, 3, 4, seed=1)
    mean, std = cps((1 - sigma) * x0 + sigma * epsilon, epsilon - x0, sigma, after, exploration)
    left = math.sqrt(max(0.0, after**2 - std**2))
    torch.testing.assert_close(mean, (1 - after) * x0 + left * epsilon, rtol=0, atol=1e-8)
    assert std == pytest.approx(after * math.sin(exploration * math.pi / 2), abs=1e-15)


def marginal_error(kind, sigma, after, exploration):
    """How far one step takes the mean and variance of latents from what the flow has at σ', for Gaussian data N(2, 0.5²).

    Its true velocity is E[ε − x0 | x], a line in x, so that the step maps N(m, s²) onto N(A·m + B, A²·s² + std²).
    """
    centre, spread = 2.0, 0.25
    mean_at = lambda s: (1 - s) * centre  # noqa: E731
    variance_at = lambda s: (1 - s) ** 2 * spread + s**2  # noqa: E731

    def velocity(x):
        return -centre + (sigma - (1 - sigma) * spread) / variance_at(sigma) * (x - mean_at(sigma))

    points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    out, std = TRANSITIONS[kind](points, velocity(points), sigma, after, exploration, None)
    offset, slope = out[0].item(), (out[1] - out[0]).item()
    return (
        slope * mean_at(sigma) + offset - mean_at(after),
        slope**2 * variance_at(sigma) + std**2 - variance_at(after),
    )


@pytest.mark.parametrize("kind", ["flow_sde", "dance"])
@pytest.mark.parametrize("exploration", [0.0, 0.3, 0.7])
def test_sde_keeps_the_marginals_to_first_order(kind, exploration):
    # an error of order Δ² falls to a quarter when Δ is halved; a wrong score or std would leave one of order Δ, a half
    for sigma in (0.8, 0.4):
        for wide, narrow in zip(
            *(marginal_error(kind, sigma, sigma - d, exploration) for d in (2e-3, 1e-3)), strict=True
        ):
            assert narrow == pytest.approx(wide / 4, rel=1e-2, abs=1e-12)


@pytest.mark.parametrize("kind", ["flow_sde", "dance", "ddim"])
def test_log_prob_is_torchs_gaussian(kind):
    y, mean = noise(3, 2, 4, 4), noise(3, 2, 4, 4, seed=1)
    expected = torch.distributions.Normal(mean, 0.37).log_prob(y).mean((1, 2, 3))
    torch.testing.assert_close(log_prob(kind, y, mean, 0.37), expected, rtol=0, atol=1e-12)


def test_gradient_goes_to_the_mean_alone():
    # d log p/dμ = (y − μ)/std²/4 for four dimensions: (.5 − .1)/.04/4 = 2.5; for CPS 2(y − μ)/4 = .2
    y, mean = torch.full((1, 4), 0.5, requires_grad=True), torch.full((1, 4), 0.1, requires_grad=True)
    for kind, slope in (("dance", 2.5), ("cps", 0.2)):
        mean.grad = None
        log_prob(kind, y, mean, 0.2).backward()
        torch.testing.assert_close(mean.grad, torch.full((1, 4), slope))
    assert y.grad is None


def test_gradient_reaches_the_prediction():
    # μ holds v with (1 + s²(1−σ)/2σ)Δ = (1 + 1·.5/1)(−.5) = −.75
    x, v = rows(X, V)
    v.requires_grad_()
    flow_sde(x, v, 0.5, 0.0, 1.0, None)[0].sum().backward()
    assert v.grad.flatten().tolist() == [-0.75] * 8


def test_no_density_without_noise():
    x, v = rows(X, V)
    still = {"flow_sde": (0.75, 0.5, 0.0), "cps": (0.5, 0.0, 0.8), "dance": (0.75, 0.5, 0.0), "ddim": (0.5, 1.0, 1.0)}
    for kind, levels in still.items():
        mean, std = TRANSITIONS[kind](x, v, *levels, None)
        assert std == 0
        with pytest.raises(ValueError, match="no density"):
            log_prob(kind, x, mean, std)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'sde' is not one of flow_sde, cps, dance, ddim"):
        log_prob("sde", torch.zeros(1, 2), torch.zeros(1, 2), 1.0)


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_half_precision_is_raised(kind):
    # σ .75 → .5 in bfloat16 would round the results to 3 digits; the numbers themselves are kept in it exactly
    x, v = (
        torch.tensor([values], dtype=torch.bfloat16) for values in ([0.5, -1.0, 0.25, 2.0], [0.125, 0.25, -0.5, 0.5])
    )
    mean, std = TRANSITIONS[kind](x, v, 0.75, 0.8 if kind == "ddim" else 0.5, 0.3, None)
    expected, _ = TRANSITIONS[kind](x.double(), v.double(), 0.75, 0.8 if kind == "ddim" else 0.5, 0.3, None)
    assert mean.dtype == log_prob(kind, x, mean, std).dtype == torch.float32
    torch.testing.assert_close(mean.double(), expected, rtol=0, atol=1e-6)
