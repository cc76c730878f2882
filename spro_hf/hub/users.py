"""The local Hub's users: who a token belongs to, and where its owner may write.

The first user is ``spro``, to whom the folder belongs: its token is the one in ``ROOT/token``, and it may read and write
everywhere. Everybody else is in ``ROOT/users.json`` (readable by its owner only) with the sha256 of a token, the
organisations they belong to and a role, and may write to their own name and to those of their organisations. A server
that runs sees a user who is added meanwhile.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spro_hf.errors import UserError
from spro_hf.hub.errors import HubError

OWNER = "spro"  # the first user, to whom the folder belongs

_NAME = re.compile(r"(?!(?:api|models|datasets|spaces|lfs|xet|login)$)[A-Za-z0-9](?:[\w-]{0,38}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class User:
    """``role`` is "read" or "write"; ``everywhere`` is set for the owner of the folder."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"
    everywhere: bool = False

    def belongs_to(self, namespace: str) -> bool:
        """Whether the user may see what is private there."""
        return self.everywhere or namespace == self.name or namespace in self.orgs


class Users:
    """The users of a Hub, read again whenever their file has changed."""

    def __init__(self, root: Path, token: str) -> None:
        self._file, self._token = Path(root) / "users.json", token.encode()
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def owner_of(self, token: str) -> User | None:
        """Who a token belongs to, or None."""
        known, given = self._read(), token.encode("utf-8", "replace")
        if hmac.compare_digest(given, self._token):
            orgs = {org for entry in known.values() for org in entry["orgs"]}
            return User(OWNER, tuple(sorted(orgs)), everywhere=True)
        digest = _digest(token)
        for name, entry in known.items():
            if hmac.compare_digest(entry["token"], digest):
                return User(name, tuple(entry["orgs"]), entry["role"])
        return None

    def _read(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            try:
                now = self._file.stat()
                seen = now.st_mtime_ns, now.st_size, now.st_ino
                if seen != self._seen:
                    self._known, self._seen = json.loads(self._file.read_text()), seen
            except FileNotFoundError:
                self._known, self._seen = {}, None
            except ValueError as error:  # no 5xx, which clients would ask again
                raise HubError(424, f"The Hub's users.json cannot be read ({error}); mend or remove it.") from None
            return self._known


def add_user(root: Path, name: str, orgs: list[str], role: str = "write") -> str:
    """Write a user down and give the new token, which is kept nowhere; one who is there gets these orgs and a new token."""
    for given in (name, *orgs):
        if not _NAME.fullmatch(given):
            raise UserError(
                f"'{given}' is no name for a user or an organisation; take up to 40 letters, digits, '-' and '_'."
            )
    token = f"hf_{secrets.token_urlsafe(24)}"
    with _changing(Path(root) / "users.json") as known:
        taken = {org for entry in known.values() for org in entry["orgs"]}
        if name == OWNER or name in taken:
            what = "the owner of the folder" if name == OWNER else "an organisation"
            raise UserError(f"'{name}' is already the name of {what}; choose another.")
        if users := sorted(({OWNER, name} | set(known)) & set(orgs)):
            raise UserError(f"--org {users[0]}: this is a user's name; choose another for the organisation.")
        known[name] = {"token": _digest(token), "orgs": sorted(set(orgs)), "role": role}
    return token


@contextmanager
def _changing(file: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The users, written back whole or not at all; two who change them at once come one after the other."""
    with (file.parent / "users.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            known = json.loads(file.read_text()) if file.exists() else {}
        except ValueError as error:
            raise UserError(f"{file}: cannot be read ({error}); mend or remove it.") from None
        yield known
        handle, name = tempfile.mkstemp(dir=file.parent)  # mode 600 from its first moment
        with os.fdopen(handle, "w") as out:
            json.dump(known, out, indent=2, sort_keys=True)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``spro-hf hub user``."""
    parser.add_argument("name", help="the user's name, which is also that of the namespace to write to")
    parser.add_argument("folder", type=Path, help="a run's folder, e.g. runs/tiny-spro, or a Hub's own")
    parser.add_argument(
        "--org", action="append", default=[], dest="orgs", metavar="LAB",
        help="an organisation that the user belongs to and may write to; may be repeated",
    )  # fmt: skip
    parser.add_argument("--read-only", action="store_true", help="the token may read what is private, but not write")


def main(arguments: argparse.Namespace) -> int:
    """Add a user; the token is printed this once."""
    from spro_hf.hub.server import hub_of

    role = "read" if arguments.read_only else "write"
    print(add_user(hub_of(arguments.folder), arguments.name, arguments.orgs, role))
    return 0
