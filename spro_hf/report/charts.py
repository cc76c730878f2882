"""Small SVG charts, drawn by hand so that the page stays one light file and follows the reader's light or dark.

Colours come from the page's CSS classes (``fill-…``, ``line-…``); every chart carries its numbers in a title for
screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from spro_hf.report.reading import known, with_error

BAR_HEIGHT = 16
PLOT = (52, 322)  # left and right end of the x axis of a curve chart
WIDTH = 340
LETTER = 6.2  # pixels that a letter of an axis takes, on the safe side
SMALL = (200, 92)  # width and height of a small chart
LEAST_SPAN = 0.04  # of what a small chart shows: its y axis is at least so high
STAGE_GAP = 1.8  # steps between the last round of a stage and the first of the next


@dataclass(frozen=True)
class Curve:
    """One line of a chart: ``points`` are (place on the x axis, mean, standard error)."""

    name: str
    style: str
    points: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Panel:
    """One y axis with its curves. It covers ``ends``: charts that stand side by side are told the same."""

    label: str
    curves: tuple[Curve, ...]
    ends: tuple[float, float]
    height: int = 130


def bar(
    value: float | None, se: float | None, span: tuple[float, float], style: str, origin: float = 0.0, width: int = 130
) -> Markup:
    """A bar from ``origin`` to ``value`` with a whisker of one standard error.

    Args:
        span: the values at the left and right end; it holds the origin, and what lies beyond it is cut off.
        style: the page's class for its colour, e.g. "fill-s3".
        width: pixels.
    """
    low, high = span
    height = BAR_HEIGHT

    def at(x: float) -> float:
        return 4 + (min(max(x, low), high) - low) / (high - low) * (width - 8)

    start = at(origin)
    parts = [f'<line x1="{start:.1f}" x2="{start:.1f}" y1="0" y2="{height}" class="axis"/>']
    if known(value):
        left, size = min(start, at(value)), abs(at(value) - start)
        parts.append(f'<rect x="{left:.1f}" y="4" width="{size:.1f}" height="{height - 8}" class="{escape(style)}"/>')
        if known(se) and se > 0:
            ends, y = (at(value - se), at(value + se)), height / 2
            caps = "".join(f"M{x:.1f} {y - 3}v6" for x in ends)
            parts.append(f'<path d="M{ends[0]:.1f} {y}H{ends[1]:.1f}{caps}" class="err"/>')
    return Markup(
        f'<svg class="bar" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def span_of(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    """The axis that holds zero and all (value, standard error) pairs; 0 to 1 where there is nothing to hold."""
    held = [(value, se if known(se) else 0.0) for value, se in pairs if known(value)]
    low = min([0.0, *(value - se for value, se in held)])
    high = max([0.0, *(value + se for value, se in held)])
    return (low, high) if high > low else (0.0, 1.0)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover [low, high] in at most ``most`` steps."""
    if high <= low:
        pad = abs(low) * 0.05 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            return [round(i * step, 10) for i in range(first, last + 1)]
    raise AssertionError("a step of twenty powers covers any range")


