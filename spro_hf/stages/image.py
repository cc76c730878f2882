"""SPRO-Image: the generator learns the winners' pictures under the base captions (SPRO, stage 2)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf import rollouts
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.finetune import finetune
from spro_hf.diffusion.lora import save_lora
from spro_hf.errors import UserError
from spro_hf.hub.artifacts import pull
from spro_hf.schema import ImageRecipe
from spro_hf.stages import publish
from spro_hf.stages.room import Room
from spro_hf.stages.studio import open_environment
from spro_hf.steps import derive


def winners(rows: list[dict[str, Any]], captions: str = "base") -> tuple[list[str], list[Image.Image]]:
    """{base caption, winner picture}: of every seed and round, the kept candidate with the highest reward.

    With ``captions`` "both" each picture stands a second time, under the prompt that made it.
    """
    best: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        key = (row["round"], row["seed_id"])
        if row["kept"] and (key not in best or row["total"] > best[key]["total"]):
            best[key] = row
    texts = [row["base_caption"] for row in best.values()]
    images = [row["image"] for row in best.values()]
    if captions == "both":
        return texts + [row["prompt"] for row in best.values()], images * 2
    return texts, images


def train(room: Room, name: str, environment: Environment, rows: list[dict[str, Any]], datasets: list[str]) -> Path:
    """Fine-tune the environment's generator on the rows' winners as step ``name``; returns its folder.

    ``datasets`` are the repositories that the rows came from.
    """
    settings = room.recipe.finetune

    def make(folder: Path) -> None:
        captions, images = winners(rows, settings.captions)
        if not captions:
            raise UserError(
                f"{room.title}: the rollouts hold no kept candidate; play another round or relax select.gain."
            )
        task = room.progress.task(f"{room.title} · {name} · fine-tune", total=settings.steps * settings.batch_size)
        told = finetune(
            environment,
            captions,
            images,
            **{key: value for key, value in dataclasses.asdict(settings).items() if key != "captions"},
            seed=derive(room.recipe.seed, room.recipe.objective, name),
            advance=lambda n: room.progress.advance(task, n),
        )
        if settings.lora:
            save_lora(environment.pipe, folder / "generator")
        else:
            environment.pipe.save_pretrained(folder / "generator")
        (folder / "account.json").write_text(
            json.dumps({"pictures": len(set(map(id, images))), "datasets": datasets} | told, indent=1)
        )

    return room.do(name, make)


def run(room: Room) -> None:
    """Fine-tune on the winners of the rollouts that the recipe names; leaves the generator under ``v1``."""
    recipe: ImageRecipe = room.recipe
    rows = [row for repo in recipe.rollouts for row in rollouts.read(pull(repo.repo, "dataset", repo.revision))]
    folder = train(
        room,
        "fine-tune",
        open_environment(recipe.generator),
        rows,
        list(dict.fromkeys(r.repo for r in recipe.rollouts)),
    )
    publish.generator(room, "v1", folder)
