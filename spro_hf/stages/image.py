"""SPRO-Image: the generator learns the winners' pictures under the base captions (SPRO, stage 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf import parallel, rollouts
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.finetune import finetune
from spro_hf.diffusion.learner import Learner
from spro_hf.errors import UserError
from spro_hf.hub.artifacts import pull
from spro_hf.schema import ImageRecipe
from spro_hf.stages import publish
from spro_hf.stages.blocks import train_in_blocks
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


def train(room: Room, name: str, environment: Environment, rows: list[dict[str, Any]]) -> tuple[Path, int]:
    """Fine-tune the environment's generator on the rows' winners as step ``name``.

    Returns:
        The folder that holds it as ``generator``, and how many pictures it learned from.
    """
    settings, recipe = room.recipe.finetune, room.recipe
    captions, images = winners(rows, settings.captions)
    if not captions:
        raise UserError(f"{room.title}: the rollouts hold no kept candidate; play another round or relax select.gain.")
    seed = derive(recipe.seed, recipe.objective, name)
    learner = Learner(
        environment, lora=settings.lora and vars(settings.lora), lr=settings.lr, warmup=settings.warmup, seed=seed,
        checkpointing=settings.gradient_checkpointing,
    )  # fmt: skip
    x0 = environment.encode(images).cpu()
    task = room.progress.task(f"{room.title} · {name} · fine-tune", total=settings.steps * settings.batch_size)

    def some(steps: range) -> list[dict[str, float]]:
        losses = finetune(
            learner, captions, x0, steps=steps, batch_size=settings.batch_size, seed=seed,
            caption_dropout=settings.caption_dropout, advance=lambda n: room.progress.advance(task, n),
        )  # fmt: skip
        return [{"loss": loss} for loss in losses]

    folder, _ = train_in_blocks(room, name, learner, settings.steps, settings.checkpoint_every, some)
    return folder, len(set(map(id, images)))


def run(room: Room) -> None:
    """Fine-tune on the winners of the rollouts that the recipe names; leaves the generator under ``v1``."""
    recipe: ImageRecipe = room.recipe
    rows = [row for repo in recipe.rollouts for row in rollouts.read(pull(repo.repo, "dataset", repo.revision))]
    folder, pictures = train(room, "fine-tune", open_environment(recipe.generator), rows)
    if parallel.first():
        publish.generator(room, "v1", folder, pictures, list(dict.fromkeys(r.repo for r in recipe.rollouts)))
