"""The report of a run: one HTML file that needs nothing but itself.

Everything that came from a model, a caption or a recipe is untrusted text and is escaped by the template.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from spro_hf.lineage import graph, picture
from spro_hf.report import reading, sections, verdict, watching
from spro_hf.report.reading import known, own_metric, rows
from spro_hf.steps import write_whole

COLOURS = {"base": 0, "untrained guider": 1, "best-of-n": 2, "SPRO-Prompt": 3, "SPRO-Image": 4, "SPRO-MM": 5}
SPARE = (3, 5, 4, 2, 1, 6, 7)  # colours of other systems, best first, as far as those above are not there
SECTIONS = (
    "verdict",
    "samples",
    "table",
    "gains",
    "costs",
    "win_rates",
    "watch",
    "curves",
    "prompts",
    "strategies",
    "replies",
)
WORDS = ("number", "with_error", "percent", "rate", "points", "count", "minutes")  # of ``reading``, for the template
SHOWN = 4  # captions whose pictures are in sight at once; the rest unfolds


def write_report(folder: Path) -> Path:
    """Write ``folder/report.html`` from ``folder/results.json`` and the pictures that it names.

    Returns: the file written.

    Raises:
        UserError: if results.json is missing or incomplete, or names a picture that is not there.
    """
    folder = Path(folder)
    results = reading.load_results(folder)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = {name: getattr(reading, name) for name in WORDS}
    environment.filters |= {"added": added, "plain": plain}
    page = environment.get_template("template.html.j2").render(**_view(results, folder), **tools)
    file = folder / "report.html"
    write_whole(file, page)
    return file


def _view(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    short, sentence = verdict.headline(results)
    style = _colours(results["systems"])
    objectives = [
        {
            "name": objective,
            "verdict": verdict.verdict(results, objective),
            "samples": sections.samples(results, objective, folder),
            "table": sections.table(results, objective),
            "gains": sections.gains(results, objective, style),
            "costs": sections.costs(results, objective),
            "win_rates": sections.win_rates(results, objective, style),
            "watch": watching.section(results, objective),
            "curves": sections.curves(results, objective),
            "prompts": sections.prompts(results, objective),
            "strategies": sections.strategies(results, objective),
            "replies": rows(results, "replies", objective=objective),
            "own": own_metric(results, objective),
            "judges": reading.judges(results, objective),
        }
        for objective in results["objectives"]
    ]
    return {
        "results": results,
        "short": short,
        "sentence": sentence,
        "style": style,
        "objectives": objectives,
        "artifacts": reading.newest(results),
        "lineage": lineage(results),
        "metrics": [m for m in results["metrics"] if any(m in o["table"]["metrics"] for o in objectives if o["table"])],
        "warnings": [w for o in results["objectives"] for w in verdict.warnings(results, o)],
        "has": {name: any(o[name] for o in objectives) for name in SECTIONS},
        "has_planted": reading.kind_of(results, "planted") is not None,
        "watched": verdict.watched(results),
        "prompted": any(not p["same"] for o in objectives for sample in o["samples"] for p in sample["pictures"]),
        "units": {unit for o in objectives if o["curves"] for unit in o["curves"]["units"]},
        "duration": duration_words(results["made"].get("seconds")),
        "shown": SHOWN,
    }


def lineage(results: dict[str, Any]) -> Markup | None:
    """The picture of what was made of what; None where nothing was, or an older run did not note it."""
    found = graph.of_run(results["artifacts"])
    return Markup(picture.svg(found)) if found.edges else None


def _colours(systems: list[str]) -> dict[str, int]:
    """The number of every system's colour; beyond the last, colours come again."""
    spare = [colour for colour in SPARE if colour not in {COLOURS.get(system) for system in systems}]
    others = [system for system in systems if system not in COLOURS]
    return {
        system: COLOURS[system] if system in COLOURS else spare[others.index(system) % len(spare)] for system in systems
    }


def added(prompt: str, caption: str) -> Markup:
    """A prompt in which the words that the caption lacks are marked as inserted."""
    words, old = prompt.split(), re.findall(r"\w+", caption.lower())
    new = ["".join(re.findall(r"\w+", w.lower())) for w in words]
    parts = []
    for tag, _, _, low, high in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        text = escape(" ".join(words[low:high]))
        if text:
            parts.append(text if tag == "equal" else Markup("<ins>") + text + Markup("</ins>"))
    return Markup(" ").join(parts)


def plain(name: str) -> str:
    """A field's or metric's name as a reader's words."""
    return "own reward" if name == "total" else name.replace("_", " ")


def duration_words(seconds: float | None) -> str:
    """How long the run took, "" where it is not known."""
    from spro_hf.report.progress import duration

    return duration(seconds) if known(seconds) else ""
