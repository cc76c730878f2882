"""Progress into a log and in a terminal, on a clock that the test winds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from spro_hf.report import progress as module
from spro_hf.report.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_task_and_one_at_most_every_thirty_seconds(clock):
    stream = io.StringIO()
    with Progress(Console(file=stream, width=60)) as progress:
        task = progress.task("aesthetics · prompt · round 1 · [render]", total=100)
        for _ in range(10):
            clock[0] += 8.0
            progress.advance(task, 10)
    title = "aesthetics · prompt · round 1 · [render]"
    # lines are due after 32 s and 64 s (the first steps past 30 s of silence); the task ends after 80 s
    assert stream.getvalue().splitlines() == [
        f"{title}  40/100  1.2/s, 48 s left",
        f"{title}  80/100  1.2/s, 16 s left",
        f"{title}  100/100  1.2/s in 1 min 20 s",
    ]


def test_a_task_of_nothing_is_finished_at_once(clock):
    stream = io.StringIO()
    with Progress(Console(file=stream)) as progress:
        progress.task("nothing", total=0)
    assert stream.getvalue() == "nothing  0/0  –/s in 0.0 s\n"


def test_a_terminal_gets_bars_and_keeps_a_line_of_the_finished_task():
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=True, width=100)) as progress:
        task = progress.task("render", total=4)
        progress.advance(task, 1)
        progress._bars.refresh()
        progress.advance(task, 3)
    text = stream.getvalue()
    assert "1/4" in text
    assert "render  4/4" in text


def test_an_error_passes_through():
    with pytest.raises(RuntimeError, match="broken"), Progress(Console(file=io.StringIO())) as progress:
        progress.task("render", total=4)
        raise RuntimeError("broken")


def test_duration():
    told = [duration(s) for s in (0.42, 9.96, 59.4, 185, 7800)]
    assert told == ["0.4 s", "10 s", "59 s", "3 min 05 s", "2 h 10 min"]
