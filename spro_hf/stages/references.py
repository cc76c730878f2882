"""Reference pictures: what a strong generator, or the embedded world's renderer, draws of captions, as a data set.

A reward learns from them beside a generator that is weaker, or that is to draw in their style.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from spro_hf import parallel, portrait, rollouts
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.hub.artifacts import Artifact
from spro_hf.memory import needing
from spro_hf.models import pinned
from spro_hf.schema import ReferencesRecipe
from spro_hf.seeds import Seed
from spro_hf.stages.publish import fresh, load_dataset_line
from spro_hf.stages.room import Room
from spro_hf.stages.studio import open_environment
from spro_hf.stages.telling import card
from spro_hf.steps import derive


def run(room: Room) -> None:
    """Draw every caption's pictures in parts of captions, each a finished step; leaves all of them under ``v1``."""
    recipe: ReferencesRecipe = room.recipe
    environment, found = open_environment(recipe.generator), room.seeds()
    task = room.progress.task(f"{room.title} · pictures", total=len(found) * recipe.per_caption)

    def make(folder: Path, some: list[Seed]) -> None:
        rows = drawn(room, environment, some, lambda n: room.progress.advance(task, n))
        rollouts.write(rows, rollouts.REFERENCE, folder, parallel.rank(), parallel.world())

    folders = []
    for i, start in enumerate(range(0, len(found), recipe.part)):
        some = found[start : start + recipe.part]
        folders.append(room.do(f"drawn/part-{i:05d}", lambda folder, some=some: make(folder, some)))
    if parallel.first():
        publish(room, folders)


def drawn(room: Room, environment: Environment, some: list[Seed], advance: Any) -> Iterator[dict[str, Any]]:
    """This process's share of the rows of a part, each caption's first picture before any second one.

    So the first n rows of a data set are of as many captions as a part has. Drawn and written are ``rollouts.GROUP`` at a
    time: more pictures are never in memory.
    """
    recipe: ReferencesRecipe = room.recipe
    wanted = [(seed, number) for number, seed in product(range(recipe.per_caption), some)]
    share, generator = parallel.share_of(len(wanted)), _generator(recipe)
    with remembered_prompts(environment.pipe):
        for start in range(share.start, share.stop, rollouts.GROUP):
            part = wanted[start : min(share.stop, start + rollouts.GROUP)]
            prompts = [recipe.prompt.replace("{caption}", seed.caption) for seed, _ in part]
            noise = [derive(recipe.seed, "references", seed.seed_id, number) for seed, number in part]
            with needing("generator.batch_size", environment.batch_size):
                images = environment.render(prompts, noise, advance)
            for (seed, _), prompt, image, number in zip(part, prompts, images, noise, strict=True):
                yield {
                    "seed_id": seed.seed_id, "caption": seed.caption, "prompt": prompt, "image": image,
                    "image_seed": number, "generator": generator,
                }  # fmt: skip


def _generator(recipe: ReferencesRecipe) -> str:
    """What drew a row, as repository@commit."""
    lora = recipe.generator.lora
    told = pinned(recipe.generator.id, recipe.generator.revision)
    return f"{told} + {pinned(lora.repo, lora.revision)}" if lora else told


def publish(room: Room, folders: list[Path]) -> Artifact:
    """Push the parts as one data set under ``v1``."""
    recipe: ReferencesRecipe = room.recipe
    folder, repo = fresh(room, "references"), recipe.push["references"]
    files = [file for part in folders for file in rollouts.files(part) if rollouts.count(file)]
    (folder / "data").mkdir()
    for i, file in enumerate(files):
        shutil.copy(file, folder / "data" / f"train-{i:05d}-of-{len(files):05d}.parquet")
    text = card(
        room, "references", "references", "v1", told=portrait.of_references(folder), per_caption=recipe.per_caption,
        prompt=recipe.prompt, generator=_generator(recipe), call=recipe.generator.call,
        source=room.resolved["seeds"]["source"],
    )  # fmt: skip
    return room.publish("references", "dataset", "v1", folder, text, load_dataset_line(repo, "v1"))
