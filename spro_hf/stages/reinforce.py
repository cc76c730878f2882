"""Policy gradient: the generator draws groups of pictures, and steps that led to the better ones become likelier."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spro_hf import parallel
from spro_hf.advantages import advantages
from spro_hf.diffusion.environment import Environment, denoiser_name
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.diffusion.player import Play, Trajectory
from spro_hf.diffusion.policy import improve, plan
from spro_hf.diffusion.schedule import family, noisy
from spro_hf.errors import UserError
from spro_hf.memory import free, needing
from spro_hf.rewards import Brief
from spro_hf.schema import ReinforceRecipe
from spro_hf.stages import publish
from spro_hf.stages.blocks import train_in_blocks
from spro_hf.stages.opponent import Opponent, remarks
from spro_hf.stages.room import Room
from spro_hf.stages.showcase import Showcase, seeds_of
from spro_hf.stages.studio import Studio, open_environment
from spro_hf.statistics import mean_se
from spro_hf.steps import derive
from spro_hf.watch import diversity


def run(room: Room) -> None:
    """Train for the recipe's steps; leaves the generator's LoRA under ``v1``, and by choice checkpoints.

    A reward that learns beside it is left under the same versions.
    """
    recipe: ReinforceRecipe = room.recipe
    environment = open_environment(recipe.generator)
    check(recipe, environment)
    policy, studio = recipe.policy, Studio(recipe, environment)
    show = Showcase(room, seeds_of(room))
    show.before(lambda: studio.environment)
    learner = Learner(
        environment, lora=policy.lora and vars(policy.lora), lr=policy.lr, warmup=policy.warmup, ema=policy.ema,
        ema_every=policy.ema_every, checkpointing=policy.gradient_checkpointing,
        seed=derive(recipe.seed, recipe.objective, "reinforce"),
    )  # fmt: skip
    game = Game(room, studio, learner)

    def left(step: int, folder: Path, rows: list[dict[str, Any]]) -> None:
        if step < recipe.steps and parallel.first():
            publish.reinforced(room, f"step-{step}", folder, rows, branch="checkpoints")

    told = left if policy.push_checkpoints else None
    folder, rows = train_in_blocks(room, "train", game, recipe.steps, policy.checkpoint_every, game.play, told)
    if game.opponent:  # as it was left, also where the training was finished before this process began
        game.opponent.restore(folder)
    del game, learner, environment  # there is room for one
    studio.environment = None
    free()
    show.draw("v1", lambda: open_environment(recipe.generator, str(folder / "generator")))
    shown = show.score("v1", lambda: studio)
    if parallel.first():
        publish.reinforced(room, "v1", folder, rows, shown)


def check(recipe: ReinforceRecipe, environment: Environment) -> None:
    """Raise a UserError, before anything is rendered, if the generator cannot be played as the recipe says."""
    pipe, transition = environment.pipe, recipe.policy.transition
    denoiser_name(pipe)
    for needed in ("encode_prompt", "prepare_latents", "scheduler"):
        if not hasattr(pipe, needed):
            raise UserError(
                f"generator: {type(pipe).__name__} has no {needed}, so it cannot be played; choose another pipeline."
            )
    kind = family(pipe.scheduler)
    if (kind == "ddim") != (transition == "ddim"):
        fits = "ddim" if kind == "ddim" else "flow_sde, cps or dance"
        raise UserError(
            f"policy: 'transition' is '{transition}', but {type(pipe.scheduler).__name__} is played with {fits}."
        )
    environment.require_replayable()
    try:
        first, last = recipe.policy.explored(environment.steps)
    except ValueError as error:
        raise UserError(f"policy: {error}") from error
    silent = [
        number
        for number in range(first, last)
        if kind == "ddim" and not noisy(pipe.scheduler, environment.steps, number)
    ]
    if silent:
        raise UserError(
            f"policy: step {silent[0]} of this generator's DDIM schedule has no noise to explore with (it comes from pure noise, "
            "or goes to none); leave it out of 'range'."
        )
    pictures = recipe.prompts * recipe.group
    if parallel.world() > pictures:
        raise UserError(
            f"There are {parallel.world()} processes and {pictures} pictures a step; start fewer processes."
        )


class Game:
    """The training steps of a reinforcement recipe. Everything random is derived from the recipe's seed and the step."""

    def __init__(self, room: Room, studio: Studio, learner: Learner):
        self.room, self.recipe, self.studio, self.learner = room, room.recipe, studio, learner
        # before anything is restored: the weights that the KL holds on to
        self.start = learner.copy() if self.recipe.policy.kl else {}
        found = room.seeds()
        self.captions = [s.caption for s in found]
        self.contexts = {s.caption: s.context for s in found}
        self.opponent = None
        if spec := self.recipe.adversary:
            reward, references = studio.rewards.parts[spec.reward], self.recipe.references
            self.opponent = Opponent(
                reward,
                spec,
                references,
                room.seeds("references"),
                self.captions,
                derive(self.recipe.seed, self.recipe.objective),
            )
            call = self.recipe.generator.call
            if call.get("width") and call.get("height"):
                self.opponent.sample((call["width"], call["height"]))
            self.captions = [self.captions[i] for i in self.opponent.playable(self.captions)]

    def save(self, folder: Path) -> None:
        """Write what has learned so far, and all that is needed to go on, to ``folder``."""
        self.learner.save(folder)
        if self.opponent and parallel.first():
            self.opponent.save(folder)

    def restore(self, folder: Path) -> None:
        """Go on from what ``save`` wrote."""
        self.learner.restore(folder)
        if self.opponent:
            self.opponent.restore(folder)

    def play(self, steps: range) -> list[dict[str, Any]]:
        """Train for ``steps``; tells of each how its pictures scored and what the update did."""
        task = self.room.progress.task(
            f"{self.recipe.objective} · {self.recipe.method} · steps {steps.start + 1} to {steps.stop}",
            total=len(steps),
        )
        rows = []
        # remembered for a block and no longer: a run that is continued encodes prompts in the same company again
        with remembered_prompts(self.learner.environment.pipe):
            for step in steps:
                rows.append(self.step(step))
                self.room.progress.advance(task)
        if all(row["skipped"] == self.recipe.prompts for row in rows):
            self.room.progress.say(
                f"{self.room.title}: nothing was learned in steps {steps.start + 1} to {steps.stop}; in every group all pictures "
                "scored alike. Raise policy.exploration, or choose another reward."
            )
        for remark in remarks(rows, self.recipe.adversary.reward) if self.recipe.adversary else []:
            self.room.progress.say(f"{self.room.title}: {remark}")
        return rows

    def step(self, step: int) -> dict[str, Any]:
        """Draw groups of pictures, let the adversary learn from them if it is its turn, score them, update."""
        recipe, policy, environment = self.recipe, self.recipe.policy, self.learner.environment
        began, asked = (time.monotonic(), time.process_time()), environment.calls
        play, learned = plan(policy, environment.steps, derive(recipe.seed, "steps", step))
        rows = parallel.share_of(recipe.prompts * recipe.group)
        briefs = [Brief(text, text, context=self.contexts[text]) for text in self.texts(step, rows)]
        trajectory, images = self.draw(step, rows, briefs, play)
        met = self.opponent.meet(step, images, briefs, rows) if self.opponent else {}
        scores = parallel.gather(self.scored(images, briefs))
        groups = torch.arange(len(scores)) // recipe.group
        total = torch.tensor([score["total"] for score in scores], dtype=torch.float64)
        worth = advantages(total, groups, policy.advantage, policy.advantage_clip)
        alive = [int(group) for group in groups.unique() if worth[groups == group].any()]
        told = {"norm": 0.0, "ratio": 0.0, "clipped": 0.0, "kl": 0.0}
        if alive:
            rows = torch.isin(groups, torch.tensor(alive)).nonzero().flatten().numpy()
            mixed = np.random.default_rng(derive(recipe.seed, "parts", step)).permutation(rows)
            parts = [sorted(map(int, part)) for part in np.array_split(mixed, policy.updates) if len(part)]
            with needing("policy.batch_size", policy.batch_size):
                told = improve(self.learner, self.start, trajectory, worth, parts, policy, learned)
        spent = parallel.gather([(environment.calls - asked, time.process_time() - began[1])])
        return {
            "step": step + 1, "pictures": len(scores), "skipped": recipe.prompts - len(alive), **told,
            "calls": sum(calls for calls, _ in spent), "seconds": time.monotonic() - began[0],
            "cpu_seconds": sum(cpu for _, cpu in spent),
            "scores": {
                name: mean_se([score[name] for score in scores if name in score])
                for name in dict.fromkeys(name for score in scores for name in score)
            },
        } | ({"adversary": met} if self.opponent else {})  # fmt: skip

    def draw(self, step: int, rows: range, briefs: list[Brief], play: Play) -> tuple[Trajectory, list[Image.Image]]:
        """This process's share of a step's pictures, recorded: a group of each caption, one behind the other."""
        group, environment, parts, images = self.recipe.group, self.learner.environment, [], []
        for at in range(0, len(rows), environment.batch_size):
            some = rows[at : at + environment.batch_size]
            noise = [self.noise(step, row) for row in some]
            shared = self.recipe.policy.shared_noise
            begin = [self.noise(step, row - row % group) for row in some] if shared else noise
            texts = [brief.prompt for brief in briefs[at : at + len(some)]]
            with needing("generator.batch_size", environment.batch_size):
                pictures, trajectory = environment.record(texts, begin, play, step_seeds=noise)
            parts.append(trajectory)
            images += pictures
        return Trajectory.join(parts), images

    def scored(self, images: list[Image.Image], briefs: list[Brief]) -> list[dict[str, float]]:
        """Of each picture every score and what it truly shows, with its distance to the others of its caption."""
        captions = [brief.caption for brief in briefs]
        alone = {caption for caption, count in Counter(captions).items() if count == 1}  # of a group that is cut in two
        measures, apart = self.studio.measure(images, captions), diversity(captions, images)
        scores = self.studio.rewards.score(images, briefs)
        rows = zip(scores, measures, apart, captions, strict=True)
        return [s | m | ({} if c in alone else {"diversity": d}) for s, m, d, c in rows]

    def texts(self, step: int, rows: range) -> list[str]:
        """The captions of some of a step's pictures."""
        chosen = self.chosen(step)
        return [chosen[row // self.recipe.group] for row in rows]

    def chosen(self, step: int) -> list[str]:
        """The captions of a training step: passes over all of them, each shuffled anew, run on from step to step."""
        count, size = len(self.captions), self.recipe.prompts
        places = range(step * size, (step + 1) * size)
        orders = {
            number: np.random.default_rng(derive(self.recipe.seed, "captions", number)).permutation(count)
            for number in {place // count for place in places}
        }
        return [self.captions[orders[place // count][place % count]] for place in places]

    def noise(self, step: int, row: int) -> int:
        """The seed of a picture's noise."""
        return derive(self.recipe.seed, self.recipe.objective, "reinforce", step, row)
