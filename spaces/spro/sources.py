"""Where the pipelines and rollouts of this Space come from: its own artifacts, those it was published with, a visitor's.

A source is the name of an embedded artifact ("aesthetics") or an id of the Hub, ``user/repo`` or ``user/repo@revision``.
What the Space was published with stands in space.json, ``{"pipeline": id, "rollouts": id}``; the variables SPRO_PIPELINE and
SPRO_ROLLOUTS win over it. These are read with the Space's own token, if it has one. What a visitor names must be public,
name nothing but public repositories and parts of the package, and not be too large for the machine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from spro_hf.errors import UserError
from spro_hf.hub.artifacts import pull, resolve
from spro_hf.hub.trouble import briefly, explained
from spro_hf.lineage.place import read_json
from spro_hf.models import BUILT_IN, LAION, wanted
from spro_hf.parts import MODEL_FIELDS

HERE = Path(__file__).resolve().parent
EMBEDDED = HERE / "artifacts"
OBJECTIVES = ("aesthetics", "engagement", "preference")
HEAVIEST = 8e9  # bytes of all that a visitor's artifact names
MOST = {"num_inference_steps": 100, "max_new_tokens": 1024, "height": 1024, "width": 1024}  # of a visitor's artifact
_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
INDEX, LINEAGE = "model_index.json", "lineage.json"


def configured(kind: str) -> str | None:
    """The id that this Space was published with, of kind "pipeline" or "rollouts"; None if there is none."""
    file = HERE / "space.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    return os.environ.get(f"SPRO_{kind.upper()}") or told.get(kind)


def offered(kind: str) -> list[str]:
    """What a visitor can choose without naming anything, the first being shown at the start."""
    return [*filter(None, [configured(kind)]), *OBJECTIVES]


def split(source: str) -> tuple[str, str]:
    """Repository and revision of ``user/repo@revision``; a UserError if it is no such thing."""
    found = _ID.fullmatch(source.strip())
    if not found:
        raise UserError(f"'{source.strip()[:60]}' is no id of the Hub; write user/repo or user/repo@revision.")
    return found[1], found[2] or "main"


def pipeline(source: str) -> Path:
    """The folder of a saved SPROPipeline with its lineage.

    Raises:
        UserError: if there is none, it is something else, or it is a visitor's and not public or too large.
    """
    if source in OBJECTIVES:
        return EMBEDDED / source
    repo, revision = split(source)
    ours = source == configured("pipeline")
    if not ours:
        public(repo, "model")
    commit = resolve(repo, "model", revision)
    told = read_pipeline(pull(repo, "model", commit, lambda files: [f for f in files if f in (INDEX, LINEAGE)]), source)
    if not ours:
        _modest(source, *told)
        _weigh(source, [(repo, commit), *_named(source, *told)])
    return pull(repo, "model", commit, fetched)


def fetched(files: list[str]) -> list[str]:
    """Of a pipeline's files those that are downloaded: all but the pictures of its card."""
    return [name for name in files if not name.startswith("showcase/")]


