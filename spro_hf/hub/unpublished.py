"""A dry run: artifacts that are laid out as they would be pushed, and pushed nowhere.

``<folder>/<kind>s/<namespace>/<name>/<digest>`` holds the files of a version, ``…/tags/<tag>`` and ``…/branches/<branch>``
the digest that each names: 40 digits of the contents, where a Hub has a commit. What lies there is found by ``resolve``
and ``pull`` before a Hub is asked, so that a later stage of a list has what an earlier one made. The folder is all
there is of it: whoever begins in the same folder again, in this process or another, goes on with what it holds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from spro_hf.errors import UserError
from spro_hf.steps import write_whole

_SWITCH = "SPRO_HF_UNPUBLISHED"  # in the environment, which the processes that this one starts have from it


def begin(folder: Path) -> None:
    """From now on nothing is pushed: what would be is kept in ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.environ[_SWITCH] = str(Path(folder).resolve())


def end() -> None:
    """The dry run is over: what it made is found no more, and a tag is the Hub's again."""
    os.environ.pop(_SWITCH, None)


def on() -> bool:
    """Whether this is a dry run."""
    return _SWITCH in os.environ


def keep(folder: Path, repo: str, kind: str, tag: str, branch: str = "main") -> str:
    """Keep a copy of an artifact's folder under its tag; gives its digest.

    Raises:
        UserError: if the tag holds other files, as for a published one.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):  # any other might lead out of the folder
        raise UserError(f"{kind} '{repo}': this is not a repository name; write namespace/name.")
    home, found = _home(repo, kind), digest(folder)
    note = home / "tags" / quote(tag, safe="")
    if note.exists() and note.read_text() != found:
        raise UserError(
            f"{kind} {repo}: the tag '{tag}' exists with other content in this dry run; choose another tag or another "
            "repository, or another --out."
        )
    final = home / found
    if not final.is_dir():
        partial = home / f"{found}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for file in (f for f in Path(folder).rglob("*") if f.is_file()):
            copy = partial / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)  # copytree's own error would not say that the disk is full
        os.replace(partial, final)
    if not note.exists():
        write_whole(home / "branches" / quote(branch, safe=""), found)
        write_whole(note, found)
    return found


def find(repo: str, kind: str, revision: str) -> str | None:
    """The digest that a tag, a branch or a digest names; None if it is not here, or this is no dry run."""
    if not on():
        return None
    home = _home(repo, kind)
    for folder in ("tags", "branches"):
        if (note := home / folder / quote(revision, safe="")).is_file():
            return note.read_text()
    return revision if re.fullmatch(r"[0-9a-f]{40}", revision) and (home / revision).is_dir() else None


def path(repo: str, kind: str, revision: str) -> Path | None:
    """The folder that holds a version which is not published; None as for ``find``."""
    found = find(repo, kind, revision)
    return _home(repo, kind) / found if found else None


def listed() -> list[dict[str, Any]]:
    """What would be pushed, in the order in which it was made: repo, kind, tag, files (their number) and bytes."""
    notes = sorted(Path(os.environ[_SWITCH]).glob("*/*/*/tags/*"), key=lambda note: (note.stat().st_mtime_ns, note))
    rows = []
    for note in notes:
        home = note.parents[1]
        sizes = [f.stat().st_size for f in (home / note.read_text()).rglob("*") if f.is_file()]
        repo = f"{home.parent.name}/{home.name}"
        row = {"repo": repo, "kind": home.parents[1].name.removesuffix("s"), "tag": unquote(note.name)}
        rows.append(row | {"files": len(sizes), "bytes": sum(sizes)})
    return rows


def digest(folder: Path) -> str:
    """40 hexadecimal digits of the names and contents of a folder's files."""
    found = hashlib.sha256()
    for file in sorted(f for f in Path(folder).rglob("*") if f.is_file()):
        name = file.relative_to(folder).as_posix()
        found.update(f"{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                found.update(chunk)
    return found.hexdigest()[:40]


def _home(repo: str, kind: str) -> Path:
    """The folder of all versions of a repository."""
    return Path(os.environ[_SWITCH]) / f"{kind}s" / repo
