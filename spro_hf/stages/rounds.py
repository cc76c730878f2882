"""One round of self-play: propose, render, score, filter, pair, learn. Shared by SPRO-Prompt and by co-evolution.

A round is played in parts of ``recipe.part`` seeds. Each part is a finished step of the run, so that a round of days goes
on where it was, and pictures of more than a part are never in memory.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from spro_hf import parallel, rollouts, watch
from spro_hf.errors import UserError
from spro_hf.guider import learn
from spro_hf.guider.guider import Guider, Task
from spro_hf.memory import needing
from spro_hf.schema import PromptRecipe
from spro_hf.stages.room import Room
from spro_hf.stages.studio import Seat, Studio
from spro_hf.statistics import mean_se
from spro_hf.steps import derive

Rows = list[dict[str, Any]]


def seat_all(room: Room) -> list[Seat]:
    """The seats of a recipe's seeds; in the first round each guider sees the base caption and its picture."""
    return [Seat(s.seed_id, s.caption, s.caption, None, context=s.context, own_image=s.image) for s in room.seeds()]


def play(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, guider_name: str) -> Path:
    """Play round ``number`` with the seats as they are: returns the step's folder with ``rollouts`` and ``guider``.

    The guider learns within: it is changed in place and saved. The reference of DPO is the guider as it came in.
    """
    recipe, title = room.recipe, f"{room.title} · round {number}"
    for seat in seats:
        seat.image_seed = derive(recipe.seed, recipe.objective, seat.seed_id, "round", number)

    def make(folder: Path) -> None:
        training, told = folder / "training", None
        if recipe.learn.method == "grpo":
            played, told = _grpo(room, number, seats, studio, guider, training, title)
        else:
            played = _propose(room, number, seats, studio, guider, title)
        rows = [row for part in played for row in rollouts.read_told(part)]
        pairs = studio.choose(rows)
        for row in rows:
            row |= {"round": number, "guider": guider_name}
        if parallel.first():
            _settle(played, rows, folder / "rollouts")
        parallel.barrier()
        if told is None:
            told = _learn_from(room, number, rows, pairs, folder / "rollouts", guider, training, title)
        if parallel.first():
            guider.save(folder / "guider")
            told_pairs = _preferences(room, guider, rows, pairs, folder / "rollouts")
            rollouts.write_in_parts(told_pairs, rollouts.PAIR, folder / "pairs", recipe.part, len(pairs))
            told = account(rows, len(pairs), watch.judges(recipe)) | {"training": told}
            told |= {"sees": guider.sees, "template_words": guider.template_words}
            (folder / "account.json").write_text(json.dumps(told, indent=1))

    folder = room.do(f"round-{number}", make)
    if parallel.first():
        shutil.rmtree(
            room.folder / f"playing-{number}", ignore_errors=True
        )  # its rows stand in the round's rollouts now
    return folder


def _propose(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, title: str) -> list[Path]:
    """The round's candidates, a folder of rows for each part of the seats, of which each process plays its share."""
    recipe, parts = room.recipe, []
    starts = range(0, len(seats), recipe.part)
    for i, start in enumerate(starts):
        some = seats[start : start + recipe.part]
        said = title if len(starts) == 1 else f"{title} · part {i + 1} of {len(starts)}"

        def make(folder: Path, some: list[Seat] = some, i: int = i, said: str = said) -> None:
            share = parallel.share_of(len(some))
            some = some[share.start : share.stop]
            studio.prepare(some, room.progress, said)
            task = room.progress.task(f"{said} · propose", total=len(some) * len(recipe.temperatures))
            with needing("guider.batch_size", recipe.guider.batch_size):
                replies = guider.reply(
                    [seat.task(recipe.objective) for seat in some],
                    list(recipe.temperatures),
                    derive(recipe.seed, recipe.objective, "replies", number) + i * parallel.world() + parallel.rank(),
                    lambda n: room.progress.advance(task, n),
                )
            asked = [(seat, j, reply) for seat, row in zip(some, replies, strict=True) for j, reply in enumerate(row)]
            _write(studio.judge(asked, room.progress, said), folder)
            for seat in some:
                seat.forget_pictures()

        parts.append(room.do(f"playing-{number}/part-{i:05d}", make))
    return parts


