"""Long trainings in blocks: each is a finished step of the run, and the next goes on from what it left on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from spro_hf import parallel
from spro_hf.stages.room import Room


class Kept(Protocol):
    """What is trained: it writes its result and all that is needed to go on, and goes on from that."""

    def save(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...


def train_in_blocks(
    room: Room,
    name: str,
    learner: Kept,
    total: int,
    every: int,
    train: Callable[[range], list[dict[str, Any]]],
    left: Callable[[int, Path, list[dict[str, Any]]], None] | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Train ``total`` steps, ``every`` of them a block; returns the last block's folder and a row for each step.

    A run that was never interrupted reads each block's state from disk as well, so that one that was ends the same.
    Of the state that is needed to go on, only the newest is kept.

    Args:
        train: trains the learner for a range of steps and tells of each.
        left: is called after each block with the number of finished steps, its folder (which holds ``generator``) and the
            rows so far.
    """
    rows: list[dict[str, Any]] = []
    before: Path | None = None
    for start in range(0, total, every):
        steps = range(start, min(total, start + every))

        def make(folder: Path, steps: range = steps, before: Path | None = before) -> None:
            if before:
                learner.restore(before)
            told = train(steps)
            learner.save(folder)
            if parallel.first():
                (folder / "curve.json").write_text(json.dumps(told))

        folder = room.do(f"{name}/step-{steps.stop}", make)
        rows += json.loads((folder / "curve.json").read_text())
        if before and parallel.first():
            shutil.rmtree(before / "state", ignore_errors=True)
            if not left:  # nobody asks for what it was on the way
                for what in ("generator", "reward"):
                    shutil.rmtree(before / what, ignore_errors=True)
        if left:
            left(steps.stop, folder, rows)
        before = folder
    return before, rows
