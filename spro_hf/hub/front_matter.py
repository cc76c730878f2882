"""The YAML header of a repository card: taken apart and checked, as the Hub does before it accepts a README.

One check serves whoever pushes, before anything is uploaded, and the local Hub. It knows what the Hub is documented to know
of these fields; fields that it does not know pass, as they do there.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from spro_hf.hub.errors import HubError
from spro_hf.hub.identifiers import LANGUAGES, LICENSES, RELATIONS, SIZES, TASKS
from spro_hf.strict import nearest

_HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TEXT = ("library_name", "pipeline_tag", "base_model_relation", "license_name", "license_link", "pretty_name", "title")
_LIST = (
    "license", "tags", "datasets", "models", "metrics", "base_model", "task_categories", "task_ids", "size_categories",
    "source_datasets", "language",
)  # fmt: skip
_ONE_OF = {"license": LICENSES, "pipeline_tag": TASKS, "task_categories": TASKS, "base_model_relation": RELATIONS,
           "size_categories": SIZES}  # fmt: skip
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def split(card: str) -> tuple[str, str]:
    """The header's YAML (empty if there is none) and the text below it."""
    found = _HEADER.match(card)
    return (found.group(1), card[found.end() :]) if found else ("", card)


def read(card: str) -> dict[str, Any]:
    """The header as plain data; dates become ISO text, as JSON has none. A broken header is refused (400)."""
    try:
        header = split(card)[0]
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(header, yaml.SafeLoader)):
            raise HubError(400, "the YAML header must have no aliases (*name); write the value out")
        data = yaml.safe_load(header)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date or a number that is none is a ValueError
        raise HubError(400, f"the YAML header cannot be read: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise HubError(400, "the YAML header must be a mapping of fields")
    return _plain(data)


def check(card: str) -> tuple[list[str], list[str]]:
    """What is wrong with a card's header: (errors, warnings), each a short sentence that names the field."""
    if not split(card)[0].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = read(card)
    except HubError as error:
        return [error.message], []
    errors = [f'"{key}" must be a string' for key in _TEXT if key in data and not isinstance(data[key], str)]
    errors += [
        f'"{key}" must be a string or a list of strings' for key in _LIST if key in data and not _texts(data[key])
    ]
    errors += _words(data) + _configs(data.get("configs", [])) + _widget(data.get("widget", []))
    errors += _index(data.get("model-index", []))
    if not errors and not _finite(data):
        errors.append("a field is .nan or .inf, which is no number; leave it out")
    named = "license_name" in data or data.get("license") != "other"
    return errors, [] if named else ['"license" is "other", and "license_name" does not say which']


def _words(data: dict[str, Any]) -> list[str]:
    """Fields of the right type whose words the Hub does not know."""
    errors = []
    for key, known in _ONE_OF.items():
        unknown = [word for word in _said(data, key) if word not in known]
        errors += [f'"{key}" is "{word}", which the Hub does not know; {_hint(word, known)}' for word in unknown]
    for key, kind in (("base_model", "model"), ("datasets", "data set"), ("models", "model")):
        wrong = [id for id in _said(data, key) if not _ID.fullmatch(id)]
        errors += [f'"{key}" holds "{id}", which is no {kind} of the Hub; name one as namespace/name' for id in wrong]
    for code in _said(data, "language"):
        if not _LANGUAGE.fullmatch(code) and code not in LANGUAGES:
            errors.append(f'"language" holds "{code}"; give a code of ISO 639 in two or three letters, such as en')
    return errors


def _configs(configs: Any) -> list[str]:
    """Configurations of a data set: which of its files belong to which, and to which split."""
    if not isinstance(configs, list):
        return ['"configs" must be a list']
    errors, names = [], []
    for number, config in enumerate(configs):
        at = f'"configs[{number}]'
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            errors.append(f'{at}" must be a mapping with a config_name')
            continue
        names.append(config["config_name"])
        files = config.get("data_files", [])
        for one in files if isinstance(files, list) else [files]:
            if isinstance(one, dict) and not (isinstance(one.get("split"), str) and _texts(one.get("path"))):
                errors.append(f'{at}.data_files" must each have a split and a path')
            elif not isinstance(one, dict | str):
                errors.append(f'{at}.data_files" must be a path, a list of paths, or a list of splits with their paths')
    twice = sorted({name for name in names if names.count(name) > 1})
    return errors + [f'"configs" has two configurations named "{name}"' for name in twice]


def _widget(examples: Any) -> list[str]:
    """Examples of a model: an input, and what came of it as ``output: {url: ...}``, ``{text: ...}`` or a list of labels."""
    if not isinstance(examples, list):
        return ['"widget" must be a list of examples']
    errors = []
    for number, one in enumerate(examples):
        if not isinstance(one, dict):
            errors.append(f'"widget[{number}]" must be a mapping, as {{text: a caption, output: {{url: picture.png}}}}')
            continue
        if not isinstance(one.get("text", ""), str):
            errors.append(f'"widget[{number}].text" must be a string')
        out = one.get("output", [])
        given = [out[key] for key in ("url", "text") if key in out] if isinstance(out, dict) else None
        if not isinstance(out, list) and not (given and all(isinstance(value, str) for value in given)):
            errors.append(f'"widget[{number}].output" must have a url or a text')
    return errors


def _index(entries: Any) -> list[str]:
    """Results: each of a task, on a data set, with metrics."""
    if not isinstance(entries, list):
        return ['"model-index" must be a list']
    errors = []
    for number, entry in enumerate(entries):
        results = entry.get("results") if isinstance(entry, dict) else None
        if not isinstance(results, list) or not isinstance(entry.get("name"), str):
            errors.append(f'"model-index[{number}]" needs a name and a list of results')
            continue
        for place, result in enumerate(results):
            errors += _result(result, f"model-index[{number}].results[{place}]")
    return errors


def _result(result: Any, at: str) -> list[str]:
    if not isinstance(result, dict) or not {"task", "dataset", "metrics"} <= set(result):
        return [f'"{at}" needs task, dataset and metrics']
    errors, metrics = [], result["metrics"]
    for key, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
        part = result[key] if isinstance(result[key], dict) else {}
        errors += [f'"{at}.{key}.{name}" must be a string' for name in needed if not isinstance(part.get(name), str)]
    if not isinstance(metrics, list) or not metrics:
        return [*errors, f'"{at}.metrics" must be a list with at least one metric']
    for number, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str) or metric.get("value") is None:
            errors.append(f'"{at}.metrics[{number}]" needs a type and a value')
        elif isinstance(metric["value"], float) and not math.isfinite(metric["value"]):
            errors.append(f'"{at}.metrics[{number}].value" is {metric["value"]}, which is no number')
    if isinstance(source := result.get("source"), dict) and not isinstance(source.get("url"), str):
        errors.append(f'"{at}.source" needs a url')
    return errors


def _hint(word: str, known: frozenset[str]) -> str:
    hint = nearest(word, known)
    few = len(known) < 20 or not hint.startswith("known")  # ninety licences are no hint
    return hint if few else "its documentation of cards (huggingface.co/docs/hub) lists what it knows"


def _said(data: dict[str, Any], key: str) -> list[str]:
    """The words of a field that is a text or a list of texts; none where it is of another type, which is told elsewhere."""
    value = data.get(key, [])
    return ([value] if isinstance(value, str) else value) if _texts(value) else []


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
