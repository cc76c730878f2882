"""The plan as a whole: what it says, that it needs nothing, and that a real run keeps within it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from spro_hf import rollouts
from spro_hf.errors import UserError
from spro_hf.plan import hardware, main, plan, summary
from spro_hf.plan.tell import gigabytes, print_plan
from spro_hf.recipe import load
from tests.plan.conftest import ROOT, tiny
from tests.stages.conftest import spro

TINY = ROOT / "recipes" / "tiny"


def arguments(recipe: Path, **given) -> Namespace:
    """What the command line makes of ``spro-hf plan RECIPE`` and its options."""
    options = ("seeds", "throughput", "images_per_second", "tokens_per_second", "samples_per_second", "hub")
    return Namespace(**{"recipe": recipe, "calibrate": False, "json": False, **dict.fromkeys(options), **given})


def test_summary_is_plain_data():
    told = summary(tiny("1_prompt.yaml"))
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {"stage", "method", "name", "objective", "picture", "models", "counts", "tokens of a reply", "memory",
                         "disk", "hours", "processes", "pushes", "private", "notes"}  # fmt: skip
    assert told["counts"]["pictures"] == {"count": 1728, "exact": False} and told["picture"] == [32, 32]
    assert [model["field"] for model in told["models"]] == [
        "generator.id", "scorers.aesthetic.id", "scorers.aesthetic.backbone", "scorers.engagement.id",
        "scorers.engagement.backbone", "scorers.pickscore.id", "guider.id", "select.similarity",
    ]  # fmt: skip
    guider = told["models"][-2]
    assert guider["parameters"] == 893_376 and guider["bytes"] == 4 * 893_376 and guider["download"] == 0
    assert told["disk"]["models"] == {"bytes": 0, "exact": True} and told["notes"] == []
    assert told["pushes"][0] == {"repo": "spro/tiny-aesthetics-guider", "type": "model", "tag": "round-1"}
    assert told["memory"]["GPU"]["card"] == 12 and told["hours"]["total"] is None


def test_every_recipe_is_planned_offline():
    """In a process of its own, without torch and without a network to ask."""
    script = """
import json, sys
from pathlib import Path
from spro_hf.plan import hardware, plan
from spro_hf.recipe import find, load
told = {}
for file in find(Path("recipes")):
    stages = plan(file)
    one = load(file)
    own = [recipe.generator.id != "spro_hf/tiny/renderer" for recipe in one]  # it has nothing on a device
    told[str(file)] = [s["memory"]["GPU"]["total"] for s, large in zip(stages, own) if large] + [hardware(one[0])]
