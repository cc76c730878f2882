"""Means with standard errors, paired win rates, and which phrases won."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np


def mean_se(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard error of the mean (unbiased spread over √n) and n; the error of a single value is 0."""
    array = np.asarray(values, dtype=np.float64)
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "se": float(error), "n": len(array)}


def group_means(names: Sequence[str], values: Sequence[float]) -> list[float]:
    """The mean of the values of each name, in the order in which the names first appear."""
    groups: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        groups.setdefault(name, []).append(value)
    return [float(np.mean(group)) for group in groups.values()]


def win_rate(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Share of places where a beats b, ties counted half, with its standard error."""
    wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in zip(a, b, strict=True)]
    told = mean_se(wins)
    return {"rate": told["mean"], "se": told["se"], "n": told["n"]}


def relative_gain(system: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """(mean(system) − mean(base)) / |mean(base)| with the first-order error of a ratio of paired means."""
    a, b = np.asarray(system, dtype=np.float64), np.asarray(base, dtype=np.float64)
    ratio = a.mean() / b.mean()
    error = (a - ratio * b).std(ddof=1) / math.sqrt(len(a)) / abs(b.mean()) if len(a) > 1 else 0.0
    return {"gain": float((a.mean() - b.mean()) / abs(b.mean())), "se": float(error), "n": len(a)}


def paired_change(system: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """mean(system − base) over pairs, with its standard error."""
    told = mean_se([after - before for after, before in zip(system, base, strict=True)])
    return {"change": told["mean"], "se": told["se"], "n": told["n"]}


def pooled_errors(points: Sequence[dict[str, float]], free: int = 4) -> list[float] | None:
    """Standard errors of several means of one kind, from the spread that they have in common.

    A point is ``mean_se`` of n values. Of few values an error of their own says little, and of one nothing: all points
    lend each other theirs, s² = Σ (n − 1) · n · se² / Σ (n − 1), and a mean of n has the error s / √n. None where fewer
    than ``free`` values are left to tell the spread by, Σ (n − 1).
    """
    left = sum(point["n"] - 1 for point in points)
    if left < free:
        return None
    spread = math.sqrt(sum((point["n"] - 1) * point["n"] * point["se"] ** 2 for point in points) / left)
    return [spread / math.sqrt(point["n"]) for point in points]


def bar(count: int, errors: float = 2.0) -> float:
    """How many standard errors are as much of ``count`` changes as ``errors`` are of one.

    The more are looked at, the sooner one of them goes far by chance. Beyond this, any of ``count`` goes as rarely as a
    single one goes beyond ``errors`` (Bonferroni's correction, one-sided, of a normal distribution).
    """
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-errors) / max(1, count))


def strategies(rows: Sequence[dict[str, Any]], least: int = 8) -> list[dict[str, Any]]:
    """What each phrase was worth: the mean gain of candidates that use it less that of the same seeds' that do not.

    Phrases are the steps of the plan and the comma-separated parts of the prompt that the base caption lacks. Seeds
    in which all or none of the candidates use a phrase say nothing about it; the effect is the mean of the others'
    differences. ``wins`` and ``losses`` count the best and worst candidates that used it.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        if row["parsed"]:
            groups.setdefault((row["round"], row["seed_id"]), []).append(row)
    differences: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[str, str], list[int]] = {}
    for group in groups.values():
        used = [phrases(row) for row in group]
        totals = [row["total"] for row in group]
        best, worst = int(np.argmax(totals)), int(np.argmin(totals))
        for phrase in set().union(*used):
            on = [t for t, u in zip(totals, used, strict=True) if phrase in u]
            off = [t for t, u in zip(totals, used, strict=True) if phrase not in u]
            if on and off:
                differences.setdefault(phrase, []).append(float(np.mean(on) - np.mean(off)))
            count = counts.setdefault(phrase, [0, 0])
            count[0] += phrase in used[best]
            count[1] += phrase in used[worst]
    told = []
    for (kind, phrase), values in differences.items():
        if len(values) >= least:
            stats, (wins, losses) = mean_se(values), counts[kind, phrase]
            told.append({"phrase": phrase, "kind": kind, "effect": stats["mean"], "se": stats["se"], "n": stats["n"],
                         "wins": wins, "losses": losses})  # fmt: skip
    return sorted(told, key=lambda t: (-t["effect"], t["kind"], t["phrase"]))  # ties too: sets have no order


def phrases(row: dict[str, Any]) -> set[tuple[str, str]]:
    """The plan's steps and the prompt's own parts, as (kind, phrase)."""
    base = {part.strip().lower() for part in row["base_caption"].split(",")}
    parts = {part.strip().lower() for part in row["prompt"].split(",")[1:]} - base
    steps = {step.strip().lower() for step in row["plan"]}
    return {("modifier", part) for part in parts if part} | {("plan", step) for step in steps if step}
