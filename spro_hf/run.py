"""Run a recipe or a list of them: check first, then every stage in order, then the report.

Nothing heavy is imported before the recipe is checked and the Hub's address is set: the Hub's clients read it once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spro_hf import parallel
from spro_hf import recipe as recipes_of
from spro_hf.errors import UserError
from spro_hf.hub import unpublished
from spro_hf.parts import Seeds
from spro_hf.schema import TOGETHER, MultimodalRecipe, PromptRecipe, Recipe, ReferencesRecipe, ReinforceRecipe
from spro_hf.steps import write_whole
from spro_hf.strict import write_yaml

if TYPE_CHECKING:  # the Hub's clients read its address when they are imported
    from spro_hf.hub.artifacts import Artifact

UNPUBLISHED = "unpublished"  # folder of a run
DATASETS = ("results", "references")  # of the artifacts that a stage leaves once; the others are models


def run(
    path: Path,
    out: Path,
    hub: str = "local",
    seeds: Path | None = None,
    changes: dict[str, Any] | None = None,
    command: list[str] | None = None,
    dry: bool = False,
) -> Path:
    """Run the recipe at ``path`` into the folder ``out``; returns that folder.

    Args:
        hub: "local" for a Hub of its own under ``out``/hub, or the address of another one.
        seeds: a text file of captions to train on in place of the recipe's; evaluation stays on held-out ones.
        changes: recipe fields by dotted key that win over the file.
        command: the command line, for the report.
        dry: push nothing; what would be pushed is laid out under ``out``/unpublished, where later stages find it.
    """  # fmt: skip
    recipes = stages_of(path, changes, seeds)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        parallel.start()
        stack.callback(parallel.stop)
        if hub == "local":
            from spro_hf.hub.server import client_environment, start

            told = None
            if parallel.first():
                told = client_environment(stack.enter_context(start(out / "hub")), out / "cache")
            os.environ.update(parallel.share(told))
        else:
            os.environ["HF_ENDPOINT"] = hub
        if dry:
            unpublished.begin(out / UNPUBLISHED)
            hub = "nowhere (a dry run)"
        else:
            unpublished.end()  # of a dry run before this one in the same process
        return _stages(path, out, recipes, hub, command or [])


def rehearse(path: Path, out: Path, hub: str) -> list[tuple[Artifact, Path]]:
    """Run a recipe dry; gives every artifact that it would leave, with the folder that holds it."""
    from spro_hf.hub.artifacts import Artifact

    try:
        run(path, out, hub, dry=True)
        notes = [json.loads(file.read_text()) for file in sorted(out.glob("stages/*/published/*.json"))]
        made = [Artifact(note["repo"], note["type"], note["tag"], note["revision"]) for note in notes]
        return [(one, unpublished.path(one.repo, one.kind, one.revision)) for one in made]
    finally:
        unpublished.end()


def _folder(out: Path, number: int, recipe: Recipe) -> Path:
    """Where a stage of a run lies."""
    return out / "stages" / f"{number + 1:02d}-{recipe.objective}-{recipe.stage}"


def _stages(path: Path, out: Path, recipes: list[Recipe], hub: str, command: list[str]) -> Path:
    # these import torch and the Hub's clients
    from spro_hf import report, results
    from spro_hf.report.progress import Progress
    from spro_hf.report.terminal import print_summary, print_unpublished
    from spro_hf.stages import STAGES
    from spro_hf.stages.room import Room

    quiet()
    first = parallel.first()
    if first:
        _preflight(path, recipes, hub, out)
        for row in results.unknown_words(recipes):
            print(f"the embedded world does not know: {', '.join(row['words'])} (in: {row['caption']})", flush=True)
    rooms = []
    with Progress(silent=not first) as progress:
        for i, recipe in enumerate(recipes):
            folder = _folder(out, i, recipe)
            together, began = recipe.stage in TOGETHER, time.monotonic()
            room = Room(recipe, folder, progress, hub, together) if first else None
            if not parallel.share((folder / "finished").exists()):
                if together and not first:  # now that the first one has begun the folder
                    room = Room(recipe, folder, progress, hub, together)
                if room:
                    STAGES[recipe.stage](room)
                parallel.barrier()
                if first:
                    write_whole(folder / "finished", str(time.monotonic() - began))
            rooms.append(folder)
    if not first:
        return out
    write_whole(out / "recipe.resolved.yaml", write_yaml(*map(recipes_of.dump, recipes)))
    # of a stage that was killed, the go that finished it counts
    spent = sum(float((room / "finished").read_text()) for room in rooms)
    told = results.gather(out, recipes, rooms, spent, shlex.join(command))
    if told["table"] or told["curves"]:
        report.write_report(out)
    print_summary(told, folder=out)
    if unpublished.on():
        print_unpublished(unpublished.listed(), out / UNPUBLISHED)
    return out


def stages_of(path: Path, changes: dict[str, Any] | None, seed_file: Path | None) -> list[Recipe]:
    """The recipes of a file as they are run, with captions to train on from another file, if one is given.

    Raises:
        UserError: for a mistake in the recipe, or seeds that cannot be read.
    """
    from spro_hf.seeds import check

    recipes = [_with_seeds(recipe, seed_file) for recipe in recipes_of.load(path, changes)]
    for recipe in recipes:
        for field, seeds in recipe.seed_sets.items():
            check(seeds, field)
    return recipes


def _with_seeds(recipe: Recipe, seed_file: Path | None) -> Recipe:
    if seed_file is None or not isinstance(recipe, PromptRecipe | ReferencesRecipe | ReinforceRecipe):
        return recipe
    return dataclasses.replace(recipe, seeds=Seeds(source=str(seed_file), count=recipe.seeds.count))


def _preflight(path: Path, recipes: list[Recipe], hub: str, out: Path) -> None:
    """What can be known to go wrong before a model is loaded: the token, trainers' fields, models, artifacts read and left.

    Every artifact that is read must be there, or be made by an earlier stage; no two stages may leave the same.
    """
    from spro_hf.guider import learn
    from spro_hf.hub.artifacts import check_token, free, may_have, resolve
    from spro_hf.models import commit, on_hub
    from spro_hf.seeds import preflight

    if hub != "local" and not unpublished.on():
        check_token(repo for recipe in recipes for repo, _, _ in sorted(outputs(recipe)))
    made: set[tuple[str, str, str]] = set()
    methods = Counter((r.objective, r.method) for r in recipes if isinstance(r, ReinforceRecipe))
    for (objective, method), count in methods.items():
        if count > 1:
            raise UserError(
                f"{path.name}: {count} stages of {objective} are called '{method}'; give each its own 'method'."
            )
    for recipe in recipes:
        if isinstance(recipe, PromptRecipe):
            learn.check(recipe.learn.method, recipe.learn.trainer)
        for field, id, revision in recipe.models:
            try:
                commit(id, revision)
                if on_hub(id):
                    may_have(id, "model")
            except UserError as error:
                advice = (
                    " A run's own local Hub holds what the run leaves; models come with --hub https://huggingface.co."
                    if hub == "local"
                    else ""
                )
                raise UserError(f"{path.name}: {field}: {error}{advice}") from error
        for what, where in recipe.inputs.items():
            if where not in made:
                try:
                    resolve(*where)
                except UserError as error:
                    raise UserError(f"{path.name}: {recipe.stage}, {what}: {error}") from error
        for field, seeds in recipe.seed_sets.items():
            if recipe.inputs.get(field) not in made:  # of what is still to be made nobody can know the columns
                preflight(seeds, f"{path.name}: {field}")
        if clash := outputs(recipe) & made:
            repo, _, tag = min(clash)
            raise UserError(
                f"{path.name}: two stages leave {repo} at {tag}; give them other repositories, rounds or a first_round."
            )
        made |= outputs(recipe)
    # a stage that was begun may have pushed its own before it was killed
    new = [recipe for i, recipe in enumerate(recipes) if not (_folder(out, i, recipe) / "recipe.json").exists()]
    free(version for recipe in new for version in sorted(outputs(recipe)))


def outputs(recipe: Recipe) -> set[tuple[str, str, str]]:
    """What a stage leaves on the Hub: (repo, kind, tag)."""
    push = recipe.push
    if isinstance(recipe, PromptRecipe):
        coevolves = isinstance(recipe, MultimodalRecipe)
        first = recipe.first_round if coevolves else 1
        found = set()
        for number in range(first, first + recipe.rounds):
            found |= {(push["rollouts"], "dataset", f"round-{number}"), (push["pairs"], "dataset", f"round-{number}"),
                      (push["guider"], "model", f"round-{number}")}  # fmt: skip
        if coevolves:
            found |= {(push["generator"], "model", f"v{i + 2}") for i in range(recipe.rounds)}
            found.add((push["pipeline"], "model", "v1"))
        return found
    if isinstance(recipe, ReinforceRecipe) and recipe.policy.push_checkpoints:
        every = range(recipe.policy.checkpoint_every, recipe.steps, recipe.policy.checkpoint_every)
        tags = ("v1", *(f"step-{step}" for step in every))
        return {(repo, "model", tag) for repo in push.values() for tag in tags}
    return {(repo, "dataset" if what in DATASETS else "model", "v1") for what, repo in push.items()}


def quiet() -> None:
    """Keep the libraries' own bars and notices out of ours."""
    import logging
    import warnings

    import datasets
    import diffusers
    import transformers

    datasets.disable_progress_bars()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="trl|peft|transformers|torch")
