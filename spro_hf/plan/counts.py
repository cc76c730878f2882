"""What a stage does, counted from its recipe: pictures, denoiser calls, guider tokens, training samples.

Every count is what the stage's code does, or a bound on it: replies may not parse, two may be alike, pairs are filtered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from spro_hf import seeds
from spro_hf.guider.instructions import instruction
from spro_hf.plan.sizes import Size, picture_tokens
from spro_hf.schema import (
    EvaluateRecipe,
    ImageRecipe,
    MultimodalRecipe,
    PromptRecipe,
    Recipe,
    ReferencesRecipe,
    ReinforceRecipe,
)

# Assumed, where nothing better is known without the network; the plan says so.
LETTERS = 3  # of a token: English has about four
TEMPLATE = 32  # tokens that a chat template writes around the conversation
CAPTION = 300  # letters of a data set's caption, and of each piece of a post
WORD = 2  # tokens of a word in the guider's own prompt
OWN = ("caption", "image", "prompt", "score")  # columns of a data set that are no context
# Fields of TRL's configurations where a recipe leaves them out; a test holds them against TRL.
EPOCHS, BATCH, GENERATIONS = 3, 8, 8
SHOWN = 8  # captions of a showcase, as in spro_hf.stages.showcase


@dataclass(frozen=True)
class Count:
    """So many: exactly, or at the most; None if it cannot be told."""

    number: int | None = 0
    exact: bool = True

    def __post_init__(self) -> None:
        if self.number == 0:  # at most none is none
            object.__setattr__(self, "exact", True)

    def __add__(self, other: Count) -> Count:
        if self.number is None or other.number is None:
            return Count(None, False)
        return Count(self.number + other.number, self.exact and other.exact)

    def __mul__(self, times: int | None) -> Count:
        if self.number == 0 or times == 0:
            return Count(0)
        if self.number is None or times is None:
            return Count(None, False)
        return Count(self.number * times, self.exact)

    @property
    def most(self) -> Count:
        """The same as a bound."""
        return Count(self.number, False)


NONE = Count()


@dataclass(frozen=True)
class Call:
    """A pipeline's call: its usual steps, and the argument that makes it ask its denoiser twice where it is above ``off``.

    ``negative``: only together with a negative prompt.
    """

    steps: int
    scale: str
    usual: float
    off: float = 1.0
    negative: bool = False


# As in diffusers, whose import takes seconds; a test holds them against its pipelines.
CALLS = {
    "StableDiffusionPipeline": Call(50, "guidance_scale", 7.5),
    "StableDiffusionXLPipeline": Call(50, "guidance_scale", 5.0),
    "StableDiffusion3Pipeline": Call(28, "guidance_scale", 7.0),
    "FluxPipeline": Call(28, "true_cfg_scale", 1.0, negative=True),
    "QwenImagePipeline": Call(50, "true_cfg_scale", 4.0, negative=True),
    "ZImagePipeline": Call(50, "guidance_scale", 5.0, off=0.0),
}


@dataclass(frozen=True)
class Counts:
    """A stage's counts.

    Attributes:
        pictures: drawn by the generator.
        scored: pictures that every scorer sees.
        drawing: denoiser calls of drawing; as ``Environment.calls`` counts, guidance asks twice.
        learning: denoiser calls of learning, with and without gradients.
        replies: of the guider; ``prompt`` and ``reply`` are the most tokens of one.
        lessons: samples that the guider learns from, passes over the data counted: pairs, examples or replies.
        samples: pictures (policy gradient: steps of pictures) that the generator learns from.
        updates: of the generator.
        references: pictures that are read for an adversary to compare with what is drawn.
        pairs: of a reference and a drawn picture, that the adversary learns from.
        shown: pictures drawn for the cards, which ``pictures`` does not count.
    """

    pictures: Count = NONE
    scored: Count = NONE
    drawing: Count = NONE
    learning: Count = NONE
    replies: Count = NONE
    prompt: int = 0
    reply: int = 0
    lessons: Count = NONE
    samples: Count = NONE
    updates: Count = NONE
    references: Count = NONE
    pairs: Count = NONE
    shown: Count = NONE

    @property
    def tokens(self) -> Count:
        """Read and written while the guider replies."""
        return (self.replies * (self.prompt + self.reply)).most

    @property
    def written(self) -> Count:
        """Written by the guider."""
        return (self.replies * self.reply).most


def steps(recipe: Recipe, size: Size | None) -> int | None:
    """How often the scheduler steps in one call."""
    call, about = recipe.generator.call, size.about if size else {}
    for name in ("timesteps", "sigmas"):
        if call.get(name) is not None:
            return len(call[name])
    known = CALLS.get(about.get("pipeline"))
    number = call.get("num_inference_steps", known.steps if known else about.get("steps"))
    if number is not None and recipe.generator.scheduler is None and about.get("scheduler") == "PNDMScheduler":
        return number + 1  # it takes its second step twice
    return number


def asked(recipe: Recipe, size: Size | None) -> Count:
    """How many latents the denoiser is asked about for one step of one picture."""
    call, known = recipe.generator.call, CALLS.get(size.about.get("pipeline") if size else None)
    if known is None:
        return Count(2, False)
    if call.get(known.scale, known.usual) <= known.off or (known.negative and call.get("negative_prompt") is None):
        return Count(1)
    if call.get("skip_guidance_layers"):
        return Count(3, False)
    return Count(2, not (call.get("cfg_truncation") or 1) < 1)


def picture(recipe: Recipe, size: Size | None) -> tuple[int, int] | None:
    """Height and width of the generator's pictures in pixels."""
    side, call = size.about.get("side") if size else None, recipe.generator.call
    found = call.get("height") or side, call.get("width") or side
    return found if all(found) else None


