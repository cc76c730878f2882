"""Numbers in words, and the verdict and the hacking watch on numbers worked out by hand."""

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


def test_verdict_of_a_system_that_learned(results):
    # highest proxy gain of the three trained systems: 0.31, 0.16, 0.34; its planted gain 0.26 ± 0.027 is clear
    verdict = reading.verdict(results, "aesthetics")
    assert (verdict.system, verdict.proxy, verdict.planted, verdict.untrained) == ("SPRO-MM", 0.34, 0.26, 0.08)
    assert verdict.learned
    assert verdict.words == "The proxy rose, and the planted truth with it."


def test_verdict_of_a_gamed_scorer(results):
    verdict = reading.verdict(results, "engagement")  # proxy 0.61, planted −0.08 ± 0.009
    assert not verdict.learned
    assert "gamed" in verdict.words


@pytest.mark.parametrize(
    ("changes", "learned", "words"),
    [
        ({"proxy": 0.02, "proxy_se": 0.02}, False, "did not rise clearly"),
        ({"proxy": 0.07, "proxy_se": 0.01}, False, "no better than the untrained guider"),
        ({"planted": 0.01, "planted_se": 0.02}, False, "did not clearly follow"),
        ({"planted": None, "planted_se": None}, True, "no planted truth here"),
    ],
)
def test_verdict_in_words(results, changes, learned, words):
    results["gains"] = [g for g in results["gains"] if g["system"] in ("untrained guider", "SPRO-MM")]
    reading.first(results, "gains", objective="aesthetics", system="SPRO-MM").update(changes)
    verdict = reading.verdict(results, "aesthetics")
    assert verdict.learned is learned
    assert words in verdict.words


def test_no_verdict_without_a_trained_system(results):
    results["gains"] = [g for g in results["gains"] if g["system"] == "untrained guider"]
    assert reading.verdict(results, "aesthetics") is None
    assert reading.headline(results) == ("", "")


def test_headline_averages_the_best_trained_systems(results):
    # proxies 0.34, 0.61, 0.023: mean 0.3243; planted 0.26, −0.08, 0.016: mean 0.0653
    short, sentence = reading.headline(results)
    assert short == "It learned on 2 of 3 objectives."
    assert "+32% on average" in sentence
    assert "by +6.5%" in sentence


def test_hacking_watch_tells_falls_and_how_clear_they_are(results):
    found = {w.system: w for w in reading.warnings(results, "engagement")}
    assert set(found) == {"SPRO-Image", "SPRO-MM"}
    assert found["SPRO-MM"].clear
    assert found["SPRO-MM"].fell == ["planted truth falls (−8.0%)"]
    # alignment 0.90 → 0.88 with an error of √2 · 0.008 = 0.0113: between one and two errors
    assert not found["SPRO-Image"].clear
    assert found["SPRO-Image"].fell == ["alignment with the caption falls (0.900 to 0.880, perhaps noise)"]


def test_no_warning_while_the_proxy_does_not_rise(results):
    for gain in results["gains"]:
        gain["proxy"] = -0.1
    assert reading.warnings(results, "engagement") == []


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
