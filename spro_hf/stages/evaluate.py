"""Held-out seeds under every system and every scorer: who is better, by how much, and whether the reward was fooled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spro_hf import rollouts, seeds
from spro_hf.hub.artifacts import pull
from spro_hf.schema import EvaluateRecipe, System
from spro_hf.stages import publish
from spro_hf.stages.room import Room
from spro_hf.stages.studio import Seat, Studio, open_environment, open_guider
from spro_hf.statistics import mean_se, relative_gain, strategies, win_rate
from spro_hf.steps import derive

SAMPLES = 6  # seeds shown with pictures in the report


def guests(recipe: EvaluateRecipe) -> list[Seat]:
    """Every held-out seed once per noise seed; the noise of a guest is the same for every system."""
    found = []
    for seed in seeds.load(recipe.seeds, recipe.seed):
        for noise in range(recipe.noise_seeds):
            number = derive(recipe.seed, "held-out", seed.seed_id, noise)
            found.append(Seat(f"{seed.seed_id}/{noise}", seed.caption, seed.caption, None, image_seed=number))
    return found


def run(room: Room) -> None:
    """Evaluate the recipe's systems one by one, then tell everything as plain data; leaves the results under ``v1``."""
    recipe: EvaluateRecipe = room.recipe
    base = room.do("systems/base", lambda folder: _base(room, folder))
    shown = rollouts.read(base)
    for name, system in recipe.systems.items():
        if name != "base":
            room.do(f"systems/{name}", lambda folder, s=system, n=name: _system(room, n, s, shown, folder))
    rows = {name: rollouts.read(room.folder / "systems" / name) for name in recipe.systems}
    told = room.do("told", lambda folder: _tell(room, rows, folder))
    publish.results(room, "v1", told)


def _base(room: Room, folder: Path) -> None:
    studio = Studio(room.recipe, open_environment(room.recipe.generator))
    seats = guests(room.recipe)
    studio.prepare(seats, room.progress, f"{room.title} · base")
    _write(studio, [(seat, seat.caption, (), seat.base_image) for seat in seats], folder)


def _system(room: Room, name: str, system: System, shown: list[dict[str, Any]], folder: Path) -> None:
    """Render one system's answers to every guest. A guider is shown the base generator's picture of the caption.

    A reply that does not parse falls back to the base caption, as it would in use, and is counted.
    """
    recipe, title = room.recipe, f"{room.title} · {name}"
    lora = dataclasses.replace(recipe.generator, lora=system.lora)
    studio = Studio(recipe, open_environment(lora))
    seats = guests(recipe)
    for seat, row in zip(seats, shown, strict=True):
        seat.shown_image = seat.base_image = row["image"]
    answers: list[list[tuple[str, tuple[str, ...]]]] = [[(seat.caption, ())] for seat in seats]
    if system.guided:
        guider = open_guider(dataclasses.replace(recipe.guider, adapter=system.adapter))
        temperatures = [recipe.temperature if system.best_of == 1 else 1.0] * system.best_of
        seed = derive(recipe.seed, recipe.objective, "evaluate", "guided" if system.best_of == 1 else "best-of")
        replies = guider.reply([seat.task(recipe.objective) for seat in seats], temperatures, seed)
        answers = [[(r.prompt or seat.caption, r.plan) for r in row] for seat, row in zip(seats, replies, strict=True)]
    flat = [(i, prompt, plan) for i, row in enumerate(answers) for prompt, plan in row]
    task = room.progress.task(f"{title} · render", total=len(flat))
    images = studio.environment.render(
        [prompt for _, prompt, _ in flat], [seats[i].image_seed for i, _, _ in flat],
        lambda n: room.progress.advance(task, n),
    )  # fmt: skip
    chosen = _best(studio, seats, flat, images) if system.best_of > 1 else range(len(flat))
    _write(studio, [(seats[flat[j][0]], flat[j][1], flat[j][2], images[j]) for j in chosen], folder)


def _best(studio: Studio, seats: list[Seat], flat: list, images: list[Image.Image]) -> list[int]:
    """Of each seat's answers the one with the highest reward: best-of-n is chosen by the very reward it is judged by."""
    totals = [row["total"] for row in studio.rewards.score(images, [seats[i].caption for i, _, _ in flat])]
    best: dict[int, int] = {}
    for j, (i, _, _) in enumerate(flat):
        if i not in best or totals[j] > totals[best[i]]:
            best[i] = j
    return [best[i] for i in range(len(seats))]


