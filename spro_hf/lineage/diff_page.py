"""The page of ``spro-hf diff``: one HTML file that needs nothing but itself, in the report's style.

Everything in it came from repositories and is escaped by the template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spro_hf.lineage.changes import SHOWN, Side, embedded, same_seeds
from spro_hf.lineage.diff import SECTIONS, change, plain
from spro_hf.report.page import added
from spro_hf.report.reading import with_error

HERE = Path(__file__).parent


def page(old: Side, new: Side, view: dict[str, Any]) -> str:
    """The page; ``view`` is ``diff.told``. Pictures are read here, of the first SHOWN seeds only."""
    environment = Environment(
        loader=FileSystemLoader([HERE, HERE.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"said": _said, "added": added}
    labels, about = _labels(old.name, new.name, old.kind)
    seeds = [
        {"caption": a.caption, "sides": [
            {"name": name, "prompt": m.prompt, "total": m.total, "picture": embedded(m.picture())}
            for name, m in zip(labels, (a, b), strict=True)
        ]}
        for a, b in same_seeds(old, new)[:SHOWN]
    ]  # fmt: skip
    tools = {"number": _number, "change": change, "plain": plain}
    names = {"old": labels[0], "new": labels[1], "about": about}
    return environment.get_template("diff.html.j2").render(view=view, sections=SECTIONS, seeds=seeds, **names, **tools)


def _labels(old: str, new: str, kind: str) -> tuple[tuple[str, str], str]:
    """What the two are called on the page, and what they have in common: of one repository only the revisions differ."""
    (repo, _, a), (other, _, b) = old.rpartition("@"), new.rpartition("@")
    if repo == other:
        return (a, b), f"{kind} {repo}"
    return (old, new), kind


def _said(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(told: dict[str, float | None]) -> str:
    return plain(told["value"]) if told["se"] is None else with_error(told["value"], told["se"])
