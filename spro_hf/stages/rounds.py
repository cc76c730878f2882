"""One round of self-play: propose, render, score, filter, pair, learn. Shared by SPRO-Prompt and by co-evolution."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from spro_hf import rollouts, seeds
from spro_hf.errors import UserError
from spro_hf.guider import learn
from spro_hf.guider.guider import Guider, Task
from spro_hf.schema import PromptRecipe
from spro_hf.stages.room import Room
from spro_hf.stages.studio import Seat, Studio
from spro_hf.statistics import mean_se
from spro_hf.steps import derive

Rows = list[dict[str, Any]]


def seat_all(recipe: PromptRecipe) -> list[Seat]:
    """The seats of a recipe's seeds; in the first round each guider sees the base caption and its picture."""
    return [Seat(s.seed_id, s.caption, s.caption, None) for s in seeds.load(recipe.seeds, recipe.seed)]


def play(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, guider_name: str) -> Path:
    """Play round ``number`` with the seats as they are: returns the step's folder with ``rollouts`` and ``guider``.

    The guider learns within: it is changed in place and saved. The reference of DPO is the guider as it came in.
    """
    recipe, title = room.recipe, f"{room.title} · round {number}"

    def make(folder: Path) -> None:
        for seat in seats:
            seat.image_seed = derive(recipe.seed, recipe.objective, seat.seed_id, "round", number)
        studio.prepare(seats, room.progress, title)
        told: dict[str, Any] = {}
        if recipe.learn.method == "grpo":
            rows, told = _grpo(room, number, seats, studio, guider, folder / "training", title)
            pairs = studio.choose(rows)
        else:
            rows = _propose(room, number, seats, studio, guider, title)
            pairs = studio.choose(rows)
            told = _learn_from(room, number, seats, pairs, guider, folder / "training", title)
        for row in rows:
            row |= {"round": number, "guider": guider_name}
        guider.save(folder / "guider")
        rollouts.write(rows, rollouts.ROLLOUT, folder / "rollouts")
        rollouts.write([_preference(room, guider, *pair) for pair in pairs], rollouts.PAIR, folder / "pairs")
        (folder / "account.json").write_text(json.dumps(account(rows, len(pairs)) | {"training": told}, indent=1))

    return room.do(f"round-{number}", make)


def _propose(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, title: str) -> Rows:
    recipe = room.recipe
    task = room.progress.task(f"{title} · propose", total=len(seats) * len(recipe.temperatures))
    replies = guider.reply(
        [seat.task(recipe.objective) for seat in seats],
        list(recipe.temperatures),
        derive(recipe.seed, recipe.objective, "replies", number),
        lambda n: room.progress.advance(task, n),
    )
    asked = [(seat, i, reply) for seat, row in zip(seats, replies, strict=True) for i, reply in enumerate(row)]
    return studio.judge(asked, room.progress, title)


def _learn_from(room: Room, number: int, seats: list[Seat], pairs: list, guider: Guider, folder: Path, title: str):
    recipe = room.recipe
    if not pairs:
        raise UserError(
            f"{title}: no pair is left to learn from; lower select.min_similarity, choose another select.gain, or give "
            "more seeds."
        )
    tasks = {seat.seed_id: seat.task(recipe.objective) for seat in seats}
    seed = derive(recipe.seed, recipe.objective, "learn", number)
    lora = dataclasses.asdict(recipe.learn.lora)
    room.progress.say(f"{title} · {recipe.learn.method} on {len(pairs)} pairs")
    if recipe.learn.method == "sft":
        examples = [(tasks[w["seed_id"]], w["reply"]) for w, _ in pairs]
        return learn.learn_sft(guider, examples, recipe.learn.trainer, folder, seed, lora)
    lessons = [learn.Pair(tasks[w["seed_id"]], w["reply"], loser["reply"]) for w, loser in pairs]
    return learn.learn_dpo(guider, lessons, recipe.learn.trainer, folder, seed, lora)