def _write(studio: Studio, answers: list[tuple[Seat, str, tuple[str, ...], Image.Image]], folder: Path) -> None:
    images, captions = [a[3] for a in answers], [a[0].caption for a in answers]
    scores = studio.rewards.score(images, captions)
    measures = studio.measure(images, captions)
    rows = [
        {
            "seed_id": seat.seed_id, "base_caption": seat.caption, "prompt": prompt, "plan": list(plan), "image": image,
            "image_seed": seat.image_seed, "scores": json.dumps(score | measure),
        }
        for (seat, prompt, plan, image), score, measure in zip(answers, scores, measures, strict=True)
    ]  # fmt: skip
    keys = ("seed_id", "base_caption", "prompt", "plan", "image", "image_seed")
    rollouts.write(rows, {key: rollouts.ROLLOUT[key] for key in keys} | {"scores": rollouts.ROLLOUT["rewards"]}, folder)


def diversity(captions: list[str], images: list[Image.Image]) -> list[float]:
    """Mean absolute pixel difference, in 1/255, of each picture to the others of the same caption."""
    arrays = [np.asarray(image, dtype=np.float32) for image in images]
    groups: dict[str, list[int]] = {}
    for i, caption in enumerate(captions):
        groups.setdefault(caption, []).append(i)
    return [
        float(np.mean([np.abs(arrays[i] - arrays[j]).mean() for j in groups[c] if j != i]))
        if len(groups[c]) > 1
        else 0.0
        for i, c in enumerate(captions)
    ]


def _tell(room: Room, rows: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Tables of one objective as plain data, see ``spro_hf.report``."""
    recipe: EvaluateRecipe = room.recipe
    columns: dict[str, dict[str, list[float]]] = {}
    for name, found in rows.items():
        scores = [json.loads(row["scores"]) for row in found]
        columns[name] = {key: [s[key] for s in scores] for key in scores[0]}
        columns[name]["diversity"] = diversity([r["base_caption"] for r in found], [r["image"] for r in found])
    objective, base = recipe.objective, columns["base"]
    table = [
        {"objective": objective, "system": name, "metric": metric} | mean_se(values)
        for name, metrics in columns.items()
        for metric, values in metrics.items()
    ]
    gains = []
    for name, metrics in columns.items():
        if name != "base":
            proxy = relative_gain(metrics["total"], base["total"])
            truth = (
                relative_gain(metrics["planted"], base["planted"]) if "planted" in base else {"gain": None, "se": None}
            )
            gains.append(
                {"objective": objective, "system": name, "proxy": proxy["gain"], "proxy_se": proxy["se"],
                 "planted": truth["gain"], "planted_se": truth["se"], "n": proxy["n"]}
            )  # fmt: skip
    against = [
        {"objective": objective, "metric": metric, "system": name, "against": other}
        | win_rate(columns[name][metric], columns[other][metric])
        for metric in ("total", *recipe.judges, *(["planted"] if "planted" in base else []))
        for other in ("base", "best-of-n")
        if other in columns
        for name in columns
        if name not in ("base", other)
    ]
    played = [row for repo in recipe.rollouts for row in rollouts.read(pull(repo.repo, "dataset", repo.revision))]
    told = {
        "objective": objective, "reward": recipe.reward, "judges": list(recipe.judges), "systems": list(rows),
        "seed_ids": [row["seed_id"] for row in rows["base"]],
        "table": table, "gains": gains, "win_rates": against,
        "strategies": [{"objective": objective} | s for s in strategies(played)],
        "samples": _samples(recipe, rows, folder), "unknown_words": seeds.unknown_words([r["base_caption"] for r in rows["base"]]),
    }  # fmt: skip
    (folder / "told.json").write_text(json.dumps(told, indent=1))


def _samples(recipe: EvaluateRecipe, rows: dict[str, list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    """Pictures of the first seeds under every system, saved beside the numbers."""
    (folder / "samples").mkdir()
    told = []
    for i in range(0, min(len(rows["base"]), SAMPLES * recipe.noise_seeds), recipe.noise_seeds):
        first = rows["base"][i]
        systems = {}
        for name, found in rows.items():
            file = f"samples/{recipe.objective}-{i}-{name.replace(' ', '-')}.png"
            found[i]["image"].save(folder / file)
            systems[name] = {"prompt": found[i]["prompt"], "plan": found[i]["plan"], "image": file,
                             "scores": json.loads(found[i]["scores"])}  # fmt: skip
        told.append({"objective": recipe.objective, "seed_id": first["seed_id"], "caption": first["base_caption"],
                     "image_seed": first["image_seed"], "systems": systems})  # fmt: skip
    return told
