"""What a stage holds in memory at once, by device: weights, what is trained, and an estimate of what passes need.

A stage is a row of phases, and the one that needs most tells. In each are the weights that its code holds then, those that
are about to be let go included. Training holds in AdamW of torch and of TRL: of a LoRA, which is float32 whatever the model
is, 16 bytes a parameter (value, gradient, two moments); of a whole model four times its own type, its weights counted; and
of both what is looked back at: a frozen copy, an average.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from spro_hf.plan import passes
from spro_hf.plan.counts import Counts
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

CARDS = {
    12: 12,
    16: 16,
    24: 24,
    40: 40,
    48: 48,
    80: 80,
    141: 139,
}  # what common accelerators are called by, and their GiB
MARGIN = 1.1
# What of a scorer is a tower that others share; an adversary's PickScore is a copy of its own.
TOWERS = {"pickscore": "id", "clip": "id", "clip_iqa": "id", "similarity": "id", "aesthetic": "backbone",
          "engagement": "backbone"}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """Weights: the recipe's field that names them, on which device, how many bytes; None if their size is not known."""

    field: str
    device: str
    bytes: int | None


@dataclass
class Phase:
    """What is held at one time: weights, and what is trained and what passes need, in bytes by device."""

    name: str
    weights: list[Held]
    training: dict[str, int] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)

    def on(self, device: str) -> dict[str, int]:
        """The bytes on a device, by kind."""
        weights = sum(held.bytes or 0 for held in self.weights if held.device == device)
        return {"weights": weights, "training": self.training.get(device, 0), "passes": self.passes.get(device, 0)}


def card(need: int) -> int | None:
    """The smallest common accelerator, in gigabytes, that holds so many bytes with a margin; None if none does."""
    return next((name for name, size in CARDS.items() if need * MARGIN <= size << 30), None)


def peaks(recipe: Recipe, sizes: dict[str, Size | None], counts: Counts) -> dict[str, dict[str, Any]]:
    """The phase that needs most on each device: its name, bytes by kind, and their sum; a bound from below if not all is
    ``known``."""
    stage, found = phases(recipe, sizes, counts), {}
    devices = [device for phase in stage for device in (*(held.device for held in phase.weights), *phase.passes)]
    for device in dict.fromkeys(devices):
        phase = max(stage, key=lambda phase: sum(phase.on(device).values()))
        kinds = phase.on(device)
        known = all(size is not None for size in sizes.values()) and passes.known(recipe, sizes)
        found[device] = {"phase": phase.name, **kinds, "total": sum(kinds.values()), "known": known}
    return found


def phases(recipe: Recipe, sizes: dict[str, Size | None], counts: Counts) -> list[Phase]:
    """The times of a stage between which its peak is sought."""
    generator, gpu = sizes["generator.id"], passes.GPU
    drawer = Held("generator.id", gpu, generator.bytes(recipe.generator.dtype) if generator else None)
    scorers = scoring(recipe, sizes)
    needs = {gpu: passes.drawing(recipe, generator, counts)}
    needs |= passes.pictures(recipe, generator) if counts.pictures.number else {}
    draws = Phase("draw", [drawer, *scorers], passes=needs)
    scores = Phase("score", [drawer, *scorers], passes=passes.seeing(recipe, sizes))
    if isinstance(recipe, ReferencesRecipe):
        return [draws]
    if isinstance(recipe, ReinforceRecipe):
        state, kept = learner(generator, recipe.policy, bool(recipe.policy.kl))
        needs = {gpu: passes.replaying(recipe, generator, counts)}
        found = [draws, scores, Phase("learn", draws.weights, {gpu: state}, needs)]
        draws.training = scores.training = {gpu: kept}
        return _opposed(recipe, sizes, found) if recipe.adversary else found
    if isinstance(recipe, ImageRecipe):
        held = scorers if recipe.prompts else []
        if not recipe.prompts:  # the card's pictures are scored after the generator was let go
            draws, scores = _shown(recipe, sizes, counts, [drawer], scorers)
        return [draws, scores, *tuning(recipe, generator, [drawer, *held], counts)]
    if isinstance(recipe, EvaluateRecipe):
        return _evaluate(recipe, sizes, counts, [draws, scores])
    return _prompt(recipe, sizes, counts, [draws, scores], drawer)


def _shown(
    recipe: Recipe, sizes: dict[str, Size | None], counts: Counts, drawers: list[Held], scorers: list[Held]
) -> list[Phase]:
    """A showcase of a stage that scores nothing else (``stages/showcase.py``): drawn one by one, scored by themselves."""
    few = replace(recipe, generator=replace(recipe.generator, batch_size=1))
    needs = {passes.GPU: passes.drawing(few, sizes["generator.id"], counts)}
    return [Phase("show", drawers, passes=needs), Phase("score", scorers, passes=passes.seeing(recipe, sizes))]


def _opposed(recipe: ReinforceRecipe, sizes: dict[str, Size | None], found: list[Phase]) -> list[Phase]:
    """With an adversary: between drawing and scoring it learns, what it learns and its moments are held all the time."""
    draws, *others = found
    spec, size = recipe.scorers[recipe.adversary.reward], passes.learner_of(recipe, sizes)
    device = passes.place(spec.get("device"))
    trained = 4 * size.about["adversary"]["parameters"] if size and "adversary" in size.about else 0
    own = trained if size and "kept" in size.about.get("adversary", {}) else 0  # else its values are of the weights
    for phase in found:
        phase.training = phase.training | {device: phase.training.get(device, 0) + own + 2 * trained}
    state = draws.training | {device: draws.training[device] + trained}
    seen = passes.seeing(recipe, sizes, recipe.adversary.reward).get(device, 0)
    needs = {device: max(passes.opposing(recipe, sizes), seen)}
    return [draws, Phase("adversary", draws.weights, state, needs), *others]


