"""The studio: renders replies, scores them, and says of each how like its base picture it is and what it truly shows."""

from __future__ import annotations

import copy
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from PIL import Image

from spro_hf import parallel, rewards
from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.lora import load_lora, switched
from spro_hf.guider.guider import Guider, Task
from spro_hf.guider.instructions import Reply
from spro_hf.hub.artifacts import pull
from spro_hf.models import locate, pinned
from spro_hf.parts import Guider as GuiderSpec
from spro_hf.report.progress import Progress
from spro_hf.schema import Generator, Recipe, Select
from spro_hf.selection import Candidate, select
from spro_hf.tiny.oracle import Oracle, subject_kept
from spro_hf.tiny.planted import planted
from spro_hf.tiny.world import alignment, read


@dataclass
class Seat:
    """One seed at the table: its caption, and the prompt and picture that the guider is shown this round."""

    seed_id: str
    caption: str
    shown_prompt: str
    shown_image: Image.Image | None
    base_image: Image.Image | None = None
    base_total: float = 0.0
    image_seed: int = 0

    def task(self, objective: str) -> Task:
        """What the guider is asked."""
        return Task(self.shown_image, self.shown_prompt, objective)


def open_guider(spec: GuiderSpec, adapter: str | None = None) -> Guider:
    """The guider of a recipe with the adapter it names, or with the one in the folder ``adapter``."""
    if adapter is None and spec.adapter:
        adapter = str(pull(spec.adapter.repo, "model", spec.adapter.revision))
    return Guider.load(
        locate(spec.id, spec.revision), adapter=adapter, style=spec.style, reasoning=spec.reasoning,
        word_limit=spec.word_limit, max_new_tokens=spec.max_new_tokens, batch_size=spec.batch_size,
    )  # fmt: skip


def open_environment(spec: Generator, lora: str | None = None) -> Environment:
    """The generator of a recipe with the LoRA it names, or with the one in the folder ``lora``."""
    pipe = load_generator(spec.id, spec.revision, parallel.device(), spec.dtype, spec.scheduler)
    if lora is None and spec.lora:
        lora = str(pull(spec.lora.repo, "model", spec.lora.revision))
    if lora:
        load_lora(pipe, lora)
    return Environment(pipe, spec.call, spec.batch_size)


