"""Geometry of the charts, by hand."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from spro_hf.report.charts import Curve, Panel, bar, curves, span_of, ticks


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_bar_grows_from_its_origin():
    # span −1 to 1 on 108 pixels with 4 of margin: a value v lies at 4 + (v + 1) / 2 · 100
    root = parse(bar(0.5, 0.1, (-1, 1), "fill-s3", width=108))
    axis, rect, whisker = root
    assert axis.get("x1") == "54.0"
    assert (rect.get("x"), rect.get("width"), rect.get("class")) == ("54.0", "25.0", "fill-s3")
    assert whisker.get("d").startswith("M74.0 8.0H84.0")
    left = parse(bar(-0.5, None, (-1, 1), "fill-s3", width=108))[1]
    assert (left.get("x"), left.get("width")) == ("29.0", "25.0")


def test_bar_is_cut_at_the_end_of_its_axis_and_empty_where_nothing_is_known():
    assert parse(bar(3.0, 0.0, (0, 1), "fill-s1", width=108))[1].get("width") == "100.0"
    assert len(parse(bar(None, None, (0, 1), "fill-s1"))) == 1


def test_span_holds_zero_and_the_whiskers():
    assert span_of([(0.5, 0.25), (-0.25, 0.25), (None, None)]) == (-0.5, 0.75)
    assert span_of([(2.0, None)]) == (0.0, 2.0)
    assert span_of([]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "most", "told"),
    [
        (3.7, 5.3, 4, [3.5, 4.0, 4.5, 5.0, 5.5]),
        (0.87, 0.91, 2, [0.86, 0.88, 0.9, 0.92]),
        (20.0, 20.0, 4, [19.0, 19.5, 20.0, 20.5, 21.0]),
        (-3, 12, 4, [-5, 0, 5, 10, 15]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, most, told):
    found = ticks(low, high, most)
    assert len(found) - 1 <= most
    assert found[0] <= low
    assert found[-1] >= high
    if len(told) - 1 <= most:
        assert found == told


def test_curves_join_the_rounds_of_a_stage_only():
    places = [("prompt", "0"), ("prompt", "1"), ("multimodal", "2")]
    curve = Curve("own reward", "total", ((0, 4.0, 0.1), (1, 5.0, 0.1), (2, 5.5, 0.0)))
    svg = curves("aesthetics <b>", [Panel("score", (curve,), (3.9, 5.5))], places)
    root = parse(svg)
    assert root.get("aria-label") == "aesthetics <b>"
    assert len(re.findall(r'<line [^>]*class="line-total"', svg)) == 1
    assert svg.count("<circle") == 3
    assert svg.count('class="line-total thin"') == 2  # no whisker without an error
    text = [element.text for element in root.iter("text")]
    assert text[-5:] == ["0", "1", "prompt · round", "2", "multimodal"]
    # one step within the stage, 1.8 between stages, from 68 to 300: 68, 68 + 232 / 2.8, 300
    assert re.findall(r'<circle cx="([\d.]+)"', svg) == ["68.0", "150.9", "300.0"]


def test_a_single_place_stands_in_the_middle():
    svg = curves("one", [Panel("score", (Curve("own", "total", ((0, 1.0, 0.0),)),), (1.0, 1.0))], [("prompt", "1")])
    assert re.findall(r'<circle cx="([\d.]+)"', svg) == ["184.0"]


def axis(names: list[str], stage: str, unit: str) -> list[str]:
    """What stands below a chart with places of these names."""
    points = tuple((i, 1.0, 0.0) for i in range(len(names)))
    panel = Panel("score", (Curve("own", "total", points),), (1.0, 1.0))
    root = parse(curves("one", [panel], [(stage, name) for name in names], unit))
    return [element.text for element in root.iter("text")][6:]  # after five marks and the panel's label


def test_the_axis_of_a_training_counts_steps():
    names = ["13", "26", "39", "52", "64", "76", "88", "100"]
    assert axis(names, "Flow-GRPO", "step") == [*names, "Flow-GRPO · step"]
    assert axis(["100"], "CPS", "step") == ["100", "CPS · step"]


def test_crowded_numbers_thin_out_and_a_name_too_long_goes():
    # 8 places on 232 pixels stand 33.1 apart; "100000" asks for 6 · 6.2 + 6 = 43.2, so every second has room. The
    # seventh is one place from the last and goes
    names = ["13000", "26000", "39000", "52000", "64000", "76000", "88000", "100000"]
    assert axis(names, "DanceGRPO", "step")[:-1] == ["13000", "39000", "64000", "100000"]
    # 44 letters of 6.2 are wider than the plot's 270 pixels
    assert axis(["1", "2"], "x" * 37, "step")[-1] == "step"
    assert axis(["1", "2"], "x" * 36, "step")[-1] == "x" * 36 + " · step"


def test_a_panel_covers_the_ends_it_is_told():
    panel = Panel("score", (Curve("own", "total", ((0, 4.0, 0.0), (1, 5.0, 0.0))),), (3.0, 7.0))
    root = parse(curves("one", [panel], [("CPS", "1"), ("CPS", "2")], "step"))
    assert [element.text for element in root.iter("text")][:5] == ["3", "4", "5", "6", "7"]
    # 130 pixels down from 10: 4 lies at 140 − 130 / 4, 5 at 140 − 2 · 130 / 4
    assert [element.get("cy") for element in root.iter("circle")] == ["107.5", "75.0"]
