"""Labelled picture grids for model cards and run folders."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 16
GAP = 8
LABEL_WIDTH = 190
LEAST_CELL = 92  # room for the longest word of a column label
FONT_SIZE = 14
LINE = 18
INK = (32, 35, 40)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines no wider than ``width`` pixels: at blanks, and inside a word that is itself too wide."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(word) > width and len(word) > 1:
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def grid(
    images: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    scale: float = 4,
) -> Image.Image:
    """Draw pictures in rows and columns on white, row labels at the left, column labels above.

    Args:
        images: rows of pictures, of any sizes and modes; every row as long as ``column_labels``.
        row_labels: one per row, wrapped beside it; all empty for no label column.
        column_labels: one per column, wrapped above it.
        scale: pixels per picture pixel; enlarged without smoothing, reduced with Lanczos.

    Returns: an RGB image; the first picture's corner lies at (MARGIN + label column, MARGIN + header height).

    Raises:
        ValueError: if there is no picture, or the labels and the rows differ in length.
    """
    if not images or not column_labels:
        raise ValueError("A grid needs at least one picture.")
    if len(images) != len(row_labels) or any(len(row) != len(column_labels) for row in images):
        raise ValueError(f"{len(row_labels)} row and {len(column_labels)} column labels do not fit the pictures.")
    font = ImageFont.load_default(FONT_SIZE)
    scaled = [[_scaled(image, scale) for image in row] for row in images]
    widths = [max(LEAST_CELL, *(row[c].width for row in scaled)) for c in range(len(column_labels))]
    heads = [wrap(label, font, width) for label, width in zip(column_labels, widths, strict=True)]
    sides = [wrap(label, font, LABEL_WIDTH - GAP) for label in row_labels]
    heights = [max(LINE * len(side), *(image.height for image in row)) for side, row in zip(sides, scaled, strict=True)]
    left = MARGIN + (LABEL_WIDTH if any(sides) else 0)
    top = MARGIN + LINE * max(map(len, heads)) + GAP // 2
    width = left + sum(widths) + GAP * (len(widths) - 1) + MARGIN
    canvas = Image.new("RGB", (width, top + sum(heights) + GAP * (len(heights) - 1) + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    xs = [left + sum(widths[:c]) + GAP * c for c in range(len(widths))]
    for x, lines in zip(xs, heads, strict=True):
        _write(draw, font, lines, x, top - GAP // 2 - LINE * len(lines))
    y = top
    for side, row, height in zip(sides, scaled, heights, strict=True):
        _write(draw, font, side, MARGIN, y)
        for x, image in zip(xs, row, strict=True):
            canvas.paste(image, (x, y))
        y += height + GAP
    return canvas


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, lines: list[str], x: int, y: int) -> None:
    for i, line in enumerate(lines):
        draw.text((x, y + i * LINE), line, INK, font)
