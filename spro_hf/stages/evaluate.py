"""Held-out seeds under every system and every scorer: who is better, by how much, and whether the reward was fooled."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf import rollouts, seeds, watch
from spro_hf.guider.instructions import Reply
from spro_hf.hub.artifacts import pull
from spro_hf.memory import free, needing
from spro_hf.parts import Repo, System
from spro_hf.rewards import Brief
from spro_hf.schema import EvaluateRecipe
from spro_hf.stages import publish
from spro_hf.stages.room import Room
from spro_hf.stages.studio import Seat, Studio, open_environment, open_guider
from spro_hf.statistics import group_means, mean_se, paired_change, relative_gain, strategies, win_rate
from spro_hf.steps import derive

SAMPLES = 6  # seeds shown with pictures in the report


@dataclass(frozen=True)
class Answer:
    """What a system made of a guest: the reply, which is the caption itself where there is no guider, and the picture."""

    seat: Seat
    reply: Reply
    image: Image.Image


def guests(room: Room) -> list[Seat]:
    """Every held-out seed once per noise seed; the noise of a guest is the same for every system.

    A seed's own picture is left aside: the base is what the plain generator draws, so that a gain is the system's.
    """
    recipe, found = room.recipe, []
    for seed in room.seeds():
        for noise in range(recipe.noise_seeds):
            number = derive(recipe.seed, "held-out", seed.seed_id, noise)
            found.append(
                Seat(
                    f"{seed.seed_id}/{noise}", seed.caption, seed.caption, None, image_seed=number, context=seed.context
                )
            )
    return found


def run(room: Room) -> None:
    """Evaluate the recipe's systems one by one, then tell everything as plain data; leaves the results under ``v1``."""
    recipe: EvaluateRecipe = room.recipe
    studio = lru_cache(lambda: Studio(recipe, open_environment(recipe.generator)))  # loaded if anything is left to do
    base = room.do("systems/base", lambda folder: _base(room, studio(), folder))
    for name, system in recipe.systems.items():
        if name != "base":
            room.do(f"systems/{name}", lambda folder, s=system, n=name: _system(room, studio(), n, s, base, folder))
    told = room.do("told", lambda folder: _tell(room, folder))
    publish.results(room, "v1", told)


def _base(room: Room, studio: Studio, folder: Path) -> None:
    seats = guests(room)
    studio.prepare(seats, room.progress, f"{room.title} · base")
    _write(studio, [Answer(seat, Reply("", (), seat.caption), seat.base_image) for seat in seats], folder)


def _system(room: Room, studio: Studio, name: str, system: System, base: Path, folder: Path) -> None:
    """Render one system's answers to every guest. A guider is shown the base generator's picture of the caption.

    A reply that does not parse falls back to the base caption, as it would in use; the results count how often. With
    ``hops`` the guider goes on from its own prompt and the picture that it made; it stays with them where it is not
    understood.
    """
    recipe, title, seats = room.recipe, f"{room.title} · {name}", guests(room)
    _draw_with(studio, system.lora or recipe.generator.lora)
    for seat, image in zip(seats, rollouts.pictures(base, "image", range(len(seats))), strict=True):
        seat.shown_image = seat.base_image = image
    answers = [Answer(seat, Reply("", (), seat.caption), seat.base_image) for seat in seats]
    for hop in range(system.hops):
        replies = _replies(recipe, system, seats, hop) if system.guided else [[answer.reply] for answer in answers]
        answers = _rendered(room, studio, title, seats, replies)
        for seat, answer in zip(seats, answers, strict=False):
            if answer.reply.prompt:
                seat.shown_prompt, seat.shown_image = answer.reply.prompt, answer.image
    _write(studio, _best(studio, answers) if system.best_of > 1 else answers, folder)


def _draw_with(studio: Studio, lora: Repo | None) -> None:
    """Give the studio the generator with this LoRA, in the place of the one it has: there is room for one."""
    if studio.drawn_with != lora:
        studio.environment = None
        free()
        studio.environment = open_environment(dataclasses.replace(studio.recipe.generator, lora=lora))
        studio.drawn_with = lora