def read_pipeline(folder: Path, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The index of a saved SPROPipeline, and the recipe it was made by; a UserError if the folder holds none."""
    index = _json(folder / INDEX)
    if index.get("_class_name") != "SPROPipeline":
        told = f"it is a {index['_class_name']}" if "_class_name" in index else f"it has no {INDEX}"
        raise UserError(f"'{source}' is no SPROPipeline, {told}; name what a multimodal recipe pushes as its pipeline.")
    recipe = _json(folder / LINEAGE).get("recipe", {})
    missing = [field for field in ("objective", "scorers", "reward") if not recipe.get(field)]
    if missing:
        raise UserError(
            f"'{source}' has no {LINEAGE} that names its recipe's {missing[0]}; push it by the recipe again."
        )
    return index, recipe


def _json(file: Path) -> dict[str, Any]:
    found = read_json(file)
    return found if isinstance(found, dict) else {}


def public(repo: str, kind: str, revision: str | None = None) -> Any:
    """What anyone may know of a repository; a UserError if that is nothing. No token is sent."""
    api, found = HfApi(token=False), None
    with explained(repo, kind, revision or "main"), suppress(RepositoryNotFoundError, GatedRepoError):
        found = briefly(lambda: api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True))
    if found is None or found.private or getattr(found, "gated", False):
        raise UserError(
            f"{kind} {repo}: there is no public repository of this name; check it, or publish a private one with a Space of "
            "your own."
        )
    return found


def _named(source: str, index: dict[str, Any], recipe: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The repositories of the Hub that a pipeline and its scorers are loaded from, with their revisions."""
    parts = [(index["guider"], {"id": "revision"}), (index["base"], {"id": "revision"})]
    parts += [(spec, MODEL_FIELDS) for spec in recipe["scorers"].values()]
    for part, fields in parts:
        for field, revision in fields.items():
            id = part.get(field)
            if not id or id.startswith((BUILT_IN, LAION)):
                continue
            if Path(id).exists() or not _ID.fullmatch(id):  # a folder of this machine is nobody's to name
                raise UserError(f"'{source}' names '{id[:60]}', which is no repository of the Hub.")
            yield id, part.get(revision) or "main"


def _modest(source: str, index: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Refuse what would keep the machine from all others."""
    asked = {**index["base"]["call"], "max_new_tokens": index["guider"]["max_new_tokens"]}
    for name, most in MOST.items():
        if (asked.get(name) or 0) > most:
            raise UserError(f"'{source}' asks for a {name} of {asked[name]}; this Space goes up to {most}.")
    if index["guider"]["adapter"] not in (None, "guider") or index["base"]["lora"] not in (None, "lora"):
        raise UserError(f"'{source}' names files outside of it; push it by the recipe again.")


def _weigh(source: str, repos: list[tuple[str, str]]) -> None:
    total = 0
    for repo, revision in repos:
        found = public(repo, "model", revision).siblings
        names = [file.rfilename for file in found]
        keep = set(fetched(names) if repo == split(source)[0] else wanted(names))
        total += sum(file.size or 0 for file in found if file.rfilename in keep)
    if total > HEAVIEST:
        raise UserError(
            f"'{source}' needs {total / 1e9:.0f} GB of weights, and this Space takes {HEAVIEST / 1e9:.0f}; run it on a "
            "machine of your own."
        )


def rollouts(source: str) -> list[str]:
    """The parquet files of a data set of rollouts, by name; a UserError if there are none."""
    if source in OBJECTIVES:
        return [f"data/{file.name}" for file in sorted((EMBEDDED / f"{source}-rollouts/data").glob("*.parquet"))]
    repo, revision = split(source)
    if source != configured("rollouts"):
        public(repo, "dataset")
    commit = resolve(repo, "dataset", revision)
    with explained(repo, "dataset", revision):
        files = briefly(lambda: HfApi().list_repo_files(repo, repo_type="dataset", revision=commit))
    parts = sorted(name for name in files if re.fullmatch(r"data/[^/]+\.parquet", name))
    if not parts:
        raise UserError(
            f"'{source}' holds no rollouts: it has no data/*.parquet; name what a recipe pushes as its rollouts."
        )
    return parts


def part(source: str, file: str) -> Path:
    """A file of a data set of rollouts; of the Hub's no other file is fetched."""
    if source in OBJECTIVES:
        return EMBEDDED / f"{source}-rollouts" / file
    repo, revision = split(source)
    commit = resolve(repo, "dataset", revision)
    if source != configured("rollouts"):
        sizes = {f.rfilename: f.size or 0 for f in public(repo, "dataset", commit).siblings}
        if sizes.get(file, 0) > HEAVIEST / 8:
            raise UserError(
                f"{file} of '{source}' is larger than {HEAVIEST / 8e9:.0f} GB; open it on a machine of your own."
            )
    return pull(repo, "dataset", commit, lambda files: [f for f in files if f == file]) / file
