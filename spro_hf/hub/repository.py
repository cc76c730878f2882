"""One bare git repository of the local Hub: revisions, trees, and commits whose branch is moved last.

Big files are git LFS pointers; their bytes live in the store. Objects are written whole (temporary file, fsync,
rename) before the branch is moved by compare-and-swap, so a process killed at any moment leaves the last version.
"""

from __future__ import annotations

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

from spro_hf.hub.errors import HubError, revision_not_found
from spro_hf.hub.operations import FILE, POINTER, RULE, Files, apply, no_file_is_a_folder, pointer, track
from spro_hf.hub.users import OWNER

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

    def __init__(
        self, path: Path, id: str, lock: threading.Lock, held: Callable[[str], tuple[int | None, bool]]
    ) -> None:
        self.git, self.id, self.path, self.lock, self._held = Repo(str(path)), id, path, lock, held

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.git.close()

    @staticmethod
    def create(path: Path, author: str = OWNER, card: str = "") -> None:
        """A new repository with one commit that says which files are LFS, and holds a first card if there is one."""
        with Repo.init_bare(str(path), mkdir=True, default_branch=b"main") as git:
            config = git.get_config()
            config.set((b"core",), b"fsyncObjectFiles", True)
            config.write_to_path()
        with Repository(path, "", threading.Lock(), lambda _: (None, False)) as made:
            files = {".gitattributes": "".join(f"*.{suffix} {RULE}\n" for suffix in LFS_SUFFIXES)}
            files |= {"README.md": card} if card else {}
            kept = {name: (FILE, made._keep(text.encode())) for name, text in files.items()}
            commit = made._write_commit(kept, [], "initial commit", author)
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

    def add_ref(self, folder: str, name: str, revision: str, message: str = "", author: str = OWNER) -> None:
        """A new branch or tag at a revision; one that exists is never moved (409). A message is kept in the tag."""
        ref = f"refs/{folder}/{name}".encode()
        what, other = ("branch", "tags") if folder == "heads" else ("tag", "heads")
        if not check_ref_format(ref) or name.startswith("refs/"):
            raise HubError(400, f"'{name}' is not a valid name for a {what}.")
        with self.lock:
            commit = self.resolve(revision).encode()
            if f"refs/{other}/{name}".encode() in self.git.refs:  # a revision of that name would lead to the branch
                raise HubError(409, f"'{name}' is already the name of a branch or a tag; choose another.")
            try:
                target = self._annotated(name, commit, message, author) if message else commit
                added = self.git.refs.add_if_new(ref, target)
            except (NotADirectoryError, IsADirectoryError, FileExistsError):
                raise HubError(
                    409, f"The {what} '{name}' cannot stand beside another one that is its folder."
                ) from None
        if not added:
            raise HubError(409, f"The {what} '{name}' exists already; a published one is never moved.")

    def _annotated(self, name: str, commit: bytes, message: str, author: str) -> bytes:
        tag = Tag()
        tag.object, tag.name, tag.tagger = (Commit, commit), name.encode(), _person(author)
        tag.tag_time, tag.tag_timezone, tag.message = int(time.time()), 0, message.encode() + b"\n"
        return self._add(tag)

    def remove_ref(self, folder: str, name: str) -> None:
        ref = f"refs/{folder}/{name}".encode()
        if folder == "heads" and name == "main":
            raise HubError(403, "The branch 'main' cannot be deleted.")
        with self.lock:
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
        if pointer := POINTER.fullmatch(content):
            return Entry(path, oid.decode(), int(pointer[2]), sha256=pointer[1].decode(), pointer_size=len(content))
        return Entry(path, oid.decode(), len(content))

    def content(self, entry: Entry) -> bytes:
        """The bytes git holds for a file (an LFS file's pointer)."""
        return self.git[entry.oid.encode()].data

    def holds(self, sha256: str) -> int | None:
        """Size of an LFS object that is here and was sent by this user, or is this repository's already, or None."""
        size, sent = self._held(sha256)
        return size if size is not None and (sent or self.has_big(sha256, size)) else None

    def has_big(self, sha256: str, size: int) -> bool:
        """Whether an LFS file with these bytes is or was in the repository."""
        return Blob.from_string(pointer(sha256, size)).id in self.git.object_store

    # --- commits

    def commit(self, branch: str, header: dict[str, Any], operations: list[dict[str, Any]], author: str = OWNER) -> str:
        """One commit of all operations (``file``, ``lfsFile``, ``deletedFile``, ``deletedFolder``) on a branch."""
        ref = f"refs/heads/{branch}".encode()
        with self.lock:
            if not check_ref_format(ref) or ref not in self.git.refs:
                raise revision_not_found(self.id, branch)
            head = self.git.refs[ref]
            if not head.decode().startswith((header.get("parentCommit") or head.decode()).lower()):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = self.files(head.decode())
            for operation in operations:
                key, value = operation.get("key"), operation.get("value")
                apply(files, key, value, (branch, head.decode()), self._keep, self.holds)
            no_file_is_a_folder(files)
            if big := [op["value"]["path"] for op in operations if op["key"] == "lfsFile"]:
                self._track(files, big)
            message = "\n\n".join(filter(None, [header["summary"], header.get("description")]))
            commit = self._write_commit(files, [head], message, author)
            if not self.git.refs.set_if_equals(ref, head, commit):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        return commit.decode()

    def _track(self, files: Files, paths: list[str]) -> None:
        rules = self.git[files[".gitattributes"][1]].data.decode() if ".gitattributes" in files else ""
        files[".gitattributes"] = (FILE, self._keep(track(rules, paths).encode()))

    def _write_commit(self, files: Files, parents: list[bytes], message: str, author: str) -> bytes:
        commit = Commit()
        commit.tree = commit_tree(self.git.object_store, [(p.encode(), oid, mode) for p, (mode, oid) in files.items()])
        commit.parents, commit.author, commit.committer = parents, _person(author), _person(author)
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding, commit.message = b"UTF-8", message.encode() + b"\n"
        return self._add(commit)

    def _keep(self, content: bytes) -> bytes:
        return self._add(Blob.from_string(content))

    def _add(self, made: Blob | Commit | Tag) -> bytes:
        self.git.object_store.add_object(made)
        return made.id


def _person(name: str) -> bytes:
    return f"{name} <{name}@localhost>".encode()


def author_of(step: Commit) -> str:
    """The name of the user who made a commit."""
    return step.author.decode().partition(" <")[0]
