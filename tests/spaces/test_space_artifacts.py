"""Artifacts of a Hub in the Space, and the Space on a Hub: a really started local one, asked by the real clients."""

import json

import pytest

from spro_hf.hub.server import start
from tests.spaces import space_clients as ask
from tests.spaces.conftest import FOLDER


@pytest.fixture(scope="module", autouse=True)
def filled(do):
    do(ask.fill)


def test_a_public_pipeline_is_fetched_whole(do):
    folder = FOLDER / "artifacts/aesthetics"
    files = do(ask.found, "spro/good@v1")
    assert {name: content for name, content in files.items() if name != ".gitattributes"} == {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "showcase" not in file.parts  # the card's pictures stay where they are
    }


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("spro/none", "model spro/none: there is no public repository of this name"),
        ("spro/secret", "model spro/secret: there is no public repository of this name"),  # as of one that is not there
        ("spro/good@v9", "there is no revision 'v9'; its tags: v1"),
        ("spro/other", "'spro/other' is no SPROPipeline, it is a FluxPipeline"),
        ("spro/empty", "'spro/empty' is no SPROPipeline, it has no model_index.json"),
        ("spro/bare", "'spro/bare' has no lineage.json that names its recipe's objective"),
        ("spro/slow", "asks for a num_inference_steps of 10000; this Space goes up to 100"),
        ("spro/spy", "model spro/secret: there is no public repository of this name"),
        ("spro/here", "names '/etc', which is no repository of the Hub"),
        ("spro/away", "names files outside of it"),
    ],
)
def test_a_visitors_pipeline_that_is_none_is_told(do, id, words):
    assert words in do(ask.of_pipeline, id)


def test_the_pipeline_that_the_space_was_published_with_may_be_private(do):
    assert do(ask.of_pipeline, "spro/secret@v1", "spro/secret@v1") == ""
    assert "no public repository" in do(ask.of_pipeline, "spro/secret", "spro/secret@v1")


def test_a_pipeline_that_is_too_large_is_told(do):
    assert "'spro/good@v1' needs 0 GB of weights" in do(ask.weighed, 800_000.0)  # 613,984 + 204,264 bytes of weights
    assert do(ask.weighed, 900_000.0) == ""


def test_rollouts_of_the_hub(do):
    rows = do(ask.seed_of, "spro/rows@v1")
    assert rows["rows"] == 256 and len(rows["totals"]) == 8
    for id, words in {
        "spro/none": "dataset spro/none: there is no public repository",
        "spro/secret-rows": "dataset spro/secret-rows: there is no public repository",
        "spro/no-rows": "'spro/no-rows' holds no rollouts",
        "spro/rows@v2": "there is no revision 'v2'",
    }.items():
        assert words in do(ask.of_rollouts, id)


def test_push_publishes_the_space_with_its_package_and_what_it_shows(do, hub):
    shown = {"pipeline": "spro/good@v1", "rollouts": "spro/rows@v1"}
    do(ask.publish_before)
    assert do(ask.push, None, shown) == f"{hub.url}/spaces/spro/spro"
    there = do(ask.pushed, "spro/spro")
    assert there["told"] == shown and there["private"] is False and there["spaces"] == [True, False]
    files = set(there["files"])
    assert {"app.py", "README.md", "requirements.txt", "style.css", "space.json", "spro_hf/__init__.py"} <= files
    mine = {
        file.relative_to(FOLDER).as_posix()
        for file in FOLDER.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert mine <= files
    weights = {name.split("/")[3] for name in files if name.startswith("spro_hf/tiny/weights/")}
    assert weights == {
        "README.md",
        "measured.json",
        "generator",
        "guider",
        "clip",
        "pickscore",
        "aesthetic",
        "engagement",
    }
    aside = ("spro_hf/spaces", "spro_hf/tiny/make", "tests")
    assert not [name for name in files if "__pycache__" in name or name.startswith(aside)]
    assert "of_before.py" not in files


@pytest.mark.parametrize(
    ("repo", "shown", "words"),
    [
        ("spro/new", {"pipeline": "spro/none@v1"}, "--pipeline: model spro/none: no such repository"),
        ("spro/new", {"pipeline": "spro/other"}, "--pipeline: 'spro/other' is no SPROPipeline"),
        ("spro/new", {"rollouts": "spro/no-rows"}, "--rollouts: 'spro/no-rows' holds no rollouts"),
        (
            "spro/new",
            {"rollouts": "spro/tiny-aesthetics-pairs"},
            "--rollouts: 'spro/tiny-aesthetics-pairs' holds no rollouts",
        ),
        ("someone/new", {}, "someone/new"),
    ],
)
def test_push_tells_a_mistake_before_it_publishes(do, repo, shown, words):
    assert words in do(ask.push_said, repo, shown)
    assert not do(ask.exists, repo)


def test_a_hub_that_is_gone_is_told(tmp_path, monkeypatch):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from spro_hf.hub.server import client_environment

    with start(tmp_path / "hub") as server:
        environment = client_environment(server, tmp_path / "home")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        told = [pool.submit(ask.of_pipeline, "a/b").result(60), pool.submit(ask.of_rollouts, "a/b").result(60)]
        told.append(pool.submit(ask.push_said, "spro/new", {}).result(60))
    assert all(f"no connection to {server.url}" in line and server.token not in line for line in told)


def test_space_json_and_variables_name_what_is_shown(tmp_path, monkeypatch):
    import sources

    (tmp_path / "space.json").write_text(json.dumps({"pipeline": "a/b@v1"}))
    monkeypatch.setattr(sources, "HERE", tmp_path)
    monkeypatch.delenv("SPRO_PIPELINE", raising=False)
    assert sources.offered("pipeline") == ["a/b@v1", "aesthetics", "engagement", "preference"]
    assert sources.configured("rollouts") is None
    monkeypatch.setenv("SPRO_PIPELINE", "c/d")
    assert sources.configured("pipeline") == "c/d"
