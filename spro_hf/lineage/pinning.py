"""The recipe of an artifact, with every revision in it replaced by the commit that its lineage names."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spro_hf.errors import UserError
from spro_hf.lineage.place import FULL, MADE_BEFORE
from spro_hf.parts import MODEL_FIELDS

SIMILARITY = "select.similarity"  # the one model whose revision is not called by MODEL_FIELDS
MACHINE = ("processor", "instructions", "device", "threads", "processes")  # of environment.json
_CONTENT = re.compile(r"[0-9a-f]{64}")  # of the files of a model that is part of the package, or lay in a folder


def pinned(recipe: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The recipe as it was run: artifacts, data sets and the Hub's models at the commits of ``told``, a lineage.

    Raises:
        UserError: if the recipe does not name what the lineage says went in.
    """
    found = copy.deepcopy(recipe)
    for given in told["inputs"]:
        if given.get("what") != MADE_BEFORE and not _pin_input(found, given):
            raise UserError(
                f"{given['repo']}: lineage.json says that it went in as '{given.get('what')}', but recipe.yaml names no such "
                "input; the two do not belong together, so it cannot be made again."
            )
    for field, name in told["models"].items():
        id, _, commit = name.rpartition("@")
        holder, key = _holder(found, field)
        if holder is None or holder.get(key) != id:
            raise UserError(
                f"{field}: lineage.json says that it was {id}, but recipe.yaml does not; the two do not belong together, so it "
                "cannot be made again."
            )
        if FULL.fullmatch(commit):
            holder[_revision_of(field)] = commit
    return found


def _pin_input(recipe: dict[str, Any], given: dict[str, Any]) -> bool:
    """Put an input's commit where the recipe names it; whether it does."""
    what, repo, revision, commit = (given.get(key) for key in ("what", "repo", "revision", "commit"))
    holder, key = _holder(recipe, str(what))
    if holder is not None and holder.get(key) == repo:  # scorers.<name>.id
        holder["revision"] = commit
        return True
    seeds = recipe.get(what) if isinstance(what, str) else None
    if isinstance(seeds, dict) and seeds.get("source") == repo:
        seeds["revision"] = commit
        return True
    places = [
        at for at in _repos(recipe) if at.get("repo") == repo and at.get("revision", "main") in (revision, commit)
    ]
    for place in places:
        place["revision"] = commit
    return bool(places)


def _repos(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a recipe that names a repository and a revision of it."""
    if isinstance(value, dict):
        if isinstance(value.get("repo"), str):
            yield value
        for inner in value.values():
            yield from _repos(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _repos(inner)


def _holder(recipe: dict[str, Any], field: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping in a recipe that has a dotted field's last part."""
    *path, key = field.split(".")
    at: Any = recipe
    for part in path:
        at = at.get(part) if isinstance(at, dict) else None
    return (at if path and isinstance(at, dict) else None), key


def _revision_of(field: str) -> str:
    key = field.rpartition(".")[2]
    return "similarity_revision" if field == SIMILARITY else MODEL_FIELDS[key]


def check_models(told: dict[str, Any]) -> None:
    """Raise a ``UserError`` if a model that the package ships, or that lay in a folder, is not the same here."""
    from spro_hf.models import BUILT_IN, LAION, commit

    others = []
    for id, made_with in sorted({tuple(name.rsplit("@", 1)) for name in told["models"].values() if "@" in name}):
        if not _CONTENT.fullmatch(made_with):
            continue
        if not id.startswith((BUILT_IN, LAION)) and not Path(id).is_dir():
            raise UserError(f"{id}: it was a folder on the machine that made this, and is not here; put it there.")
        here = commit(id)
        if here != made_with:
            others.append(f"{id} (made with {made_with[:12]}, here {here[:12]})")
    if others:
        raise UserError(
            f"The models that it was made with are not those of this spro_hf: {', '.join(others)}; install the version that it "
            "was made with."
        )


def otherwise(told: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """In what this machine is not the one that a lineage and an environment tell of: libraries, Python, processor, device."""
    from spro_hf import machine

    here = machine.told()
    made_with = {"python": told.get("python")} | (told.get("versions") or {}) | (environment.get("versions") or {})
    now = {"python": here["python"]} | here["versions"]
    for name in MACHINE:
        made_with[name], now[name] = environment.get(name), here[name]
    return [
        f"{name} {old}, here {now.get(name) or 'none'}"
        for name, old in made_with.items()
        if old and now.get(name) != old
    ]
