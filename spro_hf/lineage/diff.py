"""``spro-hf diff``: two versions of an artifact side by side, in the terminal and as a page."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub
from spro_hf.lineage.place import clean, console, find

if TYPE_CHECKING:
    from spro_hf.lineage.changes import Side

LINES = 12  # of the same seeds, in the terminal
SECTIONS = {"recipe": "Recipe", "inputs": "Inputs", "models": "Models", "versions": "Libraries", "seed": "Seed"}


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("old", help="user/repo@v1, or datasets/user/repo@v1")
    parser.add_argument("new", help="another version, or another artifact of the same kind")
    parser.add_argument("--hub", help="the folder of a run, whose local Hub is started, or the address of a Hub")
    parser.add_argument("--out", type=Path, help="also write a page with the pictures, e.g. diff.html")
    parser.add_argument("--json", action="store_true", help="plain data in place of tables")


def main(arguments: argparse.Namespace) -> int:
    """Print what changed, and write the page."""
    with at_hub(arguments.hub):
        old, new = sides(arguments.old, arguments.new)
        view = told(old, new)
        if arguments.out:
            from spro_hf.lineage.diff_page import page

            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(page(old, new, view), encoding="utf-8")
    if arguments.json:
        print(json.dumps(view, indent=1, ensure_ascii=False))
        return 0
    print_changes(view)
    if arguments.out:
        print(arguments.out)
    return 0


def sides(old: str, new: str) -> tuple[Side, Side]:
    """Both artifacts as ``Side``; of models no weights are downloaded.

    Raises:
        UserError: if one is not there, or they are of different kinds.
    """
    from spro_hf.hub.artifacts import pull
    from spro_hf.lineage.changes import kind_of, read_side, wanted

    found = []
    for name in (old, new):
        artifact, _ = find(name)
        names: list[str] = []
        folder = pull(
            artifact.repo, artifact.kind, artifact.revision, lambda all, names=names: _noted(all, names, wanted)
        )
        found.append((f"{artifact.repo}@{artifact.tag}", kind_of(names, folder), folder))
    (a, kind, _), (b, other, _) = found
    if kind != other:
        raise UserError(f"{a} is of the kind {kind}, and {b} of the kind {other}; name two artifacts of the same kind.")
    return tuple(read_side(*each) for each in found)


def _noted(all: list[str], names: list[str], wanted: Any) -> list[str]:
    names += all
    return wanted(all)


def told(old: Side, new: Side) -> dict[str, Any]:
    """All that changed as plain data, see ``spro_hf.lineage.changes``; pictures are left to the page."""
    from spro_hf.lineage.changes import differences, results, same_seeds

    both = same_seeds(old, new)
    return {
        "old": old.name, "new": new.name, "kind": old.kind,
        **{name: [asdict(change) for change in some] for name, some in differences(old, new).items()},
        "results": results(old, new),
        "seeds": [
            {"caption": a.caption, "old": {"prompt": a.prompt, "total": a.total}, "new": {"prompt": b.prompt, "total": b.total}}
            for a, b in both
        ],
    }  # fmt: skip


def print_changes(view: dict[str, Any]) -> None:
    """Print the sections in which something changed, then the results and the same seeds."""
    from rich.text import Text

    out = console()
    out.print(Text.assemble((view["old"], "bold"), " → ", (view["new"], "bold"), (f"  {view['kind']}", "dim")))
    for name, title in SECTIONS.items():
        if view[name]:
            table = _table([title.lower(), "", ""], [1, 2])
            for change in view[name]:
                table.add_row(Text(clean(change["name"])), _said(change["old"]), _said(change["new"]))
            out.print(table)
    same = [title.lower() for name, title in SECTIONS.items() if not view[name]]
    if same:
        out.print(Text(f"The same in both: {', '.join(same)}.", style="dim"))
    moved = [row for row in view["results"] if row["old"] != row["new"]]
    if moved:
        out.print(_results(moved))
    if equal := len(view["results"]) - len(moved):
        out.print(Text(f"{equal} {'other ' if moved else ''}results are the same in both.", style="dim"))
    if view["seeds"]:
        out.print(_seeds(view["seeds"]))
        if len(view["seeds"]) > LINES:
            out.print(Text(f"{LINES} of {len(view['seeds'])} seeds that both have; --json tells of all.", style="dim"))
    else:
        out.print(Text("They have no seed in common.", style="dim"))


def _table(columns: list[str], folds: list[int]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if i in (0, *folds) else "right")
    return table


def _said(value: Any) -> Any:
    from rich.text import Text

    return Text(
        "–" if value is None else clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    )


def _results(rows: list[dict[str, Any]]) -> Any:
    from rich.text import Text

    from spro_hf.report.reading import with_error

    table = _table(["results", "old", "new", "change"], [])
    for row in rows:
        old, new = row["old"], row["new"]
        table.add_row(Text(clean(row["name"])), *(with_error(v["value"], v["se"]) if v["se"] is not None
                      else plain(v["value"]) for v in (old, new)), change(old["value"], new["value"]))  # fmt: skip
    return table


def plain(value: float | None) -> str:
    """A number for a reader, whole ones as they are."""
    from spro_hf.report.reading import count, number

    return count(value) if isinstance(value, int) else number(value)


def change(old: float | None, new: float | None) -> str:
    """The difference with its sign; "" where one is not known, "=" where there is none."""
    if old is None or new is None:
        return ""
    if old == new:
        return "="
    return f"{new - old:+.3g}".replace("-", "−")


def _seeds(rows: list[dict[str, Any]]) -> Any:
    from rich.text import Text

    table = _table(["the same seeds", "old", "new", "change", "new prompt"], [4])
    for row in rows[:LINES]:
        old, new = row["old"], row["new"]
        prompt = "the same" if old["prompt"] == new["prompt"] else clean(new["prompt"])
        table.add_row(Text(clean(row["caption"])), plain(old["total"]), plain(new["total"]),
                      change(old["total"], new["total"]), Text(prompt))  # fmt: skip
    return table
