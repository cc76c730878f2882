"""Reading results.json: look-ups, and numbers in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from spro_hf.errors import UserError

FIELDS = (
    *("title", "subtitle", "made", "objectives", "systems", "metrics", "table", "gains", "curves", "win_rates"),
    *("strategies", "samples", "prompts", "replies", "artifacts", "unknown_words", "notes"),
)
PER_CALLS = 100_000
LETTERS = {10**3: "k", 10**6: "M", 10**9: "G"}
OWN_REWARD = {"aesthetics": "aesthetic", "engagement": "engagement", "preference": "pickscore"}


def load_results(folder: Path) -> dict[str, Any]:
    """Read ``folder/results.json``.

    Raises:
        UserError: if the file is missing, is not JSON, or lacks a field.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise UserError(f"{file} does not exist; run the evaluate stage first, or name the folder of a finished run.")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON (line {error.lineno}); run the evaluate stage again.") from error
    lacking = [name for name in FIELDS if name not in results]
    if lacking:
        raise UserError(f"{file}: the field '{lacking[0]}' is missing; run the evaluate stage again.")
    return results


def rows(results: dict[str, Any], section: str, **where: Any) -> list[dict[str, Any]]:
    """The rows of one list of results.json whose fields equal ``where``, in their order."""
    return [row for row in results[section] if all(row[key] == value for key, value in where.items())]


def first(results: dict[str, Any], section: str, **where: Any) -> dict[str, Any] | None:
    """The first such row, or None."""
    return next(iter(rows(results, section, **where)), None)


def own_metric(results: dict[str, Any], objective: str) -> str:
    """What an objective was trained on: its scorer, or "total" where that differs (several rewards, or a weight)."""
    named = {r["system"]: r["mean"] for r in rows(results, "table", objective=objective, metric=OWN_REWARD[objective])}
    total = {r["system"]: r["mean"] for r in rows(results, "table", objective=objective, metric="total")}
    return "total" if total and total != named else OWN_REWARD[objective]


def kind_of(results: dict[str, Any], kind: str) -> str | None:
    """The metric of a kind ("judge", "planted"): the one of that very name, else the first; None if there is none."""
    names = [metric["name"] for metric in rows(results, "metrics", kind=kind)]
    return kind if kind in names else next(iter(names), None)


def judges(results: dict[str, Any], objective: str) -> list[str]:
    """The scorers that nothing of an objective was trained on; where that is not told, the metrics that are called judges."""
    if "judges" in results:
        return [row["name"] for row in rows(results, "judges", objective=objective)]
    return [metric["name"] for metric in rows(results, "metrics", kind="judge")]


def costs(results: dict[str, Any], objective: str) -> list[dict[str, Any]]:
    """The systems learned by policy gradient with what their training took and what came of it.

    Added to each row: ``minutes`` of all its processes together, and the relative gain ``per_calls`` (100,000 calls of
    the denoiser) and ``per_minute`` (of one process). Results written before there was policy gradient have no such
    list, and so no rows.
    """
    found = []
    for row in results.get("costs", []):
        if row["objective"] == objective:
            minutes = row["seconds"] * row["processes"] / 60
            per = {"per_calls": row["proxy"] / row["calls"] * PER_CALLS, "per_minute": row["proxy"] / minutes}
            found.append(row | {"minutes": minutes} | per)
    return found


def newest(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One artifact per repository, the one published last, with the tags before it as ``earlier``."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for artifact in results["artifacts"]:
        key = (artifact["type"], artifact["repo"])
        before = found.pop(key, None)
        found[key] = artifact | {"earlier": before["earlier"] + [before["tag"]] if before else []}
    return list(found.values())


def known(value: float | None) -> bool:
    """False for None and for NaN: nothing was measured."""
    return value is not None and not math.isnan(value)


def number(value: float | None) -> str:
    """Three significant digits or so, as a reader wants them: 0.912, 5.21, 63.4, 1204; "–" where nothing is known."""
    if not known(value):
        return "–"
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:.{digits}f}".replace("-", "−")


def with_error(mean: float | None, se: float | None) -> str:
    """Mean ± standard error, the error with the mean's digits."""
    if not known(mean) or not known(se):
        return number(mean)
    text = number(mean)
    return f"{text} ± {se:.{len(text.partition('.')[2])}f}"


def percent(fraction: float | None, signed: bool = True) -> str:
    """A fraction as whole percents, one decimal below 10%: +31%, −2.4%."""
    if not known(fraction):
        return "–"
    value = 100 * fraction
    digits = 1 if abs(value) < 9.95 else 0
    return f"{value:{'+' if signed else ''}.{digits}f}%".replace("-", "−")


def rate(fraction: float | None) -> str:
    """As ``percent``, but never fewer than two significant digits: +4.5%, +0.062%."""
    if not known(fraction) or fraction == 0 or abs(fraction) >= 0.01:
        return percent(fraction)
    value = 100 * fraction
    return f"{value:+.{1 - math.floor(math.log10(abs(value)))}f}%".replace("-", "−")


def points(fraction: float | None, signed: bool = True) -> str:
    """A difference of shares in percentage points: −2.0, +0.6."""
    if not known(fraction):
        return "–"
    value = round(100 * fraction, 1)
    return f"{value:{'+' if signed and value else ''}.1f}".replace("-", "−") if value else "0.0"


def count(value: int) -> str:
    """A whole number with its thousands apart: 284,160."""
    return f"{value:,}"


def short_count(value: int) -> str:
    """A whole number in few letters: 950, 12.8k, 1.2M."""
    size = next((size for size in (10**9, 10**6, 10**3) if value >= 0.9995 * size), None)
    return f"{value / size:.3g}{LETTERS[size]}" if size else str(value)


def minutes(seconds: float) -> str:
    """Seconds as minutes: 12.5; 0.07 below one."""
    return f"{seconds / 60:.{1 if seconds >= 57 else 2}f}"
