"""Artifacts: what a stage reads from the Hub and leaves there, by repository, tag and commit.

One code path for the real Hub and the local one: the clients read endpoint and token from the environment. A
published tag is never moved. What is pushed is one commit, tagged by the commit's own id and not by ``main``, since
another push may have moved ``main`` in between.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from spro_hf.errors import UserError

_ATTEMPTS = 10
_OF_THE_HUB = ".gitattributes"  # the Hub writes it itself when a repository is made
_LIBRARIES = ("torch", "transformers", "diffusers", "peft", "trl", "accelerate", "datasets", "huggingface_hub", "numpy")


@dataclass(frozen=True)
class Artifact:
    """A published version: repository, "model" or "dataset", its tag, and the commit behind the tag."""

    repo: str
    kind: str
    tag: str
    revision: str

    @property
    def pinned(self) -> str:
        """``repo@commit``, the commit cut to twelve digits."""
        return f"{self.repo}@{self.revision[:12]}"


@contextmanager
def _explained(repo: str, kind: str, revision: str = "") -> Iterator[None]:
    """The clients' errors as one sentence that names the repository and what to do."""
    endpoint = HfApi().endpoint
    try:
        yield
    except RevisionNotFoundError as error:
        tags = ", ".join(_tags(repo, kind)) or "none"
        raise UserError(f"{kind} {repo}: there is no revision '{revision}'; its tags: {tags}.") from error
    except GatedRepoError as error:
        advice = f"accept its terms at {endpoint}/{repo} and set HF_TOKEN to a token of that account"
        raise UserError(f"{kind} {repo}: it is gated; {advice}.") from error
    except RepositoryNotFoundError as error:
        token = "" if get_token() else "set HF_TOKEN if it is private, "
        advice = f"{token}check its name, or run the stage that makes it"
        raise UserError(f"{kind} {repo}: no such repository is to be seen at {endpoint}; {advice}.") from error
    except HFValidationError as error:
        raise UserError(f"{kind} '{repo}': this is not a repository name; write namespace/name.") from error
    except (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        advice = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        raise UserError(f"{kind} {repo}: no connection to {endpoint}, and it is not in the cache; {advice}.") from error
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        advice = "set HF_TOKEN to one that may read it, and write to it if it is pushed to"
        raise UserError(f"{kind} {repo}: {endpoint} does not accept the token; {advice}.") from error


def push(folder: Path, repo: str, kind: str, tag: str, message: str, private: bool = False) -> Artifact:
    """Publish a folder as one commit under a new tag; the repository then holds exactly the folder's files.

    A tag that exists is left as it is: if it holds the same files (a resumed run) it is returned, else ``UserError``.
    """
    api, files = HfApi(), _files(Path(folder))
    with _explained(repo, kind, tag):
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        published = _tags(repo, kind)
        if tag not in published:
            commit = _commit(api, files, repo, kind, message)
            try:
                api.create_tag(repo, repo_type=kind, tag=tag, revision=commit)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
            published = _tags(repo, kind)  # read again: another process may have been the first
        changed, gone = _difference(files, _tree(api, repo, kind, published[tag]))
    if changed or gone:
        names = ", ".join((changed + gone)[:3])
        advice = "a published tag is never moved, so choose another tag or another repository"
        raise UserError(f"{kind} {repo}: the tag '{tag}' exists with other content ({names}); {advice}.")
    return Artifact(repo, kind, tag, published[tag])


def _commit(api: HfApi, files: dict[str, Path], repo: str, kind: str, message: str) -> str:
    """A commit that holds exactly ``files``; begun again when another push came first (412)."""
    for attempt in range(_ATTEMPTS):
        head = api.repo_info(repo, repo_type=kind, revision="main").sha
        changed, gone = _difference(files, _tree(api, repo, kind, head))
        if not changed and not gone:
            return head
        operations = [CommitOperationAdd(name, files[name]) for name in changed]
        operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
        try:
            made = api.create_commit(repo, operations, commit_message=message, repo_type=kind, parent_commit=head).oid
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
        else:
            # If all was there already the client commits nothing and names main, which may be another's by now.
            if _difference(files, _tree(api, repo, kind, made)) == ([], []):
                return made
        time.sleep(0.1 * (attempt + 1))
    raise UserError(
        f"{kind} {repo}: others pushed at the same time, {_ATTEMPTS} times over; push again when it is quiet."
    )


def _files(folder: Path) -> dict[str, Path]:
    files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}
    if not files:
        raise UserError(f"{folder}: there is nothing to push; name a folder that holds the artifact's files.")
    return files


