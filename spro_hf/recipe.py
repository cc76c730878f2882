"""Recipes: strict YAML into frozen objects.

A recipe names a stage and everything that stage needs. ``extends`` takes the fields of another file first, or of several,
each over the one before; a list recipe (``recipes`` with ``for_each``) runs several in order. Strings may hold
``{namespace}``, ``{name}`` and ``{objective}``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from spro_hf.errors import UserError
from spro_hf.schema import STAGES, Recipe
from spro_hf.strict import build, nearest, parse_yaml


def _read(path: Path) -> dict[str, Any]:
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such recipe; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a YAML file.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping that begins with `stage:` or `recipes:`.")
    above, data = data, {}
    parents = above.pop("extends", [])
    for parent in parents if isinstance(parents, list) else [parents]:
        data = _merge_choice(data, _read(path.parent / str(parent)))
    return _merge_choice(data, above)


def find(folder: Path) -> list[Path]:
    """All recipes under a folder. A file, or a folder, whose name begins with "_" holds parts of recipes, and one named
    "accelerate" the launcher's configurations."""
    files = {file: file.relative_to(folder).parts for file in sorted(folder.rglob("*.yaml"))}
    return [file for file, parts in files.items() if not any(p.startswith("_") or p == "accelerate" for p in parts)]


def _merge(below: dict, above: dict) -> dict:
    """``above`` over ``below``, mappings merged, everything else replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _merge_choice(below: dict, above: dict) -> dict:
    """As ``_merge``, but reward weights are a choice: those above replace those below."""
    return _merge(below, above) | ({"reward": above["reward"]} if "reward" in above else {})


def _fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(v, names) for key, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, names) for v in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def _one(data: dict[str, Any], name: str) -> Recipe:
    stage = data.get("stage")
    if stage not in STAGES:
        raise UserError(f"{name}: stage: '{stage}' is not a stage; {nearest(str(stage), STAGES)}")
    usual = {"namespace": "spro", "name": "tiny", "objective": "aesthetics"}
    names = {key: str(data.get(key, value)) for key, value in usual.items()}
    return build(STAGES[stage], _fill(data, names), name)


def _takes(body: dict[str, Any], key: str, value: Any) -> bool:
    """Whether a recipe of a list takes a change: its stage has the field, and where that is a block that may be absent
    (an adversary, references), the recipe has it."""
    known = {f.name: f for f in dataclasses.fields(STAGES.get(body.get("stage"), Recipe))}
    part = isinstance(value, dict) and key in known and known[key].default is None and body.get(key) is None
    return key in known and not part


def load(path: Path | str, changes: dict[str, Any] | None = None) -> list[Recipe]:
    """The recipes of a file in the order they run; ``changes`` (dotted keys, e.g. "select.gain") win over the file.

    A change whose first key a stage does not have is an error, unless the file is a list and another stage has it.
    """
    path, nested = Path(path), {}
    data = _read(path)
    for dotted, value in (changes or {}).items():
        for part in reversed(dotted.split(".")):
            value = {part: value}
        nested = _merge(nested, value)
    if "recipes" not in data:
        return [_one(_merge_choice(data, nested), path.name)]
    unknown = set(data) - {"recipes", "for_each", "with"}
    if unknown:
        raise UserError(f"{path.name}: unknown field '{min(unknown)}'; a list recipe has recipes, for_each and with.")
    files = [(path.parent / str(name), _read(path.parent / str(name))) for name in data["recipes"]]
    nested, each_of = _merge(data.get("with") or {}, nested), data.get("for_each") or [{}]
    if not isinstance(each_of, list) or not all(isinstance(each, dict) for each in each_of):
        raise UserError(f"{path.name}: for_each: expected a list of mappings of fields.")
    if {"source", "split"} & set(nested.get("seeds", {})):
        raise UserError(f"{path.name}: seeds.source and seeds.split are for one stage; use --seeds to train on a file.")
    for key, value in {**{k: v for each in each_of for k, v in each.items()}, **nested}.items():
        if not any(_takes(body, key, value) for _, body in files):
            raise UserError(f"{path.name}: unknown field '{key}'; none of its recipes has it.")
    found = []
    for each in each_of:
        for file, body in files:
            own = {k: v for k, v in _merge_choice(each, nested).items() if _takes(body, k, v)}
            found.append(_one(_merge_choice(body, own), file.name))
    return found


def dump(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain data: what travels with every artifact."""
    return _plain(dataclasses.asdict(recipe))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
