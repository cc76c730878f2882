"""The hacking watch over a training: what climbs with the reward, and what parts from it, in words and in small charts.

A reward that is deceived climbs while judges that nobody trained on, the planted truth or the diversity of the pictures
fall, or while colours grow ever stronger. What went where is told by the first and the last point of each curve, and is
clear beyond two standard errors. Where several judges, diversity and saturation are looked at together, one of them goes
that far by chance sooner: of them ``statistics.bar`` asks more, so that a false alarm stays as rare as with a single one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spro_hf.report import charts
from spro_hf.report.reading import known, number, percent, rows
from spro_hf.statistics import bar, pooled_errors

CLEAR = 2.0  # standard errors
NOISE = 1.0  # standard errors, up to which nothing is told
LEAST = 0.01  # of shares: a change below one point in a hundred is not told, however clear
LEAST_DIVERSITY = 0.05  # of diversity at first: it always shrinks a little where something is learned
PERHAPS, HELD = "Perhaps noise:", "The rest holds:"  # how the sentences begin that tell of the rest
SHARES = ("alignment", "style", "saturation")
OLD = {"total": "reward", "planted": "planted", "alignment": "oracle", "subject": "oracle"}  # where no kind is told
ORDER = ("reward", "planted", "oracle", "judge", "diversity", "saturation")


@dataclass(frozen=True)
class Series:
    """One curve of a training. ``points`` are (place, mean, standard error), the error None where it is not known.

    ``worse`` is the direction that is bad: −1 where it should not fall, 1 where it should not rise.
    """

    name: str
    kind: str
    points: tuple[tuple[str, float, float | None], ...]
    worse: int = -1
    moving: bool = False

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        named = {"total": "own reward", "planted": "planted truth", "alignment": "alignment with the caption"}
        before = {"judge": "judge ", "reward": "fixed reward "}.get(self.kind, "") if self.name != self.kind else ""
        return named.get(self.name) or before + self.name

    @property
    def label(self) -> str:
        """What stands above its chart."""
        return (self.name if self.kind == "oracle" else self.words) + (" (learns)" if self.moving else "")

    def change(self, at: int = -1) -> tuple[float, float | None]:
        """From the first point to point ``at``: the difference and its standard error."""
        (_, begin, error), (_, end, other) = self.points[0], self.points[at]
        return end - begin, None if error is None or other is None else math.hypot(error, other)

    def went(self, direction: int, errors: float, at: int = -1) -> bool:
        """Whether it went that way, by more than so many standard errors and by enough to be told."""
        change, error = self.change(at)
        least = LEAST if self.name in SHARES else 0.0
        least = LEAST_DIVERSITY * self.points[0][1] if self.kind == "diversity" else least
        return error is not None and direction * change > max(errors * error, least)

    @property
    def moved(self) -> str:
        """From the first to the last point: percents, or both numbers where percents say nothing."""
        return moved(self.name, self.points[0][1], self.points[-1][1])

    @property
    def told(self) -> str:
        """What became of it, as part of a sentence."""
        return f"{self.words} {self.moved}" + (" (lower is better)" if self.kind == "judge" and self.worse > 0 else "")


@dataclass(frozen=True)
class Watch:
    """What the watch saw of one training, or of all rounds of an objective (``stage`` is then empty).

    ``parted`` holds what clearly parted from the reward and ``since`` where that began; ``words`` say it all.
    """

    objective: str
    stage: str
    unit: str
    series: tuple[Series, ...]
    words: str
    parted: tuple[Series, ...] = ()
    since: str = ""
    quiet: bool = False  # the reward climbed, or learns, and nothing parts from it


def moved(name: str, begin: float, end: float) -> str:
    """A change in words: +12%, −8.0%; shares and what crosses zero as "0.350 → 0.520"."""
    if name in SHARES or min(begin, end) <= 0:
        return f"{number(begin)} → {number(end)}"
    return percent(end / begin - 1)


def watches(results: dict[str, Any], objective: str) -> list[Watch]:
    """The watch of each training of an objective; none of one that has a single point, or nothing beside its reward.

    Round 0 of self-play is left aside: those are the base captions' pictures, drawn before anything was proposed.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows(results, "curves", objective=objective):
        unit = row.get("unit", "round")
        if known(row["mean"]) and (unit == "step" or row["round"] > 0):
            found.setdefault((row["stage"] if unit == "step" else "", unit), []).append(row)
    lower = {metric["name"] for metric in results["metrics"] if not metric["higher_is_better"]}
    told = []
    for (stage, unit), some in found.items():
        series = _series(some, lower)
        if len(series) > 1 and series[0].name == "total" and len(series[0].points) > 1:
            told.append(_watch(objective, stage, unit, series))
    return told


def kind(row: dict[str, Any]) -> str:
    """What a curve's row is of; by its name in results that do not say it."""
    return row.get("kind") or OLD.get(row["name"], "judge")