def _evaluate(recipe: EvaluateRecipe, sizes: dict[str, Size | None], counts: Counts, drawn: list[Phase]) -> list[Phase]:
    """One generator at a time; a guider is there only while it replies."""
    if recipe.guider is None:
        return drawn
    return [*drawn, _replies(recipe, sizes, counts, drawn[0].weights)]


def _replies(
    recipe: PromptRecipe | EvaluateRecipe, sizes: dict[str, Size | None], counts: Counts, others: list[Held]
) -> Phase:
    """The guider replies, with all else in place."""
    spec, guider = recipe.guider, sizes["guider.id"]
    at = passes.place(spec.device)
    writer = Held("guider.id", at, guider.bytes(spec.dtype) if guider else None)
    needs = passes.replying(recipe, sizes["generator.id"], guider, counts)
    return Phase("reply", [*others, writer], passes={at: needs})


def _prompt(
    recipe: PromptRecipe, sizes: dict[str, Size | None], counts: Counts, drawn: list[Phase], drawer: Held
) -> list[Phase]:
    """Self-play: generator, scorers and guider are there all the time."""
    guider, replies = sizes["guider.id"], _replies(recipe, sizes, counts, drawn[0].weights)
    everything, writer = replies.weights, replies.weights[-1]
    found = []
    if recipe.rounds:
        state, kept = lessons(recipe, guider)
        for phase in drawn:
            phase.weights = everything
        found = [*drawn, replies]
        for phase in found:
            phase.training = {writer.device: kept}
        needs = passes.teaching(recipe, guider, counts)
        found.append(Phase("learn", everything, {writer.device: state}, {writer.device: needs}))
    if isinstance(recipe, MultimodalRecipe):
        found += tuning(recipe, sizes["generator.id"], everything, counts) if recipe.rounds else []
        if not recipe.rounds:  # guider and generator draw for the card and are let go, then it is scored
            scorers = [held for held in drawn[0].weights if held != drawer]
            found = _shown(recipe, sizes, counts, [drawer, writer], scorers)
        found.append(Phase("publish", everything if recipe.rounds else [drawer, writer]))
    return found


def tuning(
    recipe: ImageRecipe | MultimodalRecipe, generator: Size | None, weights: list[Held], counts: Counts
) -> list[Phase]:
    """Fine-tuning on winners: their pictures are encoded in batches, then learned from in parts of a batch."""
    settings, gpu = recipe.finetune, passes.GPU
    state, kept = learner(generator, settings, False)
    part = ceil(settings.batch_size / settings.accumulation)
    needs = passes.learning(recipe, generator, part, settings.gradient_checkpointing, counts.samples.number)
    return [
        Phase("encode", weights, {gpu: kept}, {gpu: passes.encoding(recipe, generator)}),
        Phase("fine-tune", weights, {gpu: state}, {gpu: needs}),
    ]


def scoring(recipe: Recipe, sizes: dict[str, Size | None]) -> list[Held]:
    """The scorers' weights and the similarity model's; towers of one CLIP on one device and type share theirs."""
    found: dict[tuple, Held] = {}
    for name, spec in recipe.scorers.items():
        kind, dtype, device = spec.get("kind", name), spec.get("dtype", "float32"), passes.place(spec.get("device"))
        for key in ("id", "backbone"):
            if key in spec:
                where, size = f"scorers.{name}.{key}", sizes.get(f"scorers.{name}.{key}")
                tower = TOWERS.get(kind) == key
                revision = spec.get("revision" if key == "id" else "backbone_revision")
                same = (spec[key], revision, device, dtype) if tower else (where,)
                found.setdefault(same, Held(where, device, size.bytes(dtype) if size else None))
    if isinstance(recipe, PromptRecipe):
        size, by = sizes.get("select.similarity"), recipe.select
        held = Held("select.similarity", passes.GPU, size.bytes(by.similarity_dtype) if size else None)
        found.setdefault((by.similarity, by.similarity_revision, passes.GPU, by.similarity_dtype), held)
    return list(found.values())


def learner(generator: Size | None, settings: Any, start: bool) -> tuple[int, int]:
    """Bytes of a generator's training while it learns, and while it draws and its gradients are gone.

    ``start``: the weights that training began with are kept, for a KL. All is float32.
    """
    if generator is None:
        return 0, 0
    if settings.lora is None:
        trained, own = generator.parameters[generator.denoiser], 0  # its values are counted with the weights
    else:
        trained = own = generator.lora(settings.lora)
    average = trained if getattr(settings, "ema", None) else 0
    kept = own + 2 * trained + average + (trained if start else 0)
    return 4 * (kept + trained), 4 * kept


def lessons(recipe: PromptRecipe, guider: Size | None) -> tuple[int, int]:
    """Bytes of a guider's training while it learns, and of what is left of it while it replies: a LoRA's values."""
    if guider is None:
        return 0, 0
    method, trainer, own = recipe.learn.method, recipe.learn.trainer, BYTES[recipe.guider.dtype]
    eight = "8bit" in str(trainer.get("optim", ""))
    # DPO's reference is a copy of what learns; GRPO has one where it is held to it
    copied = method == "dpo" or (method == "grpo" and trainer.get("beta", 0.0) != 0.0)
    if recipe.learn.lora is None:
        return guider.numbers * (own + (2 if eight else 2 * own) + (own if copied else 0)), 0
    trained = guider.lora(recipe.learn.lora)
    return trained * (4 + 4 + (2 if eight else 8) + (4 if copied else 0)), 4 * trained
