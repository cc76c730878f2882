"""``spro-hf reproduce``: make an artifact again from the Hub alone, and say whether it is the same.

The recipe, the seeds and the commits of all that went in lie in the artifact. Nothing is pushed.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub
from spro_hf.lineage.place import LINEAGE, checked, clean, find, read_json

if TYPE_CHECKING:
    from spro_hf.hub.artifacts import Artifact
    from spro_hf.lineage.compare import Comparison

RECIPE, SEEDS, ENVIRONMENT = "recipe.yaml", "seeds.txt", "environment.json"
ASIDE = (LINEAGE, RECIPE, SEEDS, ENVIRONMENT)


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("artifact", help="user/repo@v1, or datasets/user/repo@v1 for a data set of that name")
    parser.add_argument("--hub", help="the folder of a run, whose local Hub is started, or the address of a Hub")
    parser.add_argument("--out", type=Path, help="the folder to work in (default: runs/reproduce-<repo>-<revision>)")
    parser.add_argument("--atol", type=_bound, default=0.0, help="numbers may differ by this much (default: 0)")
    parser.add_argument("--rtol", type=_bound, default=0.0, help="and by this share of what is published (default: 0)")


def _bound(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 on")
    return value


def main(arguments: argparse.Namespace) -> int:
    """Make it again and compare; 0 if it is equal, bit for bit or within the bounds, 1 if it is not."""
    with at_hub(arguments.hub):
        artifact, remark = find(arguments.artifact)
        if remark:
            print(remark)
        out = arguments.out or Path("runs") / f"reproduce-{artifact.repo.rpartition('/')[2]}-{artifact.tag}"
        return reproduce(artifact, out, arguments.atol, arguments.rtol)


def reproduce(artifact: Artifact, out: Path, atol: float = 0.0, rtol: float = 0.0) -> int:
    """Run the stage that made ``artifact`` again in ``out``, where a killed one continues; prints the verdict.

    Raises:
        UserError: if it does not tell how it was made, or what it was made with is not to be had here.
    """
    from huggingface_hub import HfApi

    from spro_hf.hub.artifacts import pull
    from spro_hf.lineage.compare import compare

    told, recipe, environment = prepare(artifact, out)
    set_threads(environment)
    _tell(artifact, told, environment, out)
    published = _published(recipe, told)
    from spro_hf.run import rehearse

    made = rehearse(recipe, out / "run", HfApi().endpoint)
    tag = told.get("tag") or artifact.tag
    again = next(
        (folder for one, folder in made if (one.repo, one.kind, one.tag) == (artifact.repo, artifact.kind, tag)), None
    )
    if again is None:
        left = ", ".join(f"{one.repo} {one.tag}" for one, _ in made) or "nothing"
        raise UserError(
            f"{artifact.repo}: its recipe does not leave {tag}, but {left}; its recipe.yaml is not its own."
        )
    result = compare(again, pull(artifact.repo, artifact.kind, artifact.revision), atol, rtol)
    print(f"{artifact.repo} {tag}: {verdict(result)}")
    for line in result.lines():
        print(f"  {clean(line)}")
    if result.differences:
        print("  Of two values the first was made here, the second is published.")
    if result.apart:
        print(f"  not compared, as it tells of the making: {clean(', '.join(result.apart))}")
    for one, folder in made:
        if folder != again:
            commit = published.get((one.repo, one.kind, one.tag))
            words = "not published by this recipe"
            if commit:
                words = verdict(compare(folder, pull(one.repo, one.kind, commit), atol, rtol))
            print(f"{one.repo} {one.tag}: {words}")
    print(f"what was made here lies in {again}")
    return 0 if result.equal else 1


def prepare(artifact: Artifact, out: Path) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    """Write the pinned recipe, and the seeds if the artifact has them, into ``out``.

    Returns: the lineage, the recipe's file, and what is told of the machine ({} where nothing is).
    """
    from spro_hf.hub.artifacts import pull
    from spro_hf.lineage.pinning import check_models, pinned
    from spro_hf.steps import write_whole
    from spro_hf.strict import parse_yaml, write_yaml

    name = f"{artifact.kind} {artifact.repo}@{artifact.tag}"
    folder = pull(artifact.repo, artifact.kind, artifact.revision, lambda names: _aside(names, name))
    told, text = checked(read_json(folder / LINEAGE)), (folder / RECIPE).read_text(encoding="utf-8")
    try:
        recipe = parse_yaml(text)
    except yaml.YAMLError:
        recipe = None
    if told is None or not isinstance(recipe, dict):
        raise UserError(f"{name}: its {RECIPE} or {LINEAGE} is not one of ours, so it cannot be made again.")
    check_models(told)
    recipe = pinned(recipe, told)
    out.mkdir(parents=True, exist_ok=True)
    if (folder / SEEDS).exists() and (recipe.get("seeds") or {}).get("source") == SEEDS:
        shutil.copyfile(folder / SEEDS, out / SEEDS)
        recipe["seeds"]["source"] = str((out / SEEDS).resolve())
    write_whole(out / RECIPE, write_yaml(recipe))
    environment = read_json(folder / ENVIRONMENT)
    return told, out / RECIPE, environment if isinstance(environment, dict) else {}


def _aside(names: list[str], name: str) -> list[str]:
    lacking = [file for file in (RECIPE, LINEAGE) if file not in names]
    if lacking:
        raise UserError(
            f"{name}: it holds no {lacking[0]}, so it cannot be made again; it is older, or of another hand."
        )
    return [file for file in names if file in ASIDE]


def set_threads(environment: dict[str, Any]) -> None:
    """Compute with as many threads as were used: sums on the CPU depend on it."""
    threads = environment.get("threads")
    if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that are started
        torch.set_num_threads(threads)


def _tell(artifact: Artifact, told: dict[str, Any], environment: dict[str, Any], out: Path) -> None:
    """What is about to be done, what it takes, and why the result may differ."""
    from huggingface_hub import HfApi

    from spro_hf.lineage.pinning import otherwise

    info = HfApi().repo_info(artifact.repo, repo_type=artifact.kind, revision=artifact.revision, files_metadata=True)
    size = sum(file.size or 0 for file in info.siblings)
    free = shutil.disk_usage(out).free
    recipe = told["recipe"]
    print(
        f"{artifact.repo} {told.get('tag') or artifact.tag} ({artifact.revision[:12]}): stage {clean(recipe.get('stage'))}, "
        f"seed {told.get('seed')}, {len(told['inputs'])} inputs, {len(set(told['models'].values()))} models"
    )
    print(
        f"what is published takes {size / 1e6:.2f} MB; {free / 1e9:.1f} GB are free here; spro-hf plan {out / RECIPE} tells more"
    )
    for line in otherwise(told, environment):
        print(f"warning: it was made with {clean(line)}; the last digits may differ.")


def verdict(result: Comparison) -> str:
    """The verdict in words, with the bounds where they were used, and how great the differences are."""
    from spro_hf.lineage.compare import WITHIN

    words = f"{result.verdict} ({result.compared} file{'' if result.compared == 1 else 's'})"
    if result.verdict == WITHIN:
        words += f", atol {result.bounds.atol:g}, rtol {result.bounds.rtol:g}"
    return words


def _published(recipe: Path, told: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """The commits of what the stage leaves, by (repo, kind, tag), where the same recipe published it.

    It is asked for before the rehearsal: in a dry run a tag is that of what was made here.
    """
    from spro_hf.hub.artifacts import resolve
    from spro_hf.lineage.place import lineage_of
    from spro_hf.recipe import load
    from spro_hf.run import outputs

    found = {}
    for one in load(recipe):
        for repo, kind, tag in outputs(one):
            try:
                commit = resolve(repo, kind, tag)
                other = lineage_of(repo, kind, commit)
            except UserError:
                continue  # never published, or gone
            if other and other["recipe"] == told["recipe"]:
                found[repo, kind, tag] = commit
    return found
