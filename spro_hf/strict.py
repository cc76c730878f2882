"""Plain data into frozen dataclasses, strictly: an unknown key, a wrong type or a missing field is one clear sentence."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from typing import Any, TypeVar

import yaml

from spro_hf.errors import UserError

T = TypeVar("T")


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, as in YAML 1.2, and not text, as in 1.1."""


class Dumper(yaml.SafeDumper):
    """Writes YAML that ``Loader`` reads as it was: a text that looks like such a number is quoted."""


for _side in (Loader, Dumper):
    # to its end: a commit may begin with digits, an e and digits
    _number = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _number, list("-+0123456789."))


def parse_yaml(text: str) -> Any:
    """Plain data from YAML; raises ``yaml.YAMLError``. Nothing but plain data is ever made from it."""
    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except ValueError as error:  # a date that is none
        raise yaml.YAMLError(str(error)) from error


def write_yaml(*documents: Any) -> str:
    """YAML that ``parse_yaml`` reads as it was, keys in their order; several documents one after the other."""
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True)


_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest right one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}."


def build(cls: type[T], data: Any, where: str) -> T:
    """Make a dataclass from a mapping. ``where`` names the place in messages, e.g. "1_prompt.yaml: guider"."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a mapping of fields, not {data!r}.")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in known:
            raise UserError(f"{where}: unknown field '{key}'; {nearest(str(key), known)}")
    for name, field in known.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in data and not optional:
            raise UserError(f"{where}: the field '{name}' is missing; add it.")
    try:
        return cls(**{key: convert(hints[key], value, f"{where}.{key}") for key, value in data.items()})
    except ValueError as error:  # raised by __post_init__, which knows the field but not the place
        raise UserError(f"{where}: {error}") from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type, or a UserError that names the place and what was expected."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, not {value!r}.")
        return tuple(convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a mapping, not {value!r}.")
        return {str(k): convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{where}: expected {_NAMES[hint]}, not {value!r}.")
    return value