class Studio:
    """An environment, the scorers, the similarity model and, on the embedded world, its oracle.

    ``lora`` names the LoRA that the environment's generator carries, as repo@commit, for the rows.
    """

    def __init__(
        self, recipe: Recipe, environment: Environment, filter_by: Select | None = None, lora: str | None = None
    ):
        self.recipe, self.environment, self.filter_by, self.lora = recipe, environment, filter_by, lora
        with redirect_stdout(io.StringIO()):  # the Hub's mixin prints a line for every model that it loads
            self.rewards = rewards.load(recipe.scorers, recipe.reward)
            self.oracle = Oracle.load() if recipe.oracle else None
        self.similarity = rewards.Similarity(filter_by.similarity, filter_by.similarity_revision) if filter_by else None
        self.names = self._names(lora)

    def at(self, environment: Environment, lora: str | None = None) -> Studio:
        """The same scorers over another generator."""
        other = copy.copy(self)
        other.environment, other.lora, other.names = environment, lora, self._names(lora)
        return other

    def _names(self, lora: str | None) -> dict[str, str]:
        recipe = self.recipe
        return {
            "generator": pinned(recipe.generator.id, recipe.generator.revision) + (f" + {lora}" if lora else ""),
            "scorers": json.dumps({n: pinned(s["id"], s.get("revision")) for n, s in recipe.scorers.items()}),
        }

    def prepare(self, seats: list[Seat], progress: Progress, title: str) -> None:
        """Render and score every seat's base caption under its image seed; a first-time guest is shown that picture.

        Base pictures come from the plain generator, without its LoRA: the likeness of a candidate is measured against
        where its seed began, so that co-evolution cannot drift away in small steps.
        """
        task = progress.task(f"{title} · base pictures", total=len(seats))
        with switched(self.environment.pipe, self.lora is None):
            images = self.environment.render(
                [s.caption for s in seats], [s.image_seed for s in seats], lambda n: progress.advance(task, n)
            )
        scores = self.rewards.score(images, [s.caption for s in seats])
        for seat, image, score in zip(seats, images, scores, strict=True):
            seat.base_image, seat.base_total = image, score["total"]
            seat.shown_image = seat.shown_image or image

    def judge(
        self, asked: list[tuple[Seat, int, Reply]], progress: Progress | None = None, title: str = ""
    ) -> list[dict[str, Any]]:
        """Render and score replies: one row of a rollout per (seat, candidate number, reply), parsed or not.

        A reply that does not parse gets a row without a picture and without a score.
        """
        good = [i for i, (_, _, reply) in enumerate(asked) if reply.prompt is not None]
        keys = [(asked[i][2].prompt, asked[i][0].image_seed) for i in good]
        distinct = list(dict.fromkeys(keys))
        task = progress.task(f"{title} · render", total=len(distinct)) if progress else None
        advance = (lambda n: progress.advance(task, n)) if progress else None
        drawn = dict(
            zip(
                distinct,
                self.environment.render([k[0] for k in distinct], [k[1] for k in distinct], advance),
                strict=True,
            )
        )
        images = [drawn[key] for key in keys]
        seats = [asked[i][0] for i in good]
        scores = self.rewards.score(images, [s.caption for s in seats]) if images else []
        alike = (
            self.similarity(images, [s.base_image for s in seats]) if images and self.similarity else [1.0] * len(good)
        )
        truths = self.measure(images, [s.caption for s in seats])
        rows = [self._row(*entry) for entry in asked]
        for i, image, score, similar, measures in zip(good, images, scores, alike, truths, strict=True):
            rows[i] |= {
                "image": image, "total": score.pop("total"), "rewards": json.dumps(score), "similarity": similar,
                "measures": json.dumps(measures), "why": "",
            }  # fmt: skip
        return rows

    def measure(self, images: list[Image.Image], captions: list[str]) -> list[dict[str, float]]:
        """What the oracle sees: the planted truth of the objective, the alignment with the caption, subject kept."""
        if self.oracle is None or not images:
            return [{} for _ in images]
        requests = [read(c) for c in captions]
        return [
            {
                "planted": planted(self.recipe.objective, truth, request),
                "alignment": alignment(request, truth),
                "subject": float(subject_kept(request, truth)),
            }
            for truth, request in zip(self.oracle.read(images), requests, strict=True)
        ]

    def choose(self, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Filter and pair a round's rows in place (``kept`` and ``why``); returns (winner, loser) rows."""
        candidates = [
            Candidate(i, r["seed_id"], r["total"], r["base_total"], r["similarity"])
            for i, r in enumerate(rows)
            if r["parsed"]
        ]
        pairs, why = select(candidates, self.filter_by.min_similarity, self.filter_by.gain)
        for i, reason in why.items():
            rows[i] |= {"why": reason, "kept": not reason}
        return [(rows[p.winner.row], rows[p.loser.row]) for p in pairs]

    def _row(self, seat: Seat, candidate: int, reply: Reply) -> dict[str, Any]:
        return {
            "seed_id": seat.seed_id, "objective": self.recipe.objective, "candidate": candidate,
            "base_caption": seat.caption, "caption_in": seat.shown_prompt, "image_in": seat.shown_image,
            "reply": reply.text, "plan": list(reply.plan), "parsed": reply.prompt is not None,
            "problem": reply.problem or "", "prompt": reply.prompt or "", "image": None, "image_base": seat.base_image,
            "image_seed": seat.image_seed, "rewards": "{}", "total": None, "base_total": seat.base_total,
            "similarity": None, "measures": "{}", "kept": False, "why": reply.problem or "", **self.names,
        }  # fmt: skip