def _series(some: list[dict[str, Any]], lower: set[str]) -> tuple[Series, ...]:
    """The curves to watch: the reward first; of a reward that learns its fixed parts as well."""
    learns = any(row.get("moving") for row in some)
    found = []
    for name in dict.fromkeys(row["name"] for row in some):
        points = sorted((row for row in some if row["name"] == name), key=lambda row: row["round"])
        what, moving = kind(points[0]), bool(points[0].get("moving"))
        part = what == "reward" and name != "total" and (moving or not learns)
        if name == "subject" or part:
            continue
        errors = pooled_errors([{"n": p["n"], "se": p["se"] or 0.0} for p in points]) or [None] * len(points)
        means = tuple((str(p["round"]), p["mean"], e) for p, e in zip(points, errors, strict=True))
        worse = 1 if what == "saturation" or name in lower else -1
        found.append(Series(name, what, means, worse, moving))
    return tuple(sorted(found, key=lambda one: (one.name != "total", ORDER.index(one.kind))))


def bars(series: Sequence[Any]) -> dict[str, tuple[float, float]]:
    """By name how many standard errors are perhaps noise, and how many are clear; more of what is asked together."""
    together = sum(one.kind in ("judge", "diversity", "saturation") for one in series)
    alone = (NOISE, CLEAR)
    many = (bar(together, NOISE), bar(together, CLEAR))
    return {one.name: many if one.kind in ("judge", "diversity", "saturation") else alone for one in series}


def _watch(objective: str, stage: str, unit: str, series: tuple[Series, ...]) -> Watch:
    reward, others = series[0], series[1:]
    about = (objective, stage, unit, series)
    if all(one.points[-1][2] is None for one in series):
        span = f"{unit}s {reward.points[0][0]} to {reward.points[-1][0]}"
        return Watch(*about, f"Too short to tell: {span} are too few to know how far chance goes.")
    asked = bars(others)
    parted = tuple(one for one in others if one.went(one.worse, asked[one.name][1]))
    perhaps = [one for one in others if one not in parted and one.went(one.worse, asked[one.name][0])]
    held = [one for one in others if one not in parted and one not in perhaps]
    if not reward.moving and not reward.went(1, CLEAR):
        words = f"Own reward does not rise clearly ({reward.moved}), so there is nothing to part from."
        return Watch(*about, words + (f" All the same: {_join(parted)}." if parted else ""))
    since = _since(reward, parted, asked) if parted else ""
    words = _words(reward, parted, held, unit, since) + (f" {PERHAPS} {_join(perhaps)}." if perhaps else "")
    words += f" {HELD} {_join(held)}." if parted and held else ""
    return Watch(*about, words, parted, since, quiet=not parted)


def _words(reward: Series, parted: Sequence[Series], held: Sequence[Series], unit: str, since: str) -> str:
    """The sentence on a reward that climbed, or on one that learns, with what parted from it, else with what did not."""
    told = f": {_join(held)}" if held else ""
    if reward.moving:
        first = f"This reward learns too, so its own curve ({reward.moved}) says little from {unit} to {unit}"
        went = "it goes" if len(parted) == 1 else "they go"
        if parted:
            return f"{first}; going by the others, {_join(parted)}: {went} the wrong way from {unit} {since} on."
        return f"{first}; of the others nothing clearly goes the wrong way{told}."
    if parted:
        return f"Own reward {reward.moved}, but {_join(parted)}: they part from {unit} {since} on."
    return f"Own reward {reward.moved}, and nothing clearly parts from it{told}."


def _since(reward: Series, parted: Sequence[Series], asked: dict[str, tuple[float, float]]) -> str:
    """The first place at which reward and something else have clearly parted, and from which neither comes back."""
    places = [place for place, _, _ in reward.points]
    for i in range(1, len(places)):
        for one in parted:
            at = {place: k for k, (place, _, _) in enumerate(one.points)}
            if places[i] not in at or not _apart(reward, 1, CLEAR, i):
                continue
            if _apart(one, one.worse, asked[one.name][1], at[places[i]]):
                return places[i]
    return places[-1]


def _apart(one: Series, direction: int, errors: float, at: int) -> bool:
    """Clearly gone that way at a point and, at every later one, still on that side of where it began; always, if it moves."""
    if one.moving:
        return True
    return one.went(direction, errors, at) and all(direction * one.change(k)[0] > 0 for k in range(at, len(one.points)))


def _join(series: Sequence[Series]) -> str:
    return ", ".join(one.told for one in series)


def short(watch: Watch) -> str:
    """The watch's words cut down for a line in a terminal: without what is perhaps noise, and without what holds."""
    return watch.words.partition(f" {PERHAPS}")[0].partition(f" {HELD}")[0]


def section(results: dict[str, Any], objective: str) -> list[dict[str, Any]]:
    """Of each training its watch and its small charts; trainings of one objective share the axis of each curve."""
    found = watches(results, objective)
    ends: dict[tuple[str, bool], list[float]] = {}
    for one in (one for watch in found for one in watch.series):
        for _, mean, error in one.points:
            ends.setdefault((one.name, one.moving), []).extend([mean - (error or 0.0), mean + (error or 0.0)])
    told = []
    for watch in found:
        multiples = []
        for one in watch.series:
            held = ends[one.name, one.moving]
            style = one.name if one.name in ("total", "planted", "alignment") else one.kind
            chart = charts.small(one.words, one.points, (min(held), max(held)), style, watch.unit, watch.since)
            multiples.append({"series": one, "svg": chart, "parted": one in watch.parted})
        told.append({"watch": watch, "multiples": multiples})
    return told
