"""What the operations of a commit do to a repository's files, and the git LFS pointers that stand for big ones."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from collections.abc import Callable
from typing import Any

from spro_hf.hub import front_matter
from spro_hf.hub.errors import HubError, entry_not_found

RULE = "filter=lfs diff=lfs merge=lfs -text"
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
FILE = 0o100644
Files = dict[str, tuple[int, bytes]]  # path → (git mode, object id)
Add = Callable[[bytes], bytes]  # keeps a content; gives its object id
Holds = Callable[[str], int | None]  # size in bytes of the LFS object with this sha256 if it is in the store


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a big file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def apply(files: Files, key: str, value: Any, at: tuple[str, str], add: Add, holds: Holds) -> None:
    """One operation (``file``, ``lfsFile``, ``deletedFile``, ``deletedFolder``); ``at`` is (branch, its commit)."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise HubError(400, f"The operation '{key}' lacks a path.")
    path = value["path"]
    if key == "deletedFolder":
        inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
        if not inside:
            raise entry_not_found(path, *at)
        for name in inside:
            del files[name]
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            message = f"A file with this name doesn't exist: '{path}'."  # the clients look for these words
            raise HubError(404, message, "EntryNotFound", {"X-Repo-Commit": at[1]})
    elif key in ("file", "lfsFile"):
        _check_path(path)
        content = _big(value, holds) if key == "lfsFile" else _regular(path, value, holds)
        files[path] = (FILE, add(content))
    else:
        raise HubError(501, f"The local Hub does not know the commit operation '{key}'.")


def _big(value: dict[str, Any], holds: Holds) -> bytes:
    size = holds(str(value.get("oid")))
    if size is None:
        raise HubError(400, f"The bytes of '{value['path']}' (sha256 {value.get('oid')}) have not been uploaded.")
    return pointer(value["oid"], size)


def _regular(path: str, value: dict[str, Any], holds: Holds) -> bytes:
    try:
        content = base64.b64decode(value.get("content", ""), validate=True)
        errors = front_matter.check(content.decode())[0] if path == "README.md" else []
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        raise HubError(400, f"'{path}' cannot be decoded: {error}.") from None
    found = POINTER.fullmatch(content)
    if found and holds(found[1].decode()) != int(found[2]):
        errors = ["it is an LFS pointer to bytes that have not been uploaded"]
    if errors:
        raise HubError(400, f"'{path}' is not accepted: {'; '.join(errors)}.")
    return content


def track(rules: str, paths: list[str]) -> str:
    """The text of .gitattributes with a rule for each big file that none covers, so that a git clone finds its bytes."""
    covered = [line.split()[0] for line in rules.splitlines() if RULE in line]
    for path in paths:
        escaped = path.replace(" ", "[[:space:]]")
        if escaped not in covered and not any(fnmatch.fnmatch(path.split("/")[-1], rule) for rule in covered):
            rules += f"{escaped} {RULE}\n"
    return rules


def _check_path(path: str) -> None:
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if bad or "\\" in path or any(ord(c) < 32 for c in path):
        raise HubError(400, f"'{path}' is not a path inside a repository.")


def no_file_is_a_folder(files: Files) -> None:
    for path in files:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise HubError(400, f"'{'/'.join(parts[:end])}' would be both a file and a folder.")