assert not {"torch", "diffusers", "transformers", "datasets"} & set(sys.modules)
print(json.dumps(told))
"""
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert len(told) > 20 and all(total > 0 for totals in told.values() for total in totals[:-1])
    assert not any("least" in totals[-1] for totals in told.values())  # all models of the recipes are known


def test_hardware():
    sdxl = load(ROOT / "recipes" / "sdxl" / "aesthetics" / "1_prompt.yaml")[0]
    assert hardware(tiny("1_prompt.yaml")) == "12 GB"
    peak = summary(sdxl)["memory"]["GPU"]
    assert hardware(sdxl) == f"{peak['card']} GB" and peak["total"] * 1.1 <= peak["card"] << 30
    # the guider alone is 10.67 billion numbers of two bytes, the generator 3.47, CLIP 0.43 of four
    assert peak["total"] > 2 * 10.67e9 + 2 * 3.47e9 + 4 * 0.42e9
    apart = load(ROOT / "recipes/sdxl/aesthetics/1_prompt.yaml", {"guider.device": "cuda:1"})[0]
    assert " + " in hardware(apart)
    unknown = tiny("1_prompt.yaml", generator__id="somebody/something")
    assert hardware(unknown).startswith("at least ")
    huge = load(ROOT / "recipes/sdxl/aesthetics/1_prompt.yaml", {"generator.batch_size": 200})[0]
    assert hardware(huge) == "more than 141 GB"


def test_what_is_not_known_is_said():
    told = summary(tiny("1_prompt.yaml", generator__id="somebody/something", scorers__pickscore={"id": "a/b"}))
    assert told["notes"][:2] == [
        "generator.id: size unknown, so that memory and disk are bounds from below",
        "scorers.pickscore.id: size unknown, so that memory and disk are bounds from below",
    ]
    lost = {model["field"]: model["bytes"] for model in told["models"]}
    assert lost["generator.id"] is None and lost["guider.id"] == 4 * 893_376
    assert told["counts"]["denoiser calls, drawing"] == {"count": 1728 * 8 * 2, "exact": False}
    assert not told["memory"]["GPU"]["known"] and not told["disk"]["models"]["exact"]
    assert told["picture"] is None and told["disk"]["rows"]["count"] is None
    winners = summary(tiny("2_image.yaml", finetune={"steps": None, "epochs": 2}))
    assert winners["counts"]["generator samples"]["count"] is None and "give 'steps' to know" in winners["notes"][0]


def test_stages_of_a_list_know_of_each_other():
    told = plan(TINY / "spro.yaml", {"finetune.steps": None, "finetune.epochs": 1})
    assert len(told) == 12 and [t["stage"] for t in told[:4]] == ["prompt", "image", "multimodal", "evaluate"]
    # two rounds of 64 winners, each under two texts, in batches of 16
    assert told[1]["counts"]["generator updates"] == {"count": 16, "exact": False}


def test_captions_of_ones_own(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a red circle\na blue square\n")
    (told,) = plan(TINY / "1_prompt.yaml", {"seeds.count": 10}, file)
    assert told["counts"]["replies"] == {"count": 10 * 8 * 3, "exact": True}
    with pytest.raises(UserError, match="there is no file"):
        plan(TINY / "1_prompt.yaml", None, tmp_path / "none.txt")


@pytest.mark.parametrize("recipe", ["tiny/spro.yaml", "tiny/reinforce/methods.yaml", "sdxl/engagement/spro.yaml"])
def test_tables_fit_a_terminal(recipe):
    console, told = Console(width=140), plan(ROOT / "recipes" / recipe)
    with console.capture() as captured:
        print_plan("x.yaml", told, console)
    lines = captured.get().splitlines()
    tables = [line for line in lines if not line.startswith(("model ", "dataset ", "note "))]
    assert max(map(len, tables)) <= 100
    text = "\n".join(lines)
    assert "hours: unknown: give --calibrate or throughput" in text
    for push in told[0]["pushes"]:
        assert push["repo"] in text


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert main(arguments(TINY / "1_prompt.yaml", json=True), {"rounds": 2}) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["counts"]["replies"] == {"count": 1024, "exact": True} and told["hours"]["total"] is None
    rates = {"images_per_second": 2.0, "tokens_per_second": 10.0, "samples_per_second": 4.0}
    main(arguments(TINY / "1_prompt.yaml", json=True, **rates), {"rounds": 2})
    (told,) = json.loads(capsys.readouterr().out)
    # 1,152 pictures, 1,024 replies of 72 tokens, 768 passes over a pair
    assert told["hours"]["total"] == pytest.approx((1152 / 2 + 1024 * 72 / 10 + 768 / 4) / 3600)
    main(arguments(TINY / "1_prompt.yaml", **rates))
    shown = capsys.readouterr().out
    assert "unknown" not in shown and "1 stage" in shown and "≤ 1.73k" in shown
    with pytest.raises(UserError, match="unknown field 'ronds'; did you mean 'rounds'"):
        main(arguments(TINY / "1_prompt.yaml"), {"ronds": 2})
    with pytest.raises(UserError, match="there is no such recipe"):
        main(arguments(tmp_path / "none.yaml"))


def test_calibrating_writes_what_is_read_again(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    file, less = tmp_path / "rates.yaml", {"generator.batch_size": 2, "finetune.batch_size": 2}
    main(arguments(TINY / "2_image.yaml", calibrate=True, throughput=file), less)
    first, said = capsys.readouterr()
    assert "generator samples per second" in said and f"measured rates  {file}" in first
    main(arguments(TINY / "2_image.yaml", throughput=file), less)
    again, said = capsys.readouterr()
    assert "unknown" not in again and "measuring" not in said
    assert [line for line in again.splitlines() if "aesthetics image" in line][-1] in first


def test_bytes_in_words():
    told = [gigabytes(value) for value in (None, 0, 99_000_000, 100_000_000, 21_340_000_000, 9_655_000_000_000)]
    assert told == ["?", "0.0 MB", "99.0 MB", "0.1 GB", "21.3 GB", "9.7 TB"]


def test_a_run_keeps_within_its_plan(tmp_path):
    """Six seeds, three temperatures, one round: what is on the disk and on the Hub is what was told, or less."""
    changes = {"seeds.count": 6, "temperatures": [0.8, 1.0, 1.2], "rounds": 1}
    (told,) = plan(TINY / "1_prompt.yaml", changes)
    given = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    spro("run", TINY / "1_prompt.yaml", "--out", tmp_path / "run", *given)
    (stage,) = (tmp_path / "run" / "stages").glob("*-prompt")
    rows = rollouts.read(stage / "round-1" / "rollouts")
    assert told["counts"]["replies"] == {"count": len(rows), "exact": True}  # 18
    drawn = {(row["prompt"], row["image_seed"]) for row in rows if row["parsed"]}
    assert len(drawn) <= 18 and told["counts"]["pictures"] == {"count": 6 + 18, "exact": False}
    pairs = rollouts.read(stage / "round-1" / "pairs")
    assert 0 < 6 * len(pairs) <= told["counts"]["guider samples"]["count"] == 36  # six epochs
    kept = sum(f.stat().st_size for f in stage.rglob("*.parquet"))
    assert kept <= told["disk"]["rows"]["count"]
    weights = [f.stat().st_size for f in stage.rglob("*.safetensors")]
    assert len(weights) == 2  # the step's and what was laid out
    assert told["disk"]["weights"]["count"] <= sum(weights) <= told["disk"]["weights"]["count"] + 2 * 20_000  # headers
    left = [json.loads(file.read_text()) for file in (stage / "published").glob("*.json")]
    assert {(p["repo"], p["type"], p["tag"]) for p in left} == {
        (p["repo"], p["type"], p["tag"]) for p in told["pushes"]
    }
