"""Pushing: a folder becomes one commit, and that commit's own id one tag, whatever happens on the way.

The tag is made last, so that a version is there whole or not at all. A push that was cut off is done again from the
start: what was uploaded is not sent again, and a commit that lacks its tag is found.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from spro_hf.errors import UserError
from spro_hf.hub import front_matter, unpublished
from spro_hf.hub.artifacts import Artifact
from spro_hf.hub.trouble import explained, patiently, status, tags

_TURNS = 20  # of a commit that others came before, each time another
_STALL = 300.0  # seconds without a byte after which a connection is given up; the clients would wait for ever
_OF_THE_HUB = ".gitattributes"  # the Hub writes it itself when a repository is made


def push(
    folder: Path, repo: str, kind: str, tag: str, message: str, private: bool = False, branch: str = "main"
) -> Artifact:
    """Publish a folder as one commit under a new tag; the branch then holds exactly the folder's files.

    A tag that exists is left as it is: if it holds the same files (a resumed run) it is returned. ``branch`` is begun from
    the first commit of ``main`` if it is not there. In a dry run, see ``unpublished``, no Hub is asked.

    Raises:
        UserError: if the tag holds other files, if the card has a bad header, or if the Hub does not take it; what has been
            published before is as it was.
    """
    files = _files(Path(folder))
    check_card(Path(folder), f"{kind} {repo}")
    if unpublished.on():
        return Artifact(repo, kind, tag, unpublished.keep(Path(folder), repo, kind, tag, branch))
    with explained(repo, kind, branch, writes=True):
        _check_with_the_hub(Path(folder), repo, kind)
        patiently(lambda: _session().create_repo(repo, repo_type=kind, private=private, exist_ok=True))
        published = patiently(lambda: tags(repo, kind))
        if tag not in published:
            commit = _commit(files, repo, kind, branch, message)
            if patiently(lambda: _tag(repo, kind, tag, commit)):
                return Artifact(repo, kind, tag, commit)
            published = patiently(lambda: tags(repo, kind))  # another process was the first, or an answer was lost
            if tag not in published:
                raise UserError(
                    f"{kind} {repo}: the Hub takes no tag '{tag}' beside those that it has; choose another tag."
                )
        changed, gone = _difference(files, _tree(repo, kind, published[tag]))
    if changed or gone:
        names = ", ".join((changed + gone)[:3])
        advice = "a published tag is never moved, so choose another tag or another repository"
        raise UserError(f"{kind} {repo}: the tag '{tag}' exists with other content ({names}); {advice}.")
    return Artifact(repo, kind, tag, published[tag])


def check_card(folder: Path, what: str) -> None:
    """Raise a UserError if the card in a folder, where it holds one, has no YAML header or a bad field in it."""
    file = folder / "README.md"
    if not file.exists():
        return
    try:
        card = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{what}: README.md is no UTF-8 text; write the card again.") from None
    errors, _ = front_matter.check(card)
    if not front_matter.split(card)[0].strip():
        errors = ["it has no YAML header between two lines of '---' at its head"]
    if errors:
        raise UserError(f"{what}: the card README.md is not accepted: {errors[0].rstrip('.')}; mend it and push again.")


def _check_with_the_hub(folder: Path, repo: str, kind: str) -> None:
    """The Hub's own check of the card, before anything is made or uploaded there."""
    file = folder / "README.md"
    if not file.exists():
        return
    card = RepoCard(file.read_text(encoding="utf-8"))
    try:
        patiently(lambda: card.validate(repo_type=kind))
    except ValueError as error:  # its text is the Hub's answer
        try:
            said = "; ".join(row["message"] for row in json.loads(str(error))["errors"])
        except (ValueError, KeyError, TypeError):
            said = " ".join(str(error).split())[:200]
        told = f"the card README.md is not accepted by {HfApi().endpoint}: {said.rstrip('.')}"
        raise UserError(f"{kind} {repo}: {told}; mend it and push again.") from error


