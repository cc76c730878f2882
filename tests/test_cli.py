"""What the command line says when something is wrong, without loading anything heavy."""

import errno
import subprocess
import sys

import pytest

from spro_hf import cli, run


def test_help_and_mistakes_load_nothing_heavy():
    script = "import sys; from spro_hf.cli import main; code = main(['run', 'nope.yaml']); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == "error: nope.yaml: there is no such recipe; check the path.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_or_forbidden_disk_is_one_sentence(monkeypatch, capsys, number):
    def full(*_):
        raise OSError(number, "No room", "runs/x")

    monkeypatch.setattr(run, "run", full)
    assert cli.main(["run", "any.yaml"]) == 2
    assert capsys.readouterr().err == "error: No room: runs/x; mend that, and the same command continues.\n"


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", stop)
    assert cli.main(["run", "any.yaml"]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_the_module_runs_as_accelerate_launches_it():
    done = subprocess.run([sys.executable, "-m", "spro_hf", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(name in done.stdout for name in ("run", "plan", "score", "hub", "report"))
