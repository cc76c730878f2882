"""What an artifact's card tells: filled in from the recipe, from what went in, and from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spro_hf.hub import results
from spro_hf.hub.artifacts import Artifact
from spro_hf.hub.cards import fields, render_card
from spro_hf.stages.room import Room


def card(room: Room, name: str, what: str, tag: str, used: list[Artifact] = (), **given: Any) -> str:
    """The card ``name`` of the artifact ``what``; what every card may ask for is filled in, and ``given`` wins over it.

    ``used`` are artifacts of this very stage that went in beside the recipe's inputs.
    """
    recipe, inputs = room.recipe, room.went_in(used)
    common = {
        "repo": recipe.push[what], "tag": tag, "license": recipe.licenses.get(what, recipe.license),
        "objective": recipe.objective, "world": recipe.oracle, "reward": recipe.reward, "seed": recipe.seed,
        "recipe": recipe.name, "generator": vars(recipe.generator), "inputs": inputs, "terms": room.terms,
        "measured_on": measured_on(room, inputs), "settings": {}, "hours": None,
        "failures": fallen(given.get("results", [])),
    }  # fmt: skip
    return render_card(name, **{key: value for key, value in common.items() if key in fields(name)} | given)


def measured_on(room: Room, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """The data set of the Hub that holds the captions of the showcase; its ``id`` is None if none does."""
    sets = room.recipe.seed_sets
    for seeds in (sets[name] for name in ("seeds", "prompts") if name in sets and sets[name].hub):
        return {"id": seeds.source, "revision": seeds.revision, "config": seeds.config, "split": seeds.split}
    for one in inputs:
        if one["kind"] == "dataset" and one["what"] != "references":
            return {"id": one["repo"], "revision": one["commit"], "split": "train"}
    return {"id": None, "revision": None}


def fallen(rows: list[dict[str, Any]]) -> list[str]:
    """Of what was measured before and after, what is lower now by more than two standard errors."""
    return [
        f"On the captions of its showcase `{row['name']}` fell from {row['base']:.3f} to {row['value']:.3f}."
        for row in rows
        if row["base"] is not None and row["value"] + 2 * row["se"] < row["base"]
    ]


def scores(
    room: Room,
    what: str,
    tag: str,
    folder: Path,
    told: dict[str, Any],
    used: list[Artifact] = (),
    at: dict[str, Any] | None = None,
) -> None:
    """Write ``told``'s results in the Hub's own form, if they were measured on a data set of the Hub: ``at``, or that of the
    showcase's captions."""
    at = at or measured_on(room, room.went_in(used))
    source = f"https://huggingface.co/{room.recipe.push[what]}/tree/{tag}"
    results.write(folder, results.entries(told["results"], at["id"], at["revision"], told["evaluated_on"], source))