def _session() -> HfApi:
    """The client, with a limit to its patience where it has none, and without a check of the card that has been made."""
    get_session().timeout = httpx2.Timeout(_STALL)  # again each time: after an error the client may have made a new one
    api = HfApi()
    api._validate_yaml = lambda *_, **__: None
    return api


def _commit(files: dict[str, Path], repo: str, kind: str, branch: str, message: str) -> str:
    """A commit of the branch that holds exactly ``files``; begun again when another push came first (412)."""
    xet = not constants.HF_HUB_DISABLE_XET and patiently(lambda: _takes_xet(repo, kind))
    if not xet:
        constants.HF_HUB_DISABLE_XET = True  # the client reads the variable of this name once, and does not ask the Hub
    for turn in range(_TURNS):
        head = patiently(lambda: _head(repo, kind, branch))
        changed, gone = _difference(files, _tree(repo, kind, head))
        if not changed and not gone:
            return head
        operations: list[Any] = [CommitOperationAdd(name, files[name]) for name in changed]
        made = _send(operations, gone, repo, kind, branch, head, message)
        # If all was there already the client commits nothing and names the branch, which may be another's by now.
        if made and _difference(files, _tree(repo, kind, made)) == ([], []):
            return made
        time.sleep(min(0.1 * (turn + 1), 1.0) * random.SystemRandom().uniform(0.5, 1.5))  # or two would keep in step
    raise UserError(f"{kind} {repo}: others pushed at the same time, {_TURNS} times over; push again when it is quiet.")


def _send(added: list[Any], gone: list[str], repo: str, kind: str, branch: str, head: str, message: str) -> str | None:
    """Upload what is new and commit it onto ``head``; None if the branch is not at ``head`` any more."""
    # by itself, so that it is not done again with a commit that is
    patiently(lambda: _session().preupload_lfs_files(repo, added, repo_type=kind, revision=branch, free_memory=False))
    operations = added + [CommitOperationDelete(name, is_folder=False) for name in gone]
    commit = partial(
        HfApi.create_commit, repo_id=repo, operations=operations, commit_message=message, repo_type=kind, revision=branch,
        parent_commit=head,
    )  # fmt: skip
    try:
        return patiently(lambda: commit(_session())).oid
    except HfHubHTTPError as error:
        if status(error) not in (409, 412):
            raise
        return None


def _takes_xet(repo: str, kind: str) -> bool:
    """Whether the Hub has Xet, to which the client sends big files wherever it can, without another way out."""
    api = HfApi()
    address = f"{api.endpoint}/api/{kind}s/{repo}/xet-write-token/main"
    answer = get_session().get(address, headers=build_hf_headers())
    if answer.status_code in (404, 501) and "X-Error-Code" not in answer.headers:
        return False
    hf_raise_for_status(answer)
    return True


def _head(repo: str, kind: str, branch: str) -> str:
    """The newest commit of a branch, which is begun if it is not there."""
    api = HfApi()
    if branch != "main" and branch not in {b.name for b in api.list_repo_refs(repo, repo_type=kind).branches}:
        first = api.list_repo_commits(repo, repo_type=kind)[-1].commit_id
        api.create_branch(repo, repo_type=kind, branch=branch, revision=first, exist_ok=True)
    return api.repo_info(repo, repo_type=kind, revision=branch, timeout=_STALL).sha


def _tag(repo: str, kind: str, tag: str, commit: str) -> bool:
    """Whether the tag is new and at this commit now."""
    try:
        _session().create_tag(repo, repo_type=kind, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if status(error) != 409:
            raise
        return False
    return True


def _files(folder: Path) -> dict[str, Path]:
    files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}
    if not files:
        raise UserError(f"{folder}: there is nothing to push; name a folder that holds the artifact's files.")
    return files


def _tree(repo: str, kind: str, commit: str) -> dict[str, RepoFile]:
    def read() -> dict[str, RepoFile]:
        entries = HfApi().list_repo_tree(repo, repo_type=kind, revision=commit, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    return patiently(read)


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
