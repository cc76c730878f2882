"""Which artifact a command means: ``USER/REPO@REVISION``, ``datasets/USER/REPO@REVISION``.

Nothing heavy is imported before the Hub's address is set: the Hub's clients read it once.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spro_hf.errors import UserError

if TYPE_CHECKING:
    from spro_hf.hub.artifacts import Artifact

DATASETS = "datasets/"
MADE_BEFORE = "made before"  # what an input is called that the same stage made
LINEAGE = "lineage.json"
FULL = re.compile(r"[0-9a-f]{40}")


def parse(text: str) -> tuple[str | None, str, str]:
    """Kind (None where it is not said), repository and revision ("main" where none is given) of what a user wrote."""
    name, _, revision = text.partition("@")
    kind = "dataset" if name.startswith(DATASETS) else None
    repo = name.removeprefix(DATASETS)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or (not revision and "@" in text):
        raise UserError(
            f"'{text}' names no artifact; write user/repo@v1, or datasets/user/repo@v1 for a data set of that name."
        )
    return kind, repo, revision or "main"


def find(text: str) -> tuple[Artifact, str]:
    """The artifact that ``text`` names, and a remark where a data set has the same name; models are looked for first.

    The artifact's tag is the revision as it was given.

    Raises:
        UserError: if there is no such repository or revision.
    """
    from spro_hf.hub.artifacts import Artifact, resolve

    kind, repo, revision = parse(text)
    if kind:
        return Artifact(repo, kind, revision, resolve(repo, kind, revision)), ""
    try:
        found = Artifact(repo, "model", revision, resolve(repo, "model", revision))
    except UserError as error:
        if not absent(error):
            raise _or_the_data_set(error, repo, revision) from error
        return Artifact(repo, "dataset", revision, _data_set(repo, revision)), ""
    return found, _namesake(repo, revision)


def _data_set(repo: str, revision: str) -> str:
    """The commit of a data set, where there is no model of its name."""
    from huggingface_hub import HfApi

    from spro_hf.hub.artifacts import resolve

    try:
        return resolve(repo, "dataset", revision)
    except UserError as error:
        if not absent(error):
            raise
        raise UserError(
            f"{repo}: neither a model nor a data set of this name is to be seen at {HfApi().endpoint}; check its name, or run "
            "the stage that makes it."
        ) from error


def _namesake(repo: str, revision: str) -> str:
    from spro_hf.hub.artifacts import resolve

    try:
        resolve(repo, "dataset", "main")
    except UserError:
        return ""
    return f"This is the model {repo}; the data set of that name is {DATASETS}{repo}@{revision}."


def _or_the_data_set(error: UserError, repo: str, revision: str) -> UserError:
    """The error over a model, with the name of the data set that may have been meant."""
    if not _namesake(repo, revision):
        return error
    return UserError(f"{str(error).rstrip('.')}; the data set of that name is {DATASETS}{repo}@{revision}.")


def absent(error: UserError) -> bool:
    """Whether a repository is not to be seen: there is none, or it is private."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cause = error.__cause__
    return isinstance(cause, RepositoryNotFoundError) and not isinstance(cause, GatedRepoError)


def clean(text: Any) -> str:
    """A text of somebody else's on one line and without the control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def console() -> Any:
    """Where a command prints: a file or a pipe has no width, and nothing in it is to be cut."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=10_000)


def read_json(file: Path) -> Any:
    """The contents of a JSON file; None if it is not there or is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def lineage_of(repo: str, kind: str, commit: str) -> dict[str, Any] | None:
    """An artifact's ``lineage.json`` at a commit, of which nothing else is downloaded; None where it has none of ours."""
    from spro_hf.hub.artifacts import pull

    folder = pull(repo, kind, commit, lambda names: [name for name in names if name == LINEAGE])
    return checked(read_json(folder / LINEAGE))


def checked(told: Any) -> dict[str, Any] | None:
    """What a ``lineage.json`` holds, with ``recipe``, ``inputs`` and ``models`` there; None if it is not one of ours.

    Anyone may have written it: an input counts only if it names a repository, a kind and a full commit.
    """
    if not isinstance(told, dict) or not isinstance(told.get("inputs"), list):
        return None
    inputs = [i for i in told["inputs"] if isinstance(i, dict) and _is_input(i)]
    models = told.get("models")
    models = {k: v for k, v in models.items() if isinstance(v, str)} if isinstance(models, dict) else {}
    recipe = told.get("recipe") if isinstance(told.get("recipe"), dict) else {}
    return told | {"inputs": inputs, "models": models, "recipe": recipe}


def _is_input(given: dict[str, Any]) -> bool:
    texts = all(isinstance(given.get(name), str) for name in ("repo", "commit"))
    return texts and given.get("kind") in ("model", "dataset") and bool(FULL.fullmatch(given["commit"]))