def _rendered(room: Room, studio: Studio, title: str, seats: list[Seat], replies: list[list[Reply]]) -> list[Answer]:
    """Every reply's picture; where it does not parse, that of the prompt that the guider was shown."""
    flat = [(seat, reply) for seat, row in zip(seats, replies, strict=True) for reply in row]
    task = room.progress.task(f"{title} · render", total=len(flat))
    images = studio.render(
        [reply.prompt or seat.shown_prompt for seat, reply in flat], [seat.image_seed for seat, _ in flat],
        lambda n: room.progress.advance(task, n),
    )  # fmt: skip
    return [Answer(dataclasses.replace(seat), reply, image) for (seat, reply), image in zip(flat, images, strict=True)]


def _replies(recipe: EvaluateRecipe, system: System, seats: list[Seat], hop: int) -> list[list[Reply]]:
    """One reply a seat at the recipe's temperature; best-of-n draws n at temperature 1, where they differ more."""
    guider = open_guider(dataclasses.replace(recipe.guider, adapter=system.adapter))
    alone = system.best_of == 1
    seed = derive(recipe.seed, recipe.objective, "evaluate", "guided" if alone else "best-of") + hop
    temperatures = [recipe.temperature if alone else 1.0] * system.best_of
    with needing("guider.batch_size", recipe.guider.batch_size):
        return guider.reply([seat.task(recipe.objective) for seat in seats], temperatures, seed)


