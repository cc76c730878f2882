"""The YAML header of a repository card: taken apart and checked, as the Hub does before it accepts a README."""

from __future__ import annotations

import re
from typing import Any

import yaml

from spro_hf.hub.errors import HubError

_HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TEXT = {"license", "library_name", "pipeline_tag", "base_model_relation", "license_name", "license_link"}
_LIST = {"tags", "datasets", "metrics", "base_model", "task_categories", "size_categories"}


def split(card: str) -> tuple[str, str]:
    """The header's YAML (empty if there is none) and the text below it."""
    found = _HEADER.match(card)
    return (found.group(1), card[found.end() :]) if found else ("", card)


def read(card: str) -> dict[str, Any]:
    """The header as plain data; dates become ISO text, as JSON has none. A broken header is refused (400)."""
    try:
        data = yaml.safe_load(split(card)[0])
    except yaml.YAMLError as error:
        raise HubError(400, f"the YAML header cannot be read: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise HubError(400, "the YAML header must be a mapping of fields")
    return _plain(data)


def check(card: str) -> tuple[list[str], list[str]]:
    """What is wrong with a card's header: (errors, warnings), each a short sentence."""
    if not split(card)[0].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = read(card)
    except HubError as error:
        return [error.message], []
    errors = [f'"{key}" must be a string' for key in sorted(_TEXT & set(data)) if not isinstance(data[key], str)]
    errors += [
        f'"{key}" must be a string or a list of strings' for key in sorted(_LIST & set(data)) if not _texts(data[key])
    ]
    errors += _index(data.get("model-index", []))
    return errors, []


def _index(entries: Any) -> list[str]:
    if not isinstance(entries, list):
        return ['"model-index" must be a list']
    errors = []
    for number, entry in enumerate(entries):
        results = entry.get("results") if isinstance(entry, dict) else None
        if not isinstance(results, list) or not isinstance(entry.get("name"), str):
            errors.append(f'"model-index[{number}]" needs a name and a list of results')
        elif not all(isinstance(r, dict) and {"task", "dataset", "metrics"} <= set(r) for r in results):
            errors.append(f'"model-index[{number}].results" each need task, dataset and metrics')
    return errors


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