def _write(rows: Rows, folder: Path) -> None:
    """Rows of a round that is not over: which are kept, and the round's own columns, come with ``_settle``."""
    rows = [row | {"round": 0, "guider": ""} for row in rows]
    rollouts.write(rows, rollouts.ROLLOUT, folder, parallel.rank(), parallel.world())


def _settle(played: list[Path], rows: Rows, folder: Path) -> None:
    """Write the round's rollouts: the parts' pictures with what was decided over all of them."""
    start, found = 0, [file for part in played for file in rollouts.files(part)]
    for i, file in enumerate(found):
        some = rows[start : start + rollouts.count(file)]
        start += len(some)
        values = {name: [row[name] for row in some] for name in ("kept", "why", "round", "guider")}
        rollouts.amend(file, i, len(found), values, folder)


def _learn_from(
    room: Room, number: int, rows: Rows, pairs: list, played: Path, guider: Guider, folder: Path, title: str
) -> dict[str, float]:
    recipe = room.recipe
    if not pairs:
        raise UserError(
            f"{title}: no pair is left to learn from ({_reasons(rows)}); lower select.min_similarity, choose another "
            "select.gain, or give more seeds."
        )
    seed = derive(recipe.seed, recipe.objective, "learn", number)
    lora = recipe.learn.lora and dataclasses.asdict(recipe.learn.lora)
    room.progress.say(f"{title} · {recipe.learn.method} on {len(pairs)} pairs")
    shown = rollouts.pictures(played, "image_in", _firsts(rows, pairs))
    tasks = (_task(recipe, rows[w], image) for (w, _), image in zip(pairs, shown, strict=True))  # one picture at a time
    with needing(f"learn.{recipe.learn.method}.per_device_train_batch_size"):
        if recipe.learn.method == "sft":
            examples = ((task, rows[w]["reply"]) for task, (w, _) in zip(tasks, pairs, strict=True))
            return learn.learn_sft(guider, examples, recipe.learn.trainer, folder, seed, lora)
        lessons = (
            learn.Pair(task, rows[w]["reply"], rows[loser]["reply"])
            for task, (w, loser) in zip(tasks, pairs, strict=True)
        )
        return learn.learn_dpo(guider, lessons, recipe.learn.trainer, folder, seed, lora)


def _firsts(rows: Rows, pairs: list[tuple[int, int]]) -> list[int]:
    """Of each pair the first row of its seed, which holds what all of the seed's candidates were asked with."""
    first = _first_rows(rows)
    return [first[rows[winner]["seed_id"]] for winner, _ in pairs]


def _first_rows(rows: Rows) -> dict[str, int]:
    return {row["seed_id"]: i for i, row in reversed(list(enumerate(rows))) if row["candidate"] == 0}


def _task(recipe: PromptRecipe, row: dict[str, Any], image: Image) -> Task:
    """What the guider was asked when it gave the row's reply."""
    return Task(image, row["caption_in"], recipe.objective, json.loads(row["context"]))


def _reasons(rows: Rows) -> str:
    counted = Counter(row["why"] or "kept" for row in rows)
    return ", ".join(f"{count} × {why}" for why, count in counted.most_common(3))


def _grpo(room: Room, number: int, seats: list[Seat], studio: Studio, guider: Guider, folder: Path, title: str):
    """GRPO draws its own replies: the studio sits inside its reward function, and all that it drew is the rollout."""
    recipe, rows = room.recipe, []
    studio.prepare(seats, room.progress, title)
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

    lora = recipe.learn.lora and dataclasses.asdict(recipe.learn.lora)
    room.progress.say(f"{title} · grpo on {len(seats)} seeds")
    seed = derive(recipe.seed, recipe.objective, "learn", number)
    with needing("learn.grpo.per_device_train_batch_size"):
        told = learn.learn_grpo(guider, tasks, reward, recipe.learn.trainer, folder, seed, lora)
    _write(rows, folder / "drawn")
    parallel.barrier()
    for seat in seats:
        seat.forget_pictures()
    return [folder / "drawn"], told


