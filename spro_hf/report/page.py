"""The report of a run: one HTML file that needs nothing but itself.

Everything that came from a model, a caption or a recipe is untrusted text and is escaped by the template.
"""

from __future__ import annotations

import base64
import io
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.report import charts, reading
from spro_hf.report.reading import first, known, own_metric, rows
from spro_hf.steps import write_whole

COLOURS = {"base": 0, "untrained guider": 1, "best-of-n": 2, "SPRO-Prompt": 3, "SPRO-Image": 4, "SPRO-MM": 5}
SECTIONS = ("verdict", "samples", "table", "gains", "win_rates", "curves", "prompts", "strategies", "replies")
SHOWN = 4  # captions whose pictures are in sight at once; the rest unfolds
STRATEGIES = 8  # phrases told from each end
LARGEST = 320  # pixels; larger pictures are embedded at this size, twice what a column shows
PIXELATED = 128  # pixels; pictures up to this side are enlarged without smoothing
CURVES = {
    "total": "own reward",
    "planted": "planted truth",
    "alignment": "alignment",
}  # those with a colour of their own
PANELS = (("total", "planted"), ("alignment", "subject"))  # those that share a unit share an axis


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
    tools = {"number": reading.number, "with_error": reading.with_error, "percent": reading.percent}
    environment.filters |= {"added": added, "plain": plain}
    page = environment.get_template("template.html.j2").render(**_view(results, folder), **tools)
    file = folder / "report.html"
    write_whole(file, page)
    return file


