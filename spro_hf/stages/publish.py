"""What each stage leaves on the Hub: the folder of an artifact, its card, and the line that loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from peft import PeftModel

from spro_hf import parallel
from spro_hf.diffusion.lora import has_lora
from spro_hf.diffusion.pipeline import SPROPipeline
from spro_hf.guider.guider import Guider
from spro_hf.hub.artifacts import Artifact, resolve
from spro_hf.hub.cards import fields, render_card
from spro_hf.models import forget_paths
from spro_hf.parts import Guider as GuiderSpec
from spro_hf.rewards.learning import CONFIG
from spro_hf.rollouts import read_told
from spro_hf.schema import ImageRecipe, MultimodalRecipe, ReinforceRecipe
from spro_hf.stages.opponent import remarks
from spro_hf.stages.room import Room

ADAPTER_CONFIG = "adapter_config.json"
NOTHING = {"results": [], "evaluated_on": ""}


def _card(room: Room, name: str, what: str, tag: str, **given: Any) -> str:
    """Render the card of the artifact ``what``; what every card may ask for is filled in from the recipe."""
    recipe = room.recipe
    common = {
        "repo": recipe.push[what], "tag": tag, "license": recipe.licenses.get(what, recipe.license),
        "objective": recipe.objective, "world": recipe.oracle,
        "reward": recipe.reward, "seed": recipe.seed,
    }  # fmt: skip
    return render_card(name, **{k: v for k, v in common.items() if k in fields(name)}, **given)


def _fresh(room: Room, name: str) -> Path:
    """An empty folder to lay an artifact out in; what a killed push left there is gone."""
    folder = room.folder / "outbox" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def by_first(publish: Callable[[], Artifact]) -> Artifact:
    """What the first process published, in every process."""
    return parallel.share(publish() if parallel.first() else None)


def round(room: Room, number: int, step: Path) -> Artifact:
    """Push a round's rollouts, pairs and guider under ``round-<number>``; returns the guider's artifact."""
    recipe, push, tag = room.recipe, room.recipe.push, f"round-{number}"
    rows = read_told(step / "rollouts")
    account = json.loads((step / "account.json").read_text())
    names = {"guider": rows[0]["guider"], "generator": rows[0]["generator"]}
    captions = len({row["seed_id"] for row in rows})
    folder = shutil.copytree(step / "rollouts", _fresh(room, "rollouts"), dirs_exist_ok=True)
    card = _card(
        room, "rollouts", "rollouts", tag, round=number, rows=len(rows), seeds=captions,
        parsed=len(rows) - account["unparsed"], kept_pairs=account["kept_pairs"], **names,
    )  # fmt: skip
    rollouts = room.publish("rollouts", "dataset", tag, folder, card, _load_dataset(push["rollouts"], tag))
    folder = shutil.copytree(step / "pairs", _fresh(room, "pairs"), dirs_exist_ok=True)
    card = _card(room, "preferences", "pairs", tag, round=number, rows=account["kept_pairs"], rollouts=rollouts.pinned)
    pairs = room.publish("pairs", "dataset", tag, folder, card, _load_dataset(push["pairs"], tag), [rollouts])
    folder = shutil.copytree(step / "guider", _fresh(room, "guider"), dirs_exist_ok=True)
    _portable(folder, recipe.guider.id, recipe.guider.revision)
    card = _card(
        room, "guider", "guider", tag, round=number, base_model=recipe.guider.id, manner=_manner(recipe.guider),
        call=recipe.generator.call, generator=recipe.generator.id, method=recipe.learn.method, seeds=captions,
        pairs=account["kept_pairs"], datasets=[push["pairs"]], full=not (folder / ADAPTER_CONFIG).exists(),
        sees=account["sees"], **NOTHING,
    )  # fmt: skip
    load = (
        "from spro_hf import Guider; "
        f'guider = Guider.load("{recipe.guider.id}", adapter="{push["guider"]}", adapter_revision="{tag}", '
        f"{_manner(recipe.guider)})"
    )
    return room.publish("guider", "model", tag, folder, card, load, [rollouts, pairs])


def _manner(guider: GuiderSpec) -> str:
    """How the guider is asked, as arguments: whoever loads it must ask it in the manner that it was taught in."""
    names = ("style", "reasoning", "word_limit", "max_new_tokens")
    return ", ".join(f"{name}={getattr(guider, name)!r}" for name in names)


def _portable(folder: Path, id: str, revision: str | None) -> None:
    """Let the adapter name its base model by id and revision, not by the folder it was loaded from here."""
    file = folder / ADAPTER_CONFIG
    if file.exists():
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"base_model_name_or_path": id, "revision": revision}, indent=2))


def generator(room: Room, tag: str, step: Path, pictures: int, steps: int, datasets: list[str]) -> Artifact:
    """Push a generator that learned in ``steps`` from so many winner pictures of these datasets under ``tag``."""
    recipe: ImageRecipe | MultimodalRecipe = room.recipe
    full, told = recipe.finetune.lora is None, {"steps": steps, "pictures": pictures}
    return _generator(room, "generator", tag, step, full, told | {"datasets": datasets})


def reinforced(room: Room, tag: str, step: Path, rows: list[dict[str, Any]]) -> Artifact:
    """Push a generator that learned by policy gradient under ``tag``, with what each training step told."""
    recipe: ReinforceRecipe = room.recipe
    told = {name: sum(row[name] for row in rows) for name in ("pictures", "calls", "seconds", "cpu_seconds")}
    told |= {"steps": len(rows), "method": recipe.method, "processes": parallel.world()}
    card = {"steps": len(rows), "pictures": told["pictures"], "calls": told["calls"], "policy": vars(recipe.policy),
            "prompts": recipe.prompts, "group": recipe.group, "method": recipe.method}  # fmt: skip
    extra = {"training.json": json.dumps(told | {"rows": rows}, indent=1)}
    used = [_reward(room, tag, step, rows)] if recipe.adversary else []
    return _generator(room, "reinforced", tag, step, recipe.policy.lora is None, card, extra, used)


def _reward(room: Room, tag: str, step: Path, rows: list[dict[str, Any]]) -> Artifact:
    """Push the reward that learned beside a generator, under the same tag."""
    recipe, repo, spec = room.recipe, room.recipe.push["reward"], room.recipe.adversary
    folder = shutil.copytree(step / "reward", _fresh(room, "reward"), dirs_exist_ok=True)
    told = json.loads((folder / CONFIG).read_text())
    met = [row["adversary"] for row in rows if row["adversary"]]
    (folder / "training.json").write_text(json.dumps([{"step": r["step"]} | r["adversary"] for r in rows], indent=1))
    card = _card(
        room, "reward", "reward", tag, kind=told["kind"], base_model=told.get("backbone") or told["id"], fields=told,
        adversary=vars(spec), references=recipe.references.source, updates=sum(m["learned"] for m in met), last=met[-1],
        steps=len(rows), generator=recipe.generator.id, remarks=remarks(rows, spec.reward),
    )  # fmt: skip
    load = (
        f'from spro_hf import rewards; reward = rewards.trained("{repo}", revision="{tag}"); '
        'reward([image], ["a caption"])  # image: a PIL picture'
    )
    return room.publish("reward", "model", tag, folder, card, load)


def _generator(
    room: Room,
    template: str,
    tag: str,
    step: Path,
    full: bool,
    told: dict[str, Any],
    files: dict[str, str] | None = None,
    used: list[Artifact] = (),
) -> Artifact:
    """Push a trained generator, a LoRA or the whole pipeline."""
    recipe, repo = room.recipe, room.recipe.push["generator"]
    folder = shutil.copytree(step / "generator", _fresh(room, "generator"), dirs_exist_ok=True)
    forget_paths(folder)
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    card = _card(
        room,
        template,
        "generator",
        tag,
        base_model=recipe.generator.id,
        full=full,
        call=recipe.generator.call,
        **told,
        **NOTHING,
    )
    load = "from diffusers import DiffusionPipeline; "
    if full:
        load += f'pipe = DiffusionPipeline.from_pretrained("{repo}", revision="{tag}")'
    else:
        load = (
            f'from spro_hf.diffusion.environment import load_generator; pipe = load_generator("{recipe.generator.id}"); '
            f'pipe.load_lora_weights("{repo}", weight_name="pytorch_lora_weights.safetensors", revision="{tag}")'
        )
    return room.publish("generator", "model", tag, folder, card, load, used)


def inputs(room: Room) -> dict[str, Artifact]:
    """The guider and the generator that a multimodal recipe begins with, as artifacts."""
    recipe = room.recipe
    found = {"guider": recipe.guider.adapter, "generator": recipe.generator.lora}
    return {n: Artifact(r.repo, "model", r.revision, resolve(r.repo, "model", r.revision)) for n, r in found.items()}


def pipeline(room: Room, tag: str, newest: dict[str, Artifact], asked: Guider, drawn: DiffusionPipeline) -> Artifact:
    """Push guider and generator, which are ``newest``, together as an ``SPROPipeline``."""
    recipe, repo = room.recipe, room.recipe.push["pipeline"]
    folder = _fresh(room, "pipeline")
    # one all of whose weights were trained is named itself, in the place of what it began from
    guider_at = (recipe.guider.id, recipe.guider.revision)
    guider_at = guider_at if isinstance(asked.model, PeftModel) else (newest["guider"].repo, newest["guider"].tag)
    base_at = (recipe.generator.id, recipe.generator.revision)
    base_at = base_at if has_lora(drawn) else (newest["generator"].repo, newest["generator"].tag)
    SPROPipeline(
        asked, drawn, guider_at[0], base_at[0], guider_at[1], base_at[1], recipe.generator.call
    ).save_pretrained(folder)
    card = _card(
        room, "pipeline", "pipeline", tag, base_model=[recipe.guider.id, recipe.generator.id], rounds=recipe.rounds,
        guider=newest["guider"].pinned, generator=newest["generator"].pinned, **NOTHING,
    )  # fmt: skip
    load = (
        f'from spro_hf import SPROPipeline; pipe = SPROPipeline.from_pretrained("{repo}", revision="{tag}"); '
        f'out = pipe("a red circle", objective="{recipe.objective}"); print(out.prompts[0]); out.images[0]'
    )
    return room.publish("pipeline", "model", tag, folder, card, load, list(newest.values()))


def results(room: Room, tag: str, step: Path) -> Artifact:
    """Push an evaluation: its numbers and sample pictures."""
    recipe, repo = room.recipe, room.recipe.push["results"]
    told = json.loads((step / "told.json").read_text())
    means = {(row["system"], row["metric"]): row for row in told["table"]}
    names = ["total", *(["planted", "alignment"] if recipe.oracle else []), *recipe.judges]
    rows = [
        {"name": f"{system}: {name}", "value": row["mean"], "se": row["se"], "n": row["n"],
         "base": means["base", name]["mean"]}
        for system in told["systems"] for name in names if (row := means[system, name])
    ]  # fmt: skip
    captions = len({seed.rpartition("/")[0] for seed in told["seed_ids"]})
    folder = shutil.copytree(step, _fresh(room, "results"), dirs_exist_ok=True)
    card = _card(
        room, "results", "results", tag, systems=told["systems"], captions=captions, noise_seeds=recipe.noise_seeds,
        judges=list(recipe.judges), results=rows, evaluated_on=f"{captions} held-out captions",
    )  # fmt: skip
    load = (
        "import json; from huggingface_hub import hf_hub_download; "
        f'told = json.load(open(hf_hub_download("{repo}", "told.json", repo_type="dataset", revision="{tag}")))'
    )
    return room.publish("results", "dataset", tag, folder, card, load)


def _load_dataset(repo: str, tag: str) -> str:
    return f'from datasets import load_dataset; rows = load_dataset("{repo}", revision="{tag}", split="train")'
