"""Histograms as one picture for a card: panels of distributions that lie over each other, on white.

A picture and no SVG, since it is read where cards are read, and not every such place draws an SVG of a repository.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spro_hf.report.charts import ticks

SHARPNESS = 2  # pixels of the picture for one of its layout, for screens that have as many
WIDTH, HEIGHT = 380, 190  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 46, 30  # room around its bars
INK, PALE, GRID = (32, 35, 40), (98, 105, 115), (226, 229, 233)
COLOURS = ((47, 119, 196), (185, 138, 62), (30, 148, 128), (207, 91, 60))  # as in the report


def histograms(panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]], bins: int = 24) -> Image.Image:
    """Draw panels, two in a row.

    Args:
        panels: (title, values by what they are of); each value list is not empty. What is compared in a panel has the same
            bins, and its bars are shares of its own values, since there may be many more of one than of the other.
        bins: how many bars a panel has.

    Raises:
        ValueError: if there is no panel, or one without values.
    """
    if not panels or not all(by and all(map(len, by.values())) for _, by in panels):
        raise ValueError("Histograms need values in every panel.")
    across = min(2, len(panels))
    canvas = Image.new("RGB", (WIDTH * across * SHARPNESS, HEIGHT * -(-len(panels) // across) * SHARPNESS), "white")
    for i, (title, by) in enumerate(panels):
        canvas.paste(_panel(title, by, bins), (i % across * WIDTH * SHARPNESS, i // across * HEIGHT * SHARPNESS))
    return canvas


def _panel(title: str, by: Mapping[str, Sequence[float]], bins: int) -> Image.Image:
    canvas = Image.new("RGB", (WIDTH * SHARPNESS, HEIGHT * SHARPNESS), "white")
    draw = ImageDraw.Draw(canvas, "RGBA")  # RGBA: bars let through what lies behind them
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(values, float) for values in by.values()]), bins)
    shares = {of: np.histogram(values, edges)[0] / len(values) for of, values in by.items()}
    marks = ticks(0.0, max(share.max() for share in shares.values()) * 100, 3)
    low, high, top = edges[0], edges[-1], marks[-1]

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * 100 / top * (HEIGHT - TOP - BOTTOM)

    for mark in marks:
        _line(draw, [(LEFT, y(mark / 100)), (WIDTH - RIGHT, y(mark / 100))], GRID)
        _text(draw, (LEFT - 6, y(mark / 100)), f"{mark:g} %", PALE, "rm", 10)
    corners = [[(x(e), y(v)) for i, v in enumerate(share) for e in edges[i : i + 2]] for share in shares.values()]
    outlines = [[(LEFT, y(0)), *found, (WIDTH - RIGHT, y(0))] for found in corners]
    for colour, outline in zip(COLOURS, outlines, strict=False):
        draw.polygon([(a * SHARPNESS, b * SHARPNESS) for a, b in outline], fill=(*colour, 90))
    for colour, outline in zip(COLOURS, outlines, strict=False):
        _line(draw, outline, colour)
    for mark in ticks(low, high, 5):
        if low <= mark <= high:
            _line(draw, [(x(mark), y(0)), (x(mark), y(0) + 4)], PALE)
            _text(draw, (x(mark), y(0) + 7), f"{mark:g}", PALE, "mt", 10)
    _text(draw, (LEFT, 8), title, INK, "lt", 13)
    place = LEFT
    for colour, (of, values) in zip(COLOURS, by.items(), strict=False):
        _line(draw, [(place, 33), (place + 12, 33)], colour, 3)
        place += 18 + _text(draw, (place + 17, 33), f"{of}, {len(values)}", PALE, "lm", 10) + 14
    return canvas


def _line(draw: ImageDraw.ImageDraw, points: list, colour: tuple[int, ...], width: float = 1) -> None:
    draw.line([(a * SHARPNESS, b * SHARPNESS) for a, b in points], fill=colour, width=round(width * SHARPNESS))


def _text(draw: ImageDraw.ImageDraw, at: tuple, text: str, colour: tuple[int, ...], anchor: str, size: int) -> float:
    """Write, and tell how wide it is."""
    font = ImageFont.load_default(size * SHARPNESS)
    draw.text((at[0] * SHARPNESS, at[1] * SHARPNESS), text, colour, font, anchor)
    return font.getlength(text) / SHARPNESS