def _grpo(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, folder: Path, title: str):
    """GRPO draws its own replies: the studio sits inside its reward function, and all that it drew is the rollout."""
    recipe, rows = room.recipe, []
    tasks = [seat.task(recipe.objective) for seat in seats]
    drawn: Counter[str] = Counter()
    at = {id(task): seat for task, seat in zip(tasks, seats, strict=True)}

    def reward(tasks: list[Task], replies: list) -> list[float]:
        asked = []
        for task, reply in zip(tasks, replies, strict=True):
            seat = at[id(task)]
            asked.append((seat, drawn[seat.seed_id], reply))
            drawn[seat.seed_id] += 1
        new = studio.judge(asked)
        rows.extend(new)
        floor = recipe.select.min_similarity
        return [
            row["total"] if row["parsed"] and row["similarity"] >= floor else recipe.learn.unparsed_reward
            for row in new
        ]

    lora = dataclasses.asdict(recipe.learn.lora)
    room.progress.say(f"{title} · grpo on {len(seats)} seeds")
    seed = derive(recipe.seed, recipe.objective, "learn", number)
    return rows, learn.learn_grpo(guider, tasks, reward, recipe.learn.trainer, folder, seed, lora)


def advance_seats(seats: list[Seat], rows: Rows, carry: float) -> None:
    """The next round sees the last round's prompt and picture: of each seed, its best candidate that kept its likeness.

    The first ``carry`` (a share) of the seats go on so, the others begin again from their base caption.

    A seed whose candidates were all dropped is shown again what it was shown before. The paper does not say which
    candidate goes on.
    """
    best: dict[str, dict[str, Any]] = {}
    before = {row["seed_id"]: row for row in rows}
    for row in rows:
        if row["parsed"] and not row["why"].startswith("similarity"):
            held = best.get(row["seed_id"])
            if held is None or row["total"] > held["total"]:
                best[row["seed_id"]] = row
    for i, seat in enumerate(seats):
        if i >= carry * len(seats):
            seat.shown_prompt, seat.shown_image = seat.caption, None
        elif seat.seed_id in best:
            seat.shown_prompt, seat.shown_image = best[seat.seed_id]["prompt"], best[seat.seed_id]["image"]
        elif seat.seed_id in before:  # from the row, not from the seat: a resumed run has no other memory
            seat.shown_prompt, seat.shown_image = before[seat.seed_id]["caption_in"], before[seat.seed_id]["image_in"]
        else:  # GRPO did not draw it
            seat.shown_prompt, seat.shown_image = seat.caption, None


def account(rows: Rows, pairs: int) -> dict[str, Any]:
    """What became of a round's replies, counted, and the means that the report draws as curves."""
    parsed = [row for row in rows if row["parsed"]]
    measures = [json.loads(row["measures"]) for row in parsed]
    curves = {"base": mean_se([row["base_total"] for row in rows])}
    if parsed:
        curves["total"] = mean_se([row["total"] for row in parsed])
    for name in measures[0] if measures else ():
        curves[name] = mean_se([m[name] for m in measures])
    return {
        "replies": len(rows),
        "unparsed": len(rows) - len(parsed),
        "problems": dict(Counter(row["problem"] for row in rows if not row["parsed"])),
        "too_similar_or_far": sum(row["why"].startswith("similarity") for row in rows),
        "kept_pairs": pairs,
        "curves": curves,
    }


def _preference(room: Room, guider: Guider, winner: dict, loser: dict) -> dict[str, Any]:
    task = Task(winner["image_in"], winner["caption_in"], room.recipe.objective)
    return {
        "seed_id": winner["seed_id"], "objective": winner["objective"], "prompt": guider.messages(task),
        "images": [winner["image_in"]], "chosen": [{"role": "assistant", "content": winner["reply"]}],
        "rejected": [{"role": "assistant", "content": loser["reply"]}], "image_chosen": winner["image"],
        "image_rejected": loser["image"], "score_chosen": winner["total"], "score_rejected": loser["total"],
        "base_caption": winner["base_caption"], "image_seed": winner["image_seed"],
    }  # fmt: skip
