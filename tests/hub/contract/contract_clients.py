"""What the contract asks of the real clients, of any Hub; runs in a process whose environment points at it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import HfHubHTTPError

BIG = bytes(range(256)) * 5000  # 1.28 MB, and no text: git does not keep it on either Hub


def add(name: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(name, content)


def refused(call: Callable[[], Any]) -> tuple[str, int | None]:
    """The kind of error a call ends in, and its HTTP status."""
    try:
        call()
    except (HfHubHTTPError, ValueError) as error:
        response = getattr(error, "response", None)
        return type(error).__name__, response.status_code if response is not None else None
    raise AssertionError("the call went through")


def make(name: str, kind: str = "model") -> str:
    """A private repository of the token's user; gives its id."""
    api = HfApi()
    repo = f"{api.whoami()['name']}/{name}"
    api.create_repo(repo, repo_type=kind, private=True, space_sdk="gradio" if kind == "space" else None)
    return repo


def remove(repos: list[tuple[str, str]]) -> None:
    for repo, kind in repos:
        HfApi().delete_repo(repo, repo_type=kind, missing_ok=True)


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"}


def files(repo: str) -> dict[str, Any]:
    api = HfApi()
    first = api.create_commit(
        repo,
        [add("a.txt", b"one"), add("deep/b.png", b"not a picture"), add("deep/big.data", BIG), add("empty.png", b"")],
        commit_message="first",
    ).oid
    operations = [add("a.txt", b"two"), CommitOperationDelete("empty.png"), CommitOperationCopy("deep/b.png", "c.png")]
    second = api.create_commit(repo, operations, commit_message="second", commit_description="and why").oid
    address = f"{api.endpoint}/{repo}/resolve/{second}"
    ranges = [
        httpx2.get(f"{address}/{name}", headers=_headers() | {"Range": span}, follow_redirects=True).content
        for name, span in (("a.txt", "bytes=1-"), ("deep/big.data", "bytes=250-259"), ("a.txt", "bytes=-1"))
    ]
    tree = {e.path: e for e in api.list_repo_tree(repo, revision=first, recursive=True, expand=True)}
    whole = Path(snapshot_download(repo, revision=second))
    history = api.list_repo_commits(repo)
    found = {
        "first": first,
        "head": api.model_info(repo).sha,
        "siblings": sorted(s.rfilename for s in api.model_info(repo, files_metadata=True).siblings),
        "old": Path(hf_hub_download(repo, "a.txt", revision=first)).read_bytes(),
        "new": Path(hf_hub_download(repo, "a.txt")).read_bytes(),
        "big": Path(hf_hub_download(repo, "deep/big.data")).read_bytes() == BIG,
        "copied": (whole / "c.png").read_bytes(),
        "whole": sorted(p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()),
        "lfs": sorted(path for path, e in tree.items() if getattr(e, "lfs", None)),
        "sizes": {path: e.size for path, e in tree.items() if hasattr(e, "size")},
        "last": tree["a.txt"].last_commit.oid,
        "asked": [(e.path, e.size) for e in api.get_paths_info(repo, ["a.txt", "none", "deep/big.data"])],
        "ranges": ranges,
        "titles": [c.title for c in history],
        "authors": history[0].authors == [api.whoami()["name"]],
        "there": (api.file_exists(repo, "c.png"), api.file_exists(repo, "empty.png"), api.repo_exists(repo + "-no")),
    }
    api.delete_folder("deep", repo)
    return found | {"left": sorted(api.list_repo_files(repo))}


def refs(repo: str) -> dict[str, Any]:
    api = HfApi()
    start = api.model_info(repo).sha
    api.create_branch(repo, branch="feature/x")
    there = api.create_commit(repo, [add("x", b"x")], commit_message="on the branch", revision="feature/x").oid
    api.create_tag(repo, tag="round-1", revision=there, tag_message="the first round")
    newer = api.create_commit(repo, [add("y", b"y")], commit_message="newer").oid
    api.create_branch(repo, branch="again", revision="round-1")
    listed = api.list_repo_refs(repo)
    api.create_tag(repo, tag="round-1", revision=newer, exist_ok=True)  # says nothing and moves nothing
    found = {
        "start": start,
        "there": there,
        "newer": newer,
        "branches": {r.name: r.target_commit for r in listed.branches},
        "tags": [r.name for r in listed.tags],
        "by_tag": api.model_info(repo, revision="round-1").sha,
        "by_commit": api.model_info(repo, revision=there).sha,
        "read": Path(hf_hub_download(repo, "x", revision="round-1")).read_bytes(),
        "exists": (api.revision_exists(repo, "round-1"), api.revision_exists(repo, "round-2")),
        "twice": refused(lambda: api.create_tag(repo, tag="round-1", revision=start))[1],
        "branch_twice": refused(lambda: api.create_branch(repo, branch="again"))[1],
        "stale": refused(lambda: api.create_commit(repo, [add("z", b"z")], commit_message="late", parent_commit=start))[
            1
        ],
        "after": api.model_info(repo).sha,
    }
    for branch in ("feature/x", "again"):
        api.delete_branch(repo, branch=branch)
    api.delete_tag(repo, tag="round-1")
    listed = api.list_repo_refs(repo)
    return found | {"left": ([r.name for r in listed.branches], listed.tags)}


