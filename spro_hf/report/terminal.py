"""The summary that a run prints at its end: one table, then where everything lies and how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spro_hf.report import reading, verdict, watching
from spro_hf.report.reading import first, number, own_metric, percent, points, rate, short_count

WIDE = 100  # columns from which on alignment and judge are told with their errors, and costs with pictures and rewards


LOCAL = "http://127.0.0.1:8642"  # where `spro-hf hub serve` listens
SHOWN = ("pipeline", "rollouts")  # the artifacts whose loading lines are worth a terminal's room; the report has all


def print_summary(results: dict[str, Any], console: Console | None = None, folder: Path | None = None) -> None:
    """Print what a run achieved and where it lies: models with the lines that load them, datasets by name.

    Args:
        results: the contents of results.json.
        console: where to print; standard output if None.
        folder: the run's folder, to tell where report.html and results.json are.
    """
    console = console or Console()
    short, sentence = verdict.headline(results)
    console.print(Text(results["title"], style="bold"))
    if short:
        console.print(Text.assemble((short, "bold"), " ", sentence))
    if results["table"]:
        console.print(_table(results, console.width >= WIDE))
    if results.get("costs"):
        console.print()
        console.print(_costs(results, console.width >= WIDE))
    for objective in results["objectives"]:
        for warning in verdict.warnings(results, objective):
            mark = ("Hacking watch: ", "bold yellow" if warning.clear else "yellow")
            console.print(Text.assemble(mark, warning.words))
    for line in _watch(results):
        console.print(line)
    _whereabouts(results, console, folder)


def print_unpublished(rows: list[dict[str, Any]], folder: Path, console: Console | None = None) -> None:
    """Print what a dry run would have pushed: rows of repo, kind, tag, files and bytes, see ``spro_hf.hub.unpublished``."""
    console, table = console or Console(), _empty(["would be pushed", "kind", "tag", "files", "MB"])
    for row in rows:
        table.add_row(
            escape(row["repo"]), row["kind"], escape(row["tag"]), str(row["files"]), f"{row['bytes'] / 1e6:.1f}"
        )
    console.print()
    console.print(table)
    console.print(Text(f"nothing was pushed; all of it lies in {folder}"), soft_wrap=True)


def _empty(columns: list[str]) -> Table:
    """Names at the left, numbers at the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    return table


def _table(results: dict[str, Any], wide: bool) -> Table:
    judge, planted = reading.kind_of(results, "judge"), reading.kind_of(results, "planted")
    columns = ["own reward", "gain", *(["planted", "gain"] if planted else []), "align", *(["judge"] if judge else [])]
    table = _empty(["system", *columns])
    for objective in results["objectives"]:
        own = own_metric(results, objective)
        cells = {r["system"]: r for r in reading.rows(results, "table", objective=objective, metric=own)}
        if cells:
            best = max(cells, key=lambda system: cells[system]["mean"])
            n = next(iter(cells.values()))["n"]
            table.add_row(f"[bold]{escape(objective)}[/]", f"[dim]{escape(own)}[/]", "", f"[dim]n = {n}[/]")
            for system in cells:
                line = _line(results, objective, system, (own, planted, judge), wide)
                table.add_row(escape(system), *line, style="bold" if system == best else "")
            table.add_section()
    return table


def _line(
    results: dict[str, Any], objective: str, system: str, metrics: tuple[str, str | None, str | None], wide: bool
) -> list[str]:
    def told(metric: str, error: bool = True) -> str:
        cell = first(results, "table", objective=objective, system=system, metric=metric)
        if cell is None:
            return "–"
        return reading.with_error(cell["mean"], cell["se"]) if error else reading.number(cell["mean"])

    own, planted, judge = metrics
    gain = first(results, "gains", objective=objective, system=system)
    line = [told(own), percent(gain["proxy"]) if gain else ""]
    if planted:
        line += [told(planted), percent(gain["planted"]) if gain else ""]
    return [*line, told("alignment", wide), *([told(judge, wide)] if judge else [])]


def _costs(results: dict[str, Any], wide: bool) -> Table:
    """What training by policy gradient took and gave; alignment in percentage points."""
    some = ["steps", *(["pictures"] if wide else []), "calls", "min", *(["reward"] if wide else [])]
    table = _empty(["what it cost", *some, "gain", "planted", "align pt", "/100k", "/min"])
    for objective in results["objectives"]:
        found = reading.costs(results, objective)
        if found:
            table.add_row(f"[bold]{escape(objective)}[/]")
        for row in found:
            took = reading.minutes(row["seconds"]) + (f"×{row['processes']}" if row["processes"] > 1 else "")
            table.add_row(
                escape(row["system"]), str(row["steps"]), *([short_count(row["pictures"])] if wide else []),
                short_count(row["calls"]), took,
                *([f"{number(row['base'])} → {number(row['reward'])}"] if wide else []),
                percent(row["proxy"]), percent(row["planted"]), points(row["alignment"]), rate(row["per_calls"]),
                rate(row["per_minute"]),
            )  # fmt: skip
        table.add_section()
    return table


def _watch(results: dict[str, Any]) -> list[Text]:
    """A line for each training in which something parted from the reward or nothing can be told, and one for all others."""
    found = [watch for objective in results["objectives"] for watch in watching.watches(results, objective)]
    lines = []
    for watch in found:
        if not watch.quiet:
            mark = ("Hacking watch: ", "bold yellow" if watch.parted else "bold")
            lines.append(Text.assemble(mark, f"{_training(watch)}: {watching.short(watch)}"))
    quiet = "; ".join(_training(watch) for watch in found if watch.quiet)
    if quiet:
        lines.append(Text.assemble(("Hacking watch: ", "bold"), f"nothing clearly parts from the reward in {quiet}."))
    return lines


def _training(watch: watching.Watch) -> str:
    return f"{watch.objective}, {watch.stage or 'by round'}"


def _whereabouts(results: dict[str, Any], console: Console, folder: Path | None) -> None:
    def plain(line: str, style: str = "") -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    if folder is not None:
        plain("")
        if (folder / "report.html").exists():
            plain(f"report   {folder / 'report.html'}")
        plain(f"numbers  {folder / 'results.json'}")
    artifacts = reading.newest(results)
    for artifact in artifacts:
        plain(f"{artifact['type']:<8} {artifact['repo']} @ {artifact['tag']}")
    shown = [a for a in artifacts if a["what"] in SHOWN]
    if folder is None or not shown:
        return
    plain("")
    if (folder / "hub").is_dir():
        plain(f"# keep the run's Hub up:  spro-hf hub serve {folder}   and in another terminal:", style="dim")
        home = folder.resolve()
        plain(
            f"export HF_ENDPOINT={LOCAL} HF_HUB_DISABLE_XET=1 HF_HOME={home / 'cache'} HF_TOKEN=$(cat {home / 'hub' / 'token'})"
        )
    plain("# then in Python:", style="dim")
    for artifact in shown:
        plain(artifact["load"].strip())
