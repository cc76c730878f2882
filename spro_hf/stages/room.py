"""What a stage works in: its steps, its progress display, and the way out to the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spro_hf.hub.artifacts import Artifact, push, resolve, write_lineage
from spro_hf.models import pinned
from spro_hf.recipe import dump
from spro_hf.report.progress import Progress
from spro_hf.schema import Recipe
from spro_hf.seeds import Seed, digest, load
from spro_hf.steps import Steps, write_whole


@dataclass
class Room:
    """One stage of a run. ``folder`` is the stage's own; its ``published`` holds a note of each artifact on the Hub.

    ``hub`` is "local" or an address: a stage that is finished for one Hub is not for another. ``together`` says that all
    processes of the run are in it.
    """

    recipe: Recipe
    folder: Path
    progress: Progress
    hub: str = "local"
    together: bool = False

    def __post_init__(self) -> None:
        inputs = {name: resolve(*where) for name, where in self.recipe.inputs.items()}
        self.inputs = [
            {"what": name, "repo": where[0], "kind": where[1], "revision": where[2], "commit": inputs[name]}
            for name, where in self.recipe.inputs.items()
        ]
        self._seeds: dict[str, list[Seed]] = {}
        self.models = {field: pinned(id, revision) for field, id, revision in self.recipe.models}
        self.resolved = _resolved(self.recipe)
        identity = {"recipe": self.resolved, "inputs": inputs, "models": self.models, "hub": self.hub}
        self.steps = Steps(self.folder, identity, self.together)
        self.title = f"{self.recipe.objective} · {self.recipe.stage}"

    def seeds(self, name: str = "seeds") -> list[Seed]:
        """The seeds of a field of the recipe; those of the Hub at the commit that the lineage names."""
        if name not in self._seeds:
            given = getattr(self.recipe, name)
            commit = next((i["commit"] for i in self.inputs if i["what"] == name), None)
            given = replace(given, revision=commit) if commit else given
            self._seeds[name] = load(given, self.recipe.seed, name)
        return self._seeds[name]

    def do(self, name: str, make: Callable[[Path], None]) -> Path:
        """A finished step's folder; see ``Steps.do``."""
        return self.steps.do(name, make)

    def publish(
        self, what: str, kind: str, tag: str, folder: Path, card: str, load: str, used: list[Artifact] = ()
    ) -> Artifact:
        """Push a finished folder with its card and lineage as one commit under a tag; note it for the report.

        ``used`` are artifacts of this very stage that went in beside the recipe's inputs.
        """
        repo, file = self.recipe.push[what], self.folder / "published" / f"{what}-{tag}.json"
        if file.exists():  # a resumed run; libraries may be newer by now, and what is published is not made anew
            return Artifact(repo, kind, tag, json.loads(file.read_text())["revision"])
        inputs = self.inputs + [
            {"what": "made before", "repo": a.repo, "kind": a.kind, "revision": a.tag, "commit": a.revision}
            for a in used
        ]
        write_lineage(folder, recipe=self.resolved, inputs=inputs, seed=self.recipe.seed,
                      extra={"tag": tag, "models": self.models})  # fmt: skip
        (folder / "README.md").write_text(card, encoding="utf-8")
        artifact = push(folder, repo, kind, tag, f"{self.title}: {what} {tag}", self.recipe.private)
        note = {"repo": repo, "type": kind, "tag": tag, "revision": artifact.revision, "what": what, "load": load}
        write_whole(file, json.dumps(note))
        return artifact


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, with a seed file named by its content in place of its path on this machine."""
    told = dump(recipe)
    if hasattr(recipe, "seeds") and (checksum := digest(recipe.seeds)):
        told["seeds"]["source"] = f"{Path(recipe.seeds.source).name}, sha256 {checksum}"
    return told
