"""The studio: renders replies, scores them, and says of each how like its base picture it is and what it truly shows."""

from __future__ import annotations

import copy
import io
import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf import parallel, rewards, watch
from spro_hf.diffusion.environment import INDEX, Environment, load_generator
from spro_hf.diffusion.lora import load_lora, switched
from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, Task
from spro_hf.guider.instructions import Reply
from spro_hf.hub.artifacts import pull
from spro_hf.memory import needing
from spro_hf.models import pinned
from spro_hf.parts import Generator, Select
from spro_hf.parts import Guider as GuiderSpec
from spro_hf.report.progress import Progress
from spro_hf.rewards import Brief
from spro_hf.rollouts import pictures
from spro_hf.schema import Recipe
from spro_hf.selection import Candidate, select
from spro_hf.strict import nearest
from spro_hf.tiny.oracle import Oracle, subject_kept
from spro_hf.tiny.planted import planted
from spro_hf.tiny.world import MODIFIERS, alignment, read


@dataclass
class Seat:
    """One seed at the table: its caption, and the prompt and picture that the guider is shown this round.

    ``own_image`` reads the base picture of a seed set that has pictures. ``shown_at`` says where the picture to be shown
    lies, as folder, column and row of the last round's rollouts; without it that is the base picture.
    """

    seed_id: str
    caption: str
    shown_prompt: str
    shown_image: Image.Image | None
    base_image: Image.Image | None = None
    base_scores: dict[str, float] = field(default_factory=lambda: {"total": 0.0})
    image_seed: int = 0
    context: Mapping[str, str] = field(default_factory=dict)
    own_image: Callable[[], Image.Image] | None = None
    shown_at: tuple[Path, str, int] | None = None

    def task(self, objective: str) -> Task:
        """What the guider is asked."""
        return Task(self.shown_image, self.shown_prompt, objective, self.context)

    def brief(self, prompt: str = "") -> Brief:
        """What the rewards are told of a picture drawn for this seed."""
        return Brief(self.caption, prompt, self.base_image, self.context)

    def forget_pictures(self) -> None:
        """Give the memory of its pictures back; they are read or drawn again when they are needed."""
        self.shown_image = self.base_image = None


def open_guider(spec: GuiderSpec, trained: str | None = None) -> Guider:
    """The guider of a recipe as its ``adapter`` has it, or as the folder ``trained`` has it."""
    if trained is None and spec.adapter:
        trained = str(pull(spec.adapter.repo, "model", spec.adapter.revision))
    with needing("guider.id", spec.id):
        return Guider.load(
            spec.id, spec.revision, adapter=trained, device=spec.device, dtype=spec.dtype, style=spec.style,
            reasoning=spec.reasoning, word_limit=spec.word_limit, max_new_tokens=spec.max_new_tokens,
            batch_size=spec.batch_size, backend=spec.backend,
        )  # fmt: skip


def open_environment(spec: Generator, trained: str | None = None) -> Environment:
    """The generator of a recipe as its ``lora`` has it, or as the folder ``trained`` has it: a LoRA, or a whole pipeline."""
    if trained is None and spec.lora:
        trained = str(pull(spec.lora.repo, "model", spec.lora.revision))
    whole = trained is not None and (Path(trained) / INDEX).is_file()
    id, revision = (trained, None) if whole else (spec.id, spec.revision)
    with needing("generator.id", spec.id):
        pipe = load_generator(id, revision, parallel.device(), spec.dtype, spec.scheduler)
        if trained and not whole:
            load_lora(pipe, trained)
    return Environment(pipe, spec.call, spec.batch_size)


