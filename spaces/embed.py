"""Lay what a run of ``recipes/tiny/spro.yaml`` left out as the Space's embedded artifacts.

``make demo && python spaces/embed.py runs/demo`` writes spaces/spro/artifacts/: of each objective the SPROPipeline as it
was published, and of its first round's rollouts those of the first captions, so that the whole stays small.
"""

from __future__ import annotations

import shutil
import sys
from itertools import islice
from pathlib import Path

from spro_hf.hub.server import at_hub

TARGET = Path(__file__).parent / "spro" / "artifacts"
OBJECTIVES = ("aesthetics", "engagement", "preference")
CAPTIONS = 32  # of 64 in the round
NOTE = "\n> Of this round the Space holds the first {} captions, {} rows of {}.\n"


def main(run: Path) -> None:
    """Copy from the local Hub of the run's folder, through the clients."""
    with at_hub(str(run)):
        for objective in OBJECTIVES:
            _pipeline(objective)
            _rollouts(objective)
    size = sum(file.stat().st_size for file in TARGET.rglob("*") if file.is_file())
    print(f"{TARGET}: {size / 1e6:.1f} MB")


def _pipeline(objective: str) -> None:
    from spro_hf.hub.artifacts import pull

    folder = pull(f"spro/tiny-{objective}", "model", "v1", _needed)
    shutil.copytree(folder, _fresh(objective))


def _needed(files: list[str]) -> list[str]:
    """All but the empty card that PEFT writes beside an adapter."""
    return [name for name in files if name not in (".gitattributes", "guider/README.md")]


def _rollouts(objective: str) -> None:
    from spro_hf import rollouts
    from spro_hf.hub.artifacts import pull

    folder, target = pull(f"spro/tiny-{objective}-rollouts", "dataset", "round-1"), _fresh(f"{objective}-rollouts")
    rows = rollouts.read(folder)
    ids = set(islice(dict.fromkeys(row["seed_id"] for row in rows), CAPTIONS))
    some = [row for row in rows if row["seed_id"] in ids]
    rollouts.write(some, rollouts.ROLLOUT, target)
    rollouts.write_prompts(target)
    shutil.copytree(folder / "card", target / "card")
    for name in ("lineage.json", "recipe.yaml", "environment.json"):
        shutil.copy(folder / name, target / name)
    card, head = (folder / "README.md").read_text(encoding="utf-8"), f"# spro/tiny-{objective}-rollouts · round-1\n"
    note = NOTE.format(len(ids), len(some), len(rows))
    (target / "README.md").write_text(card.replace(head, head + note, 1), encoding="utf-8")


def _fresh(name: str) -> Path:
    shutil.rmtree(TARGET / name, ignore_errors=True)
    return TARGET / name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