def _view(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    short, sentence = reading.headline(results)
    systems = results["systems"]
    style = {name: COLOURS.get(name, 6 + i % 2) for i, name in enumerate(systems)}
    objectives = [
        {
            "name": objective,
            "verdict": reading.verdict(results, objective),
            "samples": _samples(results, objective, folder),
            "table": _table(results, objective),
            "gains": _gains(results, objective, style),
            "win_rates": _win_rates(results, objective, style),
            "curves": _curves(results, objective),
            "prompts": rows(results, "prompts", objective=objective),
            "strategies": _strategies(results, objective),
            "replies": rows(results, "replies", objective=objective),
            "own": own_metric(results, objective),
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
        "metrics": [m for m in results["metrics"] if any(m in o["table"]["metrics"] for o in objectives if o["table"])],
        "warnings": [w for o in results["objectives"] for w in reading.warnings(results, o)],
        "has": {name: any(o[name] for o in objectives) for name in SECTIONS},
        "has_planted": reading.kind_of(results, "planted") is not None,
        "duration": duration_words(results["made"].get("seconds")),
        "shown": SHOWN,
    }


def _samples(results: dict[str, Any], objective: str, folder: Path) -> list[dict[str, Any]]:
    """Captions with one picture a system, in the systems' order; only metrics of the objective are told below."""
    told = [own_metric(results, objective), reading.kind_of(results, "planted")]
    found = []
    for sample in rows(results, "samples", objective=objective):
        pictures = []
        for system in results["systems"]:
            if system in sample["systems"]:
                entry = sample["systems"][system]
                scores = [(name, entry["scores"][name]) for name in told if name in entry["scores"]]
                same = entry["prompt"].strip() == sample["caption"].strip()
                about = {"system": system, "prompt": entry["prompt"], "same": same, "scores": scores}
                pictures.append(about | _embed(folder, entry["image"]))
        found.append({**sample, "pictures": pictures})
    return found


def _embed(folder: Path, name: str) -> dict[str, Any]:
    """A picture as a data URI: small ones as the PNG they are, larger ones reduced to WebP."""
    file = folder / name
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"results.json names the picture '{name}', which is not in {folder}; evaluate again.")
    with Image.open(file) as picture:
        size, picture = picture.size, picture.convert("RGB")
    pixelated = max(size) <= PIXELATED
    if max(size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    kind, options = ("png", {"optimize": True}) if pixelated else ("webp", {"quality": 86})
    picture.save(stream, kind, **options)
    data = base64.b64encode(stream.getvalue()).decode()
    return {"uri": f"data:image/{kind};base64,{data}", "pixelated": pixelated, "width": size[0], "height": size[1]}


def _table(results: dict[str, Any], objective: str) -> dict[str, Any] | None:
    """Systems × metrics (own reward and planted truth first), the best mean of each; n once if it is one for all."""
    cells = {(c["system"], c["metric"]): c for c in rows(results, "table", objective=objective)}
    first_of_all = [own_metric(results, objective), reading.kind_of(results, "planted")]
    doubled = {"total"} - {first_of_all[0]}  # the same numbers as the scorer's own
    measured = {metric for _, metric in cells} - doubled
    metrics = [m for m in results["metrics"] if m["name"] in measured]
    metrics.sort(key=lambda m: first_of_all.index(m["name"]) if m["name"] in first_of_all else len(first_of_all))
    if not metrics:
        return None
    best = {}
    for metric in metrics:
        means = [c["mean"] for (_, name), c in cells.items() if name == metric["name"] and known(c["mean"])]
        pick = max if metric["higher_is_better"] else min
        best[metric["name"]] = pick(means) if len(set(means)) > 1 else None  # no winner where all are equal
    counts = {c["n"] for (_, name), c in cells.items() if name in measured}
    lines = [
        {"system": system, "cells": [cells.get((system, m["name"])) for m in metrics]}
        for system in results["systems"]
        if any(name == system for name, _ in cells)
    ]
    return {"metrics": metrics, "lines": lines, "best": best, "n": counts.pop() if len(counts) == 1 else None}


def _gains(results: dict[str, Any], objective: str, style: dict[str, int]) -> list[dict[str, Any]]:
    gains = [g for g in rows(results, "gains", objective=objective) if g["system"] != "base"]
    span = charts.span_of([(g[k], g[f"{k}_se"]) for g in gains for k in ("proxy", "planted")])
    lines = []
    for gain in gains:
        fill = f"fill-s{style[gain['system']]}"
        proxy = charts.bar(gain["proxy"], gain["proxy_se"], span, fill, width=112)
        planted = charts.bar(gain["planted"], gain["planted_se"], span, f"{fill} pale", width=112)
        lines.append({**gain, "proxy_bar": proxy, "planted_bar": planted})
    return lines


def _win_rates(results: dict[str, Any], objective: str, style: dict[str, int]) -> list[dict[str, Any]]:
    """One block per system beaten against: lines are systems, columns metrics."""
    found = rows(results, "win_rates", objective=objective)
    blocks = []
    for against in dict.fromkeys(w["against"] for w in found):
        here = {(w["system"], w["metric"]): w for w in found if w["against"] == against}
        metrics = list(dict.fromkeys(metric for _, metric in here))
        lines = []
        for system in dict.fromkeys(system for system, _ in here):
            cells = [here.get((system, metric)) for metric in metrics]
            fill = f"fill-s{style.get(system, 0)}"
            bars = [c and charts.bar(c["rate"], c["se"], (0, 1), fill, origin=0.5, width=96) for c in cells]
            lines.append({"system": system, "cells": list(zip(cells, bars, strict=True))})
        counts = {w["n"] for w in here.values()}
        blocks.append({"against": against, "metrics": metrics, "lines": lines, "counts": sorted(counts)})
    return blocks


def _curves(results: dict[str, Any], objective: str) -> dict[str, Any] | None:
    """The curves of one objective as a chart, with the lines for its legend; None without curves."""
    found = [c for c in rows(results, "curves", objective=objective) if known(c["mean"])]
    if not found:
        return None
    places = list(dict.fromkeys((c["stage"], str(c["round"])) for c in found))
    lines: dict[str, charts.Curve] = {}
    for name in dict.fromkeys(c["name"] for c in found):
        points = sorted(
            (places.index((c["stage"], str(c["round"]))), c["mean"], c["se"] or 0.0) for c in found if c["name"] == name
        )
        style = name if name in CURVES else "other"
        lines[name] = charts.Curve(CURVES.get(name, name), style, tuple(points))
    others = [(name,) for name in lines if not any(name in panel for panel in PANELS)]
    unit = (first(results, "metrics", name=own_metric(results, objective)) or {}).get("unit", "")
    panels = []
    for group in (*PANELS, *others):
        here = tuple(lines[name] for name in group if name in lines)
        if here:
            large = group == PANELS[0]
            panels.append(charts.Panel((unit or "score") if large else here[0].name, here, 130 if large else 62))
    told = "; ".join(
        f"{line.name}: " + ", ".join(f"{' '.join(places[p])} {reading.with_error(m, s)}" for p, m, s in line.points)
        for line in lines.values()
    )
    return {"svg": charts.curves(f"{objective}. {told}", panels, places), "lines": list(lines.values())}


def _strategies(results: dict[str, Any], objective: str) -> list[dict[str, Any]]:
    """The strongest winners, then the strongest losers, best first; all of them where they are few."""
    found = sorted(rows(results, "strategies", objective=objective), key=lambda s: -s["effect"])
    span = charts.span_of([(s["effect"], s["se"]) for s in found])
    if len(found) > 2 * STRATEGIES:
        found = found[:STRATEGIES] + found[-STRATEGIES:]
    return [
        {**s, "bar": charts.bar(s["effect"], s["se"], span, "fill-up" if s["effect"] >= 0 else "fill-down")}
        for s in found
    ]


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
