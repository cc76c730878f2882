"""Two actions timed in turn, and the ratio of their times with its spread.

Neighbours in time share what else the machine is doing, so each ratio is of two runs next to each other; the order within
a pair alternates, so that a drift favours neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Times = list[
    tuple[float, float]
]  # of one action, run by run: seconds by the wall, seconds of this process's processors


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def clock() -> tuple[float, float]:
    """Seconds by the wall and of this process's processors, after the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def side_by_side(
    first: Callable[[], object],
    second: Callable[[], object],
    pairs: int,
    clock: Callable[[], tuple[float, float]] = clock,
) -> tuple[Times, Times]:
    """Times of ``first`` and ``second`` in the order 1 2, 2 1, 1 2, ...; before that each runs once, untimed."""
    first(), second()
    found: tuple[Times, Times] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            began = clock()
            (first, second)[which]()
            ended = clock()
            found[which].append((ended[0] - began[0], ended[1] - began[1]))
    return found


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Of ``first`` to ``second``, pair by pair."""
    low, median, high = np.quantile(np.divide(first, second), [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))
