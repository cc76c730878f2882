"""Data sets on a Hub: what a tag holds is what is loaded, with a network, without, and streamed; TRL takes the pairs as they
are, and recipes the winners' prompts."""

from __future__ import annotations

import json
import math

import data_set_clients as ask
import hub_clients
import pytest
from datasets import Features
from PIL import Image

from spro_hf import portrait, rollouts
from spro_hf.guider.instructions import instruction
from spro_hf.hub import cards

TERMS = [{"what": "seeds", "id": "org/captions", "license": "cc0-1.0"}]
COMMON = {"license": "apache-2.0", "objective": "aesthetics", "world": True, "reward": {"aesthetic": 1.0}, "seed": 0,
          "terms": TERMS, "round": 1, "guider": "g@1", "generator": "d@1", "rollouts": "r@1", "sees": True}  # fmt: skip


def row(caption, candidate, total):
    shared = None if candidate else Image.new("RGB", (32, 32), (9, 9, 9))
    return {
        "seed_id": caption, "objective": "aesthetics", "round": 1, "candidate": candidate, "base_caption": f"a {caption}",
        "context": "{}", "caption_in": f"a {caption}", "image_in": shared, "reply": "1. x\nPrompt: y", "plan": ["x"],
        "parsed": True, "problem": "", "prompt": f"a {caption}, way {candidate}",
        "image": Image.new("RGB", (32, 32), (10 * candidate, 0, 0)), "image_base": shared, "image_seed": 1,
        "rewards": json.dumps({"aesthetic": total}), "total": total, "base_rewards": '{"aesthetic": 1.0}', "base_total": 1.0,
        "similarity": 0.9, "measures": "{}", "kept": candidate < 2, "why": "", "guider": "g@1", "generator": "d@1",
        "scorers": "{}",
    }  # fmt: skip


def pair(caption):
    asked = instruction("compact", "aesthetics", f"a {caption}", True, 22, {}, True)
    picture = Image.new("RGB", (32, 32), (200, 0, 0))
    return {
        "seed_id": caption, "objective": "aesthetics", "prompt": [{"role": "user", "content": asked}], "images": [picture],
        "chosen": [{"role": "assistant", "content": "1. soft shadow\nPrompt: a red circle, soft shadow"}],
        "rejected": [{"role": "assistant", "content": "1. busy clutter\nPrompt: a red circle, busy clutter"}],
        "image_chosen": picture, "image_rejected": picture, "score_chosen": 2.0, "score_rejected": 1.0,
        "base_caption": f"a {caption}", "image_seed": 1,
    }  # fmt: skip


def lay(folder, kind, repo, tag, rows, size=3):
    """An artifact's folder as a stage lays it out; gives its card."""
    name = {"rollouts": "rollouts", "pairs": "preferences"}[kind]
    schema = {"rollouts": rollouts.ROLLOUT, "pairs": rollouts.PAIR}[kind]
    rollouts.write_in_parts(rows, schema, folder, size, len(rows))
    if kind == "rollouts":
        rollouts.write_prompts(folder)
    told = {"rollouts": portrait.of_rollouts, "pairs": portrait.of_pairs}[kind](folder)
    given = COMMON | {"repo": repo, "tag": tag, "told": told}
    card = cards.render_card(name, **{key: given[key] for key in cards.fields(name)})
    (folder / "README.md").write_text(card, encoding="utf-8")
    return card


def two_versions(folder, repo):
    """Folders of round-1, of four tries at circles and squares, and round-2, of two at stars; the card of the first."""
    first = [row(c, i, 2.0 + i) for c in ("circle", "square") for i in range(2)]
    card = lay(folder / "round-1", "rollouts", repo, "round-1", first)
    lay(folder / "round-2", "rollouts", repo, "round-2", [row("star", i, 2.0 + i) for i in range(2)])
    return card


CIRCLES = ["a circle", "a circle", "a square", "a square"]


