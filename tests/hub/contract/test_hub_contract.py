"""What a Hub must do for what is made here, asked by the real clients: one contract for the local Hub and the real one.

It runs against a local Hub. Whoever has a token that may write runs the same tests against the real one, in private
repositories named ``spro-contract-<random>`` that are deleted at the end::

    SPRO_CONTRACT_HUB=https://huggingface.co HF_TOKEN=hf_... python -m pytest tests/hub/contract
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator

import contract_clients as ask
import pytest

from spro_hf.hub.server import Server
from tests.hub.conftest import clients

REAL = os.environ.get("SPRO_CONTRACT_HUB")


@pytest.fixture(scope="module")
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """``call(function, *arguments)`` in a process of the clients."""
    if REAL:
        with clients(Server(REAL, os.environ["HF_TOKEN"], None), tmp_path_factory.mktemp("home")) as run:
            yield run
    else:
        yield request.getfixturevalue("do")


@pytest.fixture
def repo(call: Callable) -> Iterator[Callable[..., str]]:
    """``repo(kind)`` makes a repository that is gone after the test."""
    made: list[tuple[str, str]] = []

    def make(kind: str = "model") -> str:
        made.append((call(ask.make, f"spro-contract-{secrets.token_hex(4)}", kind), kind))
        return made[-1][0]

    yield make
    call(ask.remove, made)


def test_small_and_big_files_come_back_at_any_revision(call, repo):
    got = call(ask.files, repo())
    assert (got["old"], got["new"], got["big"], got["copied"]) == (b"one", b"two", True, b"not a picture")
    assert got["head"] != got["first"] == got["last"]
    names = [".gitattributes", "a.txt", "c.png", "deep/b.png", "deep/big.data"]
    assert got["siblings"] == got["whole"] == names
    assert "deep/big.data" in got["lfs"] and "a.txt" not in got["lfs"]
    assert got["sizes"]["a.txt"] == 3 and got["sizes"]["deep/big.data"] == 1280000 and got["sizes"]["empty.png"] == 0
    assert sorted(got["asked"]) == [("a.txt", 3), ("deep/big.data", 1280000)]
    assert got["ranges"] == [b"wo", bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3]), b"o"]
    assert got["titles"] == ["second", "first", "initial commit"] and got["authors"]
    assert got["there"] == (True, False, False)
    assert got["left"] == [".gitattributes", "a.txt", "c.png"]


def test_branches_tags_and_stale_parents(call, repo):
    got = call(ask.refs, repo())
    assert got["branches"] == {"feature/x": got["there"], "again": got["there"], "main": got["newer"]}
    assert got["tags"] == ["round-1"]
    assert got["by_tag"] == got["by_commit"] == got["there"]
    assert (got["read"], got["exists"]) == (b"x", (True, False))
    assert (got["twice"], got["branch_twice"], got["stale"]) == (409, 409, 412)
    assert got["after"] == got["newer"]
    assert got["left"] == (["main"], [])


def test_refusals_are_those_by_which_the_clients_know_what_is_wrong(call, repo):
    got = call(ask.refusals, repo())
    assert got.pop("wrong")[1] in (401, 403, 404)
    assert got.pop("hidden")[0] == "RepositoryNotFoundError"
    assert {name: error for name, (error, _) in got.items()} == {
        "repo": "RepositoryNotFoundError",
        "short": "RepositoryNotFoundError",
        "kind": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError",
        "entry": "RemoteEntryNotFoundError",
        "twice": "HfHubHTTPError",
        "card": "ValueError",
        "gone": "RemoteEntryNotFoundError",
    }
    assert got["repo"][1] == got["revision"][1] == got["entry"][1] == 404 and got["twice"][1] == 409


def test_the_old_name_of_a_moved_repository_leads_to_it_until_it_is_taken(call, repo):
    assert call(ask.moved, repo()) == {
        "id": True,
        "old": True,
        "head": True,
        "private": True,
        "own_again": [True, True],
        "deleted": "RepositoryNotFoundError",
    }


def test_repositories_are_found_by_author_name_and_tags(call, repo):
    name = repo()
    got = call(ask.listed, name)
    assert {way: got[way] for way in ("name", "author", "tag", "license", "one", "other", "nothing")} == {
        "name": [name], "author": [name], "tag": [name], "license": [name], "one": [name], "other": [], "nothing": [],
    }  # fmt: skip
    assert got["tags"] == ["base_model:some/base", "license:mit", "peft", "spro-contract"]


def test_a_space_is_made_and_filled(call, repo):
    got = call(ask.space, repo("space"))
    assert (got["sdk"], got["stage"]) == ("gradio", "NO_APP_FILE")
    assert got["files"] == [".gitattributes", "README.md", "app.py"]


def test_a_dataset_gives_what_its_tag_held(call, repo):
    assert call(ask.rows, repo("dataset")) == [[1, 2, 3], [4]]


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_plain_git_clones_a_private_repository_with_all_branches_and_tags(call, repo, tmp_path):
    got = call(ask.cloned, repo(), str(tmp_path / "clone"))
    assert got["pointer"] == ["version https://git-lfs.github.com/spec/v1", "size 1280000"]
    assert (got["head"], got["tag"], got["branch"], got["text"]) == (True, True, True, "a")
    assert got["note"] == "noted" and got["closed"] == ""