def _best(studio: Studio, answers: list[Answer]) -> list[Answer]:
    """Of each seat's answers the one with the highest reward: best-of-n is chosen by the very reward it is judged by."""
    scores = studio.rewards.score([a.image for a in answers], [_brief(a) for a in answers])
    best: dict[str, tuple[float, Answer]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer.seat.seed_id not in best or score["total"] > best[answer.seat.seed_id][0]:
            best[answer.seat.seed_id] = score["total"], answer
    return [answer for _, answer in best.values()]


def _brief(answer: Answer) -> Brief:
    return answer.seat.brief(answer.reply.prompt or answer.seat.shown_prompt)


def _write(studio: Studio, answers: list[Answer], folder: Path) -> None:
    images, captions = [a.image for a in answers], [a.seat.caption for a in answers]
    scores = studio.rewards.score(images, [_brief(a) for a in answers])
    measures = studio.measure(images, captions)
    # of one picture a caption there is nothing to tell
    spread = [{"diversity": d} if studio.recipe.noise_seeds > 1 else {} for d in watch.diversity(captions, images)]
    rows = [
        {
            "seed_id": a.seat.seed_id, "base_caption": a.seat.caption, "prompt": a.reply.prompt or a.seat.shown_prompt,
            "plan": list(a.reply.plan), "parsed": a.reply.prompt is not None, "image": a.image,
            "image_seed": a.seat.image_seed, "scores": json.dumps(score | measure | apart),
        }
        for a, score, measure, apart in zip(answers, scores, measures, spread, strict=True)
    ]  # fmt: skip
    keys = ("seed_id", "base_caption", "prompt", "plan", "parsed", "image", "image_seed")
    rollouts.write(rows, {key: rollouts.ROLLOUT[key] for key in keys} | {"scores": rollouts.ROLLOUT["rewards"]}, folder)


def _tell(room: Room, folder: Path) -> None:
    """Tables of one objective as plain data, see ``spro_hf.report``."""
    recipe: EvaluateRecipe = room.recipe
    rows = {name: rollouts.read_told(room.folder / "systems" / name) for name in recipe.systems}
    columns: dict[str, dict[str, list[float]]] = {}
    for name, found in rows.items():
        scores = [json.loads(row["scores"]) for row in found]
        columns[name] = {key: [s[key] for s in scores] for key in scores[0]}
    objective, base = recipe.objective, columns["base"]
    # pictures of one caption are not independent: means and errors are taken over captions
    names = [row["seed_id"].rpartition("/")[0] for row in rows["base"]]
    means = {n: {m: group_means(names, values) for m, values in found.items()} for n, found in columns.items()}
    table = [
        {"objective": objective, "system": name, "metric": metric} | mean_se(values)
        for name, metrics in means.items()
        for metric, values in metrics.items()
    ]
    changes = [
        {"objective": objective, "system": name, "metric": metric} | paired_change(values, means["base"][metric])
        for name, metrics in means.items()
        if name != "base"
        for metric, values in metrics.items()
    ]
    gains = []
    for name, metrics in means.items():
        if name != "base":
            proxy, truth = relative_gain(metrics["total"], means["base"]["total"]), {"gain": None, "se": None}
            if "planted" in base:
                truth = relative_gain(metrics["planted"], means["base"]["planted"])
            gains.append(
                {"objective": objective, "system": name, "proxy": proxy["gain"], "proxy_se": proxy["se"],
                 "planted": truth["gain"], "planted_se": truth["se"], "n": proxy["n"]}
            )  # fmt: skip
    against = [
        {"objective": objective, "metric": metric, "system": name, "against": other}
        | win_rate(columns[name][metric], columns[other][metric])
        for metric in ("total", *recipe.judges, *(["planted"] if "planted" in base else []))
        for other in ("base", *recipe.rivals)
        if other in columns
        for name in columns
        if name not in ("base", other)
    ]
    played = [
        row
        for repo in recipe.rollouts
        for row in rollouts.read_told(pull(repo.repo, "dataset", repo.revision, rollouts.wanted))
    ]
    told = {
        "objective": objective, "reward": recipe.reward, "judges": list(recipe.judges), "systems": list(rows),
        "seed_ids": [row["seed_id"] for row in rows["base"]],
        "unparsed": {name: sum(not row["parsed"] for row in found) for name, found in rows.items()},
        "table": table, "changes": changes, "gains": gains, "win_rates": against,
        "strategies": [{"objective": objective} | s for s in strategies(played)],
        "costs": _costs(recipe, gains, means),
        "samples": _samples(room, rows, folder),
        "unknown_words": seeds.unknown_words([r["base_caption"] for r in rows["base"]]) if recipe.oracle else [],
    }  # fmt: skip
    (folder / "told.json").write_text(json.dumps(told, indent=1))


def _costs(
    recipe: EvaluateRecipe, gains: list[dict[str, Any]], means: dict[str, dict[str, list[float]]]
) -> list[dict[str, Any]]:
    """What each system learned by policy gradient took to train, beside what it gained and how far captions are obeyed."""
    found = []
    for name, system in recipe.systems.items():
        if not system.lora:
            continue
        file = pull(system.lora.repo, "model", system.lora.revision) / "training.json"
        if not file.exists():
            continue  # SPRO-Image: it learns from pictures that were drawn before
        told = json.loads(file.read_text())
        gain = next(g for g in gains if g["system"] == name)
        reward = {"reward": mean_se(means[name]["total"])["mean"], "base": mean_se(means["base"]["total"])["mean"]}
        alignment = {"mean": None, "se": None}
        if "alignment" in means[name]:
            told_of = paired_change(means[name]["alignment"], means["base"]["alignment"])
            alignment = {"mean": told_of["change"], "se": told_of["se"]}
        found.append(
            {key: told[key] for key in ("method", "steps", "pictures", "calls", "seconds", "cpu_seconds", "processes")}
            | {key: gain[key] for key in ("objective", "system", "proxy", "proxy_se", "planted", "planted_se")}
            | reward | {"alignment": alignment["mean"], "alignment_se": alignment["se"]}
        )  # fmt: skip
    return found


def _samples(room: Room, rows: dict[str, list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    """Pictures of the first seeds under every system, saved beside the numbers."""
    recipe: EvaluateRecipe = room.recipe
    (folder / "samples").mkdir()
    told = []
    for i in range(0, min(len(rows["base"]), SAMPLES * recipe.noise_seeds), recipe.noise_seeds):
        first = rows["base"][i]
        systems = {}
        for name, found in rows.items():
            file = f"samples/{recipe.objective}-{i}-{name.replace(' ', '-')}.png"
            next(rollouts.pictures(room.folder / "systems" / name, "image", [i])).save(folder / file)
            systems[name] = {"prompt": found[i]["prompt"], "plan": found[i]["plan"], "image": file,
                             "scores": json.loads(found[i]["scores"])}  # fmt: skip
        told.append({"objective": recipe.objective, "seed_id": first["seed_id"], "caption": first["base_caption"],
                     "image_seed": first["image_seed"], "systems": systems})  # fmt: skip
    return told
