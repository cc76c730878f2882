"""One bare git repository of the local Hub: revisions, trees, and commits whose branch is moved last.

Big files are git LFS pointers; their bytes live in the store. Objects are written whole (temporary file, fsync,
rename) before the branch is moved by compare-and-swap, so a process killed at any moment leaves the last version.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dulwich.index import commit_tree
from dulwich.object_store import iter_tree_contents
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.refs import check_ref_format
from dulwich.repo import Repo

from spro_hf.hub import front_matter
from spro_hf.hub.errors import HubError, entry_not_found, revision_not_found

LFS_SUFFIXES = (
    "arrow",
    "bin",
    "gz",
    "jpg",
    "jpeg",
    "npy",
    "npz",
    "parquet",
    "png",
    "pt",
    "pth",
    "safetensors",
    "webp",
    "zip",
)
LFS_SIZE = 1 << 20  # bytes; larger files are kept outside git whatever their name
_RULE = "filter=lfs diff=lfs merge=lfs -text"
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
_AUTHOR = b"spro <spro@localhost>"
_FILE = 0o100644
Files = dict[str, tuple[int, bytes]]  # path → (git mode, object id)


@dataclass(frozen=True)
class Entry:
    """A file or folder of a tree. ``size`` is the content's in bytes; ``sha256`` is set for LFS files only."""

    path: str
    oid: str
    size: int = 0
    folder: bool = False
    sha256: str | None = None
    pointer_size: int = 0


