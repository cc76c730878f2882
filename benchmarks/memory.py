"""Peak memory of recording and training, in a process of its own: ``python -m benchmarks.memory CASE ROLLOUTS``.

Prints JSON: ``host`` and ``device`` with megabytes (10⁶ bytes) above the loaded model at the peak of each phase, and
``kept``, the bytes of one rollout's trajectory. Linux only, whose /proc tells a process's peak and starts it anew.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import torch

from benchmarks.generators import Case, case, quiet
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.diffusion.player import Taken, Trajectory
from spro_hf.diffusion.policy import improve


def measure(which: Case, rollouts: int) -> dict:
    """A training step of ``rollouts`` pictures as the stage makes it: recorded in batches, joined, learned from.

    ``rollouts`` is a multiple of the batch. Recording's peak is above the loaded model too, and so is training's, which
    begins with what was recorded.
    """
    learner = which.open()
    before = _now()
    _forget_peak()
    with remembered_prompts(learner.environment.pipe):
        whole = Trajectory.join(record(which, learner, rollouts))
        recorded = _peak()
        _forget_peak()
        train(which, learner, whole)
    trained = _peak()
    return {
        "kept": kept(whole),
        **{
            place: {"record": (recorded[place] - before[place]) / 1e6, "train": (trained[place] - before[place]) / 1e6}
            for place in before
        },
    }


def record(which: Case, learner: Learner, rollouts: int) -> list[Trajectory]:
    """Rollouts in batches of the same prompts, without their pictures, which a stage lets go once they are scored."""
    starts = range(0, rollouts, which.batch)
    return [
        learner.environment.record(which.prompts, list(range(at, at + which.batch)), which.play)[1] for at in starts
    ]


def train(which: Case, learner: Learner, trajectory: Trajectory) -> None:
    """One update from all of a trajectory, in micro-batches, with advantages of 1 and −1 in turn."""
    count = len(trajectory)
    improve(learner, {}, trajectory, advantage(count), [list(range(count))], which.policy, which.explored)


def advantage(count: int) -> torch.Tensor:
    """1 and −1 in turn, (count,)."""
    return 1.0 - 2.0 * (torch.arange(count) % 2)


def kept(trajectory: Trajectory) -> int:
    """Bytes of the tensors of one rollout."""
    tensors = [getattr(taken, f.name) for taken in trajectory.taken.values() for f in fields(Taken)]
    return sum(t[0].numel() * t.element_size() for t in tensors)


def _forget_peak() -> None:
    """Let the peaks begin again from what is in use now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak resident set size
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _now() -> dict[str, int]:
    """Bytes in use."""
    return _told("VmRSS") | ({"device": torch.cuda.memory_allocated()} if torch.cuda.is_available() else {})


def _peak() -> dict[str, int]:
    """The most bytes in use since the peaks were forgotten."""
    return _told("VmHWM") | ({"device": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})


def _told(line: str) -> dict[str, int]:
    found = re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return {"host": int(found[1]) * 1024}


if __name__ == "__main__":
    quiet()
    print(json.dumps(measure(case(sys.argv[1]), int(sys.argv[2]))))
