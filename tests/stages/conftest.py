"""One small run of all of SPRO, made once by the command line as a user would, and shared by the tests that look at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
SMALL = """\
recipes: [{stages}]
for_each:
  - {{objective: {objective}, reward: {{{reward}: 1.0}}}}
with:
  seeds: {{count: 6}}
  rounds: {rounds}
  temperatures: [0.8, 1.0, 1.2]
  finetune: {{steps: 4, batch_size: 4}}
  noise_seeds: 2
"""
STAGES = ("1_prompt", "2_image", "3_multimodal", "4_evaluate")


def spro(*arguments, check=True, **environment) -> subprocess.CompletedProcess:
    """The command line in a process of its own, as the Hub's clients need."""
    process = subprocess.run(
        [sys.executable, "-m", "spro_hf", *map(str, arguments)], capture_output=True, text=True, timeout=600,
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")} | environment,
    )  # fmt: skip
    assert not check or process.returncode == 0, process.stderr[-3000:]
    return process


def killed(*arguments, when: Callable[[], object]) -> None:
    """Begin the command line in a process of its own and kill it as soon as ``when`` says so, or let it end if it never does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spro_hf", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")},
    )  # fmt: skip
    while not when() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def small(folder: Path, objective="engagement", reward="engagement", stages=STAGES, rounds=3) -> Path:
    """A list recipe over the recipes on disk, with small numbers."""
    file = folder / "small.yaml"
    names = ", ".join(str(RECIPES / f"{stage}.yaml") for stage in stages)
    file.write_text(SMALL.format(stages=names, objective=objective, reward=reward, rounds=rounds))
    return file


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """The folder of a finished small run."""
    out = tmp_path_factory.mktemp("whole")
    # three rounds of each: SPRO-MM is then measured after the first of three rounds of co-evolution
    recipe = small(out)
    spro("run", recipe, "--out", out / "run")
    return out / "run"
