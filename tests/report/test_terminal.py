"""The summary at 80 and at 120 columns, and into a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from spro_hf.report.terminal import print_summary


def told(results, width=80, folder=None, **options) -> str:
    stream = io.StringIO()
    print_summary(results, Console(file=stream, width=width, **options), folder)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_its_width_and_cuts_nothing(results, width):
    lines = told(results, width).splitlines()
    assert "…" not in "".join(lines)
    start = next(i for i, line in enumerate(lines) if line.startswith("system"))
    assert all(len(line) <= width for line in lines[start : start + 24])


def test_rows_say_reward_gain_planted_alignment_and_judge(results):
    lines = [" ".join(line.split()) for line in told(results).splitlines()]
    # aesthetics, SPRO-Prompt: 4 · 1.31 ± 4 / 80, planted 4 · 1.24 ± 4 / 90, judge 0.5 + 0.24 / 2
    assert "SPRO-Prompt 5.24 ± 0.05 +31% 4.96 ± 0.04 +24% 0.910 0.620" in lines
    assert "base 4.00 ± 0.05 4.00 ± 0.04 0.900 0.500" in lines
    assert "aesthetics aesthetic n = 96" in lines
    wide = [" ".join(line.split()) for line in told(results, 120).splitlines()]
    assert "SPRO-Prompt 5.24 ± 0.05 +31% 4.96 ± 0.04 +24% 0.910 ± 0.008 0.620 ± 0.012" in wide


def test_headline_and_hacking_watch(results):
    text = " ".join(told(results).split())
    assert "It learned on 2 of 3 objectives." in text
    told_of = "planted truth falls (−8.0%) and judge falls (0.500 to 0.460)"
    assert f"Hacking watch: engagement, SPRO-MM: proxy +61%, but {told_of}." in text
    assert (
        "Hacking watch: engagement, by round: Own reward +35%, but planted truth −6.2%: they part from round 4 on."
        in text
    )
    # preference: 20 · 0.021 · 3 / 4 up, with an error of √2 · 20 / 60
    assert "Hacking watch: preference, by round: Own reward does not rise clearly (+1.6%), so there is" in text


def test_the_watch_of_a_training_in_a_line(policy):
    lines = [line for line in told(policy, 300).splitlines() if "Hacking watch: aesthetics, " in line and "Own" in line]
    # from step 13 to 100: 4 · 1.1219 to 4 · 1.52, planted 4 · 0.9719 to 4 · 0.88; at step 26 it is 4 · 0.0244 = 0.098 down,
    # and clear is 2 · √2 · 4 / 90 = 0.126
    assert lines == [
        "Hacking watch: aesthetics, DanceGRPO: Own reward +35%, but planted truth −9.5%, alignment with the caption 0.885 → 0.838: "
        "they part from step 39 on."
    ]
    quiet = "aesthetics, Flow-GRPO; aesthetics, Flow-GRPO-Fast; aesthetics, CPS; aesthetics, GRPO-Guard."
    assert f"Hacking watch: nothing clearly parts from the reward in {quiet}" in told(policy, 300).splitlines()


def test_whereabouts_with_lines_to_paste(results, tmp_path):
    folder = tmp_path / ("long" * 30)
    (folder / "hub").mkdir(parents=True)
    load = 'from datasets import load_dataset; rows = load_dataset("spro/x", revision="v1", split="train")'
    results["artifacts"].append({"repo": "spro/x", "type": "dataset", "tag": "v1", "what": "rollouts", "load": load})
    lines = told(results, folder=folder).splitlines()
    assert f"numbers  {folder / 'results.json'}" in lines  # never broken over two lines
    assert not any(line.startswith("report ") for line in lines)
    assert "model    spro/tiny-aesthetics-guider @ round-3" in lines
    assert load in lines and not any(line.startswith("Guider.load") for line in lines)
    assert sum(line.startswith("export HF_ENDPOINT=http://127.0.0.1:8642 ") for line in lines) == 1
    (folder / "report.html").touch()
    assert f"report   {folder / 'report.html'}" in told(results, folder=folder).splitlines()


def test_no_control_characters_without_a_terminal_and_markup_is_text(results):
    results["title"] = "[red]title[/red]"
    results["systems"] = ["[b]x"]
    for row in (*results["table"], *results["gains"]):
        row["system"] = "[b]x" if row["system"] == "base" else row["system"]
    text = told(results)
    assert "\x1b" not in text
    assert "[red]title[/red]" in text
    assert "[b]x " in text


def test_bold_in_a_terminal(results):
    assert "\x1b[1m" in told(results, force_terminal=True)


def test_a_run_without_an_evaluation(results):
    for name in ("objectives", "table", "gains", "metrics", "artifacts"):
        results[name] = []
    assert told(results) == "SPRO on the embedded world\n"


@pytest.mark.parametrize("width", [80, 120])
def test_costs_fit_their_width(policy, width):
    lines = told(policy, width).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("what it cost"))
    assert "…" not in "".join(lines)
    assert all(len(line) <= width for line in lines[start : start + 8])


def test_costs_say_what_training_took_and_gave(policy):
    lines = [" ".join(line.split()) for line in told(policy).splitlines()]
    # 0.45 / 3 and 0.45 / 10; two processes of 8 minutes: 0.32 / 16
    assert "Flow-GRPO 100 300k 10.0 +45% +38% −0.4 +15% +4.5%" in lines
    assert "GRPO-Guard 100 300k 8.0×2 +32% +30% 0.0 +11% +2.0%" in lines
    wide = [" ".join(line.split()) for line in told(policy, 120).splitlines()]
    assert "Flow-GRPO 100 12.8k 300k 10.0 4.00 → 5.80 +45% +38% −0.4 +15% +4.5%" in wide
    assert "what it cost" not in told(policy | {"costs": []})
