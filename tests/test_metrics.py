"""The rewards as an evaluate metric, by path and from a Space: the rewards' own numbers, and what is told of a mistake."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from huggingface_hub import HfApi, SpaceCard
from PIL import Image, ImageOps

from spro_hf.errors import UserError
from spro_hf.hub.server import client_environment, start
from spro_hf.parts import SCORERS
from spro_hf.rewards import Brief
from spro_hf.rewards.adversarial import Adversarial
from spro_hf.rewards.adversarial_pickscore import AdversarialPickScore
from spro_hf.rewards.aesthetic import Aesthetic
from spro_hf.rewards.clip import ImageSimilarity
from spro_hf.rewards.pickscore import PickScore
from spro_hf.tiny import world
from spro_hf.tiny.render import render

ROOT = Path(__file__).parents[1]
METRIC = ROOT / "metrics" / "spro_reward"
FILE = METRIC / "spro_reward.py"
TINY = {"id": "spro_hf/tiny/pickscore"}
TASTE = {"id": "spro_hf/tiny/aesthetic", "backbone": "spro_hf/tiny/clip"}


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """evaluate's caches of modules and of pictures, of these tests alone."""
    folder = tmp_path_factory.getbasetemp() / "evaluate"
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_CACHE", folder / "evaluate")
    monkeypatch.setattr(evaluate.config, "DOWNLOADED_EVALUATE_PATH", folder / "downloads")
    monkeypatch.setattr(sys, "path", [*sys.path])  # evaluate appends its cache
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three renders of the embedded world as files, as pictures, and their captions."""
    folder, rng, captions = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0), []
    for i in range(3):
        truth = world.sample_truth(rng, "train")
        captions.append(world.caption(truth, None))
        Image.fromarray(render(truth, i)).save(folder / f"{i}.png")
    files = sorted(folder.iterdir())
    return files, [Image.open(file).convert("RGB") for file in files], captions


def load(kind, **fields):
    return evaluate.load(str(METRIC), kind, **fields)


def told(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert str(error.value).startswith("spro_reward: ") and str(error.value).count(". ") == 0
    return str(error.value)


def test_scores_are_the_reward_s_own(scenes):
    files, pictures, captions = scenes
    own = PickScore(**TINY)(pictures, captions)
    assert len(set(own)) == 3
    expected = {"pickscore": pytest.approx(sum(own) / 3, abs=1e-5), "pickscore_scores": pytest.approx(own, abs=1e-5)}
    metric = load("pickscore")
    assert metric.compute(predictions=pictures, references=captions, **TINY) == expected
    assert metric.compute(predictions=[str(file) for file in files], references=captions, **TINY) == expected
    rows = Dataset.from_dict(
        {"image": [str(file) for file in files], "caption": captions},
        features=Features({"image": Picture(), "caption": Value("string")}),
    )
    assert metric.compute(predictions=rows["image"], references=rows["caption"], **TINY) == expected


def test_batches_may_come_one_after_the_other(scenes):
    files, pictures, captions = scenes
    metric = load("pickscore", **TINY)
    whole = metric.compute(predictions=pictures, references=captions)
    metric.add_batch(predictions=pictures[:2], references=captions[:2])
    metric.add(prediction=files[2], reference=captions[2])
    assert len(metric) == 3
    assert metric.compute() == whole
    assert metric.compute(predictions=pictures[:1], references=captions[:1])["pickscore_scores"] == pytest.approx(
        whole["pickscore_scores"][:1], abs=1e-5
    )


def test_pictures_wait_as_files_and_are_read_one_batch_at_a_time(scenes, monkeypatch):
    """Of six pictures by path nothing but the paths is kept, and no more than a batch of two is in memory at a time."""
    from spro_hf.hub import rows

    files, _, captions = scenes
    alive, most = [], []
    real = rows.decoded

    class Watched(Image.Image):
        def __del__(self):
            alive.pop()

    def decoded(content, path=None):
        assert content is None
        found = real(content, path)
        found.__class__ = Watched
        alive.append(1)
        most.append(len(alive))
        return found

    monkeypatch.setattr(rows, "decoded", decoded)
    metric = load("pickscore", batch_size=2, **TINY)
    metric.compute(predictions=files * 2, references=captions * 2)
    assert len(most) >= 6 and max(most) <= 3  # a batch, and the one that is being read


def test_a_reward_is_loaded_once_for_the_same_fields(scenes):
    _, pictures, _ = scenes
    metric = load("aesthetic", **TASTE)
    first = metric.compute(predictions=pictures)
    reward = metric.reward[1]
    assert metric.compute(predictions=pictures) == first and metric.reward[1] is reward
    metric.compute(predictions=pictures, batch_size=1)
    assert metric.reward[1] is not reward


def test_two_metrics_combine(scenes):
    _, pictures, captions = scenes
    both = evaluate.combine([load("pickscore", **TINY), load("aesthetic", **TASTE)])
    found = both.compute(predictions=pictures, references=captions)
    assert found["aesthetic_scores"] == pytest.approx(Aesthetic(**TASTE)(pictures, captions), abs=1e-5)
    assert found["pickscore_scores"] == pytest.approx(PickScore(**TINY)(pictures, captions), abs=1e-5)
    for picture, caption in zip(pictures, captions, strict=True):
        both.add(picture, caption)
    assert both.compute() == found


def test_likeness_is_to_pictures(scenes):
    files, pictures, _ = scenes
    briefs = [Brief("", base=picture) for picture in pictures[::-1]]
    own = ImageSimilarity("spro_hf/tiny/clip")(pictures, briefs)
    found = load("similarity").compute(predictions=files, references=pictures[::-1], id="spro_hf/tiny/clip")
    assert found["similarity_scores"] == pytest.approx(own, abs=1e-3)
    assert own[1] == pytest.approx(100, abs=1e-3) and own[0] < 99
    likeness = load("similarity", id="spro_hf/tiny/clip")
    assert told(lambda: likeness.compute(predictions=pictures)) == "spro_reward: references is missing; give a list."


def test_a_picture_is_scored_as_it_is_now(tmp_path, scenes):
    """A picture knows the file it came from, and a JPEG would be compressed again: neither decides what is scored."""
    _, pictures, _ = scenes
    file = tmp_path / "a.jpg"
    pictures[0].resize((64, 64)).save(file, quality=30)
    changed = Image.open(file)
    changed.paste((255, 0, 0), (0, 0, 32, 64))
    plain = Image.open(file)
    own = Aesthetic(**TASTE)([plain.convert("RGB"), changed.convert("RGB")], ["", ""])
    assert load("aesthetic", **TASTE).compute(predictions=[plain, changed])["aesthetic_scores"] == pytest.approx(
        own, abs=1e-5
    )
    assert own[0] != pytest.approx(own[1], abs=1e-2)


def test_pictures_become_upright_rgb_on_white(tmp_path, scenes):
    _, pictures, _ = scenes
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    turned = tmp_path / "turned.png"
    pictures[0].save(turned, exif=exif)
    clear = pictures[1].copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    upright = ImageOps.exif_transpose(Image.open(turned)).convert("RGB")
    assert np.asarray(upright).tolist() == np.rot90(np.asarray(pictures[0]), -1).tolist()
    expected = Aesthetic(**TASTE)([upright, upright, white, pictures[2].convert("L").convert("RGB")], [""] * 4)
    given = [turned, Image.open(turned), clear, pictures[2].convert("L")]
    assert load("aesthetic", **TASTE).compute(predictions=given)["aesthetic_scores"] == pytest.approx(
        expected, abs=1e-5
    )


def test_a_reward_that_has_learned(tmp_path, scenes):
    _, pictures, captions = scenes
    torch.manual_seed(0)
    preference = AdversarialPickScore(TINY["id"], device="cpu")
    for parameter in preference.layer.values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    preference.save(tmp_path / "preference")
    metric = load("trained")
    found = metric.compute(predictions=pictures, references=captions, id=tmp_path / "preference", device="cpu")
    own = preference(pictures, captions)
    assert found["trained_scores"] == pytest.approx(own, abs=1e-5)
    assert own != pytest.approx(PickScore(**TINY)(pictures, captions), abs=1e-2)
    alone = Adversarial("spro_hf/tiny/clip", patches=4, device="cpu")
    alone.save(tmp_path / "picture")
    found = metric.compute(predictions=pictures, id=str(tmp_path / "picture"), device="cpu")
    assert found["trained_scores"] == pytest.approx(alone(pictures, captions), abs=1e-5)
    said = told(lambda: metric.compute(predictions=pictures, id=str(tmp_path / "preference")))
    assert said.startswith(
        "spro_reward: 'adversarial_pickscore' scores a picture for its caption, and references[0] is blank"
    )


def test_public_models_are_those_of_the_recipes():
    found = {}
    for file in (ROOT / "recipes" / "_objectives").glob("*.yaml"):
        found |= yaml.safe_load(file.read_text()).get("scorers", {})
    assert {"pickscore", "aesthetic", "aesthetic_v2", "imagereward", "hpsv2", "clip", "clip_iqa"} <= set(found)
    for name, spec in found.items():
        fields = {key: value for key, value in spec.items() if key != "kind"}
        assert load(name)._fields({}) == fields
        assert load(name)._fields({"device": "cpu"}) == fields | {"device": "cpu"}
    # another model has its own processor
    assert load("pickscore", dtype="float16")._fields(TINY) == TINY | {"dtype": "float16"}
    assert load("clip", id="a/b@v1")._fields({}) == {"id": "a/b", "revision": "v1"}
    card = (METRIC / "README.md").read_text()
    table = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", card, re.M))))
    assert table - {"name"} == (set(SCORERS) | set(found)) - {
        "adversarial",
        "adversarial_pickscore",
        "pickscore_prompt",
    }


def test_mistakes_are_one_sentence(tmp_path, scenes):
    files, pictures, captions = scenes
    metric = load("pickscore", **TINY)

    def of(predictions, references, **fields):
        return told(lambda: metric.compute(predictions=predictions, references=references, **fields))

    assert told(lambda: load("pickscor")).endswith("did you mean 'pickscore'?")
    assert "no reward is named; name one, as in evaluate.load(path, 'pickscore')" in told(lambda: load(None))
    assert "knows nothing" in told(lambda: load("adversarial"))
    assert "has no field 'bach_size'; did you mean 'batch_size'?" in told(lambda: load("pickscore", bach_size=2))
    assert "'trained' needs id" in told(lambda: load("trained").compute(predictions=pictures))
    assert "id says 'v1', revision 'v2'" in of(pictures, captions, id="a/b@v1", revision="v2")
    assert "choose 'yes' or 'rubric'" in told(
        lambda: load("vlm", id="a/b").compute(predictions=pictures, references=captions, mode="pairwise")
    )
    assert "there are 3 predictions and 2 references" in of(pictures, captions[:2])
    assert "predictions holds no pictures" in of([], [])
    assert "predictions is of type str; give a list" in of("a.png", captions)
    assert "references is of type str; give a list" in of(pictures[:1], captions[0])
    assert "references[1] is of type NoneType" in of(pictures[:2], [captions[0], None])
    assert "and references[0] is blank" in of(pictures, None)
    assert "predictions[1]: there is no file 'none.png'" in of([files[0], "none.png"], captions[:2])
    assert "predictions[0] is of type ndarray" in of([np.zeros((2, 2, 3))], captions[:1])
    assert "predictions[0] has the mode F" in of([Image.new("F", (2, 2))], captions[:1])
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png, holds no picture that can be read (of no known format)" in of(
        [files[0], tmp_path / "text.png"], captions[:2]
    )
    metric.add_batch(predictions=pictures, references=captions)
    assert "has no field 'divice'" in told(lambda: metric.compute(divice="cpu"))
    assert len(metric.compute()["pickscore_scores"]) == 3  # what was added is still there, and nothing of the mistakes


def test_without_the_package_one_sentence_says_so(monkeypatch):
    """evaluate's own check of a module's imports would tell to install it by a name that no registry has."""
    asked = {name for _, name, *_ in evaluate.loading.get_imports(str(FILE))}
    assert asked == {"inspect", "os", "collections", "io", "pathlib", "datasets", "evaluate", "PIL"}
    monkeypatch.setitem(sys.modules, "spro_hf", None)  # as if it were not there
    spec = importlib.util.spec_from_file_location("alone", FILE)
    with pytest.raises(ModuleNotFoundError) as error:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert str(error.value).startswith("spro_reward: the package spro_hf is not installed")


def test_from_a_space_as_the_card_tells(tmp_path, scenes, monkeypatch):
    """Pushed by the card's command and loaded by its first lines, for the embedded world's PickScore; then private, by a tag."""
    files, pictures, captions = scenes
    card, space = (METRIC / "README.md").read_text(), "spro/spro_reward"
    (command,) = re.findall(r"^hf upload .*$", card, re.M)
    lines = re.findall(r"```python\n(.*?)```", card, re.S)[0].replace(
        '"pickscore")', f'"pickscore", id="{TINY["id"]}")'
    )
    own = pytest.approx(PickScore(**TINY)(pictures, captions), abs=1e-5)
    with start(tmp_path / "hub") as server:
        environment = os.environ | client_environment(server, tmp_path / "home")
        words = command.replace("you/", "spro/").split()
        hf = [sys.executable, "-m", "huggingface_hub.cli.hf", *words[1:]]
        done = subprocess.run(hf, capture_output=True, text=True, timeout=100, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        # evaluate reads its address when it is imported
        monkeypatch.setattr(evaluate.config, "HF_ENDPOINT", server.url)
        path = evaluate.config.HUB_EVALUATE_URL.partition("/spaces/")[2]
        monkeypatch.setattr(evaluate.config, "HUB_EVALUATE_URL", f"{server.url}/spaces/{path}")
        monkeypatch.setattr(evaluate.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        names = {"pictures": pictures, "captions": captions}
        exec(lines.replace("you/", "spro/"), names)
        assert names["told"]["pickscore_scores"] == own
        assert type(names["metric"]).__module__.startswith("evaluate_modules.metrics.spro--spro_reward.")

        api = HfApi(server.url, token=server.token)
        held = set(api.list_repo_files(space, repo_type="space"))
        assert held - {".gitattributes"} == {file.name for file in METRIC.iterdir() if file.is_file()}
        api.create_tag(space, tag="v1", repo_type="space")
        api.delete_file("spro_reward.py", space, repo_type="space")
        api.update_repo_settings(space, private=True, repo_type="space")
        monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")  # nothing of before is left
        monkeypatch.delitem(sys.modules, "evaluate_modules")
        monkeypatch.delitem(sys.modules, "evaluate_modules.metrics")
        monkeypatch.setattr(sys, "path", [name for name in sys.path if "evaluate" not in name])
        monkeypatch.setenv("HF_TOKEN", server.token)
        again = evaluate.load(space, "pickscore", revision="v1", **TINY)
        assert again.compute(predictions=files, references=captions)["pickscore_scores"] == own
    told = SpaceCard(card).data
    assert told.sdk == "static" and (METRIC / "index.html").is_file() and told.tags == ["evaluate", "metric"]
