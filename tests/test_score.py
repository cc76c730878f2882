"""Scoring from the command line: the rewards' own numbers, in the order of the pictures; what is no RGB picture; mistakes."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spro_hf import cli
from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub, start
from spro_hf.parts import SCORERS
from spro_hf.rewards import REWARDS
from spro_hf.rewards.adversarial import Adversarial
from spro_hf.rewards.adversarial_pickscore import AdversarialPickScore
from spro_hf.rewards.aesthetic import Aesthetic
from spro_hf.rewards.pickscore import PickScore
from spro_hf.score import ALONE, read
from spro_hf.tiny import world
from spro_hf.tiny.render import render
from tests.hub.conftest import clients
from tests.hub.hub_clients import push

WORLD = Path(__file__).parents[1] / "recipes" / "tiny" / "_world.yaml"
RECIPE = f"""
extends: {WORLD}
stage: evaluate
reward: {{aesthetic: 0.5, pickscore: 2.0}}
systems: {{base: {{}}}}
push: {{results: spro/results}}
"""
NAMES = ["a.png", "b.webp", "c.JPG"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with three renders of the embedded world and a file that is none, and their captions."""
    folder, rng, captions = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0), []
    for i, name in enumerate(NAMES):
        truth = world.sample_truth(rng, "train")
        captions.append(world.caption(truth, None))
        Image.fromarray(render(truth, i)).save(folder / name, **({} if name == "c.JPG" else {"lossless": True}))
    (folder / "captions.txt").write_text("\n".join(captions) + "\n\n")
    return folder, captions


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipes") / "scored.yaml"
    file.write_text(RECIPE)
    return str(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two rewards as an adversary leaves them, not what they began as."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    preference = AdversarialPickScore("spro_hf/tiny/pickscore", device="cpu")
    for parameter in preference.layer.values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    preference.save(folder / "preference")
    picture = Adversarial("spro_hf/tiny/clip", patches=4, device="cpu")
    for parameter in picture.head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    picture.save(folder / "picture")
    return folder, preference, picture


def opened(folder: Path) -> list[Image.Image]:
    return [Image.open(folder / name).convert("RGB") for name in NAMES]


@pytest.fixture
def told(capsys):
    """What a command prints with --json, as data."""

    def run(*arguments):
        assert cli.main(["score", *map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_recipe_s_scores_are_the_rewards_own(scenes, recipe, told):
    folder, captions = scenes
    rows = told(recipe, folder, "--captions", folder / "captions.txt")
    assert [row["picture"] for row in rows] == [str(folder / name) for name in NAMES]
    assert [row["caption"] for row in rows] == captions
    aesthetic = Aesthetic("spro_hf/tiny/aesthetic", "spro_hf/tiny/clip")(opened(folder), captions)
    pickscore = PickScore("spro_hf/tiny/pickscore")(opened(folder), captions)
    assert [row["scores"]["aesthetic"] for row in rows] == pytest.approx(aesthetic, abs=1e-5)
    assert [row["scores"]["pickscore"] for row in rows] == pytest.approx(pickscore, abs=1e-5)
    assert [set(row["scores"]) for row in rows] == [{"aesthetic", "engagement", "pickscore"}] * 3
    assert [row["total"] for row in rows] == pytest.approx(
        [0.5 * a + 2 * p for a, p in zip(aesthetic, pickscore, strict=True)], abs=1e-4
    )
    assert len({row["total"] for row in rows}) == 3
    assert told(recipe, folder, "--captions", folder / "captions.txt") == rows  # to the last digit


def test_pictures_keep_the_order_they_are_given_in(scenes, recipe, told):
    folder, captions = scenes
    rows = told(recipe, folder / "c.JPG", folder, "--caption", captions[0], "--set", "reward.aesthetic=1.0")
    assert [Path(row["picture"]).name for row in rows] == ["c.JPG", *NAMES]
    assert {row["caption"] for row in rows} == {captions[0]}
    assert rows[0] == rows[3] and rows[0]["scores"] != rows[1]["scores"]
    assert [row["total"] for row in rows] == [row["scores"]["aesthetic"] for row in rows]  # weights are a choice


def test_the_table_has_a_line_for_each_picture(scenes, recipe, told, capsys):
    folder, captions = scenes
    rows = told(recipe, folder, "--caption", captions[0])
    assert cli.main(["score", recipe, str(folder), "--caption", captions[0]]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["picture", "aesthetic", "engagement", "pickscore", "total"]
    assert [line.split() for line in lines] == [
        [row["picture"], *(f"{value:.4f}" for value in (*row["scores"].values(), row["total"]))] for row in rows
    ]


def test_a_reward_that_has_learned_is_scored_by(scenes, trained, told):
    (folder, captions), (rewards, preference, picture) = scenes, trained
    rows = told(rewards / "preference", folder, "--captions", folder / "captions.txt", "--set", "batch_size=2")
    expected = preference(opened(folder), captions)
    assert [row["total"] for row in rows] == [row["scores"]["reward"] for row in rows]
    assert [row["total"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(PickScore("spro_hf/tiny/pickscore")(opened(folder), captions), abs=1e-2)
    # one that looks at the picture alone wants no caption
    rows = told(rewards / "picture", folder)
    assert [row["total"] for row in rows] == pytest.approx(picture(opened(folder), [""] * 3), abs=1e-5)
    assert {row["caption"] for row in rows} == {None}
    assert told(rewards / "picture", folder) == rows


def test_a_run_s_own_hub_is_started_for_the_time(scenes, trained, told, tmp_path):
    (folder, _), (rewards, *_) = scenes, trained
    with start(tmp_path / "run" / "hub") as server, clients(server, tmp_path / "home") as do:
        do(push, str(rewards / "picture"), "spro/reward", "v1")
    command = [sys.executable, "-m", "spro_hf", "score", "spro/reward@v1", str(folder), "--hub", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == told(rewards / "picture", folder)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["hub"]  # and no cache is left


def test_an_address_is_what_the_clients_ask(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://one.example")
    with at_hub(None):
        assert os.environ["HF_ENDPOINT"] == "https://one.example"
    with at_hub("https://two.example"):
        assert os.environ["HF_ENDPOINT"] == "https://two.example"


def saved(tmp_path: Path, image: Image.Image, kind: str, **options) -> Path:
    file = tmp_path / f"picture.{kind.lower()}"
    image.save(file, kind, **options)
    return file


def test_pictures_become_rgb(tmp_path):
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    half.putpixel((1, 0), (0, 0, 0, 0))
    # on white: 255 · (255 − 128)/255 = 127 in green and blue; what is wholly transparent is white
    assert np.asarray(read(saved(tmp_path, half, "PNG"))).tolist() == [[[255, 127, 127], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert np.asarray(read(saved(tmp_path, grey, "PNG"))).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    # 16 bits: 257 · 100 = 25700 is 100 of 255, and 65535 is white
    deep = Image.fromarray(np.array([[0, 25700, 65535]], np.uint16))
    assert np.asarray(read(saved(tmp_path, deep, "PNG"))).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    # turned as a camera says: 6 is a quarter to the right, so that the left column becomes the upper row
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = Image.fromarray(np.array([[[10] * 3, [200] * 3], [[60] * 3, [250] * 3]], np.uint8))
    found = np.asarray(read(saved(tmp_path, tall, "PNG", exif=exif)))[..., 0]
    assert found.tolist() == [[60, 10], [250, 200]]
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "blue")]
    moving = saved(tmp_path, frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert read(moving).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(UserError, match=r"holds no picture that can be read \(its mode is F\)"):
        read(saved(tmp_path, Image.new("F", (1, 1), 0.5), "TIFF"))


def test_a_broken_picture_is_named_before_models_are_loaded(scenes, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spro_hf.rewards.load", lambda *_: pytest.fail("a model was loaded"))
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(content, "PNG")
    for name, data in {"text.png": b"no picture", "cut.png": content.getvalue()[:2000], "none.png": b""}.items():
        (tmp_path / name).write_bytes(data)
        assert cli.main(["score", recipe, str(scenes[0] / "a.png"), str(tmp_path / name), "--caption", "x"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path / name}: holds no picture that can be read (")
        assert error.endswith("; give PNG, JPEG or WebP.\n") and "object at" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nope.yaml {scenes}", "nope.yaml: there is no such recipe; check the path."),
        ("nope {scenes}",
         "nope: is neither a recipe (.yaml), nor a folder, nor a repository; write user/repo or user/repo@revision."),
        ("a/b/c@v1 {scenes}",
         "a/b/c@v1: is neither a recipe (.yaml), nor a folder, nor a repository; write user/repo or user/repo@revision."),
        ("{recipe} {scenes}/d.png", "{scenes}/d.png: there is no such file or folder; check the path."),
        ("{recipe} {empty}", "{empty}: holds no pictures; give a folder with PNG, JPEG or WebP files in it."),
        ("{recipe} {scenes}", "scorers.pickscore: it scores a picture for its caption; give --caption or --captions."),
        ("{recipe} {scenes}/a.png --captions {scenes}/captions.txt",
         "--captions: '{scenes}/captions.txt' has 3 lines for 1 pictures; write one for each picture."),
        ("{recipe} {scenes} --captions {blank}", "--captions: line 2 of '{blank}' is blank; write a caption on each line."),
        ("{recipe} {scenes} --captions {scenes}/a.png", "--captions: '{scenes}/a.png' cannot be read ("),
        ("{recipe} {scenes} --caption x --set scorers.judg={{}}", "scored.yaml: scorers: unknown reward 'judg'"),
        ("{recipe} {scenes} --caption x --set scorers.similarity={{id: spro_hf/tiny/clip}}",
         "scorers.similarity: it compares with a base picture, and there is none here; give a recipe without it."),
        ("{recipe} {scenes} --caption x --set scorers.vlm={{id: spro_hf/tiny/guider, mode: pairwise}}",
         "scorers.vlm.mode: 'pairwise' compares with a base picture, and there is none here; choose 'yes' or 'rubric'."),
        ("{recipe} {scenes} --caption x --hub {empty}",
         "{empty}: holds no local Hub; name a run's folder, e.g. runs/demo."),
        ("{reward} {scenes}", "scorers.reward: it scores a picture for its caption; give --caption or --captions."),
        ("{empty} {scenes}", "scorers.reward.id: '{empty}' holds no reward that has learned"),
        ("{reward} {scenes} --set device_map=cpu",
         "--set: a trained reward has no field 'device_map' that can be changed; did you mean 'device'?"),
        ("{reward} {scenes} --set dtype=float8", "--set: 'dtype' is 'float8'; did you mean 'float"),
        ("{tiny}/spro.yaml {scenes} --caption x",
         "spro.yaml: its stages score in 6 different ways; give the recipe of one of them."),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(scenes, recipe, trained, tmp_path, capsys, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text("one\n \nthree\n")
    places = {
        "scenes": scenes[0], "recipe": recipe, "empty": tmp_path / "empty", "blank": tmp_path / "blank.txt",
        "reward": trained[0] / "preference", "tiny": WORLD.parent,
    }  # fmt: skip
    head, _, change = arguments.partition(" --set ")
    given = [part.format(**places) for part in head.split()]
    given += ["--set", change.format(**places)] if change else []
    assert cli.main(["score", *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: " + sentence.format(**places)) and said.err.count("\n") == 1 and not said.out


def test_a_head_that_has_learned_nothing_is_refused(scenes, tmp_path, capsys):
    text = RECIPE.replace("stage: evaluate", "stage: evaluate\nscorers: {picture: {kind: adversarial, backbone: x}}")
    (tmp_path / "new.yaml").write_text(text)
    code = cli.main(["score", str(tmp_path / "new.yaml"), str(scenes[0]), "--caption", "x"])
    assert code == 2 and "scorers.picture: its head is new and knows nothing" in capsys.readouterr().err


def test_mistakes_load_nothing_heavy(scenes, recipe):
    script = "import sys; from spro_hf.cli import main; code = main(['score', *sys.argv[1:]]); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, recipe, scenes[0]], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"] and "give --caption or --captions" in done.stderr


def test_every_kind_is_known_to_read_captions_or_not():
    for kind in set(SCORERS) & set(REWARDS) - {"trained", "similarity"}:
        modules = {inspect.getmodule(base) for base in REWARDS[kind].__mro__[:-1]}
        reads = any("captions_of(" in inspect.getsource(module) for module in modules)
        assert reads != (kind in ALONE), kind
    assert set(ALONE) <= set(SCORERS)
