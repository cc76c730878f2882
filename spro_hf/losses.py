"""Losses as pure functions, each citing its equation."""

from __future__ import annotations

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
