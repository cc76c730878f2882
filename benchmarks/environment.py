"""What the environment costs: a recorded rollout beside the pipeline's own call, a training step beside its bare passes.

python -m benchmarks.environment            # three to four minutes of processor time on a CPU
python -m benchmarks.environment --quick    # seconds; shows that it works, its numbers mean nothing

README.md in this folder says what is compared with what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.compare import ratio, side_by_side
from benchmarks.generators import CASES, QUICK, Case, quiet
from benchmarks.memory import advantage, train
from spro_hf import parallel
from spro_hf.diffusion.hooks import counted
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.diffusion.player import Trajectory
from spro_hf.diffusion.schedule import rung
from spro_hf.diffusion.transitions import flow_sde, log_prob
from spro_hf.losses import clipped_policy_loss
from spro_hf.losses import ratio as likelihood_ratio

RECORD, TRAIN = 1.03, 1.10  # the most that each may cost


@dataclass(frozen=True)
class Match:
    """Two ways to the same end: spro_hf's and the least that it takes."""

    name: str
    ours: Callable[[], object]
    least: Callable[[], object]
    target: float
    remembered: bool = True


class Bare:
    """The passes of a training step written out for this one pipeline, from tensors that lie ready."""

    def __init__(self, which: Case, learner: Learner, trajectory: Trajectory):
        self.which, self.learner = which, learner
        pipe, device = learner.environment.pipe, parallel.device()
        with torch.no_grad():
            text, blank, pooled, blank_pooled = pipe.encode_prompt(
                trajectory.prompts, None, None, device=device, max_sequence_length=1
            )
        self.text, self.pooled = torch.cat([blank, text]), torch.cat([blank_pooled, pooled])
        pipe.scheduler.set_timesteps(which.steps, device=device)
        self.times = pipe.scheduler.timesteps
        self.rungs = [rung(pipe.scheduler, number) for number in which.explored]
        self.taken = [trajectory.taken[number].each(lambda t: t.to(device)) for number in which.explored]
        self.worth = advantage(len(trajectory)).to(device)

    def gradients(self) -> None:
        """Forward, guidance, loss and backward at every explored step."""
        policy, scale = self.which.policy, self.learner.environment.call["guidance_scale"]
        share = 1 / (len(self.worth) * len(self.taken))
        for at, time, taken in zip(self.rungs, self.times, self.taken, strict=False):  # the last step is not explored
            blank, text = self.learner.environment.denoiser(
                hidden_states=torch.cat([taken.x] * 2), timestep=time.expand(2 * len(taken.x)),
                encoder_hidden_states=self.text, pooled_projections=self.pooled, return_dict=False,
            )[0].chunk(2)  # fmt: skip
            velocity = blank + scale * (text - blank)
            mean, std = flow_sde(taken.x, velocity, at.level, at.next_level, policy.exploration, at.second)
            rho = likelihood_ratio(log_prob(policy.transition, taken.y, mean, std), taken.log_prob)
            (clipped_policy_loss(rho, self.worth, policy.clip).sum() * share).backward()

    def step(self) -> None:
        """The gradients, clipped, and a step of the optimiser."""
        self.gradients()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters, 1.0)
        self.learner.optimizer.step()
        self.learner.optimizer.zero_grad(set_to_none=True)


def matches(which: Case, learner: Learner) -> Iterator[Match]:
    """What is compared, after a look that both sides of the training step come to the same gradients."""
    environment, prompts, seeds = learner.environment, which.prompts, list(range(which.batch))

    def stock() -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        environment.pipe(prompt=list(prompts), generator=generators, **environment.call)

    def record() -> Trajectory:
        return environment.record(prompts, seeds, which.play)[1]

    yield Match("record / stock call, prompts known", record, stock, RECORD)
    yield Match("record / stock call, prompts new", record, stock, RECORD, remembered=False)
    trajectory = record()
    bare = Bare(which, learner, trajectory)
    require_same_update(which, learner, trajectory, bare)
    yield Match("training step / bare passes", lambda: train(which, learner, trajectory), bare.step, TRAIN)


def require_same_update(which: Case, learner: Learner, trajectory: Trajectory, bare: Bare) -> None:
    """Stop unless both ways give AdamW the same gradients: after its first step ``exp_avg`` is a tenth of them."""
    start, seen = learner.copy(), []
    for step in (bare.step, lambda: train(which, learner, trajectory)):
        learner.optimizer.state.clear()
        step()
        seen.append([learner.optimizer.state[p]["exp_avg"].clone() for p in learner.parameters])
        for name, parameter in learner.named.items():
            parameter.data.copy_(start[name])
    learner.optimizer.state.clear()
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)
    if not any(one.any() for one in seen[0]):
        raise RuntimeError("No gradient reached the LoRA, so that nothing was compared.")


def passes(learner: Learner, action: Callable[[], object]) -> str:
    """What the denoiser is asked in one go of ``action``, as "calls × latents in each"."""
    with counted(learner.environment.denoiser) as sizes:
        action()
    return " + ".join(f"{sizes.count(size)} × {size}" for size in dict.fromkeys(sizes))


def ratios(which: Case, learner: Learner) -> Iterator[str]:
    """Rows of the table of times."""
    for match in matches(which, learner):
        with remembered_prompts(learner.environment.pipe) if match.remembered else nullcontext():
            asked = [passes(learner, action) for action in (match.ours, match.least)]
            times = side_by_side(match.ours, match.least, which.pairs)
        (ours, ours_cpu), (least, least_cpu) = (zip(*runs, strict=True) for runs in times)
        yield (
            f"| {which.name} | {match.name} | {asked[0]}, {asked[1]} | {median(ours):.3f} s, {median(least):.3f} s "
            f"| {ratio(ours, least)} | {ratio(ours_cpu, least_cpu)} | {match.target:.2f} |"
        )


def memory(which: Case) -> Iterator[str]:
    """Rows of the table of memory: the same batch, and four times the rollouts."""
    counts = (which.rollouts, 4 * which.rollouts)
    few, many = (child(which, count) for count in counts)
    for place in [p for p in ("host", "device") if p in few]:
        for phase in ("record", "train"):
            growth = 1e3 * (many[place][phase] - few[place][phase]) / (counts[1] - counts[0])
            yield (
                f"| {which.name} | {phase}, {place} | {counts[0]}: {few[place][phase]:.1f} MB "
                f"| {counts[1]}: {many[place][phase]:.1f} MB | {growth:.1f} kB | {few['kept'] / 1e3:.1f} kB |"
            )


def child(which: Case, rollouts: int) -> dict:
    """What ``memory.measure`` tells, from a fresh process.

    There glibc hands back what is freed from 64 KiB on; by itself it keeps a heap of its own that it fills by chance, on
    the larger generator as large again as all that was asked for.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", which.name, str(rollouts)], cwd=Path(__file__).parents[1],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes that only show that it works")
    cases = QUICK if parser.parse_args(arguments).quick else CASES
    quiet()
    print(f"torch {torch.__version__} on {parallel.device()}, {torch.get_num_threads()} threads\n")
    print(
        "| generator | what | calls × latents | median time | ratio by the wall [quartiles] | by processors | target |"
    )
    print("|---|---|---|---|---|---|---|")
    for which in cases:
        for row in ratios(which, which.open()):
            print(row, flush=True)
    print("\n| generator | peak above the loaded model | rollouts | 4 × rollouts | growth per rollout | trajectory |")
    print("|---|---|---|---|---|---|")
    for which in cases:
        for row in memory(which):
            print(row, flush=True)


if __name__ == "__main__":
    main()
