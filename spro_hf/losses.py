"""Losses as pure functions, each citing its equation."""

from __future__ import annotations

import torch
from torch import Tensor


def denoising_loss(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Reconstruction loss of SPRO-Image: the denoiser's mean squared error, ``mean_i w_i · mean (v_i − u_i)²``.

    Args:
        prediction: what the denoiser says, (n, ...), any float type; taken in float32.
        target: what it should say, the same shape: ε − x0 for flow matching, ε or v for DDPM.
        weight: (n,), 1 for a kept sample if absent; ``exp(A / τ)`` gives reward-weighted regression.

    Returns:
        A scalar. The weights are not normalised: weights of 0.5 halve the loss.

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 14; Lipman et al. 2022 (arXiv 2210.02747), eq. 14, for flow matching;
    reward weights as in Lee et al. 2023 (arXiv 2302.12192).
    """
    each = (prediction.float() - target.float()).pow(2).flatten(1).mean(1)
    return each.mean() if weight is None else (weight * each).mean()


def ratio(log_prob: Tensor, old: Tensor) -> Tensor:
    """Importance ratio ``ρ = exp(log p − log p_old)``, (n,) from (n,).

    Source: Schulman et al. 2017, PPO (arXiv 1707.06347), eq. 6. Departure, shared by all public implementations: the
    log-probabilities are means over the latent's dimensions, so ρ is the d-th root of the papers' ratio.
    """
    return (log_prob - old).exp()


def guarded_ratio(log_prob: Tensor, old: Tensor, mean: Tensor, old_mean: Tensor, std: float) -> Tensor:
    """GRPO-Guard's normalised ratio ``exp((log p − log p_old + mean‖μ − μ_old‖²/(2k²))·k)`` with k = std.

    For ``y = μ_old + k·z`` the exponent is ``mean z·(μ − μ_old)``: centred at 0 over z and on one scale at all steps, which the
    plain ratio is not. The policy loss made of it is divided by −Δ = σ − σ', which is the caller's.

    Args:
        log_prob: Gaussian log-probabilities of the sampled latents under today's weights, (n,). CPS's squared errors do not fit.
        old: the recorded ones, (n,).
        mean: of the transition under today's weights, (n, ...).
        old_mean: the recorded one, the same shape.
        std: of the transition, above 0.

    Returns:
        (n,).

    Source: Wang et al. 2025, GRPO-Guard (arXiv 2510.22319), RatioNorm; mean instead of sum over dimensions as in its public code.
    """
    bias = (mean - old_mean).pow(2).flatten(1).mean(1) / (2 * std**2)
    return ((log_prob - old + bias) * std).exp()


def clipped_policy_loss(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's clipped surrogate as a loss, ``max(−Aρ, −A·clamp(ρ, 1 − ε, 1 + ε))``, per sample and not reduced.

    Args:
        ratio: ρ, (n,).
        advantage: A, (n,), without gradient.
        clip: ε, between 0 and 1.

    Returns:
        (n,). No gradient where the ratio has gone past the clip in the advantage's direction.

    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7, with its sign turned; on denoising steps DDPO (arXiv 2305.13301).
    """
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def gaussian_kl(mean: Tensor, reference: Tensor, variance: float) -> Tensor:
    """KL divergence of two Gaussians of one variance, ``mean (μ − μ_ref)²/(2·variance)``, a mean over dimensions.

    Args:
        mean: of the transition under today's weights, (n, ...).
        reference: of the same transition under the reference weights, the same shape.
        variance: std² of the transition, above 0, for the true divergence. Published weights of the KL belong to other
            numbers: Flow-GRPO's SD3 scripts leave −Δ out, which is ``std²/(−Δ)`` here with "flow_sde" (with "cps" it has std²);
            Adv-GRPO's drops the whole denominator, the 2 too, which is 0.5 here.

    Returns:
        (n,).

    Source: Flow-GRPO (arXiv 2505.05470), the KL term of its objective.
    """
    return (mean - reference).pow(2).flatten(1).mean(1) / (2 * variance)
