"""Policy gradient on the denoising chain: one training step from a trajectory and what its pictures were worth.

Flow-GRPO (arXiv 2505.05470), DanceGRPO (2505.07818), DDPO (2305.13301) and their variants differ in where they explore,
in the transition, and in how the ratio and the advantage are normalised; all of that is a field of ``Policy``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spro_hf import parallel
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.player import Play, Trajectory, Visit, require_finite
from spro_hf.losses import clipped_policy_loss, gaussian_kl, guarded_ratio, ratio
from spro_hf.methods import Policy


def plan(policy: Policy, total: int, seed: int) -> tuple[Play, tuple[int, ...]]:
    """How a training step's rollouts are played, and which of their explored steps are learned from.

    Args:
        total: steps of the generator's call.
        seed: of this training step's draw of a window or a fraction.
    """
    first, last = policy.explored(total)
    rng, steps = np.random.default_rng(seed), list(range(first, last))
    if policy.window is not None:
        start = int(rng.integers(first, last - policy.window + 1))
        steps = list(range(start, start + policy.window))
    learned = steps
    if policy.fraction is not None:
        count = max(1, round(policy.fraction * len(steps)))
        learned = sorted(int(step) for step in rng.choice(steps, count, replace=False))
    return Play(policy.transition, policy.exploration, tuple(steps)), tuple(learned)


def improve(
    learner: Learner,
    start: dict[str, Tensor],
    trajectory: Trajectory,
    advantage: Tensor,
    parts: list[list[int]],
    policy: Policy,
    steps: tuple[int, ...],
) -> dict[str, float]:
    """Update the learner once for each part of the batch that all processes recorded together.

    Args:
        start: the weights that the KL holds on to.
        trajectory: this process's samples, on a share of the batch as ``parallel.share_of`` deals it.
        advantage: of the whole batch, (N,), the same in every process.
        parts: rows of the whole batch that learn in each update, the same in every process; what is in none is skipped.
        steps: the explored steps that are learned from.

    Returns:
        Means over the samples and steps of all processes: ``ratio`` (distance from 1), ``clipped`` (share), ``kl``,
        and ``norm``, the gradient's, over updates.
    """
    mine = parallel.share_of(len(advantage))
    learning = sorted(row for part in parts for row in part if row in mine)
    trajectory, place = trajectory[[row - mine.start for row in learning]], {row: i for i, row in enumerate(learning)}
    if not policy.guidance:
        trajectory = _unguided(learner, trajectory, steps, policy.batch_size)
    told: list[tuple[float, float, float]] = []
    norms = []
    for part in parts:
        rows = [row for row in part if row in mine]
        for at in range(0, len(rows), policy.batch_size):
            some, scale = rows[at : at + policy.batch_size], 1 / (len(part) * len(steps))
            chosen = trajectory[[place[row] for row in some]]
            told += _learn(learner, start, chosen, advantage[some], policy, steps, scale)
        norms.append(learner.update())
    told = parallel.gather(told)
    means = np.mean(told, axis=0).tolist() if told else [0.0, 0.0, 0.0]
    return dict(zip(("ratio", "clipped", "kl"), means, strict=True)) | {"norm": float(np.mean(norms)) if norms else 0.0}


def _learn(
    learner: Learner,
    start: dict[str, Tensor],
    trajectory: Trajectory,
    advantage: Tensor,
    policy: Policy,
    steps: tuple[int, ...],
    scale: float,
) -> list[tuple[float, float, float]]:
    """Gradients of one micro-batch, added to what is there; the loss is ``scale`` times the sum over samples and steps."""
    environment, told = learner.environment, []
    reference = _means(learner, start, trajectory, policy, steps) if policy.kl else {}

    def visit(at: Visit) -> None:
        worth, taken = advantage.to(at.log_prob), at.taken
        if policy.guarded:
            rho = guarded_ratio(at.log_prob, taken.log_prob, at.mean, taken.mean, at.std)
            each = clipped_policy_loss(rho, worth, policy.clip) / (at.level - at.next_level)
        else:
            rho = ratio(at.log_prob, taken.log_prob)
            each = clipped_policy_loss(rho, worth, policy.clip)
        kl = torch.zeros_like(each)
        if policy.kl:
            kl = gaussian_kl(at.mean, reference[at.number], _variance(policy, at))
            each = each + policy.kl * kl
        require_finite(each, "loss", at.number, at.level, trajectory.prompts)
        (each.sum() * scale).backward()
        away = (rho.detach() - 1).abs()
        told.extend(zip(away.tolist(), (away > policy.clip).float().tolist(), kl.tolist(), strict=True))

    environment.replay(trajectory, visit, steps, policy.guidance)
    return told


@torch.no_grad()
def _means(
    learner: Learner, start: dict[str, Tensor], trajectory: Trajectory, policy: Policy, steps: tuple[int, ...]
) -> dict[int, Tensor]:
    """The transitions' means under the weights that training began with, by step."""
    found: dict[int, Tensor] = {}
    with learner.holding(start):
        learner.environment.replay(trajectory, lambda at: found.update({at.number: at.mean}), steps, policy.guidance)
    return found


@torch.no_grad()
def _unguided(learner: Learner, trajectory: Trajectory, steps: tuple[int, ...], batch_size: int) -> Trajectory:
    """The trajectory with the means and log-probabilities that the denoiser gives it without guidance."""
    found = []
    for begin in range(0, len(trajectory), batch_size):
        some, seen = trajectory[list(range(begin, min(len(trajectory), begin + batch_size)))], {}

        def visit(at: Visit, seen: dict = seen) -> None:
            taken = replace(at.taken, mean=at.mean, log_prob=at.log_prob)
            seen[at.number] = taken.each(lambda tensor: tensor.cpu())

        learner.environment.replay(some, visit, steps, guidance=False)
        found.append(replace(some, taken=seen))
    return Trajectory.join(found) if found else trajectory


def _variance(policy: Policy, at: Visit) -> float:
    """The variance that the KL divides by (twice): the transition's, or what published code has in its place."""
    if policy.kl_variance == "true":
        return at.std**2
    return at.std**2 / (at.level - at.next_level) if policy.kl_variance == "without_step" else 0.5
