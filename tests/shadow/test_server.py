"""The shadow Hub, asked by the real clients: what it makes, when, and what it refuses as the real Hub would."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from huggingface_hub import HfApi, hf_hub_download

from spro_hf.errors import UserError
from spro_hf.hub import artifacts
from spro_hf.hub.push import push
from spro_hf.hub.store import Store
from tests.hub.conftest import clients
from tests.shadow.server import GATED, Shadow, named

PIN = "0123456789abcdef0123456789abcdef01234567"
PARQUET = "refs/convert/parquet"
MODEL, BROKEN, GATE = "stabilityai/sd-turbo", "segmind/small-sd", GATED[1]
DATA, UNMADE = "nlphuji/flickr30k", "Qwen/Qwen-Image"
RECIPE = f"""\
stage: image
generator: {{id: {MODEL}, revision: {PIN}}}
scorers:
  clip: {{id: {GATE}}}
  similarity: {{id: {BROKEN}}}
  aesthetic: {{id: spro_hf/tiny/aesthetic, backbone: {UNMADE}}}
reward: {{clip: 1.0}}
prompts: {{source: {DATA}, revision: {PARQUET}, columns: {{caption: text, prompt: better}}}}
push: {{generator: "me/it"}}
"""


@pytest.fixture(scope="module")
def shadow(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A shadow over one recipe and builders of a file each, which count how often they are called."""
    recipes, built = tmp_path_factory.mktemp("recipes"), []
    (recipes / "one.yaml").write_text(RECIPE)
    (recipes / "_base.yaml").write_text("stage: none")
    (recipes / "broken.yaml").write_text("stage: image")

    def writes(id: str):
        def build(folder: Path) -> None:
            built.append(id)
            (folder / "deep").mkdir()
            (folder / "config.json").write_text(json.dumps({"id": id}))
            (folder / "deep" / "model.safetensors").write_bytes(b"weights")

        return build

    def fails(folder: Path) -> None:
        raise ValueError("no such luck")

    made = {("model", id): writes(id) for id in (MODEL, GATE)} | {("dataset", DATA): writes(DATA)}
    made["model", BROKEN] = fails
    store = Store(tmp_path_factory.mktemp("store"))
    server = uvicorn.Server(
        uvicorn.Config(Shadow(store, "hf_right", named(recipes), lambda: made), log_level="error", lifespan="off")
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}", token="hf_right", built=built)
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def do(shadow, tmp_path_factory):
    with clients(shadow, tmp_path_factory.mktemp("home")) as run:
        yield run


def told(repo: str, kind: str = "model", revision: str = "main", token: str | None = None) -> str:
    """The product's sentence about a repository that it cannot pull; runs beside the real clients."""
    kept = os.environ.pop("HF_TOKEN")
    os.environ |= {"HF_TOKEN": kept if token is None else token} if token != "" else {}
    try:
        artifacts.pull(repo, kind, revision)
    except UserError as error:
        return str(error)
    finally:
        os.environ["HF_TOKEN"] = kept
    raise AssertionError(f"{repo} was pulled")


def read(repo: str, revision: str, kind: str = "model") -> tuple[str, str, str]:
    """A file's text by the stock download and by the product's own, and the commit behind the revision."""
    text = Path(hf_hub_download(repo, "config.json", revision=revision, repo_type=kind)).read_text()
    folder = artifacts.pull(repo, kind, revision)
    assert (folder / "deep" / "model.safetensors").read_bytes() == b"weights"
    return text, (folder / "config.json").read_text(), HfApi().repo_info(repo, repo_type=kind, revision=revision).sha


def read_from_threads(repo: str) -> set[str]:
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda _: HfApi().model_info(repo).sha, range(16)))


def listed(repo: str) -> list[str]:
    return HfApi(token=False).list_repo_files(repo)


def pushed(folder: str) -> str:
    return push(Path(folder), "me/it", "model", "v1", "m").revision


def test_what_a_recipe_names_is_known_with_its_revisions_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.yaml").write_text(RECIPE)
    assert named(tmp_path) == {
        ("model", MODEL): {"main", PIN},
        ("model", GATE): {"main"},
        ("model", BROKEN): {"main"},
        ("model", UNMADE): {"main"},
        ("dataset", DATA): {"main", PARQUET},
    }


def test_a_repository_is_made_once_however_many_ask_at_once(shadow, do):
    assert len(do(read_from_threads, MODEL)) == 1
    assert shadow.built.count(MODEL) == 1


@pytest.mark.parametrize(("repo", "kind", "revision"), [(MODEL, "model", PIN), (DATA, "dataset", PARQUET)])
def test_a_revision_that_a_recipe_names_shows_what_main_shows(do, repo, kind, revision):
    text = json.dumps({"id": repo})
    stock, own, commit = do(read, repo, revision, kind)
    assert stock == own == text
    newest = do(read, repo, "main", kind)
    assert newest[:2] == (text, text) and commit == (PIN if revision == PIN else newest[2])
    assert do(read, repo, newest[2], kind) == newest  # the shadow's own commit, by which a run pins it


def test_a_revision_that_is_gone_is_told(do):
    sentence = do(told, MODEL, "model", "v9")
    assert sentence == f"model {MODEL}: there is no revision 'v9'; its tags: none."
    assert "there is no revision" in do(told, MODEL, "model", PIN[::-1])


def test_an_id_that_no_recipe_names_is_not_found(do):
    assert f"model {MODEL}-typo: no such repository is to be seen" in do(told, f"{MODEL}-typo")
    assert "no such repository is to be seen" in do(told, MODEL, "dataset")  # a model is no data set
    assert "no such repository is to be seen" in do(told, UNMADE)  # named, but nobody makes it


def test_a_gated_repository_is_listed_but_handed_out_only_to_who_may(shadow, do):
    assert do(listed, GATE) == [".gitattributes", "config.json", "deep/model.safetensors"]
    for token in ("", "hf_of_somebody_else"):  # 401 and 403
        sentence = do(told, GATE, "model", "main", token)
        assert sentence.startswith(f"model {GATE}: it is gated; accept its terms at {shadow.url}/{GATE}"), sentence
    assert do(read, GATE, "main")[0] == json.dumps({"id": GATE})


def test_a_builder_that_fails_is_told_at_once(do):
    with pytest.raises(Exception, match="The builder of 'segmind/small-sd' failed: ValueError: no such luck"):
        do(listed, BROKEN)


def test_what_a_stage_pushes_lies_in_the_same_store(do, tmp_path):
    (tmp_path / "config.json").write_text("mine")
    commit = do(pushed, str(tmp_path))
    assert do(listed, "me/it") == [".gitattributes", "config.json"]
    assert len(commit) == 40
