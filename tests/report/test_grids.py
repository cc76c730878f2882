"""Where the pixels of a grid lie."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from spro_hf.report.grids import FONT_SIZE, GAP, LABEL_WIDTH, LINE, MARGIN, grid, wrap

FONT = ImageFont.load_default(FONT_SIZE)


def picture(colour: str, size: int = 32) -> Image.Image:
    image = Image.new("RGB", (size, size), colour)
    image.putpixel((1, 0), (1, 2, 3))
    return image


def test_pictures_lie_enlarged_where_they_should():
    image = grid([[picture("red"), picture("blue")], [picture("lime"), picture("gold")]], ["one", "two"], ["a", "b"], 4)
    left, top = MARGIN + LABEL_WIDTH, MARGIN + LINE + GAP // 2
    assert image.size == (left + 128 + GAP + 128 + MARGIN, top + 128 + GAP + 128 + MARGIN)
    pixels = np.asarray(image)
    assert (pixels[top : top + 4, left + 4 : left + 8] == (1, 2, 3)).all()  # one pixel became four by four
    assert (pixels[top : top + 128, left : left + 4] == (255, 0, 0)).all()
    assert (pixels[top + 128 + GAP + 127, left + 128 + GAP + 127] == (255, 215, 0)).all()
    assert (pixels[top : top + 128, left + 128 : left + 128 + GAP] == 255).all()
    assert (pixels[: MARGIN // 2] == 255).all()
    assert (pixels[top : top + LINE, MARGIN : left - GAP] < 128).any()  # the row's label


def test_no_label_column_without_row_labels_and_reduced_large_pictures():
    image = grid([[picture("red", 512)]], [""], ["a"], 0.25)
    assert image.size == (MARGIN + 128 + MARGIN, MARGIN + LINE + GAP // 2 + 128 + MARGIN)
    assert image.getpixel((MARGIN + 60, MARGIN + LINE + GAP // 2 + 60)) == (255, 0, 0)


def test_pictures_of_any_mode_and_size():
    image = grid([[Image.new("L", (32, 32), 7), Image.new("RGBA", (16, 48), "red")]], ["x"], ["a", "b"], 2)
    assert image.getpixel((MARGIN + LABEL_WIDTH, MARGIN + LINE + GAP // 2)) == (7, 7, 7)
    assert image.height == MARGIN + LINE + GAP // 2 + 96 + MARGIN


def test_a_long_caption_wraps_and_makes_room():
    caption = "a breathtaking ultra-detailed photograph of a lone yellow star over a dark forest " * 3
    lines = wrap(caption, FONT, LABEL_WIDTH - GAP)
    assert len(lines) > 7
    assert " ".join(lines).split() == caption.split()
    assert all(FONT.getlength(line) <= LABEL_WIDTH - GAP for line in lines)
    image = grid([[picture("red")]], [caption], ["a"], 1)
    assert image.height == MARGIN + LINE + GAP // 2 + LINE * len(lines) + MARGIN


def test_a_word_that_is_too_long_is_broken():
    lines = wrap("x" * 100, FONT, 60)
    assert "".join(lines) == "x" * 100
    assert all(FONT.getlength(line) <= 60 for line in lines)
    assert wrap("", FONT, 60) == []


def test_labels_must_fit():
    with pytest.raises(ValueError, match="1 row and 2 column labels"):
        grid([[picture("red")]], ["x"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one picture"):
        grid([], [], [])
