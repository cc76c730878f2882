"""Every recipe on disk runs as it stands, end to end, against the shadow Hub; only counts and sizes are smaller."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from spro_hf import recipe as recipes_of
from spro_hf import rollouts, schema
from spro_hf.errors import UserError
from spro_hf.rollouts import REFERENCE
from spro_hf.strict import parse_yaml
from tests.shadow.limits import SIZES, Job, before, is_list, lacking, makers
from tests.shadow.limits import job as small
from tests.shadow.server import RECIPES, builders, named, start
from tests.shadow.worker import Worker, nothing, run_all

FILES = recipes_of.find(RECIPES)
TINY = [file for file in FILES if "tiny" in file.relative_to(RECIPES).parts]  # run by tests/stages
LISTS = [file for file in FILES if is_list(file) and file not in TINY]
STAGES = [file for file in FILES if file not in TINY and file not in LISTS]
WORKERS = 2


def of(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", files, ids=lambda f: f.relative_to(RECIPES).with_suffix("").as_posix())


@pytest.fixture(scope="module")
def told(request, tmp_path_factory) -> dict[Path, dict[str, Any]]:
    """What the workers tell of the recipes whose tests were chosen, and of those that must run before them."""
    chosen = {item.callspec.params["file"] for item in request.session.items if item.function is test_recipe_runs}
    jobs, answers = {}, {}
    for file in STAGES:
        try:
            jobs[file] = small(file)
        except UserError as error:
            answers[file] = nothing(file, str(error))
    made, served = makers(jobs.values()), named()
    answers |= {file: nothing(file, told) for file, job in jobs.items() if (told := lacking(job, made, served))}
    folder = tmp_path_factory.mktemp("shadow")
    with start(folder / "hub") as server:
        workers = [Worker(server, folder / f"worker-{i}") for i in range(WORKERS)]
        try:
            return run_all(workers, jobs, before([jobs[f] for f in chosen if f in jobs], made), answers)
        finally:
            for worker in workers:
                worker.stop()


def test_there_are_recipes_of_every_stage():
    assert {job.recipe.stage for job in map(small, STAGES)} == set(schema.STAGES)


def test_only_counts_and_sizes_are_changed():
    assert {key.rpartition(".")[2] for job in map(small, STAGES) for key in job.changes} <= SIZES


@of(STAGES)
def test_recipe_runs(file, told):
    answer = told[file]
    assert not answer["error"], answer["error"]
    job = small(file)
    assert {(a["repo"], a["kind"], a["tag"]) for a in answer["left"]} == job.leaves
    for left in answer["left"]:
        _check_artifact(job, left)
    if isinstance(job.recipe, schema.EvaluateRecipe):
        _check_results(job.recipe, answer["results"])


def _check_artifact(job: Job, left: dict[str, Any]) -> None:
    """A card, and a lineage that holds the whole recipe as it ran and the commit of everything that went in."""
    recipe, name = job.recipe, f"{left['repo']} at {left['tag']}"
    assert left["card"].startswith("---\n") and left["repo"] in left["card"], name
    lineage = left["lineage"]
    settings = json.loads(json.dumps(recipes_of.dump(recipe)))
    assert {k: v for k, v in lineage["recipe"].items() if k != "seeds"} == {
        k: v for k, v in settings.items() if k != "seeds"
    }, name
    assert lineage["seed"] == recipe.seed and lineage["tag"] == left["tag"], name
    used = {(i["repo"], i["kind"], i["revision"]): i["commit"] for i in lineage["inputs"]}
    for what, where in recipe.inputs.items():
        assert used[where] == left["inputs"][what], f"{name}: {what}"
    assert set(lineage["models"]) == {field for field, _, _ in recipe.models}, name
    if "rows" in left:
        schemas = {recipe.push.get("pairs"): rollouts.PAIR, recipe.push.get("references"): REFERENCE}
        schema = schemas.get(left["repo"], rollouts.ROLLOUT)
        assert left["rows"] > 0 and set(left["columns"]) >= set(schema), name
    if left["repo"] == recipe.push.get("references"):
        assert left["rows"] == recipe.seeds.count * recipe.per_caption and left["columns"] == list(REFERENCE), name
    if left["repo"] == recipe.push.get("reward"):
        one, other = left["scores"]
        assert math.isfinite(one) and math.isfinite(other) and one != other, name
    if "lora" in left:
        assert left["lora"]["moved"] == left["lora"]["matrices"] > 0, name


def _check_results(recipe: schema.EvaluateRecipe, results: dict[str, Any]) -> None:
    """A finite number of every system under every scorer."""
    cells = {(row["system"], row["metric"]): row["mean"] for row in results["table"]}
    for system in recipe.systems:
        for metric in ("total", *recipe.scorers):
            assert math.isfinite(cells[system, metric]), (system, metric)


@of(LISTS)
def test_a_list_is_of_recipes_that_run(file):
    assert recipes_of.load(file)
    for name in parse_yaml(file.read_text())["recipes"]:
        assert (file.parent / name).resolve() in [f.resolve() for f in STAGES + TINY], name


@of(TINY)
def test_a_recipe_of_the_embedded_world_parses(file):
    assert recipes_of.load(file)


def test_no_two_recipes_leave_the_same():
    several = {
        where: [job.file.name for job in jobs] for where, jobs in makers(map(small, STAGES)).items() if len(jobs) > 1
    }
    assert several == {}


def test_every_id_that_a_recipe_names_has_a_shadow():
    assert set(named()) - set(builders()) == set()