def refusals(repo: str) -> dict[str, tuple[str, int | None]]:
    api, stranger, nobody = HfApi(), HfApi(token="hf_wrong"), HfApi(token=False)
    card = b"---\ntags: 3\n---\n"
    return {
        "repo": refused(lambda: api.model_info(f"{repo}-none")),
        "short": refused(lambda: api.model_info("spro-contract-no-such-repository")),
        "kind": refused(lambda: api.dataset_info(repo)),
        "revision": refused(lambda: api.model_info(repo, revision="v9")),
        "entry": refused(lambda: hf_hub_download(repo, "none.txt")),
        "twice": refused(lambda: api.create_repo(repo)),
        "wrong": refused(lambda: stranger.create_commit(repo, [add("a", b"a")], commit_message="m")),
        "hidden": refused(lambda: nobody.model_info(repo)),
        "card": refused(lambda: api.create_commit(repo, [add("README.md", card)], commit_message="m")),
        "gone": refused(lambda: api.delete_file("none.txt", repo)),
    }


def moved(repo: str) -> dict[str, Any]:
    """A repository under another name: the old one leads there, until another repository has it."""
    api, to = HfApi(), f"{repo}-moved"
    commit = api.create_commit(repo, [add("a", b"a"), add("b.bin", BIG)], commit_message="m").oid
    api.move_repo(repo, to)
    old = Path(hf_hub_download(repo, "b.bin")).read_bytes() == BIG  # by the old name
    found = {"id": api.model_info(repo).id == to, "old": old, "head": api.model_info(repo).sha == commit}
    api.update_repo_settings(to, private=True)
    found["private"] = api.model_info(to).private
    api.create_repo(repo, private=True)
    found["own_again"] = [api.model_info(repo).id == repo, api.model_info(to).sha == commit]
    api.delete_repo(to)
    found["deleted"] = refused(lambda: api.model_info(to))[0]
    return found


def listed(repo: str) -> dict[str, Any]:
    """A repository is found by author, name and tags. The real Hub's search is a moment behind."""
    api = HfApi()
    author, _, name = repo.partition("/")
    card = b"---\nlicense: mit\nlibrary_name: peft\ntags: [spro-contract]\nbase_model: some/base\n---\n# It\n"
    api.create_commit(repo, [add("README.md", card)], commit_message="card")
    ways = {
        "name": {"search": name},
        "author": {"author": author, "search": name},
        "tag": {"author": author, "filter": ["spro-contract", "peft"], "search": name},
        "license": {"author": author, "filter": "license:mit", "search": name, "full": True},
        "one": {"author": author, "search": name, "limit": 1},
        "other": {"author": author, "filter": "license:apache-2.0", "search": name},
    }
    end = time.monotonic() + 20
    while True:
        found = {way: [m.id for m in api.list_models(**asked)] for way, asked in ways.items()}
        if all(found[way] for way in ways if way != "other") or time.monotonic() > end:
            break
        time.sleep(1)
    tags = api.model_info(repo).tags
    known = {"peft", "spro-contract", "license:mit", "base_model:some/base"}
    return found | {"tags": sorted(known & set(tags)), "nothing": list(api.list_datasets(search=name))}


def space(repo: str) -> dict[str, Any]:
    api = HfApi()
    before = api.space_info(repo)
    stage = api.get_space_runtime(repo).stage
    api.upload_file(path_or_fileobj=b"print(1)", path_in_repo="app.py", repo_id=repo, repo_type="space")
    return {"sdk": before.sdk, "stage": str(stage), "files": sorted(api.list_repo_files(repo, repo_type="space"))}


def rows(repo: str) -> list[list[int]]:
    """Each tag of a dataset gives what it held, by the stock call."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import load_dataset

    api = HfApi()
    for tag, numbers in (("v1", [1, 2, 3]), ("v2", [4])):
        content = io.BytesIO()
        pq.write_table(pa.table({"n": numbers}), content)
        operation = add("data/train-00000-of-00001.parquet", content.getvalue())
        made = api.create_commit(repo, [operation], commit_message=tag, repo_type="dataset").oid
        api.create_tag(repo, tag=tag, revision=made, repo_type="dataset")
    return [list(load_dataset(repo, revision=tag, split="train")["n"]) for tag in ("v1", "v2")]


def cloned(repo: str, folder: str) -> dict[str, Any]:
    """A private repository by plain git, without git-lfs: every branch and tag, and pointers for big files."""
    api = HfApi()
    made = api.create_commit(repo, [add("a.txt", b"a"), add("big.bin", BIG)], commit_message="files").oid
    api.create_tag(repo, tag="v1", revision=made, tag_message="noted")
    api.create_branch(repo, branch="checkpoints")
    later = api.create_commit(repo, [add("c", b"c")], commit_message="c", revision="checkpoints").oid
    site = urlsplit(api.endpoint)
    address = f"{site.scheme}://{{}}{site.netloc}/{repo}"

    def git(*arguments: str, check: bool = True) -> str:
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    git("clone", "-q", address.format(f"user:{os.environ['HF_TOKEN']}@"), folder)
    git("-C", folder, "fsck", "--strict")
    return {
        "head": git("-C", folder, "rev-parse", "HEAD").strip() == made,
        "tag": git("-C", folder, "rev-parse", "v1^{commit}").strip() == made,
        "note": git("-C", folder, "tag", "-n", "-l", "v1").split(maxsplit=1)[-1].strip(),
        "branch": git("-C", folder, "rev-parse", "origin/checkpoints").strip() == later,
        "text": Path(folder, "a.txt").read_text(),
        "pointer": Path(folder, "big.bin").read_text().splitlines()[::2],
        "closed": git("ls-remote", address.format(""), check=False),
    }
