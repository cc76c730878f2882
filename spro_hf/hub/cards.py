"""Cards of artifacts: Jinja templates in which every field must be given.

Models: ``guider``, ``generator``, ``reinforced``, ``reward``, ``pipeline``. Datasets: ``rollouts``, ``preferences``,
``references``, ``results``. ``fields(name)`` lists what a card asks for. ``results`` is a list of
``{"name", "value", "se", "base", "n"}``: a mean, its standard error, the same mean for the untrained system (or None),
and the number of pictures behind it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError, meta

from spro_hf.errors import UserError
from spro_hf.strict import nearest

_FOLDERS = ("model_cards", "datasets_cards")


@cache
def _environment() -> Environment:
    package = Path(str(files("spro_hf")))
    # a wheel carries the templates inside the package; a checkout has them beside it
    home = package if (package / _FOLDERS[0]).is_dir() else package.parent
    loader = FileSystemLoader([home / folder for folder in _FOLDERS])
    made = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    made.filters["repr"] = repr
    return made


@cache
def fields(name: str) -> set[str]:
    """The fields that a card asks for; an unknown card is a ``UserError``."""
    jinja = _environment()
    known = [t.removesuffix(".md.j2") for t in jinja.list_templates() if not t.startswith("_")]
    if name not in known:
        raise UserError(f"card: there is no card '{name}'; {nearest(name, known)}")
    source, _, _ = jinja.loader.get_source(jinja, f"{name}.md.j2")
    return meta.find_undeclared_variables(jinja.parse(source))


def render_card(name: str, **given: object) -> str:
    """A card as Markdown with its YAML header; missing or unknown fields are named in one ``UserError``."""
    asked = fields(name)
    if missing := sorted(asked - set(given)):
        raise UserError(f"card {name}: missing field(s): {', '.join(missing)}; give each of them a value.")
    if unknown := sorted(set(given) - asked):
        raise UserError(f"card {name}: unknown field '{unknown[0]}'; {nearest(unknown[0], asked)}")
    try:
        return _environment().get_template(f"{name}.md.j2").render(given)
    except UndefinedError as error:
        raise UserError(f"card {name}: a field is incomplete ({error}); see the card's template.") from error
