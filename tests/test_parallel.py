import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spro_hf import parallel

SCRIPT = Path(__file__).parent / "diffusion" / "two_processes.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.mark.parametrize(("count", "world", "shares"), [(5, 2, [2, 3]), (4, 4, [1, 1, 1, 1]), (3, 4, [0, 1, 1, 1])])
def test_shares_cover_every_row_once(monkeypatch, count, world, shares):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    rows = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        mine = list(parallel.share_of(count))
        assert len(mine) == shares[rank]
        rows += mine
    assert rows == list(range(count))


def test_alone_everything_is_its_own():
    assert (parallel.rank(), parallel.world(), parallel.first()) == (0, 1, True)
    assert parallel.gather([1, 2]) == [1, 2] and parallel.share("x") == "x"
    parameter = torch.nn.Parameter(torch.zeros(2))
    parallel.sum_gradients([parameter])
    assert parameter.grad is None  # one process with nothing to learn learns nothing


def update(arguments, folder, out):
    process = subprocess.run(
        [sys.executable, *arguments, str(SCRIPT), str(folder), str(out)],
        capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.strip().splitlines()[-1]), torch.load(out, weights_only=True)


def test_a_process_whose_rows_are_all_skipped_holds_nobody_up(sd3_folder, tmp_path):
    """Two pictures for each of two processes; those of the second have no advantage, and both end with one LoRA."""
    one, alone = update([], sd3_folder, tmp_path / "one.pt")
    two, between = update(TORCHRUN, sd3_folder, tmp_path / "two.pt")
    assert one["mine"] == [0, 1, 2, 3] and two["mine"] == [0, 1]
    assert one["reductions"] == []
    parameters = sum(value.numel() for value in alone.values())
    # once a step, all in one message, with a flag for each tensor
    assert two["reductions"] == [parameters + len(alone)]
    assert two["sums"][0] == two["sums"][1]
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    # Adam's first step is lr times the sign where a gradient is not nearly zero, so rounding may turn a few
    away = torch.cat([(between[name] - alone[name]).abs().flatten() for name in alone])
    assert away.mean() < 1e-6 and (away > 1e-5).float().mean() < 1e-3
