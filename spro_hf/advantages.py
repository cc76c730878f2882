"""How much better a sample did than its like: rewards into advantages."""

from __future__ import annotations

import torch
from torch import Tensor

OVER = ("group", "batch_std", "batch")
SMALL = 1e-4  # added to the standard deviation


def advantages(rewards: Tensor, groups: Tensor, over: str, clip: float = 5.0) -> Tensor:
    """Normalised rewards ``(r − mean)/(std + 1e-4)``, clipped to ±clip.

    Args:
        rewards: (n,), finite.
        groups: (n,) ints; samples of one prompt share a number.
        over: "group" takes mean and std over the group; "batch_std" the mean over the group and the std over the batch;
            "batch" both over the batch, and groups are not looked at.
        clip: above 0.

    Returns:
        (n,), of the rewards' type, float32 at least; worked out in float64. A group whose rewards are all equal, or a group of
        one, gets exactly 0 with "group" and "batch_std".

    Source: Shao et al. 2024, GRPO (arXiv 2402.03300); 1e-4, the population std, its choice of group or batch and the clip at 5
    are those of Flow-GRPO's code (arXiv 2505.05470). DanceGRPO's code has the sample std (n − 1) and 1e-8 instead, so that its
    advantages are smaller by √((n−1)/n).
    """
    if over not in OVER:
        raise ValueError(f"'{over}' is not one of {', '.join(OVER)}.")
    value = rewards.double()
    peers = torch.zeros_like(groups) if over == "batch" else groups
    centred, spread = torch.empty_like(value), torch.empty_like(value)
    for peer in peers.unique():
        rows = peers == peer
        # taken from the least first: the mean of equal numbers is not always that number, the mean of zeros is 0
        above = value[rows] - value[rows].min()
        centred[rows] = above - above.mean()
        spread[rows] = centred[rows].pow(2).mean().sqrt()
    if over == "batch_std":
        spread = value.std(correction=0)
    normal = (centred / (spread + SMALL)).clamp(-clip, clip)
    return normal.to(torch.promote_types(rewards.dtype, torch.float32))
