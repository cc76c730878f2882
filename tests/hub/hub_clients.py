"""What the tests ask of the real clients; runs in a process whose environment points at a local Hub."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from spro_hf.errors import UserError

BIG = bytes(range(256)) * 5000  # 1.28 MB: past the size at which a file leaves git


def add(name: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(name, content)


def refused(call: Callable[[], Any]) -> tuple[str, int | None, str]:
    """The kind of error a call ends in, its HTTP status, and its words."""
    try:
        call()
    except (HfHubHTTPError, UserError, ValueError) as error:
        response = getattr(error, "response", None)
        return type(error).__name__, response.status_code if response is not None else None, str(error)
    raise AssertionError("the call went through")


def only_here() -> dict[str, Any]:
    """What the local Hub does in its own way: the real one may answer otherwise, or would show what is private."""
    api, nobody, repo = HfApi(), HfApi(token=False), "spro/here"
    start = api.create_repo(repo) and api.model_info(repo).sha
    first = api.create_commit(repo, [add("deep/b.png", b"b"), add("deep/big.data", BIG)], commit_message="m").oid
    address = f"{api.endpoint}/{repo}/resolve/{first}"
    found = {
        "by_short": api.model_info(repo, revision=first[:8]).sha == first,
        "rules": Path(hf_hub_download(repo, ".gitattributes")).read_text(),
        "beyond": httpx2.get(f"{address}/.gitattributes", headers={"Range": "bytes=9999-"}).status_code,
        "bad_tag": refused(lambda: api.create_tag(repo, tag="a..b"))[1],
        "main_gone": refused(lambda: api.delete_branch(repo, branch="main"))[1],
        "public": nobody.model_info(repo).private,
        "me": api.whoami()["name"],
    }
    api.update_repo_settings(repo, private=True)
    found["hidden"] = refused(lambda: nobody.model_info(repo))[:2]
    api.update_repo_settings(repo, private=False)
    assert start != first
    return found | {"opened": nobody.model_info(repo).private}


def errors() -> dict[str, tuple[str, int | None, str]]:
    api, repo = HfApi(), "spro/errors"
    api.create_repo(repo)
    stranger, nobody = HfApi(token="hf_wrong"), HfApi(token=False)
    forged = f"{api.endpoint}/lfs/{'0' * 64}?size=3&until=9999999999&signature=00"
    both = [add("a", b"1"), add("a/b", b"2")]
    return {
        "wrong": refused(lambda: stranger.create_repo("spro/other")),
        "wrong_reads": refused(lambda: stranger.model_info(repo)),
        "absent": refused(lambda: nobody.create_commit(repo, [add("a", b"a")], commit_message="m")),
        "path": refused(lambda: api.create_commit(repo, [add("a/.git/b", b"")], commit_message="m")),
        "clash": refused(lambda: api.create_commit(repo, both, commit_message="m")),
        "listing": refused(lambda: list(api.list_models(gated=True))),
        "likes": refused(lambda: list(api.list_repo_likers(repo))),
        "secret": refused(lambda: api.add_space_secret(repo, "key", "value")),
        "squash": refused(lambda: api.super_squash_history(repo)),
        "pull_request": refused(lambda: api.create_commit(repo, [add("a", b"")], commit_message="m", create_pr=True)),
        "forged": ("", httpx2.put(forged, content=b"abc").status_code, ""),
        "forged_read": ("", httpx2.get(forged).status_code, ""),
    }


def commit_from_threads(threads: int, each: int) -> tuple[int, list[str]]:
    """Length of the history and the files after concurrent commits without a parent."""
    api, repo = HfApi(), "spro/crowd"
    api.create_repo(repo)

    def work(number: int) -> None:
        for i in range(each):
            api.create_commit(
                repo, [add(f"{number}/{i}.bin", f"{number} {i}".encode())], commit_message=f"{number} {i}"
            )

    _together([lambda n=n: work(n) for n in range(threads)])
    files = [f for f in api.list_repo_files(repo) if f != ".gitattributes"]
    return len(api.list_repo_commits(repo)), files


def _together(jobs: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def push(folder: str, repo: str, tag: str, kind: str = "model") -> tuple[str, str]:
    from spro_hf.hub import push as pushing

    made = pushing.push(Path(folder), repo, kind, tag, f"version {tag}")
    return made.revision, made.pinned


def push_from_threads(folders: list[str], repo: str) -> dict[str, list[str]]:
    """Tag → the files of that tag, after pushes at the same time."""
    _together([lambda f=f: push(f, repo, Path(f).name) for f in folders])
    return {t.name: sorted(HfApi().list_repo_files(repo, revision=t.name)) for t in HfApi().list_repo_refs(repo).tags}


def files_at(repo: str, revision: str, kind: str = "model") -> dict[str, str]:
    from spro_hf.hub import artifacts

    folder = artifacts.pull(repo, kind, revision)
    return {f.relative_to(folder).as_posix(): f.read_text() for f in folder.rglob("*") if f.is_file()}


def told(function: str, *arguments: Any, token: str | None = None) -> str:
    """The sentence a user reads when a function of artifacts fails."""
    from spro_hf.hub import artifacts

    kept = os.environ["HF_TOKEN"]
    os.environ["HF_TOKEN"] = token or kept
    try:
        name, _, text = refused(lambda: getattr(artifacts, function)(*arguments))
    finally:
        os.environ["HF_TOKEN"] = kept
    assert name == "UserError", (name, text)
    return text


def requests_of(repo: str, revision: str, times: int) -> tuple[int, str]:
    """How many requests it takes to resolve a revision so often, and the commit behind it."""
    from huggingface_hub.utils import get_session

    from spro_hf.hub import artifacts

    made: list[Any] = []
    hooks = get_session().event_hooks
    get_session().event_hooks = {**hooks, "request": [*hooks["request"], made.append]}
    try:
        (found,) = {artifacts.resolve(repo, "model", revision) for _ in range(times)}
    finally:
        get_session().event_hooks = hooks
    return len(made), found


def wrongly(function: str, *arguments: Any) -> str:
    return told(function, *arguments, token="hf_wrong")


def commit_through_a_kill(repo: str, count: int) -> list[str]:
    """The commits that the server confirmed, while it was killed and started again under way."""
    api, confirmed = HfApi(), []
    for number in range(count):
        operations = [add("count", str(number).encode()), add(f"{number}.bin", BIG[: 1000 + number])]
        try:
            confirmed.append(api.create_commit(repo, operations, commit_message=str(number)).oid)
        except (httpx2.TransportError, HfHubHTTPError, RuntimeError):  # the last is an upload's, whose connection broke
            continue
    return confirmed


def history(repo: str) -> tuple[list[str], dict[str, int]]:
    """Commits of main, oldest first, and the size of every file, as downloaded at its head."""
    api = HfApi()
    files = {name: Path(hf_hub_download(repo, name)).stat().st_size for name in api.list_repo_files(repo)}
    return [c.commit_id for c in api.list_repo_commits(repo)][::-1], files


def create(repo: str) -> None:
    HfApi().create_repo(repo)


def load_rows(repo: str, revision: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows by the stock client with a tag, and from the pulled folder."""
    from datasets import load_dataset

    from spro_hf.hub import artifacts

    stock = load_dataset(repo, revision=revision, split="train")
    return stock.to_list(), load_dataset(str(artifacts.pull(repo, "dataset", revision)), split="train").to_list()


def push_rows(repo: str) -> int:
    """datasets' own push: creates the repository, uploads parquet and writes the card."""
    from datasets import Dataset, load_dataset

    Dataset.from_dict({"n": [1, 2, 3]}).push_to_hub(repo)
    return load_dataset(repo, split="train")["n"][-1]


def metadata(card: str, kind: str) -> dict[str, Any]:
    """A card's header as the clients read it, after the Hub has checked it."""
    from huggingface_hub import DatasetCard, ModelCard

    HfApi()._validate_yaml(card, repo_type=kind)
    read = (ModelCard if kind == "model" else DatasetCard)(card).data
    results = [(r.metric_type, r.metric_value) for r in getattr(read, "eval_results", None) or []]
    return read.to_dict() | {"eval_results": results}