def _tags(repo: str, kind: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in HfApi().list_repo_refs(repo, repo_type=kind).tags}


def _tree(api: HfApi, repo: str, kind: str, commit: str) -> dict[str, RepoFile]:
    entries = api.list_repo_tree(repo, repo_type=kind, revision=commit, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _difference(files: dict[str, Path], tree: dict[str, RepoFile]) -> tuple[list[str], list[str]]:
    """Files that the tree lacks or holds with other content, and files that only the tree has."""
    changed = [name for name, file in files.items() if name not in tree or not _same(file, tree[name])]
    return changed, [name for name in tree if name not in files and name != _OF_THE_HUB]


def _same(file: Path, entry: RepoFile) -> bool:
    """Whether a local file is the one in the tree, by size and hash: git's own, or sha256 for LFS files."""
    size = file.stat().st_size
    if size != entry.size:
        return False
    digest = hashlib.sha256() if entry.lfs else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest() == (entry.lfs.sha256 if entry.lfs else entry.blob_id)


def check_token(repos: Iterable[str] = ()) -> None:
    """Raise a ``UserError`` if the Hub cannot be reached, does not accept the token, or ``repos`` are in a namespace that is
    neither the account's nor of one of its organisations."""
    with _explained("account", "your"):
        try:
            me = HfApi().whoami()
        except LocalTokenNotFoundError as error:
            raise UserError("There is no token; set HF_TOKEN to one that may write.") from error
    mine = [me["name"], *(org["name"] for org in me.get("orgs", []))]
    for repo in repos:
        if repo.partition("/")[0] not in mine:
            raise UserError(
                f"push: {repo} is not in a namespace of this token's account ({', '.join(mine)}); give one of them, as by "
                f"--set namespace={mine[0]}."
            )


def may_have(repo: str, kind: str) -> None:
    """Raise a ``UserError`` if the files of a repository, which anyone may list, are not for this account."""
    with _explained(repo, kind):
        HfApi().auth_check(repo, repo_type=kind)


def resolve(repo: str, kind: str, revision: str) -> str:
    """The commit behind a tag, branch or commit of a repository.

    A full commit stays what it is: a process asks once whether it is there. Tags and branches are asked for each time.
    """
    with _explained(repo, kind, revision):
        if _full(revision):
            return _there(HfApi().endpoint, repo, kind, revision)
        return HfApi().repo_info(repo, repo_type=kind, revision=revision).sha


@cache
def _there(endpoint: str, repo: str, kind: str, commit: str) -> str:
    return HfApi(endpoint).repo_info(repo, repo_type=kind, revision=commit).sha


def _full(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def pull(repo: str, kind: str, revision: str, choose: Callable[[list[str]], list[str]] | None = None) -> Path:
    """The folder in the cache that holds a repository at a revision; a full commit in the cache needs no network.

    ``choose`` says which of the repository's files are wanted; without it all of them are.
    """
    commit = revision if _full(revision) else resolve(repo, kind, revision)
    with _explained(repo, kind, revision):
        files = None
        if choose:
            files = [glob.escape(name) for name in choose(_names(repo, kind, commit))]
        return Path(snapshot_download(repo, repo_type=kind, revision=commit, allow_patterns=files))


def _names(repo: str, kind: str, commit: str) -> list[str]:
    """The files of a repository at a commit; without a network those of them that the cache holds."""
    if not constants.HF_HUB_OFFLINE:
        return HfApi().list_repo_files(repo, repo_type=kind, revision=commit)
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind), "snapshots", commit)
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def lineage(recipe: dict[str, Any], inputs: list[dict[str, Any]], seed: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Where an artifact comes from. ``inputs`` name repo and commit. Two identical runs give the same lineage."""
    versions = {name: importlib.metadata.version(name) for name in sorted(_LIBRARIES)}
    found = {
        "recipe": recipe,
        "inputs": inputs,
        "seed": seed,
        "python": platform.python_version(),
        "versions": versions,
    }
    if taken := set(found) & set(extra):
        raise UserError(f"lineage: '{min(taken)}' is a field of every lineage; give the extra field another name.")
    return found | extra


def write_lineage(
    folder: Path, recipe: dict[str, Any], inputs: list[dict[str, Any]], seed: int, extra: dict[str, Any]
) -> Path:
    """``lineage(...)`` as ``lineage.json`` in an artifact's folder; gives the file."""
    file = Path(folder) / "lineage.json"
    text = json.dumps(lineage(recipe, inputs, seed, extra), indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    return file
