"""References as a user makes them: drawn by the embedded world's renderer, killed and continued, and by two processes."""

import json
from pathlib import Path

import numpy as np
import pytest

from spro_hf import rollouts, seeds
from spro_hf.parts import Seeds
from spro_hf.rollouts import REFERENCE
from spro_hf.steps import derive
from spro_hf.tiny.renderer import scene
from spro_hf.tiny.world import read

from .conftest import killed, spro
from .test_reinforce import torchrun

RECIPE = """\
stage: references
oracle: true
generator: {id: spro_hf/tiny/renderer, batch_size: 3}
seeds: {source: world, count: 5}
per_caption: 2
part: 3
prompt: "{caption}, soft shadow, neat frame"
push: {references: "{namespace}/tiny-references"}
"""
CAPTIONS = [seed.caption for seed in seeds.load(Seeds(count=5), 0)]


def stage(out: Path) -> Path:
    return out / "stages" / "01-aesthetics-references"


def left(out: Path) -> list[dict]:
    """The rows that were pushed."""
    return rollouts.read(stage(out) / "outbox" / "references")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "references.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("references") / "run"
    spro("run", recipe, "--out", out)
    return out


def test_each_caption_has_its_pictures(whole):
    rows = left(whole)
    assert list(rows[0]) == list(REFERENCE) == ["seed_id", "caption", "prompt", "image", "image_seed", "generator"]
    # parts of three captions and of two, in each the first pictures before the second ones
    numbers = [0, 1, 2, 0, 1, 2, 3, 4, 3, 4]
    assert [row["caption"] for row in rows] == [CAPTIONS[i] for i in numbers]
    assert [row["seed_id"] for row in rows] == [f"train-{i:04d}" for i in numbers]
    assert {row["prompt"] for row in rows} == {f"{caption}, soft shadow, neat frame" for caption in CAPTIONS}
    assert rows[0]["image_seed"] == derive(0, "references", "train-0000", 0)
    assert rows[3]["image_seed"] == derive(0, "references", "train-0000", 1)
    assert len({row["image"].tobytes() for row in rows}) == 10
    assert {row["generator"].partition("@")[0] for row in rows} == {"spro_hf/tiny/renderer"}


def test_pictures_are_those_of_the_renderer(whole):
    import torch

    from spro_hf.tiny.render import render

    row = left(whole)[0]
    generator = torch.Generator().manual_seed(row["image_seed"])
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    truth = scene(read(row["prompt"]), rng)
    assert truth.modifiers == {"soft shadow", "neat frame"}
    assert np.array_equal(np.asarray(row["image"]), render(truth, int(rng.integers(1 << 31))))


def test_the_data_set_is_an_artifact(whole):
    (note,) = (json.loads(file.read_text()) for file in (stage(whole) / "published").glob("*.json"))
    assert (note["repo"], note["type"], note["tag"]) == ("spro/tiny-references", "dataset", "v1")
    folder = stage(whole) / "outbox" / "references"
    card, lineage = (folder / "README.md").read_text(), json.loads((folder / "lineage.json").read_text())
    assert "| 10 | 5 | 2 |" in card and "This is a toy" in card and "`{caption}, soft shadow, neat frame`" in card
    assert [column for column in REFERENCE if f"`{column}`" not in card] == []
    assert lineage["recipe"]["per_caption"] == 2
    assert lineage["models"]["generator.id"].startswith("spro_hf/tiny/renderer@")
    assert {file.name for file in rollouts.files(folder)} == {f"train-0000{i}-of-00002.parquet" for i in range(2)}


def test_killed_and_continued_equals_uninterrupted(recipe, whole, tmp_path):
    out = tmp_path / "run"
    first = stage(out) / "drawn" / "part-00000"
    killed("run", recipe, "--out", out, when=first.is_dir)
    assert first.is_dir() and not (stage(out) / "finished").exists()
    stamp = next(first.rglob("*.parquet")).stat().st_mtime_ns
    spro("run", recipe, "--out", out)
    assert next(first.rglob("*.parquet")).stat().st_mtime_ns == stamp  # what was finished is not drawn again
    assert left(out) == left(whole)


def test_two_processes_draw_the_same(recipe, whole, tmp_path):
    out = tmp_path / "run"
    process = torchrun("run", recipe, "--out", out)
    assert process.returncode == 0, process.stderr[-3000:]
    # six pictures and four, half of them by each
    assert [rollouts.count(file) for file in rollouts.files(stage(out) / "outbox" / "references")] == [3, 3, 2, 2]
    assert left(out) == left(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["prompt=a picture"], "'prompt' is 'a picture'; it must hold {caption}"),
        (["per_caption=0"], "'per_caption' is 0; give at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(recipe, changes, message, tmp_path):
    out = tmp_path / "run"
    process = spro("run", recipe, "--out", out, *[x for c in changes for x in ("--set", c)], check=False)
    assert process.returncode == 2 and message in process.stderr
    assert not (stage(out) / "drawn").exists()


def test_a_later_stage_of_the_same_list_reads_them(recipe, tmp_path):
    """What is not there before the run is no mistake, if an earlier stage leaves it."""
    again = tmp_path / "again.yaml"
    made = "{source: spro/tiny-references, revision: v1, count: 3, columns: {caption: caption}}"
    text = RECIPE.replace("{source: world, count: 5}", made)
    again.write_text(text.replace('/tiny-references"}', '/tiny-again"}'))
    both = tmp_path / "both.yaml"
    both.write_text(f"recipes: [{recipe}, {again}]\n")
    spro("run", both, "--out", tmp_path / "run")
    (folder,) = (tmp_path / "run" / "stages").glob("02-*")
    rows = rollouts.read(folder / "outbox" / "references")
    assert [row["caption"] for row in rows] == CAPTIONS[:3] * 2
    used = json.loads((folder / "outbox" / "references" / "lineage.json").read_text())["inputs"]
    assert [(i["what"], i["repo"], i["revision"]) for i in used] == [("seeds", "spro/tiny-references", "v1")]
    process = spro("run", again, "--out", tmp_path / "alone", check=False)
    assert process.returncode == 2 and "no such repository is to be seen" in process.stderr
