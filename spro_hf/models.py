"""Where a model comes from: the package, a folder, or the Hub at a pinned commit."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from spro_hf.tiny import home

BUILT_IN = "spro_hf/tiny/"


def locate(id: str, revision: str | None = None, kind: str = "model") -> str:
    """A local folder that holds ``id``: ``spro_hf/tiny/<name>`` ships with the package, a folder is taken as it is,
    all else is a repository of the Hub, downloaded at the commit that ``revision`` names."""
    if Path(id).is_dir():
        return id
    if id.startswith(BUILT_IN):
        return str(home.path(id.removeprefix(BUILT_IN)))
    from spro_hf.hub.artifacts import pull

    return str(pull(id, kind, revision or "main"))


@lru_cache(maxsize=64)
def _checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def commit(id: str, revision: str | None = None, kind: str = "model") -> str:
    """The commit behind ``id`` at ``revision``; for a built-in or local model the sha256 of its files."""
    if id.startswith(BUILT_IN) or Path(id).is_dir():
        return _checksum(Path(locate(id)))
    from spro_hf.hub.artifacts import resolve

    return resolve(id, kind, revision or "main")


def forget_paths(folder: str | Path) -> None:
    """Take the folder that a diffusers model was loaded from out of its configurations, before it is shipped."""
    for file in [*Path(folder).rglob("config.json"), *Path(folder).rglob("model_index.json")]:
        config = json.loads(file.read_text())
        if config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n")


def pinned(id: str, revision: str | None = None, kind: str = "model") -> str:
    """``id@commit``, the commit cut to twelve digits: how a row of a rollout names what made it."""
    return f"{id}@{commit(id, revision, kind)[:12]}"
