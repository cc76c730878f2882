"""Configurations of ``accelerate launch``, the Slurm script and the HF Jobs command, by the programs' own parsers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

from spro_hf import cli

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "recipes" / "accelerate"
README = (FOLDER / "README.md").read_text()
FAKES = {
    # a node each, one after the other
    "srun": '[ "$1" = --kill-on-bad-exit=1 ] && shift\nfor n in 0 1; do SLURM_NODEID=$n "$@"; done',
    "scontrol": 'case $1 in show) [ "$3" = "n[1-2]" ] && printf "n1\\nn2\\n";; *) echo "$@" > "$TOLD/scontrol";; esac',
    "accelerate": 'printf "%s\\0" "$@" > "$TOLD/$SLURM_NODEID"; sleep "${SLEEP:-0}"',
}
JOB = {"SLURM_JOB_ID": "47110815", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_GPUS_ON_NODE": "4"}


def command(start: str) -> list[str]:
    (line,) = re.findall(rf"^{start} .*$", README, re.M)
    return shlex.split(line)


def of_run(words: list[str]) -> None:
    """``words``, what follows ``spro-hf``, name a recipe that exists and options that the command line has."""
    told = cli._parser().parse_args(words)
    assert told.command == "run" and (ROOT / told.recipe).is_file() and told.hub == "https://huggingface.co"


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job on two nodes of four GPUs, whose programs only tell what they were asked."""
    for name, lines in FAKES.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{lines}\n")
        file.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return (
        {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        | JOB
        | {
            "PATH": path,
            "TOLD": str(tmp_path),
        }
    )


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes", "cpu"),
    [
        ("single_gpu", DistributedType.NO, 1, 1, False),
        ("multi_gpu", DistributedType.MULTI_GPU, 1, 8, False),
        ("multi_node", DistributedType.MULTI_GPU, 2, 16, False),
        ("cpu", DistributedType.MULTI_GPU, 1, 2, True),
    ],
)
def test_configurations_are_accelerate_s(name, kind, machines, processes, cpu):
    found = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (found.distributed_type, found.num_machines, found.num_processes, found.use_cpu) == (
        kind, machines, processes, cpu,
    )  # fmt: skip
    assert found.mixed_precision == "no"  # accelerate's would be laid over the recipe's dtype


def test_every_file_is_tested_and_told():
    names = {file.name for file in FOLDER.iterdir()} - {"README.md"}
    assert names == {"single_gpu.yaml", "multi_gpu.yaml", "multi_node.yaml", "cpu.yaml", "slurm.sh"}
    assert set(re.findall(r"^\| `([\w.]+)` \|", README, re.M)) == names


def test_two_processes_on_the_cpu(tmp_path):
    """accelerate's own kind for the CPU starts a single one."""
    script = tmp_path / "who.py"
    script.write_text("from spro_hf import parallel\nprint(f'{parallel.rank()} of {parallel.world()}\\n', end='')\n")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(FOLDER / "cpu.yaml"),
        str(script),
    ]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=100, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.split("\n")) == ["", "0 of 2", "1 of 2"]


def test_readme_s_launch_is_accelerate_s():
    told = launch_command_parser().parse_args(command("accelerate launch")[2:])
    assert (ROOT / told.config_file).is_file() and told.module and told.training_script == "spro_hf"
    of_run(told.training_script_args)


def test_slurm_starts_a_launcher_on_each_node(slurm, tmp_path):
    """Two nodes of four GPUs: eight processes in all, which meet at the first node, at a port of the job's own."""
    _, *options, script, recipe = command("sbatch")[:7]
    assert options == ["--nodes", "2", "--gpus-per-node", "8"] and ROOT / script == FOLDER / "slurm.sh"
    words = [recipe, *command("sbatch")[7:], "--set", "seeds.source=my captions.txt"]
    of_run(["run", *words])
    subprocess.run(["bash", script, *words], check=True, env=slurm, cwd=ROOT, timeout=60)
    for node in "01":
        given = (tmp_path / node).read_text().split("\0")[:-1]
        assert given[0] == "launch"
        told = launch_command_parser().parse_args(given[1:])
        assert ROOT / told.config_file == FOLDER / "multi_node.yaml"
        assert (told.num_machines, told.num_processes, told.machine_rank) == (2, 8, int(node))
        assert (told.main_process_ip, told.main_process_port) == ("n1", 20815)  # 20000 + 47110815 mod 10000
        assert told.module and [told.training_script, *told.training_script_args] == ["spro_hf", "run", *words]


def test_slurm_puts_the_job_back_before_its_time_is_over(slurm, tmp_path):
    assert re.findall(r"^#SBATCH --(signal|requeue|open-mode)(.*)$", (FOLDER / "slurm.sh").read_text(), re.M) == [
        ("signal", "=B:USR1@300"), ("requeue", ""), ("open-mode", "=append"),
    ]  # fmt: skip
    process = subprocess.Popen(["bash", FOLDER / "slurm.sh", "r.yaml"], env=slurm | {"SLEEP": "1"}, cwd=ROOT)
    until = time.monotonic() + 30
    while not (tmp_path / "0").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) != 0
    assert (tmp_path / "scontrol").read_text() == "requeue 47110815\n"


@pytest.mark.parametrize(
    ("name", "said"), [("SLURM_JOB_ID", "start this by sbatch"), ("SLURM_GPUS_ON_NODE", "ask for GPUs")]
)
def test_slurm_s_script_says_what_it_lacks(slurm, tmp_path, name, said):
    del slurm[name]
    done = subprocess.run(
        ["bash", FOLDER / "slurm.sh", "r.yaml"], env=slurm, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and said in done.stderr and not (tmp_path / "0").exists()


def test_hf_jobs_takes_the_command(tmp_path):
    """hf resolves the job and prints it; nothing is submitted, and no network is asked."""
    words = command("hf jobs run")
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_none"}
    done = subprocess.run(
        [sys.executable, "-m", "huggingface_hub.cli.hf", "jobs", "run", "--dry-run", *words[3:]],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 0 and "Job not submitted" in done.stdout + done.stderr, done.stderr
    told = dict(re.findall(r"^ +(\w+) +(.*)$", done.stdout + done.stderr, re.M))
    assert (told["image"], told["flavor"], told["timeout"]) == ("python:3.12", "a100-large", "24h")
    assert told["secrets"].startswith("HF_TOKEN") and "hf_none" not in done.stdout + done.stderr
    shell, flag, line = shlex.split(told["command"])
    assert (shell, flag) == ("bash", "-c")
    subprocess.run(["bash", "-n", "-c", line], check=True)
    *_, install, run = line.split(" && ")
    assert (ROOT / install.split()[3]).is_file() and run.startswith("spro-hf ")
    of_run(shlex.split(run)[1:])
