"""What the Space computes: its pictures and scores, its limits, its messages, and what it reads of rollouts."""

import importlib.metadata
import io
import json
import math
import re
import zipfile
from html import unescape

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from spro_hf import rewards
from spro_hf.errors import UserError
from tests.spaces.conftest import FOLDER

CAPTION, SEED = "a red circle left of a blue star on sand", 3
FILE = "data/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def run():
    import drawing

    return drawing.draw("aesthetics", CAPTION, SEED)


def _pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_four_pictures_are_those_of_the_pipeline_called_directly(run):
    import drawing

    pipe, *_ = drawing.load("aesthetics")
    mm = pipe(CAPTION, objective="aesthetics", seed=SEED)
    prompt = pipe(CAPTION, objective="aesthetics", seed=SEED, lora=False)
    image = pipe(CAPTION, objective="aesthetics", seed=SEED, guider=False)
    pictures = (mm.base_images[0], prompt.images[0], image.images[0], mm.images[0])
    wanted = dict(zip(("base", "SPRO-Prompt", "SPRO-Image", "SPRO-MM"), pictures, strict=True))
    assert list(run["systems"]) == list(wanted)
    for name, picture in wanted.items():
        assert np.array_equal(_pixels(run["systems"][name]["png"]), np.asarray(picture)), name
    assert len({system["png"] for system in run["systems"].values()}) == 4
    assert run["prompt"] == mm.prompts[0] != CAPTION and run["plan"] == list(mm.plans[0]) and run["problem"] is None


def test_scores_are_those_of_the_recipe_in_the_lineage(run):
    recipe = json.loads((FOLDER / "artifacts/aesthetics/lineage.json").read_text())["recipe"]
    scorers = rewards.load(recipe["scorers"], recipe["reward"])
    pictures = [Image.open(io.BytesIO(system["png"])).convert("RGB") for system in run["systems"].values()]
    for system, scores in zip(run["systems"].values(), scorers.score(pictures, [CAPTION] * 4), strict=True):
        assert system["scores"] | {"total": system["total"]} == pytest.approx(scores, rel=1e-5)
        assert system["total"] == system["scores"]["aesthetic"]  # reward: {aesthetic: 1.0}
        assert set(system["scores"]) == {"aesthetic", "engagement", "pickscore"}
    assert run["systems"]["SPRO-MM"]["total"] > run["systems"]["base"]["total"]


def test_the_zip_holds_the_four_pictures_and_all_else(run):
    import drawing

    archive = zipfile.ZipFile(io.BytesIO(drawing.packed(run)))
    told = json.loads(archive.read("run.json"))
    assert (told["caption"], told["seed"], told["prompt"]) == (CAPTION, SEED, run["prompt"])
    for name, system in run["systems"].items():
        assert archive.read(told["systems"][name]["file"]) == system["png"]
        assert told["systems"][name]["total"] == system["total"]
    assert len(archive.namelist()) == 5


@pytest.mark.parametrize(
    ("caption", "seed", "said"),
    [
        ("", 0, "Caption: it is empty"),
        (" \n ", 0, "Caption: it is empty"),
        (None, 0, "Caption: it is empty"),
        ("x" * 301, 0, "it has 301 characters; write at most 300"),
        ("a", None, "whole number from 0 to 2147483647"),
        ("a", 1.5, "whole number"),
        ("a", -1, "whole number"),
        ("a", 2**31, "whole number"),
        ("a", math.nan, "whole number"),
    ],
)
def test_a_caption_or_seed_that_is_none_is_told(caption, seed, said):
    import drawing

    with pytest.raises(UserError, match=re.escape(said)):
        drawing.check(caption, seed)


def test_a_good_caption_and_seed_are_taken():
    import drawing

    assert drawing.check("  a  red\ncircle ", 2.0) == ("a red circle", 2)
    assert drawing.check("x" * 300, 2**31 - 1) == ("x" * 300, 2147483647)


def test_twenty_drawings_a_minute_and_then_a_wait():
    import drawing

    times = [100.0 + i for i in range(20)]  # the first of them is a minute old at 160
    assert drawing.wait(times[:19], 120.0) == 0.0
    assert drawing.wait(times, 120.0) == 40.0
    assert drawing.wait(times, 159.5) == 0.5
    assert drawing.wait(times, 160.0) == 0.0


def test_pipelines_are_loaded_once_and_the_oldest_makes_room(monkeypatch, run):
    import drawing

    asked = []

    def loaded(folder):
        asked.append(folder.name)
        return drawing._loaded_by_test

    monkeypatch.setattr(drawing, "_loaded_by_test", drawing.load("aesthetics")[0], raising=False)
    monkeypatch.setattr(drawing.SPROPipeline, "from_pretrained", loaded)
    monkeypatch.setattr(drawing, "LOADED", 2)
    monkeypatch.setattr(drawing, "_loaded", drawing._loaded.copy())
    for source in ("aesthetics", "preference", "aesthetics", "engagement", "aesthetics", "preference"):
        drawing.load(source)
        assert len(drawing._loaded) <= 2
    assert asked == ["preference", "engagement", "preference"]


def _said(line):
    return unescape(re.sub("<[^>]+>", "", line))


