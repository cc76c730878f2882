"""What a stage works in: its steps, its progress display, and the way out to the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spro_hf.hub.artifacts import Artifact, push, resolve, write_lineage
from spro_hf.recipe import dump
from spro_hf.report.progress import Progress
from spro_hf.schema import Recipe
from spro_hf.steps import Steps, write_whole


@dataclass
class Room:
    """One stage of a run. ``folder`` is the stage's own; ``published`` lists what it left on the Hub."""

    recipe: Recipe
    folder: Path
    progress: Progress

    def __post_init__(self) -> None:
        inputs = {name: resolve(*where) for name, where in self.recipe.inputs.items()}
        self.inputs = [
            {"what": name, "repo": where[0], "kind": where[1], "revision": where[2], "commit": inputs[name]}
            for name, where in self.recipe.inputs.items()
        ]
        self.steps = Steps(self.folder, {"recipe": dump(self.recipe), "inputs": inputs})
        self.title = f"{self.recipe.objective} · {self.recipe.stage}"

    def do(self, name: str, make: Callable[[Path], None]) -> Path:
        """A finished step's folder; see ``Steps.do``."""
        return self.steps.do(name, make)

    def publish(
        self, what: str, kind: str, tag: str, folder: Path, card: str, load: str, used: list[Artifact] = ()
    ) -> Artifact:
        """Push a finished folder with its card and lineage as one commit under a tag; note it for the report.

        ``used`` are artifacts of this very stage that went in beside the recipe's inputs.
        """
        repo = self.recipe.push[what]
        inputs = self.inputs + [
            {"what": "made before", "repo": a.repo, "kind": a.kind, "revision": a.tag, "commit": a.revision}
            for a in used
        ]
        write_lineage(folder, recipe=dump(self.recipe), inputs=inputs, seed=self.recipe.seed, extra={"tag": tag})
        (folder / "README.md").write_text(card, encoding="utf-8")
        artifact = push(folder, repo, kind, tag, f"{self.title}: {what} {tag}")
        note = {"repo": repo, "type": kind, "tag": tag, "revision": artifact.revision, "what": what, "load": load}
        write_whole(self.folder / "published" / f"{what}-{tag}.json", json.dumps(note))
        return artifact


def published(folder: Path) -> list[dict[str, Any]]:
    """All artifacts that the stages under a run's folder have left on the Hub, in the order of the stages."""
    files = sorted(folder.glob("stages/*/published/*.json"))
    return [json.loads(file.read_text()) for file in files]
