"""Artifacts: what a stage reads from the Hub and leaves there, by repository, tag and commit; ``push`` publishes them.

One code path for the real Hub and the local one: the clients read endpoint and token from the environment. A
published tag is never moved.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from spro_hf.errors import UserError
from spro_hf.hub import unpublished
from spro_hf.hub.trouble import briefly, explained, tags

LIBRARIES = ("accelerate", "datasets", "diffusers", "huggingface_hub", "numpy", "peft", "pillow", "safetensors", "spro_hf", "torch",
             "transformers", "trl")  # fmt: skip
_OF_EVERY = ".gitattributes"  # in every repository: the client warns where it is to download nothing at all


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


def check_token(repos: Iterable[str] = (), how: str = "--set namespace={}") -> None:
    """Raise a ``UserError`` if the Hub cannot be reached, does not accept the token, or the token may not write to ``repos``:
    since it only reads, or since they are in a namespace that is neither the account's nor of one of its organisations. ``how``
    is the option by which another is given."""
    with explained("account", "your"):
        try:
            me = briefly(lambda: HfApi().whoami())
        except LocalTokenNotFoundError as error:
            raise UserError("There is no token; set HF_TOKEN to one that may write.") from error
    token = me.get("auth", {}).get("accessToken", {})
    organisations = {org["name"]: org.get("roleInOrg") for org in me.get("orgs", [])}
    mine = [me["name"], *organisations]
    for repo in repos:
        namespace = repo.partition("/")[0]
        if namespace not in mine:
            raise UserError(
                f"push: {repo} is not in a namespace of this token's account ({', '.join(mine)}); give one of them, as by "
                f"{how.format(mine[0])}."
            )
        if organisations.get(namespace) == "read":
            raise UserError(
                f"push: {me['name']} may only read in {namespace}, where {repo} is to go; ask its owners for the role "
                f"'contributor' or 'write', or give another namespace, as by {how.format(me['name'])}."
            )
        if not _may_write(token, namespace, repo):
            raise UserError(
                f"push: the token may read but not write {repo}; set HF_TOKEN to one of {HfApi().endpoint}/settings/tokens "
                f"that may write to {namespace}."
            )


def _may_write(token: dict[str, Any], namespace: str, repo: str) -> bool:
    """Whether a token, as the Hub tells of it, writes there; one that the Hub tells nothing of is tried."""
    if token.get("role") == "read":
        return False
    if token.get("role") != "fineGrained" or "scoped" not in token.get("fineGrained", {}):
        return True
    granted = [
        scope["entity"].get("name") for scope in token["fineGrained"]["scoped"] if "repo.write" in scope["permissions"]
    ]
    return namespace in granted or repo in granted


def free(versions: Iterable[tuple[str, str, str]]) -> None:
    """Raise a ``UserError`` if one of these (repository, kind, tag) is published already; a push would be refused at the end."""
    for (repo, kind), group in groupby(sorted(versions), key=lambda version: version[:2]):
        wanted = [tag for _, _, tag in group]
        if unpublished.on():
            taken = [tag for tag in wanted if unpublished.find(repo, kind, tag)]
        else:
            with explained(repo, kind):
                try:
                    published = briefly(lambda repo=repo, kind=kind: tags(repo, kind))
                except RepositoryNotFoundError:
                    continue  # it is made with the first version
            taken = [tag for tag in wanted if tag in published]
        if taken:
            raise UserError(
                f"push: {kind} {repo} has the tag '{taken[0]}' already, and a published one is never moved; give this run another "
                "name, as by --set name=another, or its artifact another repository in 'push', or go on in the --out that made it."
            )


def may_have(repo: str, kind: str) -> None:
    """Raise a ``UserError`` if the files of a repository, which anyone may list, are not for this account."""
    with explained(repo, kind):
        briefly(lambda: HfApi().auth_check(repo, repo_type=kind))


def resolve(repo: str, kind: str, revision: str) -> str:
    """The commit behind a tag, branch or commit of a repository.

    A full commit stays what it is: a process asks once whether it is there. Tags and branches are asked for each time. In
    a dry run what it has made comes first, see ``unpublished``.
    """
    if found := unpublished.find(repo, kind, revision):
        return found
    with explained(repo, kind, revision):
        if full(revision):
            return _there(HfApi().endpoint, repo, kind, revision)
        return briefly(lambda: HfApi().repo_info(repo, repo_type=kind, revision=revision).sha)


@cache
def _there(endpoint: str, repo: str, kind: str, commit: str) -> str:
    return briefly(lambda: HfApi(endpoint).repo_info(repo, repo_type=kind, revision=commit).sha)


def full(revision: str) -> bool:
    """Whether this is a whole commit id."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def pull(repo: str, kind: str, revision: str, choose: Callable[[list[str]], list[str]] | None = None) -> Path:
    """The folder in the cache that holds a repository at a revision; a full commit in the cache needs no network.

    ``choose`` says which of the repository's files are wanted; without it all of them are. In a dry run the folder of what
    it has made itself holds all files.
    """
    if here := unpublished.path(repo, kind, revision):
        return here
    commit = revision if full(revision) else resolve(repo, kind, revision)
    with explained(repo, kind, revision):
        files = None
        if choose:
            names = briefly(lambda: _names(repo, kind, commit))
            files = [glob.escape(name) for name in choose(names)] or [_OF_EVERY]
        load = partial(snapshot_download, repo, repo_type=kind, revision=commit, allow_patterns=files)
        return Path(briefly(load))


def _names(repo: str, kind: str, commit: str) -> list[str]:
    """The files of a repository at a commit; without a network those of them that the cache holds."""
    if not constants.HF_HUB_OFFLINE:
        return HfApi().list_repo_files(repo, repo_type=kind, revision=commit)
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind), "snapshots", commit)
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def software() -> dict[str, Any]:
    """``python`` and the ``versions`` of the libraries that results may depend on."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), "versions": versions}


def lineage(recipe: dict[str, Any], inputs: list[dict[str, Any]], seed: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Where an artifact comes from. ``inputs`` name repo and commit. Two identical runs give the same lineage."""
    found = {"recipe": recipe, "inputs": inputs, "seed": seed, **software()}
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