class Studio:
    """An environment, the scorers, the similarity model and, on the embedded world, its oracle.

    ``lora`` names the LoRA that the environment's generator carries, as repo@commit, for the rows. Without an environment
    it only scores.
    """

    def __init__(
        self,
        recipe: Recipe,
        environment: Environment | None = None,
        filter_by: Select | None = None,
        lora: str | None = None,
    ):
        self.recipe, self.environment, self.filter_by, self.lora = recipe, environment, filter_by, lora
        with redirect_stdout(io.StringIO()):  # the Hub's mixin prints a line for every model that it loads
            self.rewards = rewards.load(recipe.scorers, recipe.reward)
            self.oracle = Oracle.load() if recipe.oracle else None
        for name in recipe.style:
            if name not in MODIFIERS:
                raise UserError(f"style: '{name}' is no modifier of the embedded world; {nearest(name, MODIFIERS)}")
        self.similarity = None
        if by := filter_by:
            self.similarity = rewards.Similarity(by.similarity, by.similarity_revision, by.similarity_dtype)
        self.names = self._names(lora)
        self.drawn_with = recipe.generator.lora

    def at(self, environment: Environment, lora: str | None = None) -> Studio:
        """The same scorers over another generator."""
        other = copy.copy(self)
        other.environment, other.lora, other.names = environment, lora, self._names(lora)
        return other

    def _names(self, lora: str | None) -> dict[str, str]:
        recipe = self.recipe
        return {
            "generator": pinned(recipe.generator.id, recipe.generator.revision) + (f" + {lora}" if lora else ""),
            "scorers": json.dumps(
                {n: pinned(s["id"], s.get("revision")) if "id" in s else n for n, s in recipe.scorers.items()}
            ),
        }

    def prepare(self, seats: list[Seat], progress: Progress, title: str) -> None:
        """Give every seat its base picture, scored, and the picture that the guider is to be shown.

        The base picture is the seed set's own, or is drawn from the base caption under the seat's image seed by the plain
        generator, without its LoRA: the likeness of a candidate is measured against where its seed began, so that
        co-evolution cannot drift away in small steps.
        """
        drawn = [seat for seat in seats if seat.own_image is None]
        task = progress.task(f"{title} · base pictures", total=len(seats))
        with switched(self.environment.pipe, self.lora is None):
            images = self.render(
                [s.caption for s in drawn], [s.image_seed for s in drawn], lambda n: progress.advance(task, n)
            )
        for seat, image in zip(drawn, images, strict=True):
            seat.base_image = image
        for seat in seats:
            if seat.own_image is not None:
                seat.base_image = seat.own_image()
                progress.advance(task)
        scores = self.rewards.score([s.base_image for s in seats], [s.brief() for s in seats])
        for seat, score in zip(seats, scores, strict=True):
            seat.base_scores = score
        places = sorted({seat.shown_at[:2] for seat in seats if seat.shown_at})
        for folder, column in places:
            some = [seat for seat in seats if seat.shown_at and seat.shown_at[:2] == (folder, column)]
            for seat, image in zip(some, pictures(folder, column, [s.shown_at[2] for s in some]), strict=True):
                seat.shown_image = image
        for seat in seats:
            seat.shown_image = seat.shown_image or seat.base_image

    def render(
        self, prompts: list[str], seeds: list[int], advance: Callable[[int], None] | None = None
    ) -> list[Image.Image]:
        """The environment's pictures of prompts, one for each seed."""
        with needing("generator.batch_size", self.environment.batch_size):
            return self.environment.render(prompts, seeds, advance)

    def judge(
        self, asked: list[tuple[Seat, int, Reply]], progress: Progress | None = None, title: str = ""
    ) -> list[dict[str, Any]]:
        """Render and score replies: one row of a rollout per (seat, candidate number, reply), parsed or not.

        A reply that does not parse gets a row without a picture and without a score. To the measures of a picture that has
        others of its seed beside it comes its distance to them, ``diversity``.
        """
        good = [i for i, (_, _, reply) in enumerate(asked) if reply.prompt is not None]
        keys = [(asked[i][2].prompt, asked[i][0].image_seed) for i in good]
        distinct = list(dict.fromkeys(keys))
        task = progress.task(f"{title} · render", total=len(distinct)) if progress else None
        advance = (lambda n: progress.advance(task, n)) if progress else None
        drawn = dict(
            zip(
                distinct,
                self.render([k[0] for k in distinct], [k[1] for k in distinct], advance),
                strict=True,
            )
        )
        images = [drawn[key] for key in keys]
        seats = [asked[i][0] for i in good]
        briefs = [asked[i][0].brief(asked[i][2].prompt) for i in good]
        scores = self.rewards.score(images, briefs) if images else []
        alike = (
            self.similarity(images, [s.base_image for s in seats]) if images and self.similarity else [1.0] * len(good)
        )
        measured = self.measure(images, [s.caption for s in seats])
        names = [s.seed_id for s in seats]
        together = Counter(names)
        apart = [
            {"diversity": d} if together[name] > 1 else {}
            for name, d in zip(names, watch.diversity(names, images), strict=True)
        ]
        rows = [self._row(*entry) for entry in asked]
        for i, image, score, similar, measures in zip(
            good, images, scores, alike, map(operator.or_, measured, apart), strict=True
        ):
            rows[i] |= {
                "image": image, "total": score.pop("total"), "rewards": json.dumps(score), "similarity": similar,
                "measures": json.dumps(measures), "why": "",
            }  # fmt: skip
        return rows

    def measure(self, images: list[Image.Image], captions: list[str]) -> list[dict[str, float]]:
        """The saturation of each picture and, where there is an oracle, what it sees: the planted truth of the objective,
        the alignment with the caption, subject kept, and whether all of the recipe's style is shown.
        """
        style = frozenset(self.recipe.style)
        colours = [{"saturation": watch.saturation(image)} for image in images]
        if self.oracle is None or not images:
            return colours
        requests = [read(c) for c in captions]
        return [
            {
                "planted": planted(self.recipe.objective, truth, request),
                "alignment": alignment(request, truth),
                "subject": float(subject_kept(request, truth)),
            }
            | ({"style": float(style <= truth.modifiers)} if style else {})
            | colour
            for truth, request, colour in zip(self.oracle.read(images), requests, colours, strict=True)
        ]

    def choose(self, rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """Filter and pair a round's rows in place (``kept`` and ``why``); returns the row numbers of winners and losers."""
        candidates = []
        for i, row in enumerate(rows):
            if row["parsed"]:
                now, base = json.loads(row["rewards"]), json.loads(row["base_rewards"])
                gains = {name: now[name] - base[name] for name in now}
                candidates.append(
                    Candidate(i, row["seed_id"], row["total"], row["base_total"], row["similarity"], gains)
                )
        by = self.filter_by
        pairs, why = select(candidates, by.min_similarity, by.gain, by.improve, by.most)
        for i, reason in why.items():
            rows[i] |= {"why": reason, "kept": not reason}
        return [(p.winner.row, p.loser.row) for p in pairs]

    def _row(self, seat: Seat, candidate: int, reply: Reply) -> dict[str, Any]:
        # pictures that all candidates of a seed share stand in the first one's row: they are most of what a round takes
        shown, base = (seat.shown_image, seat.base_image) if candidate == 0 else (None, None)
        return {
            "seed_id": seat.seed_id, "objective": self.recipe.objective, "candidate": candidate,
            "base_caption": seat.caption, "context": json.dumps(dict(seat.context)),
            "caption_in": seat.shown_prompt, "image_in": shown,
            "reply": reply.text, "plan": list(reply.plan), "parsed": reply.prompt is not None,
            "problem": reply.problem or "", "prompt": reply.prompt or "", "image": None, "image_base": base,
            "image_seed": seat.image_seed, "rewards": "{}", "total": None, "base_total": seat.base_scores["total"],
            "base_rewards": json.dumps({k: v for k, v in seat.base_scores.items() if k != "total"}),
            "similarity": None, "measures": "{}", "kept": False, "why": reply.problem or "", **self.names,
        }  # fmt: skip
