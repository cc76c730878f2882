"""Progress lines for all stages: live bars in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

EVERY = 30.0  # seconds between the lines of a log, over all tasks


class _Rate(ProgressColumn):
    """Pieces per second, over rich's own window."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "–/s", style="progress.data.speed")


class Progress:
    """Tasks with a count, a rate and the time left.

    In a terminal the running tasks are bars; a finished one leaves a line behind, so that a long run stays readable.
    Elsewhere there is one line per finished task, and in between a line at most every 30 seconds.

        with Progress() as progress:
            task = progress.task("aesthetics · prompt · round 1 · render", total=512)
            progress.advance(task, 64)
    """

    def __init__(self, console: Console | None = None, silent: bool = False):
        self.console = console or Console(stderr=True, quiet=silent)
        self.live = self.console.is_terminal and not silent
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._started: dict[TaskID, float] = {}
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if self.live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bars.stop()

    def task(self, title: str, total: int) -> TaskID:
        """Begin a task of ``total`` pieces; one of none is finished at once."""
        task = self._bars.add_task(title, total=total)
        self._started[task] = time.monotonic()
        if total == 0:
            self.advance(task, 0)
        return task

    def advance(self, task: TaskID, n: int = 1) -> None:
        """Count ``n`` more finished pieces."""
        self._bars.update(task, advance=n)
        state = next(t for t in self._bars.tasks if t.id == task)
        now = time.monotonic()
        seconds = now - self._started[task]
        if state.completed >= state.total:
            self.say(f"{self._counted(state, seconds)} in {duration(seconds)}")
            self._bars.remove_task(task)
            self._last = now
        elif not self.live and now - self._last >= EVERY and state.completed:
            left = seconds / state.completed * (state.total - state.completed)
            self.say(f"{self._counted(state, seconds)}, {duration(left)} left")
            self._last = now

    def _counted(self, state: Task, seconds: float) -> str:
        rate = f"{state.completed / seconds:.1f}/s" if seconds > 0 else "–/s"
        return f"{state.description}  {state.completed:.0f}/{state.total:.0f}  {rate}"

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