class Repository:
    """A repository that exists. ``holds(sha256)`` gives the size of an LFS object in the store, or None."""

    def __init__(self, path: Path, id: str, lock: threading.Lock, holds: Callable[[str], int | None]) -> None:
        self.git, self.id, self.path, self._lock, self._holds = Repo(str(path)), id, path, lock, holds

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.git.close()

    @staticmethod
    def create(path: Path) -> None:
        """A new repository with one commit that says which files are LFS."""
        with Repo.init_bare(str(path), mkdir=True, default_branch=b"main") as git:
            config = git.get_config()
            config.set((b"core",), b"fsyncObjectFiles", True)
            config.write_to_path()
        with Repository(path, "", threading.Lock(), lambda _: None) as made:
            rules = "".join(f"*.{suffix} {_RULE}\n" for suffix in LFS_SUFFIXES)
            blob = made._add(Blob.from_string(rules.encode()))
            commit = made._write_commit({".gitattributes": (_FILE, blob)}, [], "initial commit")
            made.git.refs.add_if_new(b"refs/heads/main", commit)

    # --- revisions

    def refs(self, folder: str) -> dict[str, str]:
        """Branches ("heads") or tags ("tags"): name → commit."""
        prefix = f"refs/{folder}/".encode()
        found = self.git.refs.as_dict(prefix)
        return {name.decode(): self._commit_of(oid).id.decode() for name, oid in sorted(found.items())}

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, a full ref or a commit (at least its first seven digits)."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref.startswith("refs/") and check_ref_format(ref.encode()) and ref.encode() in self.git.refs:
                return self._commit_of(self.git.refs[ref.encode()]).id.decode()
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = set(self.git.object_store.iter_prefix(revision.encode()))
            commits = [oid for oid in found if isinstance(self.git[oid], Commit)]
            if len(commits) == 1:
                return commits[0].decode()
        raise revision_not_found(self.id, revision)

    def add_ref(self, folder: str, name: str, revision: str) -> None:
        """A new branch or tag at a revision; one that exists is never moved (409)."""
        ref = f"refs/{folder}/{name}".encode()
        what = "branch" if folder == "heads" else "tag"
        if not check_ref_format(ref) or name.startswith("refs/"):
            raise HubError(400, f"'{name}' is not a valid name for a {what}.")
        with self._lock:
            commit = self.resolve(revision).encode()
            try:
                added = self.git.refs.add_if_new(ref, commit)
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                raise HubError(
                    409, f"The {what} '{name}' cannot stand beside another one that is its folder."
                ) from None
        if not added:
            raise HubError(409, f"The {what} '{name}' exists already; a published one is never moved.")

    def remove_ref(self, folder: str, name: str) -> None:
        ref = f"refs/{folder}/{name}".encode()
        if folder == "heads" and name == "main":
            raise HubError(403, "The branch 'main' cannot be deleted.")
        with self._lock:
            if not check_ref_format(ref) or ref not in self.git.refs:
                raise revision_not_found(self.id, name)
            self.git.refs.remove_if_equals(ref, None)

    def history(self, commit: str) -> Iterator[Commit]:
        """The commit and its ancestors, newest first."""
        for step in self.git.get_walker(include=[commit.encode()]):
            yield step.commit

    def _commit_of(self, oid: bytes) -> Commit:
        found = self.git[oid]
        while isinstance(found, Tag):
            found = self.git[found.object[1]]
        return found

    # --- trees

    def files(self, commit: str) -> Files:
        """All files at a commit."""
        tree = self.git[commit.encode()].tree
        return {e.path.decode(): (e.mode, e.sha) for e in iter_tree_contents(self.git.object_store, tree)}

    def entry(self, commit: str, path: str) -> Entry | None:
        """The file or folder at a path ("" is the root), or None."""
        oid = self.git[commit.encode()].tree
        for part in [p for p in path.split("/") if p]:
            tree = self.git[oid]
            if not isinstance(tree, Tree) or part.encode() not in tree:
                return None
            oid = tree[part.encode()][1]
        return self._entry(path.strip("/"), oid)

    def listing(self, commit: str, path: str = "", recursive: bool = False) -> list[Entry] | None:
        """What lies in a folder, in git's order; None if there is no such folder."""
        top = self.entry(commit, path)
        if top is None or not top.folder:
            return None
        found = []
        for item in self.git[top.oid.encode()].items():
            entry = self._entry("/".join(filter(None, [top.path, item.path.decode()])), item.sha)
            found.append(entry)
            if recursive and entry.folder:
                found += self.listing(commit, entry.path, recursive=True) or []
        return found

    def _entry(self, path: str, oid: bytes) -> Entry:
        found = self.git[oid]
        if isinstance(found, Tree):
            return Entry(path, oid.decode(), folder=True)
        content = found.data
        if pointer := _POINTER.fullmatch(content):
            return Entry(path, oid.decode(), int(pointer[2]), sha256=pointer[1].decode(), pointer_size=len(content))
        return Entry(path, oid.decode(), len(content))

    def content(self, entry: Entry) -> bytes:
        """The bytes git holds for a file (an LFS file's pointer)."""
        return self.git[entry.oid.encode()].data

    # --- commits

    def commit(self, branch: str, header: dict[str, Any], operations: list[dict[str, Any]]) -> str:
        """One commit of all operations (``file``, ``lfsFile``, ``deletedFile``, ``deletedFolder``) on a branch."""
        ref = f"refs/heads/{branch}".encode()
        with self._lock:
            if not check_ref_format(ref) or ref not in self.git.refs:
                raise revision_not_found(self.id, branch)
            head = self.git.refs[ref]
            if not head.decode().startswith((header.get("parentCommit") or head.decode()).lower()):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = self.files(head.decode())
            for operation in operations:
                self._apply(files, operation.get("key"), operation.get("value"), branch, head.decode())
            _no_file_is_a_folder(files)
            if big := [op["value"]["path"] for op in operations if op["key"] == "lfsFile"]:
                self._track(files, big)
            message = "\n\n".join(filter(None, [header["summary"], header.get("description")]))
            commit = self._write_commit(files, [head], message)
            if not self.git.refs.set_if_equals(ref, head, commit):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        return commit.decode()

    def _apply(self, files: Files, key: str, value: Any, branch: str, head: str) -> None:
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            raise HubError(400, f"The operation '{key}' lacks a path.")
        path = value["path"]
        if key == "deletedFolder":
            inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
            if not inside:
                raise entry_not_found(path, branch, head)
            for name in inside:
                del files[name]
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                message = f"A file with this name doesn't exist: '{path}'."  # the clients look for these words
                raise HubError(404, message, "EntryNotFound", {"X-Repo-Commit": head})
        elif key in ("file", "lfsFile"):
            _check_path(path)
            content = self._pointer(value) if key == "lfsFile" else self._regular(path, value)
            files[path] = (_FILE, self._add(Blob.from_string(content)))
        else:
            raise HubError(501, f"The local Hub does not know the commit operation '{key}'.")

    def _pointer(self, value: dict[str, Any]) -> bytes:
        size = self._holds(str(value.get("oid")))
        if size is None:
            raise HubError(400, f"The bytes of '{value['path']}' (sha256 {value.get('oid')}) have not been uploaded.")
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n".encode()

    def _regular(self, path: str, value: dict[str, Any]) -> bytes:
        try:
            content = base64.b64decode(value.get("content", ""), validate=True)
            errors = front_matter.check(content.decode())[0] if path == "README.md" else []
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            raise HubError(400, f"'{path}' cannot be decoded: {error}.") from None
        pointer = _POINTER.fullmatch(content)
        if pointer and self._holds(pointer[1].decode()) is None:
            errors = ["it is an LFS pointer to bytes that have not been uploaded"]
        if errors:
            raise HubError(400, f"'{path}' is not accepted: {'; '.join(errors)}.")
        return content

    def _track(self, files: Files, paths: list[str]) -> None:
        """LFS files that no rule of .gitattributes covers get one, so that a git clone finds their bytes."""
        rules = self.git[files[".gitattributes"][1]].data.decode() if ".gitattributes" in files else ""
        covered = [line.split()[0] for line in rules.splitlines() if _RULE in line]
        for path in paths:
            escaped = path.replace(" ", "[[:space:]]")
            if escaped not in covered and not any(fnmatch.fnmatch(path.split("/")[-1], rule) for rule in covered):
                rules += f"{escaped} {_RULE}\n"
        files[".gitattributes"] = (_FILE, self._add(Blob.from_string(rules.encode())))

    def _write_commit(self, files: Files, parents: list[bytes], message: str) -> bytes:
        commit = Commit()
        commit.tree = commit_tree(self.git.object_store, [(p.encode(), oid, mode) for p, (mode, oid) in files.items()])
        commit.parents, commit.author, commit.committer = parents, _AUTHOR, _AUTHOR
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding, commit.message = b"UTF-8", message.encode() + b"\n"
        return self._add(commit)

    def _add(self, made: Blob | Commit) -> bytes:
        self.git.object_store.add_object(made)
        return made.id


def _check_path(path: str) -> None:
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if bad or "\\" in path or any(ord(c) < 32 for c in path):
        raise HubError(400, f"'{path}' is not a path inside a repository.")


def _no_file_is_a_folder(files: Files) -> None:
    for path in files:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise HubError(400, f"'{'/'.join(parts[:end])}' would be both a file and a folder.")
