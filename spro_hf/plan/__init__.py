"""What a run will cost before a GPU hour is spent: counts, sizes, memory, disk, hours, and what is pushed where.

Needs neither weights nor the network, and loads no torch: everything is told from the recipe, from files that are here and
from what was measured once of the models that the real recipes name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spro_hf import run
from spro_hf.plan import disk, hours, memory, passes
from spro_hf.plan.counts import CAPTION, Count, Counts, count, picture
from spro_hf.plan.hours import Throughput
from spro_hf.plan.sizes import Size, size
from spro_hf.schema import TOGETHER, Recipe

__all__ = ["Throughput", "hardware", "main", "plan", "summary"]
NO_WEIGHTS = (".processor", ".tokenizer")  # of the fields that name a model


def sizes_of(recipe: Recipe, hub: bool = False) -> dict[str, Size | None]:
    """What is known of each model whose weights are loaded, by the field that names it."""
    found = {}
    for field, id, revision in recipe.models:
        if not field.endswith(NO_WEIGHTS):
            spec = recipe.scorers[field.split(".")[1]] if field.startswith("scorers.") else {}
            found[field] = size(id, revision, spec.get("file") or spec.get("head"), hub)
    return found


def summary(
    recipe: Recipe, earlier: Sequence[Recipe] = (), rates: Throughput | None = None, hub: bool = False
) -> dict[str, Any]:
    """A stage as plain data; the same recipe gives the same, whatever the machine, unless the Hub is asked.

    A count is ``{"count": int or None, "exact": bool}``: a bound from above unless exact, None if it cannot be told.
    Bytes and tokens are whole numbers. ``memory`` is by device: the phase that needs most, what it holds, and the smallest
    common accelerator in gigabytes (``card``); bounds from below where not all is ``known``.

    Args:
        earlier: the stages of the same run before this one, whose rollouts it may read.
        rates: what the machine does in a second.
        hub: ask the Hub for the sizes of models that are not known.
    """
    sizes = sizes_of(recipe, hub)
    generator, guider = sizes["generator.id"], sizes.get("guider.id")
    counts = count(recipe, generator, guider, list(earlier))
    peaks = memory.peaks(recipe, sizes, counts)
    fetched = disk.fetched({(id, revision): sizes[field] for field, id, revision in recipe.models if field in sizes})
    return {
        "stage": recipe.stage, "method": getattr(recipe, "method", None), "name": recipe.name, "objective": recipe.objective,
        "picture": list(picture(recipe, generator) or ()) or None,
        "models": _models(recipe, sizes),
        "counts": {name: _plain(value) for name, value in _counted(counts).items()},
        "tokens of a reply": {"prompt": counts.prompt, "reply": counts.reply},
        "memory": {device: peak | {"card": memory.card(peak["total"])} for device, peak in peaks.items()},
        "disk": {"models": fetched} | {k: _plain(v) for k, v in disk.written(recipe, sizes, counts).items()},
        "hours": hours.hours(recipe, counts, rates or Throughput()),
        "processes": "any" if recipe.stage in TOGETHER else "one",
        "pushes": [{"repo": repo, "type": kind, "tag": tag} for repo, kind, tag in sorted(run.outputs(recipe), key=_natural)],
        "private": recipe.private,
        "notes": _notes(recipe, sizes, counts),
    }  # fmt: skip


def hardware(recipe: Recipe) -> str:
    """The smallest common accelerators that hold a stage, by an estimate with a margin of a tenth: "24 GB", "48 GB + 24 GB".

    Of stages that several processes share, each of them needs as much.
    """
    told = [peak for device, peak in summary(recipe)["memory"].items() if device != passes.HOST]
    largest = max(memory.CARDS)
    cards = [f"{peak['card']} GB" if peak["card"] else f"more than {largest} GB" for peak in told]
    return " + ".join(card if peak["known"] else f"at least {card}" for card, peak in zip(cards, told, strict=True))


def plan(
    path: Path,
    changes: dict[str, Any] | None = None,
    seed_file: Path | None = None,
    rates: list[Throughput] | None = None,
    hub: bool = False,
) -> list[dict[str, Any]]:
    """The stages of the recipe at ``path`` as ``run`` would run them, each as ``summary`` tells of it."""
    stages = run.stages_of(path, changes, seed_file)
    rates = rates or [Throughput()] * len(stages)
    return [summary(stage, stages[:i], rates[i], hub) for i, stage in enumerate(stages)]


def main(arguments: argparse.Namespace, changes: dict[str, Any] | None = None) -> int:
    """``spro-hf plan``: print what the recipe costs, as tables or as JSON; measure first if asked to."""
    if arguments.hub:
        os.environ["HF_ENDPOINT"] = arguments.hub
    hub = bool(os.environ.get("HF_ENDPOINT"))
    stages = run.stages_of(arguments.recipe, changes, arguments.seeds)
    if arguments.calibrate:
        from spro_hf.plan import calibrate

        run.quiet()
        file = arguments.throughput or Path(f"{arguments.recipe.stem}.throughput.yaml")
        rates = calibrate.measure(stages)
        hours.save(file, rates)
    elif arguments.throughput:
        rates = hours.load(arguments.throughput, len(stages))
    else:
        samples = arguments.samples_per_second
        rates = [hours.given(arguments.images_per_second, arguments.tokens_per_second, samples, samples)] * len(stages)
    told = [summary(stage, stages[:i], rates[i], hub) for i, stage in enumerate(stages)]
    if arguments.json:
        print(json.dumps(told, indent=1))
        return 0
    from spro_hf.plan.tell import print_plan

    print_plan(arguments.recipe.name, told)
    if arguments.calibrate:
        print(f"measured rates  {file}")
    return 0


def _natural(where: tuple[str, str, str]) -> list[Any]:
    """What pushes are sorted by: step-100 before step-1000 and behind step-20."""
    return [(int(part), "") if part.isdigit() else (-1, part) for text in where for part in re.split(r"(\d+)", text)]


def _plain(found: Count) -> dict[str, Any]:
    return {"count": found.number, "exact": found.exact}


def _counted(counts: Counts) -> dict[str, Count]:
    return {
        "pictures": counts.pictures, "pictures scored": counts.scored, "denoiser calls, drawing": counts.drawing,
        "denoiser calls, learning": counts.learning, "replies": counts.replies, "guider tokens": counts.tokens,
        "guider samples": counts.lessons, "generator samples": counts.samples, "generator updates": counts.updates,
        "references read": counts.references, "adversary pairs": counts.pairs,
        "pictures for cards": counts.shown,
    }  # fmt: skip


def _models(recipe: Recipe, sizes: dict[str, Size | None]) -> list[dict[str, Any]]:
    """Every model that the recipe names and whose weights are loaded."""
    found = []
    for field, id, revision in recipe.models:
        if field in sizes:
            known, (dtype, device) = sizes[field], _where(recipe, field)
            told = {"field": field, "id": id, "revision": revision, "dtype": dtype, "device": device}
            size = {"parameters": None, "bytes": None, "components": {}, "download": None, "exact": False}
            if known:
                size = {"parameters": known.numbers, "bytes": known.bytes(dtype), "components": known.components,
                        "download": known.download, "exact": known.exact}  # fmt: skip
            found.append(told | size)
    return found


def _where(recipe: Recipe, field: str) -> tuple[str, str]:
    """Type and device of a model."""
    part, name, *_ = field.split(".")
    if part == "generator":
        return recipe.generator.dtype, passes.GPU
    if part == "guider":
        return recipe.guider.dtype, passes.place(recipe.guider.device)
    if field == "select.similarity":
        return recipe.select.similarity_dtype, passes.GPU
    spec = recipe.scorers.get(name, {}) if part == "scorers" else {}
    return spec.get("dtype", "float32"), passes.place(spec.get("device"))


def _notes(recipe: Recipe, sizes: dict[str, Size | None], counts: Counts) -> list[str]:
    """What the numbers leave out, or take for granted."""
    found = [
        f"{field}: size unknown, so that memory and disk are bounds from below"
        for field, known in sizes.items()
        if known is None
    ]
    large = [name for name in ("generator.id", "guider.id") if sizes.get(name) and "passes" not in sizes[name].about]
    found += [f"{name}: its passes were never measured, so that memory is a bound from below" for name in large]
    if counts.drawing.number is None:
        found.append("generator: its class is not known here, so name num_inference_steps for denoiser calls")
    if any(seeds.hub for seeds in recipe.seed_sets.values()):
        found.append(
            f"data sets of the Hub: their files are not counted, their captions are taken to have {CAPTION} letters"
        )
    if recipe.stage == "image" and counts.updates.number is None:
        found.append("finetune: how many winners there are is in rollouts that another run makes; give 'steps' to know")
    left = [name for name, spec in recipe.scorers.items() if spec.get("kind", name) == "trained"]
    found += [f"scorers.{name}: what an adversary left is read, and not counted in memory and disk" for name in left]
    if getattr(recipe, "adversary", None):
        found.append("adversary: the time in which it learns is not counted in hours")
    if getattr(recipe, "guider", None) and recipe.guider.backend == "vllm":
        found.append(
            "guider: vLLM's engine takes nine tenths of what is free while it replies; told is the least it needs"
        )
    return found