def count(recipe: Recipe, generator: Size | None, guider: Size | None, earlier: list[Recipe]) -> Counts:
    """Count a stage; ``earlier`` are the stages that run before it, whose rollouts it may read."""
    return replace(_work(recipe, generator, guider, earlier), shown=_shown(recipe))


def _work(recipe: Recipe, generator: Size | None, guider: Size | None, earlier: list[Recipe]) -> Counts:
    per_step, number = asked(recipe, generator), steps(recipe, generator)
    whole = per_step * number
    if isinstance(recipe, ReinforceRecipe):
        return _reinforce(recipe, per_step, number)
    if isinstance(recipe, ReferencesRecipe):
        pictures = _seeds(recipe) * recipe.per_caption
        return Counts(pictures=pictures, drawing=_times(whole, pictures))
    if isinstance(recipe, PromptRecipe):
        return _prompt(recipe, whole, generator, guider)
    if isinstance(recipe, ImageRecipe):
        return _image(recipe, whole, earlier)
    return _evaluate(recipe, whole, generator, guider)


def _shown(recipe: Recipe) -> Count:
    """As ``stages/showcase.py`` goes: the captions before anything is trained, and after for each version that is left."""
    if isinstance(recipe, ReferencesRecipe | EvaluateRecipe):
        return NONE
    versions = 1
    if isinstance(recipe, PromptRecipe):
        versions = 2 * recipe.rounds + 1 if isinstance(recipe, MultimodalRecipe) else recipe.rounds
    return Count(SHOWN * (1 + versions), False)


def _times(one: Count, many: Count) -> Count:
    """A count of counts."""
    found = one * many.number
    return Count(found.number, found.exact and many.exact)


def _seeds(recipe: Recipe) -> Count:
    return Count(recipe.seeds.count, not recipe.seeds.hub)  # a data set may have fewer


def _prompt(recipe: PromptRecipe, whole: Count, generator: Size | None, guider: Size | None) -> Counts:
    players, method, trainer = _seeds(recipe), recipe.learn.method, recipe.learn.trainer
    own = recipe.seeds.hub and "image" in recipe.seeds.columns
    base = NONE if own else players * recipe.rounds
    reply = recipe.guider.max_new_tokens
    if method == "grpo":
        group, passes = trainer.get("num_generations") or GENERATIONS, trainer.get("num_train_epochs", EPOCHS)
        each = _limited(trainer, math.ceil(players.number * group * passes))
        replies = Count(each, False) * recipe.rounds
        lessons = replies * trainer.get("num_iterations", 1)
        reply = trainer.get("max_completion_length") or reply
    else:
        replies = players * (len(recipe.temperatures) * recipe.rounds)
        each = _limited(trainer, math.ceil(players.number * trainer.get("num_train_epochs", EPOCHS)))
        lessons = Count(each, False) * recipe.rounds  # at most one pair of each seed
    pictures = base + replies.most
    found = Counts(
        pictures=pictures, scored=(players * recipe.rounds) + replies.most, drawing=_times(whole, pictures),
        replies=replies, lessons=lessons, prompt=prompt_tokens(recipe, generator, guider), reply=reply,
    )  # fmt: skip
    if not isinstance(recipe, MultimodalRecipe) or not recipe.rounds:
        return found
    tuned = _tuned(recipe, players.most, recipe.rounds)
    return Counts(**(vars(found) | tuned))


def _limited(trainer: dict[str, Any], samples: int) -> int:
    """Samples of a training that TRL may be told to end after ``max_steps``."""
    limit = trainer.get("max_steps", -1)
    if limit <= 0:
        return samples
    return limit * trainer.get("per_device_train_batch_size", BATCH) * trainer.get("gradient_accumulation_steps", 1)


