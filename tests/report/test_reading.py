"""Look-ups, and numbers in words."""

from __future__ import annotations

import json
import math

import pytest

from spro_hf.errors import UserError
from spro_hf.report import reading


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.9, "0.900"),
        (-0.2, "−0.200"),
        (5.214, "5.21"),
        (63.44, "63.4"),
        (1204.4, "1204"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_number(value, told):
    assert reading.number(value) == told


def test_with_error_gives_the_error_the_digits_of_the_mean():
    assert reading.with_error(5.214, 0.0461) == "5.21 ± 0.05"
    assert reading.with_error(63.44, 1.26) == "63.4 ± 1.3"
    assert reading.with_error(4.0, None) == "4.00"


def test_percent():
    assert [reading.percent(f) for f in (0.31, 0.0214, -0.08, 0.0996)] == ["+31%", "+2.1%", "−8.0%", "+10%"]
    assert reading.percent(0.5, signed=False) == "50%"
    assert reading.percent(None) == "–"


def test_own_metric_is_total_only_where_total_is_another_number(results):
    assert reading.own_metric(results, "preference") == "pickscore"
    for row in reading.rows(results, "table", objective="preference", metric="total"):
        row["mean"] += 1.0  # a second reward with a weight of its own
    assert reading.own_metric(results, "preference") == "total"


def test_kind_of_prefers_the_metric_named_after_its_kind(results):
    results["metrics"].insert(0, {"name": "clip", "kind": "judge"})
    assert reading.kind_of(results, "judge") == "judge"
    assert reading.kind_of(results, "diversity") is None


def test_newest_keeps_one_artifact_a_repository_and_the_earlier_tags(results):
    old = results["artifacts"][0]
    results["artifacts"] = [old | {"tag": "round-1"}, old | {"tag": "round-2"}, old, results["artifacts"][1]]
    told = [(a["repo"], a["tag"], a["earlier"]) for a in reading.newest(results)]
    assert told == [
        ("spro/tiny-aesthetics-guider", "round-3", ["round-1", "round-2"]),
        ("spro/tiny-engagement-guider", "round-3", []),
    ]


def test_load_results_names_the_file_and_the_field(tmp_path, results):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        reading.load_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"is not JSON \(line 1\)"):
        reading.load_results(tmp_path)
    del results["gains"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="the field 'gains' is missing"):
        reading.load_results(tmp_path)


def test_rate_keeps_two_significant_digits():
    told = [reading.rate(f) for f in (0.25, 0.0451, 0.00996, 0.00062, -0.00062, 0.0, None)]
    assert told == ["+25%", "+4.5%", "+1.00%", "+0.062%", "−0.062%", "+0.0%", "–"]


def test_points_counts_and_minutes():
    assert [reading.points(f) for f in (-0.062, 0.003, 0.0, -0.0002, None)] == ["−6.2", "+0.3", "0.0", "0.0", "–"]
    assert reading.points(0.005, signed=False) == "0.5"
    assert [reading.count(n) for n in (100, 12_800, 1_300_000)] == ["100", "12,800", "1,300,000"]
    told = [reading.short_count(n) for n in (950, 12_800, 300_000, 999_600, 1_234_567, 2_000_000_000)]
    assert told == ["950", "12.8k", "300k", "1M", "1.23M", "2G"]
    assert [reading.minutes(s) for s in (600.0, 585.0, 59.0, 4.2)] == ["10.0", "9.8", "1.0", "0.07"]


def test_costs_per_call_and_per_minute_of_one_process(policy):
    rows = {row["system"]: row for row in reading.costs(policy, "aesthetics")}
    # Flow-GRPO: 0.45 over 3 · 100k calls and 10 minutes; GRPO-Guard: 0.32 over two processes' 8 minutes each
    assert rows["Flow-GRPO"]["per_calls"] == pytest.approx(0.15)
    assert rows["Flow-GRPO"]["per_minute"] == pytest.approx(0.045)
    assert rows["GRPO-Guard"]["minutes"] == 16.0
    assert rows["GRPO-Guard"]["per_minute"] == pytest.approx(0.02)
    assert reading.costs(policy, "engagement") == []


def test_results_without_costs_are_read_as_having_none(tmp_path, results):
    assert "costs" not in results  # as files were before there was policy gradient
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert reading.costs(reading.load_results(tmp_path), "aesthetics") == []