def test_what_nobody_foresaw_is_a_message_without_its_words(monkeypatch):
    import drawing

    def fails(*_):
        raise RuntimeError("hf_secret in /home/someone")

    monkeypatch.setattr(drawing, "draw", fails)
    line, run, times = drawing.answer("aesthetics", CAPTION, 0, {}, [], 7.0)
    assert _said(line).startswith("Something went wrong here") and "secret" not in line and "home" not in line
    assert run is None and times == [7.0]  # it counts: the machine has worked


def test_whoever_draws_too_often_is_asked_to_wait():
    import drawing

    times = [100.0 + i for i in range(20)]
    line, run, left = drawing.answer("aesthetics", CAPTION, 0, {}, times, 120.0)
    assert "You have drawn 20 times within 60 seconds" in _said(line) and "go on in 40 seconds" in _said(line)
    assert run is None and left == times


def test_words_that_the_embedded_world_does_not_know_are_a_hint(monkeypatch):
    import drawing

    monkeypatch.setattr(drawing, "draw", lambda source, caption, seed, context: {"context": context})
    line, run, times = drawing.answer("aesthetics", "a red cat", 0, {"tweet": "x" * 400, "company": None}, [1.0], 2.0)
    assert "does not know: cat." in _said(line) and 'role="status"' in line and times == [1.0, 2.0]
    assert run == {"context": {"tweet": "x" * 300, "company": ""}}
    assert drawing.answer("aesthetics", "a red circle", 0, {}, [], 0.0)[0] == ""


@pytest.mark.parametrize("id", ["", "nonsense", "a/b/c", "<b>/x", "/etc/passwd", "a/b@"])
def test_an_id_that_is_none_is_told(id):
    import looks
    import sources

    for read in (sources.pipeline, sources.rollouts):
        with pytest.raises(UserError, match="is no id of the Hub; write user/repo or user/repo@revision") as told:
            read(id)
        assert "<b>" not in looks.problem(told.value)


def test_words_of_others_are_escaped(run):
    import explorer
    import looks

    evil = "<script>alert(1)</script>\"'"
    told = {**run, "caption": evil, "prompt": evil, "plan": [evil], "pipeline": evil}
    told["systems"] = {name: system | {"prompt": evil} for name, system in run["systems"].items()}
    found = explorer.look("aesthetics", FILE, "train-0000")
    found |= {"caption": evil, "seed_id": evil}
    found["candidates"] = [
        c | {"prompt": evil, "plan": [evil], "why": evil, "scores": {evil: 1.0}} for c in found["candidates"]
    ]
    html = looks.four(told) + looks.plan(told) + looks.plan(told | {"problem": evil, "reply": evil}) + looks.seed(found)
    assert "<script" not in html and html.count("&lt;script&gt;") > 20 and f"{evil}" not in html
    assert looks.message(evil).count("<") == 2


def test_a_seed_of_the_rollouts_and_only_its_row_groups(monkeypatch):
    import explorer

    rows = pyarrow.parquet.read_table(FOLDER / "artifacts/aesthetics-rollouts" / FILE).to_pylist()
    assert len(rows) == 256
    mine = [i for i, row in enumerate(rows) if row["seed_id"] == "train-0010"]
    explorer.rows("aesthetics", FILE)
    read, real = [], pyarrow.parquet.ParquetFile.read_row_group
    spy = lambda self, number, columns: read.append((number, *columns)) or real(self, number, columns=columns)  # noqa: E731
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", spy)
    found = explorer.look("aesthetics", FILE, "train-0010")
    assert set(read) == {(1, "image"), (1, "image_base")} and {i // 64 for i in mine} == {1}  # rows 80 to 87 of 256
    kept = sorted(rows[i]["total"] for i in mine if rows[i]["kept"])
    best, worst = found["candidates"][found["best"]], found["candidates"][found["worst"]]
    assert found["paired"] and [worst["total"], best["total"]] == kept and len(kept) == 2
    stored = next(rows[i]["image"]["bytes"] for i in mine if rows[i]["total"] == kept[1])
    assert np.array_equal(np.asarray(best["image"]), _pixels(stored))
    assert [c["prompt"] for c in found["candidates"]] == [rows[i]["prompt"] for i in mine]
    assert found["base_total"] == rows[mine[0]]["base_total"] and found["base"].size == (32, 32)


def test_seeds_by_the_reason_of_their_candidates():
    import explorer

    _, rows = explorer.rows("aesthetics", FILE)
    counts = explorer.reasons(rows)
    assert sum(counts.values()) == 256 and counts[explorer.KEPT] == sum(row["kept"] for row in rows)
    assert len(explorer.seeds(rows)) == 32
    far = explorer.seeds(rows, "similarity below 0.5")
    assert set(far) == {row["seed_id"] for row in rows if row["why"] == "similarity below 0.5"} and 0 < len(far) < 32


def test_the_space_asks_for_the_versions_that_were_tested():
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in pins}
    assert pins == found
    header = yaml.safe_load((FOLDER / "README.md").read_text().split("---\n")[1])
    assert (
        header["sdk"] == "gradio"
        and header["sdk_version"] == pins["gradio"]
        and (FOLDER / header["app_file"]).is_file()
    )
    assert len(header["short_description"]) <= 60  # the Hub takes no more
