"""Measure a machine: a small batch of each kind of work with a recipe's own models, through the functions of its stages.

Adapters and LoRAs that earlier stages make are left out: they hardly change how long a pass takes. What is timed comes behind
a first time that is not, in which memory is laid out and kernels are chosen; TRL's training alone is timed as it comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL.Image import Image

from spro_hf import seeds
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.finetune import Draws, finetune
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.policy import improve, plan
from spro_hf.guider import learn
from spro_hf.guider.guider import Guider, Task
from spro_hf.plan.counts import BATCH
from spro_hf.plan.hours import Throughput
from spro_hf.rewards import Brief
from spro_hf.schema import EvaluateRecipe, ImageRecipe, PromptRecipe, Recipe, ReferencesRecipe, ReinforceRecipe
from spro_hf.stages.image import learner_of
from spro_hf.stages.studio import Studio, open_environment, open_guider

CAPTION = "a dog and two children play with a red ball on the grass of a park, picture"  # for data sets of the Hub
UPDATES = 3  # of TRL's training


def measure(stages: list[Recipe]) -> list[Throughput]:
    """The rates of each stage; stages that do the same work with the same models are measured once."""
    found: dict[str, Throughput] = {}
    for stage in stages:
        if _work(stage) not in found:
            print(f"measuring {stage.objective} · {stage.stage}", file=sys.stderr, flush=True)
            found[_work(stage)] = rates = _measured(stage)
            for name, value in vars(rates).items():
                if value is not None:
                    print(f"  {name.replace('_', ' ')}: {value:,.3g}", file=sys.stderr, flush=True)
    return [found[_work(stage)] for stage in stages]


def _work(recipe: Recipe) -> str:
    """What the rates of a stage depend on, as text."""
    parts = ("guider", "learn", "finetune", "policy", "select", "prompts", "rounds", "systems")
    bare = {name: getattr(recipe, name, None) for name in parts}
    if bare["guider"]:
        bare["guider"] = replace(bare["guider"], adapter=None)
    if bare["systems"]:
        bare["systems"] = any(system.guided for system in recipe.systems.values())
    return repr((recipe.stage, replace(recipe.generator, lora=None), recipe.scorers, bare))


def _measured(recipe: Recipe) -> Throughput:
    environment = open_environment(replace(recipe.generator, lora=None))
    captions = _captions(recipe, environment.batch_size)
    if isinstance(recipe, ReinforceRecipe):
        return _reinforce(recipe, environment, captions)
    if isinstance(recipe, ReferencesRecipe):
        noise = list(range(len(captions)))
        return Throughput(images_per_second=len(captions) / _seconds(lambda: environment.render(captions, noise)))
    rates, pictures = {}, environment.render(captions[:1], [0])
    guided = isinstance(recipe, PromptRecipe) and recipe.rounds > 0
    if isinstance(recipe, EvaluateRecipe):
        guided = any(system.guided for system in recipe.systems.values())
    if guided or isinstance(recipe, EvaluateRecipe) or getattr(recipe, "prompts", None):
        rates["images_per_second"], pictures = _draw(recipe, environment, captions)
    if guided:
        rates |= _guider(recipe, pictures)
    if isinstance(recipe, ImageRecipe) or (guided and hasattr(recipe, "finetune")):
        rates["generator_samples_per_second"] = _finetune(recipe, environment, captions[: len(pictures)], pictures)
    return Throughput(**rates)


def _captions(recipe: Recipe, count: int) -> list[str]:
    """So many captions, no two alike: a prompt is encoded once."""
    given = getattr(recipe, "seeds", None)
    if given is None or given.hub:
        return [f"{CAPTION} {i}" for i in range(count)]
    found = [seed.caption for seed in seeds.load(replace(given, count=count), recipe.seed)]
    return [caption if caption not in found[:i] else f"{caption} {i}" for i, caption in enumerate(found)]


def _seconds(work: Callable[[], object]) -> float:
    """How long the second time takes."""
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _draw(recipe: Recipe, environment: Environment, captions: list[str]) -> tuple[float, list[Image]]:
    """Pictures a second, drawn and scored in one batch; and the pictures."""
    studio = Studio(recipe, environment, getattr(recipe, "select", None))
    drawn: list[Image] = []

    def work() -> None:
        drawn[:] = environment.render(captions, list(range(len(captions))))
        studio.rewards.score(drawn, [Brief(c, c, image) for c, image in zip(captions, drawn, strict=True)])
        if studio.similarity:
            studio.similarity(drawn, drawn)

    return len(captions) / _seconds(work), drawn


def _guider(recipe: PromptRecipe | EvaluateRecipe, pictures: list[Image]) -> dict[str, float]:
    """Tokens that the guider writes in a second, how many a reply has, and what it learns from in a second."""
    guider = open_guider(replace(recipe.guider, adapter=None))
    rows = recipe.guider.batch_size
    captions = _captions(recipe, rows)
    tasks = [Task(pictures[i % len(pictures)], captions[i], recipe.objective) for i in range(rows)]
    texts: list[str] = []

    def work() -> None:
        texts[:] = [reply.text for (reply,) in guider.reply(tasks, [1.0], 0)]

    seconds = _seconds(work)
    tokens = sum(len(guider.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts)
    found = {"tokens_per_second": tokens / seconds, "tokens_per_reply": tokens / len(texts)}
    if isinstance(recipe, PromptRecipe):
        found["guider_samples_per_second"] = _learn(recipe, guider, tasks, texts)
    return found


def _learn(recipe: PromptRecipe, guider: Guider, tasks: list[Task], texts: list[str]) -> float:
    """Pairs, examples or replies that TRL's trainer goes through in a second."""
    method, lora = recipe.learn.method, recipe.learn.lora and asdict(recipe.learn.lora)
    batch = recipe.learn.trainer.get("per_device_train_batch_size", BATCH)
    count = batch * recipe.learn.trainer.get("gradient_accumulation_steps", 1) * UPDATES
    settings = recipe.learn.trainer | {"max_steps": UPDATES}
    said = [text or CAPTION for text in texts]  # where the reply is empty there is nothing to learn
    chosen = [(tasks[i % len(tasks)], said[i % len(said)], said[(i + 1) % len(said)]) for i in range(count)]
    with TemporaryDirectory() as folder:
        where = (settings, Path(folder), 0, lora)
        if method == "sft":
            told = learn.learn_sft(guider, [(task, reply) for task, reply, _ in chosen], *where)
        elif method == "dpo":
            told = learn.learn_dpo(guider, [learn.Pair(*row) for row in chosen], *where)
        else:  # what its replies are worth does not matter here, but they must differ
            told = learn.learn_grpo(
                guider, [row[0] for row in chosen], lambda t, r: [float(i) for i in range(len(r))], *where
            )
    return count / told["train_runtime"]


