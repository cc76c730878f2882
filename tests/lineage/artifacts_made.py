"""Hand-made artifacts, and what the tests ask in a process whose environment points at a local Hub."""

from __future__ import annotations

import argparse
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from PIL import Image

from spro_hf.errors import UserError

MODELS = {"generator.id": "spro_hf/tiny/generator@" + "a" * 64, "scorers.clip.id": "spro_hf/tiny/clip@" + "b" * 64}
REWARDS = json.dumps({"total": 1.0})


def given(what: str, repo: str, kind: str, revision: str, commit: str) -> dict[str, str]:
    """An input, as a lineage names it."""
    return {"what": what, "repo": repo, "kind": kind, "revision": revision, "commit": commit}


def lineage(stage: str, push: dict[str, str], inputs: list, tag: str, **more: Any) -> dict[str, Any]:
    """A lineage.json, with other fields of the recipe by ``recipe``."""
    recipe = {"stage": stage, "objective": "aesthetics", "push": push} | more.pop("recipe", {})
    found = {"recipe": recipe, "inputs": inputs, "seed": 3, "python": "3.11.7", "versions": {"torch": "2.13.0"}}
    return found | {"tag": tag, "models": MODELS} | more


def lay(folder: Path, told: dict[str, Any] | None = None, **files: str | bytes) -> str:
    """A folder with files, "/" in a name written as "__" and "." as "_dot_"."""
    folder.mkdir(parents=True, exist_ok=True)
    if told is not None:
        (folder / "lineage.json").write_text(json.dumps(told))
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def picture(red: int, changed: bool = False) -> Image.Image:
    """A picture of 2 by 2 pixels, one of which is changed by 4 in the red."""
    image = Image.new("RGB", (2, 2), (red, 10, 20))
    if changed:
        image.putpixel((1, 0), (red + 4, 10, 20))
    return image


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def rollout(seed: str, candidate: int, total: float, prompt: str, **more: Any) -> dict[str, Any]:
    """A row of a rollout; its picture is as red as its number in the round."""
    image = picture(candidate * 50)
    return {
        "seed_id": seed, "objective": "aesthetics", "round": 1, "candidate": candidate, "base_caption": f"a {seed}",
        "context": "{}", "caption_in": f"a {seed}", "image_in": image if candidate == 0 else None, "reply": prompt, "plan": [],
        "parsed": True, "problem": "", "prompt": prompt, "image": image, "image_base": image if candidate == 0 else None,
        "image_seed": 1, "rewards": REWARDS, "total": total, "base_rewards": REWARDS, "base_total": 1.0, "similarity": 0.9,
        "measures": "{}", "kept": candidate < 2, "why": "", "guider": "spro/g@0123456789ab",
        "generator": "g@0123456789ab", "scorers": "{}",
    } | more  # fmt: skip


def write_rollouts(folder: Path, rows: list[dict[str, Any]]) -> Path:
    from spro_hf import rollouts

    rollouts.write(rows, rollouts.ROLLOUT, folder)
    return folder


def push(folder: str, repo: str, kind: str, tag: str) -> str:
    """Publish a folder; its commit."""
    from spro_hf.hub.push import push as publish

    return publish(Path(folder), repo, kind, tag, f"version {tag}").revision


def chain(folder: Path) -> dict[str, str]:
    """Captions of somebody's → rollouts → guider, which names a repository that is gone; the commits by name."""
    captions = push(lay(folder / "captions", captions_dot_txt="a dog"), "someone/captions", "dataset", "v1")
    push_to = {"rollouts": "spro/rollouts", "guider": "spro/guider"}
    source = given("seeds", "someone/captions", "dataset", "v1", captions)
    told = lineage("prompt", push_to, [source], "round-1")
    rollouts = push(lay(folder / "rollouts", told, big_dot_bin=b"0" * 1000), "spro/rollouts", "dataset", "round-1")
    gone = given("guider adapter", "spro/gone", "model", "v1", "c" * 40)
    made = given("made before", "spro/rollouts", "dataset", "round-1", rollouts)
    odd = given("bad", "spro/x", "model", "v1", "not a commit")
    told = lineage("prompt", push_to, [source, gone, made, odd], "round-1")
    guider = push(lay(folder / "guider", told, adapter_config_dot_json="{}"), "spro/guider", "model", "round-1")
    push(lay(folder / "twin", readme_dot_txt="x"), "spro/guider", "dataset", "v1")
    return {"captions": captions, "rollouts": rollouts, "guider": guider}


def graph(*names: str) -> dict[str, Any]:
    """The graph of artifacts, as plain data."""
    from spro_hf.lineage.graph import read
    from spro_hf.lineage.place import find

    return read([find(name)[0] for name in names]).plain()


def files_in_cache(repo: str) -> list[str]:
    """What was downloaded of a data set."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"datasets--{repo.replace('/', '--')}", "snapshots")
    return sorted({file.name for file in folder.rglob("*") if file.is_file()})


def command(module: str, *arguments: str) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    from importlib import import_module

    found, parser, printed = import_module(f"spro_hf.lineage.{module}"), argparse.ArgumentParser(), io.StringIO()
    found.add(parser)
    with redirect_stdout(printed):
        status = found.main(parser.parse_args(list(arguments)))
    return status, printed.getvalue()


def refused(module: str, *arguments: str) -> str:
    """The sentence in which a command ends."""
    try:
        command(module, *arguments)
    except UserError as error:
        return str(error)
    raise AssertionError("the command went through")


def rehearsed(
    module: str, made: Any, left: list[tuple[str, str, str]], *arguments: str
) -> tuple[int, str, dict[str, Any]]:
    """``command`` with a rehearsal that leaves the folder ``made`` as each of ``left``, or of several its own; also how it
    was called."""
    from spro_hf import run
    from spro_hf.hub.artifacts import Artifact
    from spro_hf.strict import parse_yaml

    called: dict[str, Any] = {}

    def rehearse(path: Path, out: Path, hub: str) -> list[tuple[Artifact, Path]]:
        called.update(recipe=parse_yaml(path.read_text()), out=str(out), hub=hub)
        return [(Artifact(*one, "0" * 40), Path(made[one] if isinstance(made, dict) else made)) for one in left]

    before, run.rehearse = run.rehearse, rehearse
    try:
        status, printed = command(module, *arguments)
    finally:
        run.rehearse = before
    return status, printed, called