def advance_seats(seats: list[Seat], played: Path, carry: float) -> None:
    """The next round sees the last round's prompt and picture: of each seed, its best candidate that kept its likeness.

    The first ``carry`` (a share) of the seats go on so, the others begin again from their base caption.

    A seed whose candidates were all dropped is shown again what it was shown before. The paper does not say which
    candidate goes on. ``played`` is the folder of the last round's rollouts.
    """
    rows = rollouts.read_told(played)
    best: dict[str, int] = {}
    before = _first_rows(rows)
    for i, row in enumerate(rows):
        seed = row["seed_id"]
        if not row["parsed"] or row["why"].startswith("similarity"):
            continue
        if seed not in best or row["total"] > rows[best[seed]]["total"]:
            best[seed] = i
    for i, seat in enumerate(seats):
        seat.forget_pictures()
        seat.shown_prompt, seat.shown_at = seat.caption, None
        if i >= carry * len(seats):
            continue
        if seat.seed_id in best:
            row = best[seat.seed_id]
            seat.shown_prompt, seat.shown_at = rows[row]["prompt"], (played, "image", row)
        elif seat.seed_id in before:  # from the row, not from the seat: a resumed run has no other memory
            row = before[seat.seed_id]
            seat.shown_prompt, seat.shown_at = rows[row]["caption_in"], (played, "image_in", row)


def account(rows: Rows, pairs: int, judges: Sequence[str] = ()) -> dict[str, Any]:
    """What became of a round's replies, counted, and the means that the report draws as curves.

    These are of the reward, of the scorers ``judges``, and of all that was measured of a picture.
    """
    parsed = [row for row in rows if row["parsed"]]
    told = [json.loads(row["measures"]) for row in parsed]
    scores = [json.loads(row["rewards"]) for row in parsed] if judges else []
    curves = {"base": mean_se([row["base_total"] for row in rows])}
    if parsed:
        curves["total"] = mean_se([row["total"] for row in parsed])
    for name in dict.fromkeys(name for measures in told for name in measures):
        curves[name] = mean_se([measures[name] for measures in told if name in measures])  # of one alone no diversity
    for name in judges if parsed else ():
        curves[name] = mean_se([score[name] for score in scores])
    return {
        "replies": len(rows),
        "unparsed": len(rows) - len(parsed),
        "problems": dict(Counter(row["problem"] for row in rows if not row["parsed"])),
        "too_similar_or_far": sum(row["why"].startswith("similarity") for row in rows),
        "kept_pairs": pairs,
        "curves": curves,
    }


def _preferences(
    room: Room, guider: Guider, rows: Rows, pairs: list[tuple[int, int]], played: Path
) -> Iterator[dict[str, Any]]:
    """The round's pairs as TRL takes them, with their pictures, one by one."""
    winners, losers = [w for w, _ in pairs], [loser for _, loser in pairs]
    pictures = [("image_in", _firsts(rows, pairs)), ("image", winners), ("image", losers)]
    read = [rollouts.pictures(played, column, numbers) for column, numbers in pictures]
    for (w, loser), (shown, won, lost) in zip(pairs, zip(*read, strict=True), strict=True):
        winner, beaten = rows[w], rows[loser]
        task = _task(room.recipe, winner, shown)
        yield {
            "seed_id": winner["seed_id"], "objective": winner["objective"], "prompt": guider.messages(task),
            "images": [shown], "chosen": [{"role": "assistant", "content": winner["reply"]}],
            "rejected": [{"role": "assistant", "content": beaten["reply"]}], "image_chosen": won,
            "image_rejected": lost, "score_chosen": winner["total"], "score_rejected": beaten["total"],
            "base_caption": winner["base_caption"], "image_seed": winner["image_seed"],
        }  # fmt: skip
