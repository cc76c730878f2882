"""Cards of artifacts: Jinja templates in which every field must be given.

Models: ``guider``, ``generator``, ``reinforced``, ``reward``, ``pipeline``; what they share stands in ``_model.md.j2``.
Datasets: ``rollouts``, ``preferences``, ``references``, ``results``. ``fields(name)`` lists what a card asks for.
``results`` is a list of ``{"name", "value", "se", "base", "n"}``: a mean, its standard error, the same mean for the
untrained system, and the number of pictures behind it, the last three or None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, UndefinedError, meta, nodes

from spro_hf.errors import UserError
from spro_hf.guider.instructions import instruction
from spro_hf.hub import front_matter
from spro_hf.models import on_hub
from spro_hf.strict import nearest

_FOLDERS = ("model_cards", "datasets_cards")
_BREAKS = str.maketrans(
    {"|": "\\|", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*", "_": "\\_", "[": "\\[", "\n": " "}
)


@cache
def _environment() -> Environment:
    package = Path(str(files("spro_hf")))
    # a wheel carries the templates inside the package; a checkout has them beside it
    home = package if (package / _FOLDERS[0]).is_dir() else package.parent
    loader = FileSystemLoader([home / folder for folder in _FOLDERS])
    made = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    made.filters |= {"literal": _literal, "cell": _cell, "settings": _settings, "called": _called}
    made.tests["on_hub"] = on_hub
    made.globals["request"] = request
    return made


@cache
def fields(name: str) -> set[str]:
    """The fields that a card asks for; an unknown card is a ``UserError``."""
    jinja = _environment()
    known = [t.removesuffix(".md.j2") for t in jinja.list_templates() if not t.startswith("_")]
    if name not in known:
        raise UserError(f"card: there is no card '{name}'; {nearest(name, known)}")
    return _asked(f"{name}.md.j2") - set(jinja.globals)


def _asked(template: str) -> set[str]:
    """What a template asks for and, if it extends another, what that asks for."""
    jinja = _environment()
    tree = jinja.parse(jinja.loader.get_source(jinja, template)[0])
    parents = [found.template.value for found in tree.find_all(nodes.Extends)]
    # what is imported at the head of a template is there in its blocks too, which Jinja does not see
    macros = {name for found in tree.find_all(nodes.FromImport) for name in found.names}
    return (meta.find_undeclared_variables(tree) - macros).union(*map(_asked, parents))


def render_card(name: str, **given: object) -> str:
    """A card as Markdown with its YAML header.

    Raises:
        UserError: if a field is missing, unknown or incomplete, or the header would not be accepted by the Hub.
    """
    asked = fields(name)
    if missing := sorted(asked - set(given)):
        raise UserError(f"card {name}: missing field(s): {', '.join(missing)}; give each of them a value.")
    if unknown := sorted(set(given) - asked):
        raise UserError(f"card {name}: unknown field '{unknown[0]}'; {nearest(unknown[0], asked)}")
    try:
        text = _environment().get_template(f"{name}.md.j2").render(given)
    except UndefinedError as error:
        raise UserError(f"card {name}: a field is incomplete ({error}); see the card's template.") from error
    except (TemplateError, TypeError, AttributeError) as error:
        raise UserError(f"card {name}: a field is of the wrong type ({error}); see the card's template.") from error
    text = re.sub(r"\n{3,}", "\n\n", text)  # where macros end
    if errors := front_matter.check(text)[0]:
        raise UserError(f"card {name}: {errors[0]}{'' if errors[0].endswith(('.', '?')) else '.'}")
    return text


def request(guider: Mapping[str, Any], objective: str, sees: bool) -> list[dict[str, Any]]:
    """What a guider is asked, as a conversation for stock transformers, with ``{caption}`` in the caption's place.

    ``guider`` has a recipe's ``style``, ``reasoning`` and ``word_limit``.
    """
    manner = guider["style"], objective, "{caption}", guider["reasoning"], guider["word_limit"]
    text = {"type": "text", "text": instruction(*manner, sees=sees)}
    return [{"role": "user", "content": [{"type": "image"}, text] if sees else text["text"]}]


def _literal(value: Any) -> str:
    """A value as Python writes it; a text in double quotes, or on lines of its own where it has several."""
    if not isinstance(value, str):
        return repr(value)
    plain = "\n" in value and '"""' not in value and "\\" not in value and not value.endswith('"')
    return f'"""{value}"""' if plain else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    """A text that others wrote, for a table: nothing in it is markup."""
    return " ".join(text.translate(_BREAKS).split())


def _called(told: str) -> str:
    """A model as others may know it: a folder of this machine, with or without what is behind an @, by its last part alone."""
    id, at, rest = told.partition("@")
    return told if id.startswith("spro_hf/") or not id.startswith(("/", "~", ".")) else f"{Path(id).name}{at}{rest}"


def _settings(value: Any) -> str:
    """Plain data in a line: a mapping's names and values, those of mappings within it behind their name."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name}: {_settings(one)}" if not isinstance(one, Mapping) else f"{name} ({_settings(one)})"
            for name, one in value.items() if one is not None
        )  # fmt: skip
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
