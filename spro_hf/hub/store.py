"""The local Hub's storage: bare git repositories, and the bytes of big files by sha256.

``ROOT/repos/{models,datasets,spaces}/<namespace>/<name>.git``, or ``<name>.moved`` with the id that it has now ·
``ROOT/lfs/ab/cd/<sha256>`` · ``ROOT/xet`` (what Xet clients sent) · ``ROOT/tmp`` (emptied at every start) ·
``ROOT/token`` and ``ROOT/users.json`` (readable by their owner only). Everything appears by a rename, whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from spro_hf.errors import UserError
from spro_hf.hub.errors import HubError, repository_not_found
from spro_hf.hub.repository import Repository
from spro_hf.hub.users import OWNER

_PATIENCE = 1.5  # seconds in which the server of a run that was killed a moment ago ends
_MOVES = 8  # how often a repository may be moved until its first id is forgotten
KINDS = ("model", "dataset", "space")
_ID = re.compile(
    r"(?!(?:api|models|datasets|spaces|lfs|xet)/)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII
)


def read_token(file: Path, token: str | None = None) -> str:
    """The token kept in a file of mode 600; ``token`` replaces it, and the first start makes one."""
    if token is None and file.exists():
        return file.read_text().strip()
    made = token or f"hf_{secrets.token_urlsafe(24)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)  # mode 600 from its first moment
    with os.fdopen(handle, "w") as out:
        out.write(made)
        out.flush()
        os.fsync(out.fileno())
    os.replace(name, file)
    return made


class Store:
    """One process at a time owns a root; a second one is refused with a ``UserError``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._repos, self._lfs, self._tmp = self.root / "repos", self.root / "lfs", self.root / "tmp"
        for folder in (self._repos, self._lfs, self._tmp):
            folder.mkdir(parents=True, exist_ok=True)
        self._owner = (self.root / "lock").open("w")
        self._own()
        self._clean()
        self._locks: dict[Path, threading.Lock] = defaultdict(threading.Lock)
        self.sent: set[tuple[str, str]] = set()  # (user, sha256) of what came since the start: whose bytes these are
        self._changes = threading.Lock()  # creating, deleting and moving repositories

    def _own(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    message = "another local Hub serves this folder; stop it or choose another"
                    raise UserError(f"{self.root}: {message}.") from None
                time.sleep(0.1)

    def _clean(self) -> None:
        """Remove what a killed process left half-done: nobody else writes here, so its locks are nobody's."""
        for left in self._tmp.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for lock in self._repos.glob("*/*/*.git/**/*.lock"):
            lock.unlink()

    # --- repositories

    def _path(self, kind: str, id: str) -> Path:
        return self._repos / f"{kind}s" / f"{id}.git"

    def repositories(self) -> list[tuple[str, str]]:
        """All repositories as (kind, id)."""
        found = []
        for kind in KINDS:
            for path in sorted((self._repos / f"{kind}s").glob("*/*.git")):
                found.append((kind, f"{path.parent.name}/{path.name.removesuffix('.git')}"))
        return found

    def exists(self, kind: str, id: str) -> bool:
        return bool(_ID.fullmatch(id)) and self._path(kind, id).is_dir()

    def open(self, kind: str, id: str, user: str = "") -> Repository:
        """A repository to read from or commit to; use it as a context manager."""
        if not self.exists(kind, id):
            raise repository_not_found(kind, id)
        path = self._path(kind, id)
        return Repository(
            path, id, self._locks[path], lambda sha256: (self.lfs_size(sha256), (user, sha256) in self.sent)
        )

    def create(self, kind: str, id: str, private: bool, author: str = OWNER, card: str = "") -> None:
        """A new repository, with a first card if one is given; one that exists is refused (409)."""
        if kind not in KINDS:
            raise HubError(501, f"The local Hub keeps {', '.join(KINDS)} repositories, not '{kind}'.")
        _check_id(id)
        made = self.temporary("repository")
        Repository.create(made, author, card)
        if private:
            (made / "private").touch()
        with self._changes:
            path = self._path(kind, id)
            if path.exists():
                shutil.rmtree(made)
                raise HubError(409, f"You already created this {kind} repository: {id}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(made, path)
            path.with_suffix(".moved").unlink(missing_ok=True)

    def delete(self, kind: str, id: str) -> None:
        with self._changes, self.open(kind, id) as repository, repository.lock:
            gone = self.temporary("deleted")
            os.rename(repository.path, gone)
        shutil.rmtree(gone)

    def move(self, kind: str, id: str, to: str) -> None:
        """Give a repository another id; who asks for the old one is sent on as long as nothing else has it."""
        _check_id(to)
        with self._changes, self.open(kind, id) as repository, repository.lock:
            path = self._path(kind, to)
            if path.exists():
                raise HubError(409, f"There is already a {kind} repository '{to}'.")
            note = self.temporary("moved")
            note.write_text(to)
            os.replace(note, repository.path.with_suffix(".moved"))  # says nothing as long as the repository is there
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(repository.path, path)
            path.with_suffix(".moved").unlink(missing_ok=True)

    def moved(self, kind: str, id: str) -> str | None:
        """The id to which a repository that was moved away from ``id`` has come, or None."""
        for _ in range(_MOVES):
            note = self._path(kind, id).with_suffix(".moved")
            if not _ID.fullmatch(id) or self.exists(kind, id) or not note.is_file():
                return None
            id = note.read_text()
            if self.exists(kind, id):
                return id
        return None

    def is_private(self, kind: str, id: str) -> bool:
        return (self._path(kind, id) / "private").exists()

    def set_private(self, kind: str, id: str, private: bool) -> None:
        with self._changes, self.open(kind, id) as repository:
            mark = repository.path / "private"
            mark.touch() if private else mark.unlink(missing_ok=True)

    # --- bytes of LFS files

    def lfs_path(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise HubError(400, f"'{sha256}' is not a sha256.")
        return self._lfs / sha256[:2] / sha256[2:4] / sha256

    def lfs_size(self, sha256: str) -> int | None:
        """Size in bytes of an object that is here, or None."""
        path = self.lfs_path(sha256)
        return path.stat().st_size if path.exists() else None

    async def lfs_write(self, sha256: str, size: int, stream: AsyncIterator[bytes]) -> None:
        """Keep the bytes of a stream under their sha256; anything else than what was announced is refused."""
        path, made, digest, total = self.lfs_path(sha256), self.temporary("upload"), hashlib.sha256(), 0
        try:
            with made.open("wb") as out:
                async for chunk in stream:
                    total += len(chunk)
                    if total > size:
                        break
                    out.write(chunk)
                    digest.update(chunk)
                out.flush()
                await run_in_threadpool(os.fsync, out.fileno())  # others are answered meanwhile
            if total != size or digest.hexdigest() != sha256:
                raise HubError(400, f"What came are not the {size} bytes of sha256 {sha256}; send them again.")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(made, path)
        finally:
            made.unlink(missing_ok=True)

    def temporary(self, what: str) -> Path:
        return self._tmp / f"{what}-{secrets.token_hex(8)}"


def _check_id(id: str) -> None:
    if not _ID.fullmatch(id) or ".." in id or id.endswith((".git", ".moved")):
        raise HubError(400, f"'{id}' is not a repository id of the form namespace/name.")
