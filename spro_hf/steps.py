"""Finished steps of a run: each is a folder that appears whole or not at all, so that a killed run continues."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spro_hf import parallel
from spro_hf.errors import UserError


def derive(*parts: object) -> int:
    """A seed in [0, 2³¹) from any parts: the same parts give the same seed, wherever a run was interrupted."""
    text = json.dumps([str(p) for p in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first field in which two plain recipes differ, with both values; None if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            found = difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    return None if old == new else f"{where}: {old!r} before, {new!r} now"


class Steps:
    """The steps of one stage under ``folder``. ``identity`` is all that its results depend on (the resolved recipe).

    With ``together`` all processes of the run make each step between them; the first alone makes and names the folders.

    Raises:
        UserError: if the folder was begun with another identity; it names the first field that differs.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], together: bool = False):
        self.folder, self.together = folder, together
        mark = folder / "recipe.json"
        if mark.exists():
            told = difference(json.loads(mark.read_text()), json.loads(json.dumps(identity)))
            if told:
                raise UserError(
                    f"{folder} was begun with another recipe ({told}); give this run another --out, or delete that folder."
                )
        else:
            write_whole(mark, json.dumps(identity, indent=1, sort_keys=True))

    def do(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of step ``name``: made by ``make(empty folder)`` unless it is finished already."""
        final = self.folder / name
        if not (parallel.share(final.is_dir()) if self.together else final.is_dir()):
            partial = final.with_name(final.name + ".partial")
            if parallel.first():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self._wait()
            make(partial)
            self._wait()
            if parallel.first():
                os.replace(partial, final)
            self._wait()
        return final

    def _wait(self) -> None:
        if self.together:
            parallel.barrier()


def write_whole(file: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
