"""One denoising step as a distribution to sample from: its mean, its standard deviation and the log-probability of a sample.

All four share one call, ``kind(x, prediction, level, next_level, exploration, second) -> (mean, std)``; the next latent is
``mean + std · z``. Levels and exploration are Python floats (or what ``float()`` takes) and the coefficients are worked out in
them, so that float32 latents lose nothing to float32 coefficients. float64 stays float64, anything below float32 is raised to it.

Notation: σ and ᾱ are noise levels, Δ = σ' − σ < 0, a is the exploration; v ≈ ε − x0 the predicted velocity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _mix(x: Tensor, of_x: float, prediction: Tensor, of_prediction: float) -> Tensor:
    """``of_x · x + of_prediction · prediction``, in float32 at least."""
    x, prediction = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, prediction))
    return x * of_x + prediction * of_prediction


def _sde(x: Tensor, v: Tensor, sigma: float, sigma_next: float, diffusion: float) -> tuple[Tensor, float]:
    """Euler–Maruyama step of the reverse SDE with the marginals of the flow's ODE and diffusion coefficient s.

    ``μ = x(1 + s²Δ/2σ) + v(1 + s²(1−σ)/2σ)Δ``, std ``s√(−Δ)``: the score of the flow is −(x + (1−σ)v)/σ.
    """
    delta = sigma_next - sigma
    pull = diffusion**2 / (2 * sigma)
    mean = _mix(x, 1 + pull * delta, v, (1 + pull * (1 - sigma)) * delta)
    return mean, diffusion * math.sqrt(-delta)


def flow_sde(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, exploration: float, second: float | None
) -> tuple[Tensor, float]:
    """Flow-GRPO's SDE step: diffusion ``s = a·√(σ/(1 − σ))``.

    Args:
        x: latents at σ, (n, ...).
        v: predicted velocity, the same shape.
        sigma: noise level of x, 0 < σ ≤ 1.
        sigma_next: noise level to reach, 0 ≤ σ' < σ.
        exploration: a ≥ 0; 0 is the Euler step of the ODE, with std 0.
        second: second noise level of the schedule, below 1; stands for σ in ``1 − σ`` at σ = 1, where s has no bound.

    Returns:
        Mean (n, ...) and standard deviation ``s√(−Δ)``.

    Source: Liu et al. 2025, Flow-GRPO (arXiv 2505.05470), section on the ODE-to-SDE conversion; the second level at σ = 1 is
    of its public code.
    """
    sigma, sigma_next, exploration = float(sigma), float(sigma_next), float(exploration)
    below_one = float(second) if sigma > 1 - 1e-6 else sigma
    return _sde(x, v, sigma, sigma_next, exploration * math.sqrt(sigma / (1 - below_one)))


def dance(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, exploration: float, second: float | None = None
) -> tuple[Tensor, float]:
    """DanceGRPO's SDE step: the same SDE as :func:`flow_sde` with the constant diffusion ``s = a``.

    Written in the paper as ``x + vΔ + ½a²·((x − (1−σ)x̂0)/σ²)·Δ`` with ``x̂0 = x − σv``; the fraction is ``(x + (1−σ)v)/σ``.

    Args and returns: as :func:`flow_sde`; std ``a√(−Δ)``. ``second`` is not used.

    Source: Xue et al. 2025, DanceGRPO (arXiv 2505.07818).
    """
    return _sde(x, v, float(sigma), float(sigma_next), float(exploration))


def cps(
    x: Tensor, v: Tensor, sigma: float, sigma_next: float, exploration: float, second: float | None = None
) -> tuple[Tensor, float]:
    """Coefficients-preserving step: noise is swapped for noise, so that x0 keeps 1 − σ' and all noise together σ'.

    ``μ = (1−σ')·x̂0 + √(σ'² − st²)·x̂1`` with ``x̂0 = x − σv``, ``x̂1 = x + (1−σ)v``; ``st = σ'·sin(aπ/2)``, whose root is
    ``σ'·cos(aπ/2)``.

    Args: as :func:`flow_sde`, with 0 ≤ a ≤ 1. ``second`` is not used.

    Returns:
        Mean (n, ...) and standard deviation st: 0 at σ' = 0, so that the last step to 0 cannot be explored.

    Source: Wang and Yu 2025 (arXiv 2509.05952).
    """
    sigma, sigma_next, angle = float(sigma), float(sigma_next), float(exploration) * math.pi / 2
    clean, noise = 1 - sigma_next, sigma_next * math.cos(angle)
    return _mix(x, clean + noise, v, (1 - sigma) * noise - sigma * clean), sigma_next * math.sin(angle)


def ddim(
    x: Tensor, epsilon: Tensor, alpha: float, alpha_next: float, exploration: float, second: float | None = None
) -> tuple[Tensor, float]:
    """DDIM step with noise: ``μ = √ᾱ'·x̂0 + √(1−ᾱ'−st²)·ε``, ``x̂0 = (x − √(1−ᾱ)ε)/√ᾱ``.

    ``st = a·√[((1−ᾱ')/(1−ᾱ))·(1−ᾱ/ᾱ')]``.

    Args:
        x: latents at ᾱ, (n, ...).
        epsilon: predicted noise, the same shape; a model that predicts v or x0 is turned into it before. x̂0 is not clipped.
        alpha: cumulated ᾱ of x, 0 < ᾱ < 1.
        alpha_next: ᾱ' to reach, ᾱ < ᾱ' ≤ 1.
        exploration: 0 ≤ a ≤ 1, DDIM's η: 0 is the ODE step, with std 0; 1 is DDPM's ancestral step.
        second: not used.

    Returns:
        Mean (n, ...) and standard deviation st: 0 at ᾱ' = 1, so that the last step to 1 cannot be explored.

    Source: Song et al. 2020 (arXiv 2010.02502), eq. 12 and 16; as a policy, Black et al. 2023, DDPO (arXiv 2305.13301).
    """
    alpha, alpha_next, exploration = float(alpha), float(alpha_next), float(exploration)
    # variance / (1 − ᾱ'), at most a²: written so that the root below never sees a rounded −0
    share = exploration**2 * (1 - alpha / alpha_next) / (1 - alpha)
    of_x = math.sqrt(alpha_next / alpha)
    of_epsilon = math.sqrt(1 - alpha_next) * math.sqrt(1 - share) - of_x * math.sqrt(1 - alpha)
    return _mix(x, of_x, epsilon, of_epsilon), math.sqrt((1 - alpha_next) * share)


TRANSITIONS: dict[str, Callable[..., tuple[Tensor, float]]] = {
    "flow_sde": flow_sde,
    "cps": cps,
    "dance": dance,
    "ddim": ddim,
}


def log_prob(kind: str, y: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-probability of the sampled latents, as a **mean** over the non-batch dimensions.

    The papers write the sum; all public implementations take the mean, and their clip ranges and KL weights belong to it.

    Args:
        kind: a name in ``TRANSITIONS``. "cps" gives ``−mean (y − μ)²`` without variance, as its paper's code and
            Flow-GRPO's have it; the others the Gaussian ``mean [−(y−μ)²/(2·std²) − log std − ½·log 2π]``. DanceGRPO's code for
            FLUX lets the last two terms fall, which a ratio does not see.
        y: latents that were sampled, (n, ...), taken as a constant.
        mean: of the transition, the same shape; carries the gradient.
        std: of the transition, above 0.

    Returns:
        (n,), float32 at least.

    Raises:
        ValueError: std is 0, so that there is no density; or the kind is unknown.
    """
    if kind not in TRANSITIONS:
        raise ValueError(f"'{kind}' is not one of {', '.join(TRANSITIONS)}.")
    if not std > 0:
        raise ValueError(f"A transition of standard deviation {std:g} has no density: it needs exploration above 0.")
    error = _mix(y.detach(), 1, mean, -1).pow(2).flatten(1).mean(1)
    if kind == "cps":
        return -error
    return -error / (2 * std**2) - (math.log(std) + math.log(2 * math.pi) / 2)