def curves(title: str, panels: Sequence[Panel], places: Sequence[tuple[str, str]], unit: str = "round") -> Markup:
    """Stacked panels over one x axis.

    Args:
        title: what the chart shows, for screen readers.
        places: (stage, round or step) of every place on the x axis; a line is drawn only within a stage.
        unit: what is counted there, "round" or "step".
    """
    parts, y = [], 10
    for panel in panels:
        parts.append(_panel(panel, places, y))
        y += panel.height + 22
    parts.append(_x_axis(places, y - 22, unit))
    height = y + 24
    return Markup(
        f'<svg class="curves" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def small(
    title: str,
    points: Sequence[tuple[str, float, float | None]],
    ends: tuple[float, float],
    style: str,
    unit: str,
    mark: str = "",
) -> Markup:
    """One curve, small enough to stand in a row of others.

    Args:
        title: what it shows, for screen readers.
        points: (round or step, mean, standard error or None); they stand at even steps.
        ends: what the y axis covers at least; it covers ``LEAST_SPAN`` too, lest noise look like news.
        style: the page's class for its colour, e.g. "judge".
        unit: "round" or "step".
        mark: the round or step at which a dashed line stands.
    """
    width, height = SMALL
    left, right, top, bottom = 42, width - 10, 7, height - 18
    middle = (ends[0] + ends[1]) / 2
    half = max((ends[1] - ends[0]) * 0.54, abs(middle) * LEAST_SPAN / 2) or 0.5
    low, high = middle - half, middle + half

    def at(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    def x(i: int) -> float:
        return left + 6 + (right - left - 12) * i / max(1, len(points) - 1)

    parts = []
    for value in (mark for mark in ticks(low, high, 4) if low <= mark <= high):
        parts.append(f'<line x1="{left}" x2="{right}" y1="{at(value):.1f}" y2="{at(value):.1f}" class="rule"/>')
        parts.append(
            f'<text x="{left - 5}" y="{at(value) + 3.5:.1f}" class="tick" text-anchor="end">{_short(value)}</text>'
        )
    for i, (place, _, _) in enumerate(points):
        if place == mark:
            parts.append(f'<line x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{top}" y2="{bottom}" class="parting"/>')
    for i, ((_, a, _), (_, b, _)) in enumerate(pairwise(points)):
        parts.append(
            f'<line x1="{x(i):.1f}" y1="{at(a):.1f}" x2="{x(i + 1):.1f}" y2="{at(b):.1f}" class="line-{escape(style)}"/>'
        )
    for i, (_, mean, se) in enumerate(points):
        if se:
            parts.append(
                f'<path d="M{x(i):.1f} {at(mean + se):.1f}V{at(mean - se):.1f}" class="line-{escape(style)} thin"/>'
            )
        parts.append(f'<circle cx="{x(i):.1f}" cy="{at(mean):.1f}" r="2.4" class="fill-{escape(style)}"/>')
    for place, where, anchor in ((points[0][0], left, "start"), (points[-1][0], right, "end")):
        text = f"{unit} {place}" if anchor == "start" else place
        parts.append(f'<text x="{where}" y="{height - 3}" class="tick" text-anchor="{anchor}">{escape(text)}</text>')
    told = escape(f"{title}: " + ", ".join(f"{unit} {p} {with_error(m, s)}" for p, m, s in points))
    return Markup(
        f'<svg class="small" viewBox="0 0 {width} {height}" role="img" aria-label="{told}">'
        f"<title>{told}</title>{''.join(parts)}</svg>"
    )


def _x(place: int, places: Sequence[tuple[str, str]]) -> float:
    """Even steps, and a wider one from stage to stage so that their names stand apart."""
    steps = [0.0]
    for (before, _), (after, _) in pairwise(places):
        steps.append(steps[-1] + (1.0 if before == after else STAGE_GAP))
    left, right = PLOT[0] + 16, PLOT[1] - 22
    return (left + right) / 2 if len(places) == 1 else left + (right - left) * steps[place] / steps[-1]


def _panel(panel: Panel, places: Sequence[tuple[str, str]], top: int) -> str:
    marks = ticks(*panel.ends, 4 if panel.height > 100 else 2)
    low, high = marks[0], marks[-1]
    bottom = top + panel.height

    def at(value: float) -> float:
        return bottom - (value - low) / (high - low) * panel.height

    parts = []
    for mark in marks:
        parts.append(f'<line x1="{PLOT[0]}" x2="{PLOT[1]}" y1="{at(mark):.1f}" y2="{at(mark):.1f}" class="rule"/>')
        parts.append(
            f'<text x="{PLOT[0] - 6}" y="{at(mark) + 3.5:.1f}" class="tick" text-anchor="end">{_short(mark)}</text>'
        )
    middle = (top + bottom) / 2
    parts.append(
        f'<text x="11" y="{middle}" transform="rotate(-90 11 {middle})" class="axis-label" text-anchor="middle">'
        f"{escape(panel.label)}</text>"
    )
    return "".join(parts) + "".join(_curve(curve, places, at) for curve in panel.curves)


def _short(mark: float) -> str:
    """A mark of an axis in as few letters as it needs; it is a round number."""
    return f"{mark:.6g}".replace("-", "−")


def _curve(curve: Curve, places: Sequence[tuple[str, str]], at) -> str:
    parts = []
    for (a, mean_a, _), (b, mean_b, _) in pairwise(curve.points):
        if places[a][0] == places[b][0]:
            line = f'x1="{_x(a, places):.1f}" y1="{at(mean_a):.1f}" x2="{_x(b, places):.1f}" y2="{at(mean_b):.1f}"'
            parts.append(f'<line {line} class="line-{escape(curve.style)}"/>')
    for place, mean, se in curve.points:
        x = _x(place, places)
        if se:
            up, down = at(mean + se), at(mean - se)
            whisker = f"M{x:.1f} {up:.1f}V{down:.1f}M{x - 3:.1f} {up:.1f}h6M{x - 3:.1f} {down:.1f}h6"
            parts.append(f'<path d="{whisker}" class="line-{escape(curve.style)} thin"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{at(mean):.1f}" r="3.2" class="fill-{escape(curve.style)}"/>')
    return "".join(parts)


def _x_axis(places: Sequence[tuple[str, str]], y: int, unit: str) -> str:
    """Numbers under the places and the stage's name under each run of them, a hairline between stages."""
    parts, start = [], 0
    for end, (stage, _) in enumerate(places):
        if end + 1 < len(places) and places[end + 1][0] == stage:
            continue
        for i in _numbered(places, start, end):
            x, text = _x(i, places), escape(places[i][1])
            parts.append(f'<text x="{x:.1f}" y="{y + 15}" class="tick" text-anchor="middle">{text}</text>')
        middle = (_x(start, places) + _x(end, places)) / 2
        label = f"{stage} · {unit}" if end > start or unit != "round" else stage
        if len(label) * LETTER > PLOT[1] - PLOT[0]:
            label = unit
        parts.append(
            f'<text x="{middle:.1f}" y="{y + 32}" class="axis-label" text-anchor="middle">{escape(label)}</text>'
        )
        if end + 1 < len(places):
            edge = (_x(end, places) + _x(end + 1, places)) / 2
            parts.append(f'<line x1="{edge:.1f}" x2="{edge:.1f}" y1="10" y2="{y + 34}" class="rule dash"/>')
        start = end + 1
    return "".join(parts)


def _numbered(places: Sequence[tuple[str, str]], start: int, end: int) -> list[int]:
    """The places of a stage whose numbers have room side by side: its last, and every so many from its first on."""
    if start == end:
        return [end]
    room = max(len(number) for _, number in places[start : end + 1]) * LETTER + 6
    every = math.ceil(room / (_x(start + 1, places) - _x(start, places)))
    return [*(i for i in range(start, end, every) if end - i >= every), end]
