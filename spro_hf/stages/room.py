"""What a stage works in: its steps, its progress display, and the way out to the Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spro_hf import machine
from spro_hf.hub import terms
from spro_hf.hub.artifacts import Artifact, resolve, write_lineage
from spro_hf.hub.push import push
from spro_hf.lineage.place import MADE_BEFORE
from spro_hf.models import commit, on_hub
from spro_hf.parts import MODEL_FIELDS
from spro_hf.recipe import dump
from spro_hf.report.progress import Progress
from spro_hf.schema import Recipe
from spro_hf.seeds import Seed, digest, load
from spro_hf.steps import Steps, write_whole
from spro_hf.strict import write_yaml


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
        pins, self._seeds = self._pins(), {}
        inputs = {name: pins.get(name) or resolve(*where) for name, where in self.recipe.inputs.items()}
        self.inputs = [
            {"what": name, "repo": where[0], "kind": where[1], "revision": where[2], "commit": inputs[name]}
            for name, where in self.recipe.inputs.items()
        ]
        here = {field: commit(id, revision) for field, id, revision in self.recipe.models if field not in pins}
        self.models = {field: f"{id}@{(here | pins)[field]}" for field, id, _ in self.recipe.models}
        self.resolved = _resolved(self.recipe)
        identity = {"recipe": self.resolved, "inputs": inputs, "models": self.models, "hub": self.hub}
        self.steps = Steps(self.folder, identity, self.together)
        self.recipe_as_written, self.recipe = self.recipe, _at(self.recipe, pins)
        self.title = f"{self.recipe.objective} · {self.recipe.stage}"

    def _pins(self) -> dict[str, str]:
        """The commits of the Hub's models, trained rewards and seed sets as this stage first saw them, by the field that
        names them: all that it loads is loaded from there, in every process and after a kill, whatever ``main`` has become."""
        file = self.folder / "pins.json"
        if not file.exists():
            found = {field: commit(id, revision) for field, id, revision in self.recipe.models if on_hub(id)}
            found |= {
                name: resolve(*where)
                for name, where in self.recipe.inputs.items()
                if name in self.recipe.seed_sets or name.startswith("scorers.")
            }
            write_whole(file, json.dumps(found, indent=1))
        return json.loads(file.read_text())

    def seeds(self, name: str = "seeds") -> list[Seed]:
        """The seeds of a field of the recipe; those of the Hub at the commit that the lineage names."""
        if name not in self._seeds:
            self._seeds[name] = load(getattr(self.recipe, name), self.recipe.seed, name)
        return self._seeds[name]

    def do(self, name: str, make: Callable[[Path], None]) -> Path:
        """A finished step's folder; see ``Steps.do``."""
        return self.steps.do(name, make)

    def publish(
        self,
        what: str,
        kind: str,
        tag: str,
        folder: Path,
        card: str,
        load: str,
        used: list[Artifact] = (),
        branch: str = "main",
    ) -> Artifact:
        """Push a finished folder with its card, recipe, lineage and environment as one commit under a tag; note it for the
        report.

        ``used`` are artifacts of this very stage that went in beside the recipe's inputs.
        """
        repo, file = self.recipe.push[what], self.folder / "published" / f"{what}-{tag}.json"
        if file.exists():  # a resumed run; libraries may be newer by now, and what is published is not made anew
            return Artifact(repo, kind, tag, json.loads(file.read_text())["revision"])
        inputs = self.went_in(used)
        write_lineage(folder, recipe=self.resolved, inputs=inputs, seed=self.recipe.seed,
                      extra={"tag": tag, "models": self.models})  # fmt: skip
        self._write_recipe(folder)
        machine.write(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        artifact = push(folder, repo, kind, tag, f"{self.title}: {what} {tag}", self.recipe.private, branch)
        note = {"repo": repo, "type": kind, "tag": tag, "revision": artifact.revision, "what": what, "load": load}
        made = {"stage": self.recipe.stage, "objective": self.recipe.objective, "push": self.recipe.push}
        note["lineage"] = {"recipe": made, "inputs": inputs, "models": self.models, "seed": self.recipe.seed}
        write_whole(file, json.dumps(note))
        return artifact

    def went_in(self, used: list[Artifact] = ()) -> list[dict[str, Any]]:
        """The recipe's inputs and ``used``, artifacts of this very stage, by repository and commit."""
        return self.inputs + [
            {"what": MADE_BEFORE, "repo": a.repo, "kind": a.kind, "revision": a.tag, "commit": a.revision} for a in used
        ]

    def _write_recipe(self, folder: Path) -> None:
        """The resolved recipe as one that runs, with the captions that came from a file of the user's beside it."""
        told = dump(self.recipe_as_written)
        if (seeds := getattr(self.recipe, "seeds", None)) and digest(seeds):
            shutil.copyfile(seeds.source, folder / "seeds.txt")
            told["seeds"]["source"] = "seeds.txt"
        (folder / "recipe.yaml").write_text(write_yaml(told), encoding="utf-8")

    @cached_property
    def terms(self) -> list[dict[str, str]]:
        """What went in and its licence: what, id, license and, where there is one, a link. Asked for once a stage."""
        file = self.folder / "terms.json"
        if not file.exists():
            found = [
                {"what": field.removesuffix(".id"), "id": told.rpartition("@")[0]}
                for field, told in self.models.items()
            ]
            for row, at in zip(found, self.models.values(), strict=True):
                row |= terms.of_model(row["id"], at.rpartition("@")[2])
            found += [
                {"what": one["what"], "id": one["repo"]} | terms.of(one["repo"], one["kind"], one["commit"])
                for one in self.inputs
            ]
            found += [{"what": name} | terms.of_captions(s) for name, s in self.recipe.seed_sets.items() if not s.hub]
            write_whole(file, json.dumps(found, indent=1))
        return json.loads(file.read_text())


def _at(recipe: Recipe, pins: dict[str, str]) -> Recipe:
    """The recipe with the commits at which its models and seeds are read in the place of its revisions."""
    scorers = {name: dict(spec) for name, spec in recipe.scorers.items()}
    for name, spec in scorers.items():
        spec |= {rev: at for key, rev in MODEL_FIELDS.items() if (at := pins.get(f"scorers.{name}.{key}"))}
    changed: dict[str, Any] = {"scorers": scorers}
    for part in ("generator", "guider"):
        if at := pins.get(f"{part}.id"):
            changed[part] = replace(getattr(recipe, part), revision=at)
    if at := pins.get("select.similarity"):
        changed["select"] = replace(recipe.select, similarity_revision=at)
    for name, seeds in recipe.seed_sets.items():
        if at := pins.get(name):
            changed[name] = replace(seeds, revision=at)
    return replace(recipe, **changed)


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, with a seed file named by its content in place of its path on this machine."""
    told = dump(recipe)
    if hasattr(recipe, "seeds") and (checksum := digest(recipe.seeds)):
        told["seeds"]["source"] = f"{Path(recipe.seeds.source).name}, sha256 {checksum}"
    return told
