"""How small a recipe is made to run in seconds, and what must have run before it: nothing but counts and sizes change."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from spro_hf import recipe as recipes_of
from spro_hf import run
from spro_hf.schema import (
    EvaluateRecipe,
    ImageRecipe,
    MultimodalRecipe,
    PromptRecipe,
    Recipe,
    ReferencesRecipe,
    ReinforceRecipe,
)
from spro_hf.strict import parse_yaml

SIDE = 32  # pixels
STEPS = 2  # of denoising, and of every training
TOKENS = 64  # of a reply
SIZES = {"accumulation", "batch_size", "best_of", "checkpoint_every", "count", "ema_every", "epochs", "generator_steps",
         "group", "head_steps", "height",
         "max_completion_length", "max_new_tokens", "max_steps", "noise_seeds", "num_generations", "num_inference_steps", "part",
         "per_caption", "per_device_train_batch_size", "prompts", "range", "size", "steps", "temperatures", "width",
         "window"}  # fmt: skip
Where = tuple[str, str, str]  # repository, kind, tag


def is_list(file: Path) -> bool:
    """Whether a recipe only runs others; not so, if it is no YAML at all."""
    try:
        return "recipes" in parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return False


def limits(file: Path) -> dict[str, Any]:
    """Changes by dotted key that make the one stage of ``file`` small."""
    (recipe,) = recipes_of.load(file)
    found = _generator(recipe)
    if isinstance(recipe, PromptRecipe):
        found |= _guider(recipe.guider.max_new_tokens) | _seeds(recipe, "seeds") | _learn(recipe)
        found["temperatures"] = [recipe.temperatures[0], recipe.temperatures[-1]]
        if recipe.select.improve or "engagenet" in recipe.reward:
            # many seeds leave no pair: winners must be better by every scorer, or scores are whole numbers, often equal
            found["seeds.count"] = 6
    if isinstance(recipe, ImageRecipe | MultimodalRecipe):
        found |= _finetune(recipe)
    if isinstance(recipe, ImageRecipe) and recipe.prompts:
        found |= _seeds(recipe, "prompts")
    if isinstance(recipe, ReinforceRecipe):
        found |= _reinforce(recipe)
    if isinstance(recipe, ReferencesRecipe):
        found |= _seeds(recipe, "seeds") | {"per_caption": min(2, recipe.per_caption), "part": 2}
    if isinstance(recipe, EvaluateRecipe):
        found |= _seeds(recipe, "seeds") | {"noise_seeds": 1}
        found |= _guider(recipe.guider.max_new_tokens) if recipe.guider else {}
        for name, system in recipe.systems.items():
            if system.best_of > 2:
                found[f"systems.{name}.best_of"] = 2
    return found


def _generator(recipe: Recipe) -> dict[str, Any]:
    steps = 3 if isinstance(recipe, ReinforceRecipe) else STEPS  # room for a window and for steps outside of it
    steps = min(steps, recipe.generator.call.get("num_inference_steps", steps))
    call = {"num_inference_steps": steps, "height": SIDE, "width": SIDE}
    return {f"generator.call.{name}": value for name, value in call.items()}


def _guider(tokens: int) -> dict[str, Any]:
    return {"guider.max_new_tokens": min(tokens, TOKENS)}


def _seeds(recipe: Recipe, name: str) -> dict[str, Any]:
    seeds = getattr(recipe, name)
    return {f"{name}.count": min(seeds.count, max(2, len(seeds.bands.shares) if seeds.bands else 0))}


def _learn(recipe: PromptRecipe) -> dict[str, Any]:
    """Two seeds leave so few examples that the recipe's own epochs are short; GRPO alone draws more for each of them."""
    if recipe.learn.method != "grpo":
        return {}
    found = {"max_steps": STEPS, "num_generations": 2, "per_device_train_batch_size": 2}
    if "max_completion_length" in recipe.learn.grpo:
        found["max_completion_length"] = min(TOKENS, recipe.learn.grpo["max_completion_length"])
    return {f"learn.grpo.{name}": value for name, value in found.items()}


def _finetune(recipe: ImageRecipe | MultimodalRecipe) -> dict[str, Any]:
    given = recipe.finetune
    found = {"batch_size": min(2, given.batch_size), "accumulation": min(2, given.accumulation)}
    found["steps" if given.steps else "epochs"] = STEPS
    found |= {"size": [SIDE, SIDE]} if given.size else {}
    return {f"finetune.{name}": value for name, value in found.items()}


def _reinforce(recipe: ReinforceRecipe) -> dict[str, Any]:
    found = _seeds(recipe, "seeds") | {"prompts": 2, "group": min(2, recipe.group), "steps": STEPS}
    policy, total = recipe.policy, 3
    first, last = 0, total - 1
    if policy.range:
        # the same steps, as far as there are so many; CPS does not explore the last
        last = min(policy.range[1], total - (policy.transition == "cps"))
        first = min(policy.range[0], last - 1)
        found["policy.range"] = [first, last]
    if policy.window:
        found["policy.window"] = max(1, min(policy.window, last - first - 1))
    if policy.push_checkpoints:
        found["policy.checkpoint_every"] = 1
    if recipe.adversary:  # two captions have a reference each, and two pairs are a batch
        found |= _seeds(recipe, "references")
        found |= {"adversary.head_steps": STEPS, "adversary.generator_steps": 1, "adversary.batch_size": 2}
    if policy.ema:
        found["policy.ema_every"] = 1  # the average is what is published
    return found


@dataclass(frozen=True)
class Job:
    """A recipe made small: what it reads, what it leaves."""

    file: Path
    changes: dict[str, Any]
    recipe: Recipe

    @property
    def reads(self) -> dict[str, Where]:
        return self.recipe.inputs

    @property
    def leaves(self) -> set[Where]:
        return run.outputs(self.recipe)


@cache
def job(file: Path) -> Job:
    """The job of the one stage of ``file``; a UserError if it does not parse."""
    changes = limits(file)
    (recipe,) = recipes_of.load(file, changes)
    return Job(file, changes, recipe)


def makers(jobs: Iterable[Job]) -> dict[Where, list[Job]]:
    """What recipes leave on the Hub, and which of them leaves it: one, if all is well."""
    found: dict[Where, list[Job]] = {}
    for job in jobs:
        for where in job.leaves:
            found.setdefault(where, []).append(job)
    return found


def lacking(job: Job, made: dict[Where, list[Job]], served: Container[tuple[str, str]]) -> str:
    """The sentence about an input that no recipe leaves, unless it is ``served`` (kind and id) as it is."""
    for what, (repo, kind, tag) in job.reads.items():
        if (repo, kind, tag) not in made and (kind, repo) not in served:
            return f"{job.file.name}: {what}: no recipe on disk leaves the {kind} {repo} at {tag}."
    return ""


def before(jobs: Iterable[Job], made: dict[Where, list[Job]]) -> dict[Path, set[Path]]:
    """The recipes whose artifacts a recipe reads, for those given and for all that stand before them."""
    found: dict[Path, set[Path]] = {}
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if job.file not in found:
            above = [m for where in job.reads.values() for m in made.get(where, []) if m.file != job.file]
            found[job.file] = {m.file for m in above}
            waiting += above
    return found
