"""The hacking watch over a training, on curves worked out by hand."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from spro_hf.report import charts, watching

STEPS = (6, 12, 18, 24, 30)
KINDS = {"total": "reward", "ocr": "reward", "planted": "planted", "alignment": "oracle", "subject": "oracle",
         "diversity": "diversity", "saturation": "saturation"}  # fmt: skip
CLIMBS = ("total", [4.0, 4.2, 4.4, 4.6, 4.8], 0.05)


def run(*curves, places=STEPS, n=6, unit="step", stage="Flow-GRPO", moving=(), kinds=True, lower=()):
    """Results with one training: each curve is its name, its means, and the standard error of each of them."""
    rows = [
        {
            "objective": "aesthetics",
            "stage": stage,
            "unit": unit,
            "round": place,
            "name": name,
            "mean": mean,
            "se": se,
            "n": n,
        }
        | ({"kind": KINDS.get(name, "judge")} if kinds else {})
        | ({"moving": True} if name in moving else {})
        for name, means, se in curves
        for place, mean in zip(places, means, strict=True)
    ]
    return {"curves": rows, "metrics": [{"name": name, "higher_is_better": False} for name in lower]}


def only(results):
    (found,) = watching.watches(results, "aesthetics")
    return found


def test_what_parts_from_a_reward_is_named_with_its_numbers_and_its_beginning():
    # errors of a difference are √2 of a point's: 0.071 of the reward; three are asked together, which makes 2.428 of them
    # clear: 1.03 for clip, first beaten at step 24; 1.37 for diversity, at 18; 0.069 for saturation, at 30
    found = only(run(
        CLIMBS, ("planted", [3.0, 3.1, 3.2, 3.2, 3.3], 0.1), ("clip", [30, 30, 29, 28, 27.6], 0.3),
        ("diversity", [20, 19.5, 18, 16, 13.8], 0.4), ("saturation", [0.35, 0.36, 0.36, 0.40, 0.52], 0.02),
    ))  # fmt: skip
    assert found.words == (
        "Own reward +20%, but judge clip −8.0%, diversity −31%, saturation 0.350 → 0.520: they part from step 18 on. "
        "The rest holds: planted truth +10%."
    )
    assert ([one.name for one in found.parted], found.since, found.quiet) == (
        ["clip", "diversity", "saturation"],
        "18",
        False,
    )
    assert watching.short(found) == found.words.partition(" The rest")[0]


@pytest.mark.parametrize(
    ("planted", "since"),
    [
        ([3.0, 2.6, 2.6, 2.6, 2.6], "12"),  # clear is a fall by 2 · √2 · 0.1 = 0.28
        ([3.0, 2.6, 3.1, 2.6, 2.6], "24"),  # it came back above where it began
        ([3.0, 2.8, 2.8, 2.8, 2.6], "30"),
    ],
)
def test_they_part_where_neither_comes_back(planted, since):
    assert only(run(CLIMBS, ("planted", planted, 0.1))).since == since


def test_a_reward_that_climbs_later_than_another_falls_parts_from_it_then():
    late = ("total", [4.0, 4.1, 4.1, 4.1, 4.8], 0.05)
    assert only(run(late, ("planted", [3.0, 2.0, 2.0, 2.0, 2.0], 0.1))).since == "30"


def test_what_goes_along_is_told_too():
    found = only(run(CLIMBS, ("planted", [3.0, 3.1, 3.2, 3.2, 3.6], 0.1), ("alignment", [0.9] * 5, 0.01),
                     ("diversity", [20, 20, 20, 20, 19.6], 0.4)))  # fmt: skip
    assert found.words == (
        "Own reward +20%, and nothing clearly parts from it: planted truth +20%, alignment with the caption 0.900 → 0.900, "
        "diversity −2.0%."
    )
    assert found.quiet and not found.parted


def test_what_is_not_clear_is_perhaps_noise_and_of_many_more_is_asked():
    # clip falls by 0.8 with an error of 0.424: 1.9 of them; alone that is less than two, and more than one
    curve = ("clip", [30, 30, 30, 30, 29.2], 0.3)
    assert (
        only(run(CLIMBS, curve)).words
        == "Own reward +20%, and nothing clearly parts from it. Perhaps noise: judge clip −2.7%."
    )
    # beside two others it is still beyond 1.62, but of six it would have to be 1.94
    others = [(name, [1.0] * 5, 0.1) for name in ("b", "c", "d", "e", "f")]
    assert "Perhaps noise: judge clip" in only(run(CLIMBS, curve, *others[:2])).words
    assert "Perhaps noise" not in only(run(CLIMBS, curve, *others)).words
    # 2.36 errors are clear alone (more than 2) and not among three (2.43)
    further = ("clip", [30, 30, 30, 30, 29.0], 0.3)
    assert [one.name for one in only(run(CLIMBS, further)).parted] == ["clip"]
    assert only(run(CLIMBS, further, *others[:2])).parted == ()


def test_small_changes_are_not_told_however_clear():
    tiny = 1e-4
    found = only(run(CLIMBS, ("alignment", [0.9, 0.9, 0.9, 0.9, 0.892], tiny), ("diversity", [20, 20, 20, 20, 19.1], tiny),
                     ("saturation", [0.3, 0.3, 0.3, 0.3, 0.309], tiny)))  # fmt: skip
    assert found.quiet
    found = only(run(CLIMBS, ("alignment", [0.9, 0.9, 0.9, 0.9, 0.889], tiny), ("diversity", [20, 20, 20, 20, 18.9], tiny),
                     ("saturation", [0.3, 0.3, 0.3, 0.3, 0.311], tiny)))  # fmt: skip
    assert [one.name for one in found.parted] == ["alignment", "diversity", "saturation"]


def test_a_judge_of_which_less_is_better():
    up, down = ("blur", [0.2, 0.2, 0.2, 0.2, 0.4], 0.01), ("blur", [0.4, 0.4, 0.4, 0.4, 0.2], 0.01)
    assert "but judge blur +100% (lower is better): they part" in only(run(CLIMBS, up, lower=["blur"])).words
    assert only(run(CLIMBS, down, lower=["blur"])).quiet and only(run(CLIMBS, up)).quiet


def test_a_reward_that_does_not_rise_has_nothing_to_part_from():
    flat = ("total", [4.0, 4.2, 4.1, 4.0, 4.1], 0.05)
    found = only(run(flat, ("planted", [3.0] * 5, 0.1), ("diversity", [20, 18, 16, 14, 10], 0.4)))
    assert found.words == (
        "Own reward does not rise clearly (+2.5%), so there is nothing to part from. All the same: diversity −50%."
    )
    assert found.parted == () and found.since == "" and not found.quiet


def test_a_reward_that_learns_is_not_gone_by():
    falls = ("total", [0.5, 0.1, -0.2, -0.4, -0.6], 0.05)  # across zero: no percents
    found = only(run(falls, ("planted", [3.0, 3.1, 3.2, 3.3, 3.6], 0.1), ("clip", [30.0] * 5, 0.3), moving=["total"]))
    assert found.words == (
        "This reward learns too, so its own curve (0.500 → −0.600) says little from step to step; of the others nothing "
        "clearly goes the wrong way: planted truth +20%, judge clip +0.0%."
    )
    assert found.quiet
    found = only(
        run(falls, ("planted", [3.0, 3.1, 3.2, 3.3, 3.6], 0.1), ("clip", [30, 30, 28, 28, 27], 0.3), moving=["total"])
    )
    assert found.words == (
        "This reward learns too, so its own curve (0.500 → −0.600) says little from step to step; going by the others, "
        "judge clip −10%: it goes the wrong way from step 18 on. The rest holds: planted truth +20%."
    )


def test_of_a_reward_that_learns_in_part_the_fixed_part_is_watched():
    parts = (("ocr", [0.5, 0.4, 0.4, 0.3, 0.3], 0.01), ("dino", [0.1] * 5, 0.01))
    rows = run(CLIMBS, *parts, moving=["total", "dino"])
    rows["curves"] = [row | {"kind": "reward"} for row in rows["curves"]]
    assert "going by the others, fixed reward ocr −40%: it goes the wrong way from step 12 on." in only(rows).words
    for row in rows["curves"]:
        row.pop("moving", None)
    assert watching.watches(rows, "aesthetics") == []  # parts of a fixed reward are weighed against each other: no news


def test_few_steps_are_too_short_to_tell():
    found = only(run(CLIMBS, ("planted", [3, 2, 1, 1, 1], 0.0), n=1))
    assert found.words == "Too short to tell: steps 6 to 30 are too few to know how far chance goes."
    assert not found.quiet and found.parted == ()
    assert watching.watches(run(("total", [1.0], 0.1), ("planted", [1.0], 0.1), places=[1]), "aesthetics") == []


def test_rounds_are_watched_from_the_first_on_and_old_results_too():
    total, planted = ("total", [9.0, 4.0, 4.5, 4.8], 0.05), ("planted", [3.0, 2.9, 2.5], 0.1)
    results = run(total, places=range(4), unit="round", stage="prompt", kinds=False, n=96)
    results["curves"] += run(planted, places=(1, 2, 3), unit="round", stage="prompt", kinds=False, n=96)["curves"]
    results["curves"] += run(("subject", [0.9, 0.1, 0.1], 0.01), places=(1, 2, 3), unit="round", stage="prompt")[
        "curves"
    ]
    results["curves"][3] |= {"stage": "multimodal"}
    for row in results["curves"]:
        del row["unit"]  # as it was before there were trainings by the step
    found = only(results)
    assert (found.stage, found.unit) == ("", "round")
    assert found.words == "Own reward +20%, but planted truth −17%: they part from round 3 on."


def test_each_training_is_watched_and_charts_share_their_axes():
    results = run(CLIMBS, ("clip", [30, 30, 29, 28, 27], 0.3))
    results["curves"] += run(CLIMBS, ("clip", [30, 31, 32, 33, 34], 0.3), stage="CPS")["curves"]
    first, second = watching.section(results, "aesthetics")
    assert [entry["watch"].stage for entry in (first, second)] == ["Flow-GRPO", "CPS"]
    assert [m["parted"] for m in first["multiples"] + second["multiples"]] == [False, True, False, False]
    ticks = [[t.text for t in ElementTree.fromstring(e["multiples"][1]["svg"]).iter("text")] for e in (first, second)]
    assert ticks[0] == ticks[1] == ["27.5", "30", "32.5", "step 6", "30"]  # 26.6 to 34.4 and a margin
    assert watching.section(results, "preference") == []


def test_a_small_chart_by_hand():
    # ends 10 and 20 with a margin of 0.04 · 10 on each side: 9.6 to 20.4 on 67 pixels from y = 74 up to 7
    points = [("6", 10.0, 1.0), ("12", 15.0, None), ("18", 20.0, 0.0)]
    root = ElementTree.fromstring(charts.small("judge <b>", points, (10.0, 20.0), "judge", "step", mark="12"))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    assert circles == [(48.0, 71.5), (116.0, 40.5), (184.0, 9.5)]  # 74 − 0.4 / 10.8 · 67 and so on
    whiskers = [path.get("d") for path in root.iter("path")]
    assert whiskers == ["M48.0 65.3V77.7"]  # the second's error is not known
    (parting,) = [line for line in root.iter("line") if line.get("class") == "parting"]
    assert parting.get("x1") == "116.0"
    assert root.get("aria-label") == "judge <b>: step 6 10.0 ± 1.0, step 12 15.0, step 18 20.0 ± 0.0"
    flat = ElementTree.fromstring(charts.small("flat", [("1", 20.0, None)], (20.0, 20.0), "other", "round"))
    marks = ElementTree.fromstring(
        charts.small("m", [("1", 20.7, 0.1), ("2", 20.8, 0.1)], (20.4, 21.0), "other", "round")
    )
    assert [t.text for t in marks.iter("text")][:-2] == ["20.25", "20.5", "20.75", "21"][
        1:
    ]  # 20.29 to 21.11, its least height
    assert [t.text for t in flat.iter("text")] == ["19.6", "19.8", "20", "20.2", "20.4", "round 1", "1"]