def _tuned(recipe: ImageRecipe | MultimodalRecipe, winners: Count, times: int = 1) -> dict[str, Count]:
    """Fine-tuning on so many winners' pictures, ``times`` over; one denoiser call a sample, without guidance."""
    settings = recipe.finetune
    if settings.steps is not None:
        updates = Count(settings.steps)
    elif winners.number is None:
        updates = Count(None, False)
    else:
        captions = winners.number * (2 if settings.captions == "both" else 1)
        updates = Count(math.ceil(settings.epochs * captions / settings.batch_size), False)
    updates = updates * times
    samples = updates * settings.batch_size
    return {"updates": updates, "samples": samples, "learning": samples}


def _image(recipe: ImageRecipe, whole: Count, earlier: list[Recipe]) -> Counts:
    if recipe.prompts:
        drawn = Count(recipe.prompts.count, False)
        return Counts(pictures=drawn, scored=drawn, drawing=_times(whole, drawn), **_tuned(recipe, drawn))
    makers = {r.push["rollouts"]: r.seeds.count for r in earlier if isinstance(r, PromptRecipe)}
    known = [makers.get(repo.repo) for repo in recipe.rollouts]
    winners = Count(None if None in known else sum(known), False)
    return Counts(**_tuned(recipe, winners))


def _reinforce(recipe: ReinforceRecipe, per_step: Count, number: int | None) -> Counts:
    """As ``Game.step`` and ``improve`` go: groups in which all scored alike are passed over, so learning is a bound."""
    policy = recipe.policy
    pictures = Count(recipe.prompts * recipe.group * recipe.steps)
    learned = None
    if number is not None:
        first, last = policy.explored(number)
        learned = policy.window or last - first
        if policy.fraction is not None:
            learned = max(1, round(policy.fraction * (last - first)))
    samples = (pictures * learned).most
    guided = per_step if policy.guidance else Count(1)
    learning = _times(guided, samples) * (2 if policy.kl else 1)  # the means that the KL holds on to
    if not policy.guidance:
        learning = learning + samples  # the log-probabilities without guidance
    return Counts(
        pictures=pictures, scored=pictures, drawing=_times(per_step * number, pictures), learning=learning.most,
        samples=samples, updates=Count(recipe.steps * policy.updates, False), **_adversary(recipe),
    )  # fmt: skip


def _adversary(recipe: ReinforceRecipe) -> dict[str, Count]:
    """As ``Opponent.meet`` goes: at the first training step and at the last of every turn all of its pictures meet a
    reference each, and a number of these pairs is learned from. With "references_lower" that may not be."""
    spec, size = recipe.adversary, recipe.prompts * recipe.group
    if spec is None:
        return {}
    every = spec.generator_steps
    turns = recipe.steps // every + (every > 1)
    met = size * max(1, recipe.steps - recipe.steps % every)
    surely = spec.when == "always" and (every == 1 or spec.batch_size <= size)  # the first turn is one step
    return {"references": Count(met), "pairs": Count(turns * spec.head_steps * spec.batch_size, surely)}


def _evaluate(recipe: EvaluateRecipe, whole: Count, generator: Size | None, guider: Size | None) -> Counts:
    guests = _seeds(recipe) * recipe.noise_seeds
    pictures, scored, replies = guests, guests + guests, NONE  # the base pictures, scored when drawn and when written
    for name, system in recipe.systems.items():
        if name != "base":
            drawn = guests * (system.best_of * system.hops)
            pictures, scored = pictures + drawn, scored + guests
            scored = scored + (guests * system.best_of if system.best_of > 1 else NONE)
            replies = replies + (drawn if system.guided else NONE)
    found = Counts(pictures=pictures, scored=scored, drawing=_times(whole, pictures), replies=replies)
    if not recipe.guider:
        return found
    prompt = prompt_tokens(recipe, generator, guider)
    return Counts(**(vars(found) | {"prompt": prompt, "reply": recipe.guider.max_new_tokens}))


def prompt_tokens(recipe: PromptRecipe | EvaluateRecipe, generator: Size | None, guider: Size | None) -> int:
    """Tokens of the longest prompt that the guider reads, its picture counted: an estimate, see the numbers assumed."""
    spec, given, assumed = recipe.guider, recipe.seeds, "x" * CAPTION
    longest = assumed if given.hub else max((s.caption for s in seeds.load(given, recipe.seed)), key=len)
    rule = guider.about.get("picture", {"tokens": 0}) if guider else {"tokens": 0}
    context = {name: assumed for name in given.columns if name not in OWN}
    sees = rule != {"tokens": 0}
    text = instruction(spec.style, recipe.objective, longest, spec.reasoning, spec.word_limit, context, sees)
    words = spec.max_new_tokens if spec.word_limit is None else min(spec.max_new_tokens, WORD * spec.word_limit)
    again = max(0, words - math.ceil(len(longest) / LETTERS))  # later it reads its own prompt in the caption's place
    pixels = picture(recipe, generator) or (0, 0)
    return math.ceil(len(text) / LETTERS) + TEMPLATE + again + picture_tokens(rule, *pixels)
