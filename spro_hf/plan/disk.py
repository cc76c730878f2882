"""What a stage writes to the disk, at the most, and what it fetches.

A round's rows stand in parts until the round is over and then in its step; those of the newest round once more as they were
laid out for the Hub. A run with a local Hub holds all that is pushed there again, and later stages read it from its cache.
PNG is taken to save nothing, which is so for noise only.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from spro_hf.methods import Finetune, Policy
from spro_hf.plan.counts import Count, Counts, picture
from spro_hf.plan.passes import learner_of
from spro_hf.plan.sizes import BYTES, Size
from spro_hf.schema import (
    EvaluateRecipe,
    ImageRecipe,
    MultimodalRecipe,
    PromptRecipe,
    Recipe,
    ReferencesRecipe,
    ReinforceRecipe,
)

TEXT = 16 * 1024  # of a row beside its pictures: reply, prompt, scores, names; and a PNG's own words
SHARED = 2  # pictures of a seed: its base picture, and what the guider saw
PAIRED = 3  # pictures of a pair: what the guider saw, the winner's and the loser's
SAMPLES = 6  # as spro_hf.stages.evaluate shows


def fetched(sizes: dict[tuple[str, str | None], Size | None]) -> dict[str, Any]:
    """Bytes of all models together, by id and revision; a bound from below unless ``exact``, which the Hub's listing is."""
    found = list(sizes.values())
    exact = all(size is not None and size.exact for size in found)
    return {"bytes": sum(size.download for size in found if size is not None), "exact": exact}


def png(height: int, width: int) -> int:
    """The most bytes of a picture: its pixels, a byte each line, and the words around what could not be made smaller."""
    return height * (3 * width + 1) * 1001 // 1000


def written(recipe: Recipe, sizes: dict[str, Size | None], counts: Counts) -> dict[str, Count]:
    """Bytes in the run's folder: rows with their pictures, and trained weights with what is needed to go on."""
    generator, guider = sizes["generator.id"], sizes.get("guider.id")
    pixels = picture(recipe, generator)
    each = png(*pixels) if pixels else None
    if isinstance(recipe, EvaluateRecipe):
        shown = SAMPLES * len(recipe.systems) * 2
        kept = recipe.seeds.count * recipe.noise_seeds * len(recipe.systems)
        return {"rows": _bytes(kept, 1, each) + _bytes(shown, 1, each), "weights": Count(0)}
    if isinstance(recipe, ReferencesRecipe):  # as they were drawn, and laid out for the Hub
        return {"rows": _bytes(counts.pictures.number, 1, each) * 2, "weights": Count(0)}
    if isinstance(recipe, ReinforceRecipe):
        weights = _generator(generator, recipe.policy, Count(recipe.steps))
        return {"rows": Count(0), "weights": weights + _adversary(recipe, sizes)}
    if isinstance(recipe, ImageRecipe):
        drawn = counts.pictures.number if recipe.prompts else 0
        return {"rows": _bytes(drawn, 1, each), "weights": _generator(generator, recipe.finetune, counts.updates)}
    rounds, pairs = recipe.rounds, recipe.seeds.count
    rows = counts.replies.number // rounds if rounds else 0
    played = _bytes(rows, 1, each) + _bytes(recipe.seeds.count if rounds else 0, SHARED, each)
    told = (played + _bytes(pairs if rounds else 0, PAIRED, each)) * (
        rounds + 1
    ) + played  # one is laid out, one played
    weights = _guider(recipe, guider) * (rounds + 1)
    if isinstance(recipe, MultimodalRecipe):  # and both in the pipeline
        tuned = (
            _generator(generator, recipe.finetune, _divided(counts.updates, rounds)) * rounds if rounds else Count(0)
        )
        weights = weights + tuned + _generator(generator, recipe.finetune, Count(0))
    return {"rows": told, "weights": weights.most}


def _divided(count: Count, parts: int) -> Count:
    return Count(None if count.number is None else ceil(count.number / parts), count.exact)


def _bytes(rows: int, pictures: int, each: int | None) -> Count:
    return Count(0) if not rows else Count(None if each is None else rows * (pictures * each + TEXT), False)


def _guider(recipe: PromptRecipe, guider: Size | None) -> Count:
    """A guider as it is saved: its adapter in float32, or all of it as it is."""
    if guider is None:
        return Count(None, False)
    if recipe.learn.lora is None:
        return Count(guider.numbers * BYTES[recipe.guider.dtype])
    return Count(4 * guider.lora(recipe.learn.lora))


def _adversary(recipe: ReinforceRecipe, sizes: dict[str, Size | None]) -> Count:
    """What an adversary learned, in float32, beside each of the generator's blocks; values and two moments in the newest two."""
    if recipe.adversary is None:
        return Count(0)
    size = learner_of(recipe, sizes)
    trained = 4 * size.about["adversary"]["parameters"] if size and "adversary" in size.about else 0
    blocks = ceil(recipe.steps / recipe.policy.checkpoint_every)
    kept = blocks if recipe.policy.push_checkpoints else min(blocks, 2)
    return Count(trained * (kept + 1 + 3 * min(blocks, 2)), False)


def _generator(generator: Size | None, settings: Finetune | Policy, steps: Count) -> Count:
    """A generator's blocks, each with a LoRA or the whole pipeline, the last laid out once more; the newest two have also
    what is needed to go on: values, moments, an average."""
    if generator is None or steps.number is None:
        return Count(None, False)
    if settings.lora is None:
        trained, whole = generator.parameters[generator.denoiser], generator.numbers * BYTES["float32"]
    else:
        trained = generator.lora(settings.lora)
        whole = 4 * trained
    blocks = ceil(steps.number / settings.checkpoint_every)
    kept = blocks if getattr(settings, "push_checkpoints", False) else min(blocks, 2)
    state = 4 * trained * (4 if getattr(settings, "ema", None) else 3)
    return Count(whole * (kept + 1) + state * min(blocks, 2), False)
