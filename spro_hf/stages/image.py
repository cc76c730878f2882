"""SPRO-Image: the generator learns the winners' pictures under the base captions (SPRO, stage 2)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path

import torch
from PIL import Image

from spro_hf import parallel, rollouts, seeds
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.finetune import Draws, finetune
from spro_hf.diffusion.learner import Learner
from spro_hf.errors import UserError
from spro_hf.hub.artifacts import pull
from spro_hf.memory import free, needing
from spro_hf.rewards import Brief
from spro_hf.schema import ImageRecipe, MultimodalRecipe
from spro_hf.stages import publish
from spro_hf.stages.blocks import train_in_blocks
from spro_hf.stages.room import Room
from spro_hf.stages.showcase import Guest, Showcase
from spro_hf.stages.studio import Studio, open_environment
from spro_hf.steps import derive

PART = 256  # prompts of a data set that are drawn and scored at once
DRAWN = ("seed_id", "base_caption", "prompt", "image", "round", "image_seed", "total", "kept")


@dataclass(frozen=True)
class Winner:
    """A picture to learn from: where it lies, the base caption of its seed, and the prompt that made it."""

    folder: Path
    row: int
    caption: str
    prompt: str


def winners(folders: list[Path]) -> list[Winner]:
    """Of every seed and round in the folders' rollouts, the kept candidate with the highest reward."""
    best: dict[tuple, tuple[float, Winner]] = {}
    for folder in folders:
        for i, row in enumerate(rollouts.read_told(folder)):
            key = (row["round"], row["seed_id"])
            if row["kept"] and (key not in best or row["total"] > best[key][0]):
                best[key] = row["total"], Winner(folder, i, row["base_caption"], row["prompt"])
    return [winner for _, winner in best.values()]


