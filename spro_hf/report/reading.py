"""Reading results.json: look-ups, numbers in words, and the verdict that stands at the top of every report.

"Rises" and "falls" are told by standard errors: a change counts as clear beyond two of them. The error of a difference
in alignment is taken as if the two systems were measured on different captions, which errs on the careful side.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spro_hf.errors import UserError

FIELDS = (
    *("title", "subtitle", "made", "objectives", "systems", "metrics", "table", "gains", "curves", "win_rates"),
    *("strategies", "samples", "prompts", "replies", "artifacts", "unknown_words", "notes"),
)
OWN_REWARD = {"aesthetics": "aesthetic", "engagement": "engagement", "preference": "pickscore"}
UNTRAINED = ("base", "untrained guider", "best-of-n")
CLEAR = 2.0  # standard errors


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


@dataclass(frozen=True)
class Verdict:
    """What happened to one objective. ``proxy`` and ``planted`` are relative gains of ``system`` over the base."""

    objective: str
    system: str
    proxy: float
    proxy_se: float
    planted: float | None
    planted_se: float | None
    untrained: float | None
    learned: bool
    words: str


@dataclass(frozen=True)
class Warning:
    """A system whose proxy rose while ``fell`` (sentences) fell; ``clear`` beyond two standard errors."""

    objective: str
    system: str
    proxy: float
    clear: bool
    fell: list[str] = field(default_factory=list)


def trained(results: dict[str, Any]) -> list[str]:
    """The systems that learned something: all but the base, the untrained guider and best-of-n."""
    return [s for s in results["systems"] if s not in UNTRAINED]


def verdict(results: dict[str, Any], objective: str) -> Verdict | None:
    """Judge the trained system with the highest proxy gain; None if no trained system was measured."""
    gains = {g["system"]: g for g in rows(results, "gains", objective=objective)}
    candidates = [gains[s] for s in trained(results) if s in gains and known(gains[s]["proxy"])]
    if not candidates:
        return None
    best = max(candidates, key=lambda g: g["proxy"])
    before = gains.get("untrained guider", {}).get("proxy")
    planted, planted_se = best["planted"], best["planted_se"]
    above_base = best["proxy"] > CLEAR * best["proxy_se"]
    above_untrained = not known(before) or best["proxy"] > before
    confirmed = not known(planted) or planted > CLEAR * (planted_se or 0.0)
    if not above_base:
        words = "The reward did not rise clearly above the base."
    elif not above_untrained:
        words = "Above the base, but no better than the untrained guider: nothing was learned."
    elif known(planted) and planted < -CLEAR * (planted_se or 0.0):
        words = "The proxy rose while the planted truth fell: the scorer was gamed."
    elif not confirmed:
        words = "The proxy rose; the planted truth did not clearly follow."
    elif known(planted):
        words = "The proxy rose, and the planted truth with it."
    else:
        words = "The reward rose; there is no planted truth here to check it against."
    learned = above_base and above_untrained and confirmed
    return Verdict(
        objective, best["system"], best["proxy"], best["proxy_se"], planted, planted_se, before, learned, words
    )


def warnings(results: dict[str, Any], objective: str) -> list[Warning]:
    """Hacking watch: every system but the base whose proxy rises while the planted truth or the alignment falls.

    A change smaller than one standard error is not told; a fall smaller than two is told as perhaps noise.
    """
    base = first(results, "table", objective=objective, system="base", metric="alignment")
    found = []
    for gain in rows(results, "gains", objective=objective):
        if gain["system"] == "base" or not known(gain["proxy"]) or gain["proxy"] <= (gain["proxy_se"] or 0.0):
            continue
        falls = [_fall("planted truth", percent(gain["planted"]), gain["planted"], gain["planted_se"])]
        cell = first(results, "table", objective=objective, system=gain["system"], metric="alignment")
        if base and cell and known(base["mean"]) and known(cell["mean"]):
            error = math.hypot(base["se"] or 0.0, cell["se"] or 0.0)
            told = f"{number(base['mean'])} to {number(cell['mean'])}"
            falls.append(_fall("alignment with the caption", told, cell["mean"] - base["mean"], error))
        falls = [fall for fall in falls if fall]
        if falls:
            clear = any(is_clear for _, is_clear in falls)
            found.append(Warning(objective, gain["system"], gain["proxy"], clear, [text for text, _ in falls]))
    return found


def _fall(what: str, told: str, change: float | None, se: float | None) -> tuple[str, bool] | None:
    error = se or 0.0
    if not known(change) or change >= 0 or -change <= error:
        return None
    clear = -change > CLEAR * error
    return f"{what} falls ({told}{'' if clear else ', perhaps noise'})", clear


def headline(results: dict[str, Any]) -> tuple[str, str]:
    """One short verdict and one sentence with the average gains over the objectives; both empty without gains."""
    verdicts = [v for v in (verdict(results, o) for o in results["objectives"]) if v]
    if not verdicts:
        return "", ""
    good, total = sum(v.learned for v in verdicts), len(verdicts)
    if good == total:
        short = "It learned." if total == 1 else f"It learned on all {total} objectives."
    else:
        short = "It did not learn." if good == 0 else f"It learned on {good} of {total} objectives."
    proxies = sum(v.proxy for v in verdicts) / total
    planted = [v.planted for v in verdicts if known(v.planted)]
    where = " on average" if total > 1 else ""
    text = f"The best trained system of each objective moves its own reward by {percent(proxies)}{where} over the base"
    if total == 1:
        text = f"{verdicts[0].system} moves its own reward by {percent(proxies)} over the base"
    if planted:
        text += f", and the planted truth, which nothing was trained on, by {percent(sum(planted) / len(planted))}"
    return short, text + "."
