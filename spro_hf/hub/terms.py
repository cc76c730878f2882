"""Under which terms what went into an artifact stands, read off its own card; what is not said there is unknown."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

from spro_hf.errors import UserError
from spro_hf.hub.artifacts import pull
from spro_hf.hub.trouble import cause
from spro_hf.models import BUILT_IN, LAION, on_hub
from spro_hf.parts import Seeds

UNKNOWN = "unknown"
OURS = {BUILT_IN: "apache-2.0", LAION: "mit"}  # what the package ships: its own models, and LAION's heads


def of_model(id: str, revision: str) -> dict[str, str]:
    """As ``of``, of a model that a recipe names, which may ship with the package or lie in a folder of the user's."""
    if on_hub(id):
        return of(id, "model", revision)
    return {"license": OURS.get(id.rpartition("/")[0] + "/", UNKNOWN)}


def of_captions(seeds: Seeds) -> dict[str, str]:
    """``id`` and ``license`` of captions that are no data set of the Hub."""
    if seeds.source == "world":
        return {"id": "the embedded world's captions", "license": OURS[BUILT_IN]}
    return {"id": Path(seeds.source).name, "license": UNKNOWN}


@cache
def of(repo: str, kind: str, revision: str) -> dict[str, str]:
    """``license`` of a repository by the Hub's identifiers, or its own name for it, and ``link`` if it has one.

    ``revision`` is a commit, of which a process asks once.
    """
    try:
        folder = pull(repo, kind, revision, lambda names: [name for name in names if name == "README.md"])
    except UserError as error:  # gone, or not for this account; what was made from it stands all the same
        below = error.__cause__ and cause(error.__cause__)
        if not isinstance(below, RepositoryNotFoundError | RevisionNotFoundError | OfflineModeIsEnabled):
            raise
        return {"license": UNKNOWN}
    if not (folder / "README.md").is_file():
        return {"license": UNKNOWN}
    # the header alone: a card that the Hub took long ago may not pass the checks of today
    data: dict[str, Any] = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    said = data.get("license") or UNKNOWN
    said = ", ".join(said) if isinstance(said, list) else str(said)
    if said == "other":
        said = str(data.get("license_name") or "other")
    link = data.get("license_link")
    if link == "LICENSE":
        link = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}/blob/main/LICENSE"
    return {"license": said} | ({"link": str(link)} if link else {})
