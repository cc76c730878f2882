"""A plan in the terminal: one table for the models, one line a stage in each of the others, at most 100 columns wide."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spro_hf.plan.memory import CARDS
from spro_hf.plan.passes import HOST
from spro_hf.report.reading import short_count

WIDTH = 100
UNKNOWN = "?"
TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def print_plan(name: str, stages: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print what ``plan`` told of the stages of the recipe called ``name``."""
    # in a file or a pipe there is no width, and rich would take 80, in which names are broken
    console = console or (Console() if sys.stdout.isatty() else Console(width=WIDTH))
    width = min(WIDTH, console.width)
    console.print(f"[bold]{escape(name)}[/]: {len(stages)} stage{'s' if len(stages) > 1 else ''}")
    console.print()
    console.print(_models(stages), width=width)
    labels = [f"{stage['objective']} {stage['method'] or stage['stage']}" for stage in stages]
    labels = [f"{i + 1} {label}" for i, label in enumerate(labels)] if len(labels) > 1 else labels
    for tell in (_work, _memory, _disk, _hours):
        console.print()
        console.print(tell(labels, stages), width=width)
    _pushes(stages, console)
    for note in dict.fromkeys(note for stage in stages for note in stage["notes"]):
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)


def _table(columns: list[str], left: int = 1) -> Table:
    """Names at the left, numbers at the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=i >= left, overflow="fold")
    return table


def gigabytes(value: int | None) -> str:
    """Bytes in units of 10¹², 10⁹ or 10⁶."""
    if value is None:
        return UNKNOWN
    size, unit = (1e12, "TB") if value >= 1e12 else (1e9, "GB") if value >= 1e8 else (1e6, "MB")
    return f"{value / size:.1f} {unit}"


def told(found: dict[str, Any], words: Any = short_count) -> str:
    """A count in words; "≤" where it is a bound."""
    if found["count"] is None:
        return UNKNOWN
    return ("" if found["exact"] else "≤ ") + words(found["count"])


def _models(stages: list[dict[str, Any]]) -> Table:
    """Every model once for each type it is loaded in, and the fields that name it."""
    table = _table(["model", "named by", "params", "in memory", "to fetch"], 2)
    table.columns[0].no_wrap = True
    rows: dict[tuple, tuple[dict[str, Any], list[str]]] = {}
    for model in (model for stage in stages for model in stage["models"]):
        row = rows.setdefault((model["id"], model["revision"], model["dtype"], model["device"]), (model, []))
        name = model["field"].removesuffix(".id").removeprefix("scorers.")
        if name not in row[1]:
            row[1].append(name)
    for model, fields in rows.values():
        fetch, size = gigabytes(model["download"]), model["parameters"]
        table.add_row(
            escape(model["id"]), escape(", ".join(fields)), UNKNOWN if size is None else short_count(size),
            f"{gigabytes(model['bytes'])} {TYPES[model['dtype']]}",
            fetch if model["exact"] or model["download"] is None else f"≥ {fetch}",
        )  # fmt: skip
    return table


def _work(labels: list[str], stages: list[dict[str, Any]]) -> Table:
    """What each stage does."""
    names = {
        "pictures": "pictures", "denoiser calls, drawing": "calls: draw", "denoiser calls, learning": "learn",
        "replies": "replies", "guider tokens": "tokens", "guider samples": "lessons", "generator samples": "samples",
    }  # fmt: skip
    table = _table(["stage", *names.values()])
    for label, stage in zip(labels, stages, strict=True):
        table.add_row(escape(label), *(told(stage["counts"][name]) for name in names))
    return table


def _memory(labels: list[str], stages: list[dict[str, Any]]) -> Table:
    """What each stage holds on each device when it holds most."""
    table = _table(["memory", "device", "at its most", "weights", "training", "passes", "in all", "card"], 3)
    for label, stage in zip(labels, stages, strict=True):
        for device, peak in stage["memory"].items():
            sign, size = ("" if peak["known"] else "≥ "), peak["card"]
            card = "" if device == HOST else f"{sign}{size} GB" if size else f"> {max(CARDS)} GB"
            kinds = [gigabytes(peak[kind]) for kind in ("weights", "training", "passes")]
            where = "host" if device == HOST else device + (" (one process)" if stage["processes"] == "one" else "")
            table.add_row(escape(label), where, peak["phase"], *kinds, sign + gigabytes(peak["total"]), card)
            label = ""
    return table


def _disk(labels: list[str], stages: list[dict[str, Any]]) -> Table:
    """What each stage writes."""
    table = _table(["disk", "rows and pictures", "trained weights"])
    for label, stage in zip(labels, stages, strict=True):
        table.add_row(escape(label), *(told(stage["disk"][name], gigabytes) for name in ("rows", "weights")))
    return table


def duration(hours: float | None) -> str:
    """Hours in words: 3.4 h, and minutes below one."""
    if hours is None:
        return UNKNOWN
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _hours(labels: list[str], stages: list[dict[str, Any]]) -> Table | str:
    """How long each stage takes."""
    if all(not hours for stage in stages for hours in stage["hours"].values()):
        return "hours: unknown: give --calibrate or throughput"
    names = list(stages[0]["hours"])
    table = _table(["hours of one process", *names])
    for label, stage in zip(labels, stages, strict=True):
        table.add_row(escape(label), *(duration(stage["hours"][name]) for name in names))
    return table


def _pushes(stages: list[dict[str, Any]], console: Console) -> None:
    """Where everything goes: repositories with their tags."""
    where: dict[tuple[str, str, bool], list[str]] = {}
    for stage in stages:
        for push in stage["pushes"]:
            where.setdefault((push["repo"], push["type"], stage["private"]), []).append(push["tag"])
    console.print()
    for (repo, kind, private), tags in where.items():
        seen = ", ".join(tags) if len(tags) < 6 else f"{tags[0]}, {tags[1]} … {tags[-1]} ({len(tags)})"
        line = f"{'private ' if private else ''}{kind} {repo} @ {seen}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
