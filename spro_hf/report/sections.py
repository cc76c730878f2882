"""What stands in the sections of the page, objective by objective: rows of results.json made ready for the template."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.report import charts, reading, watching
from spro_hf.report.reading import first, known, own_metric, rows

STRATEGIES = 8  # phrases told from each end
LARGEST = 320  # pixels; larger pictures are embedded at this size, twice what a column shows
PIXELATED = 128  # pixels; pictures up to this side are enlarged without smoothing
CURVES = {
    "total": "own reward",
    "planted": "planted truth",
    "alignment": "alignment",
}  # those with a colour of their own
PANELS = (("total", "planted"), ("alignment", "subject", "style"))  # those that share a unit share an axis


def samples(results: dict[str, Any], objective: str, folder: Path) -> list[dict[str, Any]]:
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


def table(results: dict[str, Any], objective: str) -> dict[str, Any] | None:
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
        # no winner where all are equal, nor where more is neither better nor worse
        best[metric["name"]] = pick(means) if len(set(means)) > 1 and metric["kind"] != "watch" else None
    counts = {c["n"] for (_, name), c in cells.items() if name in measured}
    lines = [
        {"system": system, "cells": [cells.get((system, m["name"])) for m in metrics]}
        for system in results["systems"]
        if any(name == system for name, _ in cells)
    ]
    return {"metrics": metrics, "lines": lines, "best": best, "n": counts.pop() if len(counts) == 1 else None}


def gains(results: dict[str, Any], objective: str, style: dict[str, int]) -> list[dict[str, Any]]:
    gains = [g for g in rows(results, "gains", objective=objective) if g["system"] != "base"]
    span = charts.span_of([(g[k], g[f"{k}_se"]) for g in gains for k in ("proxy", "planted")])
    lines = []
    for gain in gains:
        fill = f"fill-s{style[gain['system']]}"
        proxy = charts.bar(gain["proxy"], gain["proxy_se"], span, fill, width=112)
        planted = charts.bar(gain["planted"], gain["planted_se"], span, f"{fill} pale", width=112)
        lines.append({**gain, "proxy_bar": proxy, "planted_bar": planted})
    return lines


def win_rates(results: dict[str, Any], objective: str, style: dict[str, int]) -> list[dict[str, Any]]:
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


def curves(results: dict[str, Any], objective: str) -> dict[str, Any] | None:
    """The curves of one objective, with the lines for their legend: a chart of its rounds, and one of every training.

    All charts of an objective have the same y axes, so that a glance compares them. None without curves. Of what the
    hacking watch looks at beside them its own section has charts.
    """
    found = [
        {"unit": "round"} | c
        for c in rows(results, "curves", objective=objective)
        if known(c["mean"]) and watching.kind(c) in ("reward", "planted", "oracle")
    ]
    if not found:
        return None
    drawn: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        drawn.setdefault(row["stage"] if row["unit"] == "step" else "", []).append(row)
    names = list(dict.fromkeys(row["name"] for row in found))
    groups = [panel for panel in PANELS if set(panel) & set(names)]
    groups += [(name,) for name in names if not any(name in panel for panel in PANELS)]
    unit = (first(results, "metrics", name=own_metric(results, objective)) or {}).get("unit", "")
    panels = [(group, unit or "score" if group == PANELS[0] else None, _ends(found, group)) for group in groups]
    return {
        "charts": [{"stage": stage, "svg": _chart(objective, some, panels)} for stage, some in drawn.items()],
        "lines": [charts.Curve(CURVES.get(name, name), name if name in CURVES else "other", ()) for name in names],
        "units": list(dict.fromkeys(row["unit"] for row in found)),
    }


def _ends(found: list[dict[str, Any]], group: tuple[str, ...]) -> tuple[float, float]:
    """The lowest and the highest end of a whisker in a panel."""
    points = [(row["mean"], row["se"] or 0.0) for row in found if row["name"] in group]
    return min(mean - se for mean, se in points), max(mean + se for mean, se in points)


def _chart(objective: str, found: list[dict[str, Any]], groups: list[tuple]) -> Markup:
    places = list(dict.fromkeys((c["stage"], str(c["round"])) for c in found))
    lines: dict[str, charts.Curve] = {}
    for name in dict.fromkeys(c["name"] for c in found):
        points = sorted(
            (places.index((c["stage"], str(c["round"]))), c["mean"], c["se"] or 0.0) for c in found if c["name"] == name
        )
        style = name if name in CURVES else "other"
        lines[name] = charts.Curve(CURVES.get(name, name), style, tuple(points))
    panels = []
    for group, label, ends in groups:
        here = tuple(lines[name] for name in group if name in lines)
        if here:
            panels.append(charts.Panel(label or here[0].name, here, ends, 130 if label else 62))
    told = "; ".join(
        f"{line.name}: " + ", ".join(f"{' '.join(places[p])} {reading.with_error(m, s)}" for p, m, s in line.points)
        for line in lines.values()
    )
    return charts.curves(f"{objective}. {told}", panels, places, found[0]["unit"])


def costs(results: dict[str, Any], objective: str) -> dict[str, Any] | None:
    """The rows of ``reading.costs`` and the best of each column of gains; None without rows."""
    found = reading.costs(results, objective)
    best = {}
    for name in ("proxy", "planted", "alignment", "per_calls", "per_minute"):
        values = [row[name] for row in found if known(row[name])]
        best[name] = max(values) if len(set(values)) > 1 else None  # no winner where there is one, or all are equal
    told = {name: any(known(row[name]) for row in found) for name in ("planted", "alignment")}
    return {"lines": found, "best": best, "told": told} if found else None


def prompts(results: dict[str, Any], objective: str) -> list[dict[str, Any]]:
    """Captions with their prompts before and after; none where no prompt differs from its caption: nobody wrote any."""
    found = rows(results, "prompts", objective=objective)
    return found if any(row["caption"] != row[when] for row in found for when in ("before", "after")) else []


def strategies(results: dict[str, Any], objective: str) -> list[dict[str, Any]]:
    """The strongest winners, then the strongest losers, best first; all of them where they are few."""
    found = sorted(rows(results, "strategies", objective=objective), key=lambda s: -s["effect"])
    span = charts.span_of([(s["effect"], s["se"]) for s in found])
    if len(found) > 2 * STRATEGIES:
        found = found[:STRATEGIES] + found[-STRATEGIES:]
    return [
        {**s, "bar": charts.bar(s["effect"], s["se"], span, "fill-up" if s["effect"] >= 0 else "fill-down")}
        for s in found
    ]
