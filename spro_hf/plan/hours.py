"""How long a stage takes, from rates that were measured. Without rates it is not known, and the plan says so."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from spro_hf.errors import UserError
from spro_hf.plan.counts import Count, Counts
from spro_hf.schema import PromptRecipe, Recipe
from spro_hf.strict import build, parse_yaml, write_yaml


@dataclass(frozen=True)
class Throughput:
    """What a machine does in a second with a stage's own models and settings.

    ``images_per_second`` are pictures drawn and scored; ``tokens_per_second`` those that the guider writes, reading its
    prompt included; ``guider_samples_per_second`` pairs, examples or, with GRPO, replies drawn and learned from;
    ``generator_samples_per_second`` pictures, or with policy gradient steps of pictures, learned from. ``tokens_per_reply``
    is how long replies are; without it they are taken to be as long as they may.
    """

    images_per_second: float | None = None
    tokens_per_second: float | None = None
    guider_samples_per_second: float | None = None
    generator_samples_per_second: float | None = None
    tokens_per_reply: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ValueError(f"'{field.name}' is {value:g}; give a rate above 0, or leave it out.")


def load(path: Path, stages: int) -> list[Throughput]:
    """Rates for each stage of a recipe: a mapping for all of them, or a list with one for each, as ``--calibrate`` writes."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the YAML file that --calibrate wrote.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(data, list):
        return [build(Throughput, data, path.name)] * stages
    if len(data) != stages:
        raise UserError(f"{path}: has rates for {len(data)} stages, but the recipe has {stages}; calibrate it again.")
    return [build(Throughput, one, f"{path.name}[{i}]") for i, one in enumerate(data)]


def given(images: float | None, tokens: float | None, guider: float | None, generator: float | None) -> Throughput:
    """Rates of the command line."""
    try:
        return Throughput(images, tokens, guider, generator)
    except ValueError as error:
        raise UserError(str(error)) from error


def save(path: Path, rates: list[Throughput]) -> None:
    """Write rates as ``load`` reads them."""
    told = [{name: value for name, value in vars(one).items() if value is not None} for one in rates]
    path.write_text(write_yaml(told))


def hours(recipe: Recipe, counts: Counts, rates: Throughput) -> dict[str, Any]:
    """Hours of one process, by what is done; None where a rate or a count is missing, and then of the whole too."""
    replies = Count(0) if _draws_as_it_learns(recipe) else counts.replies  # GRPO's rate has both
    length = rates.tokens_per_reply or counts.reply
    tokens = None if replies.number is None else replies.number * length
    parts = {
        "draw": _hours(counts.pictures.number, rates.images_per_second),
        "reply": _hours(tokens, rates.tokens_per_second),
        "guider learns": _hours(counts.lessons.number, rates.guider_samples_per_second),
        "generator learns": _hours(counts.samples.number, rates.generator_samples_per_second),
    }
    return {**parts, "total": None if None in parts.values() else sum(parts.values())}


def _draws_as_it_learns(recipe: Recipe) -> bool:
    return isinstance(recipe, PromptRecipe) and recipe.learn.method == "grpo"


def _hours(many: float | None, rate: float | None) -> float | None:
    if many == 0:
        return 0.0
    return None if many is None or rate is None else many / rate / 3600