def train(room: Room, name: str, environment: Environment, folders: list[Path]) -> tuple[Path, int, int]:
    """Fine-tune the environment's generator on {base caption, winner picture} of the folders' rollouts as step ``name``.

    With ``captions`` "both" each picture stands a second time, under the prompt that made it.

    Returns:
        The folder that holds it as ``generator``, how many pictures it learned from, and in how many updates.
    """
    settings, recipe = room.recipe.finetune, room.recipe
    best = winners(folders)
    if not best:
        raise UserError(f"{room.title}: the rollouts hold no kept candidate; play another round or relax select.gain.")
    seed = derive(recipe.seed, recipe.objective, name)
    captions = [winner.caption for winner in best]
    if both := settings.captions == "both":
        captions += [winner.prompt for winner in best]
    steps = settings.steps or math.ceil(settings.epochs * len(captions) / settings.batch_size)
    learner = learner_of(recipe, environment, seed)
    environment = learner.environment
    with needing("generator.batch_size", environment.batch_size):
        x0 = torch.cat([environment.encode(part).cpu() for part in _batches(best, environment.batch_size)])
    x0 = x0.repeat(2, *[1] * (x0.ndim - 1)) if both else x0
    draws = Draws(x0, environment, settings.batch_size, seed, settings.caption_dropout)
    task = room.progress.task(f"{room.title} · {name} · fine-tune", total=steps * settings.batch_size)

    def some(steps: range) -> list[dict[str, float]]:
        with needing("finetune.batch_size / finetune.accumulation", settings.batch_size // settings.accumulation):
            losses = finetune(
                learner, captions, x0, draws, steps, settings.accumulation, lambda n: room.progress.advance(task, n)
            )
        return [{"loss": loss} for loss in losses]

    folder, _ = train_in_blocks(room, name, learner, steps, settings.checkpoint_every, some)
    return folder, len(best), steps


def learner_of(recipe: ImageRecipe | MultimodalRecipe, environment: Environment, seed: int) -> Learner:
    """What learns in the recipe's fine-tuning: the environment's generator, at the size at which it is to learn."""
    settings = recipe.finetune
    if settings.size:
        height, width = settings.size
        sized = environment.call | {"height": height, "width": width}
        environment = Environment(environment.pipe, sized, environment.batch_size)
    return Learner(
        environment, lora=settings.lora and vars(settings.lora), lr=settings.lr, warmup=settings.warmup, seed=seed,
        checkpointing=settings.gradient_checkpointing,
    )  # fmt: skip


def _batches(best: list[Winner], size: int) -> Iterator[list[Image.Image]]:
    images = chain.from_iterable(
        rollouts.pictures(folder, "image", [w.row for w in group])
        for folder, group in groupby(best, key=lambda w: w.folder)
    )
    while part := list(islice(images, size)):
        yield part


def draw(room: Room, environment: Environment) -> list[Path]:
    """Draw and score the prompts of the recipe's data set: rollouts of a round 0, in which all are kept.

    Where the data set has a score for each prompt only the best of each caption is drawn, as SPRO's winners are; where
    it has none all are, and the reward tells the best. Each process draws its share.
    """
    recipe: ImageRecipe = room.recipe
    studio = Studio(recipe, environment)
    chosen = _best(room.seeds("prompts"))
    names = {seed.caption: seed.seed_id for seed in reversed(chosen)}  # of one caption, one winner

    def make(folder: Path, some: list[seeds.Seed]) -> None:
        share = parallel.share_of(len(some))
        mine = some[share.start : share.stop]
        task = room.progress.task(f"{room.title} · draw the prompts", total=len(mine))
        numbers = [derive(recipe.seed, recipe.objective, seed.seed_id, "prompts") for seed in mine]
        images = studio.render([s.prompt for s in mine], numbers, lambda n: room.progress.advance(task, n))
        scores = studio.rewards.score(images, [Brief(s.caption, s.prompt, context=s.context) for s in mine])
        rows = [
            {"seed_id": names[s.caption], "base_caption": s.caption, "prompt": s.prompt, "image": image, "round": 0,
             "image_seed": number, "total": score["total"], "kept": True}
            for s, image, number, score in zip(mine, images, numbers, scores, strict=True)
        ]  # fmt: skip
        schema = {key: rollouts.ROLLOUT[key] for key in DRAWN}
        rollouts.write(rows, schema, folder, parallel.rank(), parallel.world())

    folders = []
    for i, start in enumerate(range(0, len(chosen), PART)):
        some = chosen[start : start + PART]
        folders.append(room.do(f"drawn/part-{i:05d}", lambda folder, some=some: make(folder, some)))
    return folders


def _best(found: list[seeds.Seed]) -> list[seeds.Seed]:
    """Of each caption the prompt with the highest score; all of them where there are no scores."""
    if any(seed.score is None for seed in found):
        return found
    best: dict[str, seeds.Seed] = {}
    for seed in found:
        if seed.caption not in best or seed.score > best[seed.caption].score:
            best[seed.caption] = seed
    return list(best.values())


def run(room: Room) -> None:
    """Fine-tune on the winners that the recipe names; leaves the generator under ``v1``."""
    recipe: ImageRecipe = room.recipe
    environment = open_environment(recipe.generator)
    folders = [pull(repo.repo, "dataset", repo.revision, rollouts.wanted) for repo in recipe.rollouts] or draw(
        room, environment
    )
    show = Showcase(room, _shown(folders))
    show.before(lambda found=environment: found)
    folder, pictures, steps = train(room, "fine-tune", environment, folders)
    del environment  # there is room for one
    free()
    show.draw("v1", lambda: open_environment(recipe.generator, str(folder / "generator")))
    free()
    shown = show.score("v1", lambda: Studio(recipe))
    if parallel.first():
        publish.generator(room, "v1", folder, pictures, steps, shown)


def _shown(folders: list[Path]) -> Iterator[Guest]:
    """The winners' captions, each seed's once; ``draw``'s rows have no context of their own."""
    for folder in folders:
        some = ["seed_id", "base_caption", "kept", *(["context"] if "context" in rollouts.columns(folder) else [])]
        rows = rollouts.told(folder, some)
        yield from ((r["seed_id"], r["base_caption"], json.loads(r.get("context") or "{}")) for r in rows if r["kept"])