def _finetune(recipe: ImageRecipe, environment: Environment, captions: list[str], pictures: list[Image]) -> float:
    """Pictures that fine-tuning learns from in a second."""
    settings = recipe.finetune
    learner = learner_of(recipe, environment, 0)
    x0 = learner.environment.encode(pictures).cpu()

    def work() -> None:
        draws = Draws(x0, learner.environment, settings.batch_size, 0, settings.caption_dropout)
        finetune(learner, captions, x0, draws, range(1), settings.accumulation)

    return settings.batch_size / _seconds(work)


def _reinforce(recipe: ReinforceRecipe, environment: Environment, captions: list[str]) -> Throughput:
    """Pictures recorded and scored, and steps of pictures learned from, in a second."""
    policy, rewards = recipe.policy, Studio(recipe, environment).rewards
    learner = Learner(
        environment, lora=policy.lora and vars(policy.lora), lr=policy.lr, seed=0, warmup=policy.warmup, ema=policy.ema,
        ema_every=policy.ema_every, checkpointing=policy.gradient_checkpointing,
    )  # fmt: skip
    play, learned = plan(policy, environment.steps, 0)
    played = []

    def draw() -> None:
        pictures, trajectory = environment.record(captions, list(range(len(captions))), play)
        rewards.score(pictures, [Brief(c, c, image) for c, image in zip(captions, pictures, strict=True)])
        played[:] = [trajectory]

    drawing = _seconds(draw)
    rows = list(range(min(policy.batch_size, len(captions))))
    worth = 1.0 - 2.0 * (torch.arange(len(rows)) % 2)
    start, trajectory = learner.copy() if policy.kl else {}, played[0][rows]
    learning = _seconds(lambda: improve(learner, start, trajectory, worth, [rows], policy, learned))
    return Throughput(
        images_per_second=len(captions) / drawing, generator_samples_per_second=len(rows) * len(learned) / learning
    )