@pytest.fixture(scope="module")
def versions(do, tmp_path_factory):
    folder, repo = tmp_path_factory.mktemp("rounds"), "spro/rounds"
    card = two_versions(folder, repo)
    for tag in ("round-1", "round-2"):
        do(hub_clients.push, str(folder / tag), repo, tag, "dataset")
    return repo, card


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tag_gives_what_it_held_whatever_came_later(do, versions, streaming):
    repo, _ = versions
    for load in (ask.load, ask.stock):
        assert do(load, repo, "round-1", None, streaming) == CIRCLES
        assert do(load, repo, "round-2", None, streaming) == ["a star"] * 2
        assert do(load, repo, "round-1", "prompts", streaming) == ["a circle", "a square"]


def test_types_need_no_word(do, versions):
    repo, _ = versions
    assert do(ask.types, repo, "round-1") == Features(rollouts.ROLLOUT)
    assert do(ask.types, repo, "round-1", "prompts") == Features(rollouts.PROMPT)


def test_the_card_of_rollouts_loads_as_pasted(do, versions):
    _, card = versions
    shown = [
        "len(rows)",
        "prompts[0]['improved_prompt_new']",
        "prompts[1]['image_path'].getpixel((0, 0))",
        "rows.column_names",
    ]
    found = do(ask.run, ask.code(card), shown)
    assert found == {shown[0]: 4, shown[1]: "a circle, way 1", shown[2]: (10, 0, 0), shown[3]: list(rollouts.ROLLOUT)}


def test_a_recipe_reads_our_prompts_with_the_mapping_of_the_authors(do, versions):
    found = do(ask.seeds_of, versions[0], "round-1", 2)
    assert found == [("a circle", "a circle, way 1", 3.0), ("a square", "a square, way 1", 3.0)]


def test_what_is_not_there_is_said(do, versions):
    repo, _ = versions
    assert "there is no config 'prompt'; did you mean 'prompts'?" in do(ask.load, repo, "round-1", "prompt")
    assert "'round-3'" in do(ask.load, repo, "round-3") and "round-2" in do(ask.load, repo, "round-3")
    assert "spro/no-rounds" in do(ask.load, "spro/no-rounds", "round-1")


def test_without_a_network_a_tag_gives_what_it_held(do, own, hub, tmp_path, monkeypatch):
    repo = "spro/offline"
    two_versions(tmp_path, repo)
    for tag in ("round-1", "round-2"):
        do(hub_clients.push, str(tmp_path / tag), repo, tag, "dataset")
        do(ask.load, repo, tag)
    home = do(ask.home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with own(hub, home) as without:
        assert without(ask.offline)
        for streaming in (False, True):
            assert without(ask.load, repo, "round-1", None, streaming) == CIRCLES
            assert without(ask.load, repo, "round-2", None, streaming) == ["a star"] * 2
        assert "load it once without HF_HUB_OFFLINE" in without(ask.load, repo, "round-1", "prompts")
        assert "'round-3' is not in the cache" in without(ask.load, repo, "round-3")
        folder = home / "hub" / "datasets--spro--offline"
        next(folder.rglob("data/train-00001-of-00002.parquet")).unlink()
        assert "of the 2 files at" in without(ask.load, repo, "round-1")


def test_trl_takes_the_pairs_as_they_are(do, tmp_path):
    card = lay(tmp_path / "pairs", "pairs", "spro/pairs", "round-1", [pair("circle"), pair("square")])
    do(hub_clients.push, str(tmp_path / "pairs"), "spro/pairs", "round-1", "dataset")
    assert do(ask.types, "spro/pairs", "round-1") == Features(rollouts.PAIR)
    told = do(ask.train, card, str(tmp_path / "guider"))
    assert told.pop("loss") == pytest.approx(
        math.log(2), abs=1e-4
    )  # before the first update policy and reference agree
    assert told == {
        "pictures": 4,
        "columns": ["caption", "jpg_0", "jpg_1", "label_0"],
        "pick": (200, 0, 0),
        "label": 1.0,
    }
