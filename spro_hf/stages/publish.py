"""What each stage leaves on the Hub: the folder of an artifact, its card, and the line that loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from peft import PeftModel

from spro_hf import parallel, portrait, rollouts
from spro_hf.diffusion.lora import WEIGHTS, has_lora, is_stock
from spro_hf.diffusion.pipeline import ADAPTER, LORA, MANNER, SPROPipeline
from spro_hf.guider.guider import Guider
from spro_hf.hub.artifacts import Artifact, resolve
from spro_hf.models import forget_paths, on_hub
from spro_hf.rewards.learning import CONFIG
from spro_hf.rollouts import write_prompts
from spro_hf.schema import ImageRecipe, MultimodalRecipe, ReinforceRecipe
from spro_hf.stages.opponent import remarks
from spro_hf.stages.room import Room
from spro_hf.stages.showcase import lay
from spro_hf.stages.telling import card, fallen, scores

ADAPTER_CONFIG = "adapter_config.json"


def fresh(room: Room, name: str) -> Path:
    """An empty folder to lay an artifact out in; what a killed push left there is gone."""
    folder = room.folder / "outbox" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def by_first(publish: Callable[[], Any]) -> Any:
    """What the first process published, in every process."""
    return parallel.share(publish() if parallel.first() else None)


def round(room: Room, number: int, step: Path, shown: Path, played: list[Artifact]) -> dict[str, Artifact]:
    """Push a round's ``rollouts``, ``pairs`` and ``guider``, with what it draws, under ``round-<number>``; gives the three.

    ``played`` are what played it, guider and generator, where an earlier round of this stage made them.
    """
    push, tag = room.recipe.push, f"round-{number}"
    account = json.loads((step / "account.json").read_text())
    folder = shutil.copytree(step / "rollouts", fresh(room, "rollouts"), dirs_exist_ok=True)
    write_prompts(folder)
    told = portrait.of_rollouts(folder)
    first = next(rollouts.told(folder, ["guider", "generator"]))
    text = card(room, "rollouts", "rollouts", tag, round=number, told=told, **first)
    tried = room.publish("rollouts", "dataset", tag, folder, text, load_dataset_line(push["rollouts"], tag), played)
    folder = shutil.copytree(step / "pairs", fresh(room, "pairs"), dirs_exist_ok=True)
    text = card(
        room, "preferences", "pairs", tag, round=number, told=portrait.of_pairs(folder), rollouts=tried.pinned,
        sees=account["sees"],
    )  # fmt: skip
    pairs = room.publish("pairs", "dataset", tag, folder, text, load_dataset_line(push["pairs"], tag), [tried])
    told = account | {"seeds": told["seeds"], "drawn_by": first["generator"]}
    guider = _guider(room, number, step / "guider", shown, told, [*played, tried, pairs])
    return {"rollouts": tried, "pairs": pairs, "guider": guider}


def _guider(
    room: Room, number: int, step: Path, shown: Path, account: dict[str, Any], used: list[Artifact]
) -> Artifact:
    """Push a round's guider with what it draws. ``account`` is the round's, with ``seeds`` and ``drawn_by``, its generator."""
    recipe, repo, tag = room.recipe, room.recipe.push["guider"], f"round-{number}"
    folder = shutil.copytree(step, fresh(room, "guider"), dirs_exist_ok=True)
    _portable(folder, recipe.guider.id, recipe.guider.revision)
    told, lora = lay(shown, folder), recipe.learn.lora
    lost = [f"Of {account['replies']} replies {account['unparsed']} could not be read."] if account["unparsed"] else []
    settings = {"temperatures": recipe.temperatures, "carry": recipe.carry, "lora": lora and vars(lora),
                "min_similarity": recipe.select.min_similarity, "gain": recipe.select.gain}  # fmt: skip
    text = card(
        room, "guider", "guider", tag, used, round=number, guider=vars(recipe.guider), method=recipe.learn.method,
        seeds=account["seeds"], drawn_by=account["drawn_by"], pairs=account["kept_pairs"], sees=account["sees"],
        full=not (folder / ADAPTER_CONFIG).exists(),
        template_words=account["template_words"], settings=settings, failures=lost + fallen(told["results"]), **told,
    )  # fmt: skip
    scores(room, "guider", tag, folder, told, used)
    spec = recipe.guider
    manner = [f"{name}={getattr(spec, name)!r}" for name in MANNER]  # whoever loads it must ask it as it was taught
    revision = f", {spec.revision!r}" if spec.revision and on_hub(spec.id) else ""
    load = (
        f'from spro_hf import Guider; guider = Guider.load("{spec.id}"{revision}, adapter="{repo}", adapter_revision="{tag}", '
        f"{', '.join(manner)})"
    )
    return room.publish("guider", "model", tag, folder, text, load, used)


def _portable(folder: Path, id: str, revision: str | None) -> None:
    """Let the adapter name its base model by id and revision, not by the folder it was loaded from here."""
    file = folder / ADAPTER_CONFIG
    if file.exists():
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"base_model_name_or_path": id, "revision": revision}, indent=2))


def generator(
    room: Room, tag: str, step: Path, pictures: int, steps: int, shown: Path, used: list[Artifact] = ()
) -> Artifact:
    """Push a generator that learned in ``steps`` from so many winner pictures under ``tag``.

    ``used`` are what it learned from, and began from, where this very stage made them.
    """
    recipe: ImageRecipe | MultimodalRecipe = room.recipe
    lora = recipe.finetune.lora
    settings = vars(recipe.finetune) | {"lora": lora and vars(lora)}
    told = {"steps": steps, "pictures": pictures, "settings": settings}
    return _generator(room, "generator", tag, step, lora is None, told, shown, used=used)


def reinforced(
    room: Room, tag: str, step: Path, rows: list[dict[str, Any]], shown: Path | None = None, branch: str = "main"
) -> Artifact:
    """Push a generator that learned by policy gradient under ``tag``, with what each training step told.

    A checkpoint goes to a branch of its own and shows nothing.
    """
    recipe: ReinforceRecipe = room.recipe
    told = {name: sum(row[name] for row in rows) for name in ("pictures", "calls", "seconds", "cpu_seconds")}
    told |= {"steps": len(rows), "method": recipe.method, "processes": parallel.world()}
    card = {"steps": len(rows), "pictures": told["pictures"], "calls": told["calls"], "policy": vars(recipe.policy),
            "prompts": recipe.prompts, "group": recipe.group, "method": recipe.method,
            "hours": told["seconds"] / 3600}  # fmt: skip
    extra = {"training.json": json.dumps(told | {"rows": rows}, indent=1)}
    used = [_reward(room, tag, step, rows, branch)] if recipe.adversary else []
    return _generator(room, "reinforced", tag, step, recipe.policy.lora is None, card, shown, extra, used, branch)


def _reward(room: Room, tag: str, step: Path, rows: list[dict[str, Any]], branch: str) -> Artifact:
    """Push the reward that learned beside a generator, under the same tag."""
    recipe, repo, spec = room.recipe, room.recipe.push["reward"], room.recipe.adversary
    folder = shutil.copytree(step / "reward", fresh(room, "reward"), dirs_exist_ok=True)
    told = json.loads((folder / CONFIG).read_text())
    met = [row["adversary"] for row in rows if row["adversary"]]
    (folder / "training.json").write_text(json.dumps([{"step": r["step"]} | r["adversary"] for r in rows], indent=1))
    references = recipe.references
    at = {
        "id": references.source,
        "revision": references.revision,
        "config": references.config,
        "split": references.split,
    }
    apart = {"name": "references told apart", "value": met[-1]["told_apart"], "se": None, "base": None, "n": None}
    shown = {"results": [apart], "evaluated_on": "the pairs that it met last"}
    text = card(
        room, "reward", "reward", tag, kind=told["kind"], base_model=told.get("backbone") or told["id"], fields=told,
        adversary=vars(spec), references=vars(references), updates=sum(m["learned"] for m in met), last=met[-1],
        steps=len(rows), remarks=remarks(rows, spec.reward), showcase=[], measured_on=at, **shown,
    )  # fmt: skip
    load = (
        f'from spro_hf import rewards; reward = rewards.trained("{repo}", revision="{tag}"); '
        'reward([image], ["a caption"])  # image: a PIL picture'
    )
    scores(room, "reward", tag, folder, shown, at=at)
    return room.publish("reward", "model", tag, folder, text, load, branch=branch)


def _generator(
    room: Room,
    template: str,
    tag: str,
    step: Path,
    full: bool,
    told: dict[str, Any],
    shown: Path | None,
    files: dict[str, str] | None = None,
    used: list[Artifact] = (),
    branch: str = "main",
) -> Artifact:
    """Push a trained generator, a LoRA or the whole pipeline."""
    recipe, repo = room.recipe, room.recipe.push["generator"]
    folder = shutil.copytree(step / "generator", fresh(room, "generator"), dirs_exist_ok=True)
    forget_paths(folder)
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    drawn, stock = lay(shown, folder), full or is_stock(folder)
    text = card(room, template, "generator", tag, used, full=full, stock=stock, **told, **drawn)
    scores(room, "generator", tag, folder, drawn, used)
    load = (
        f'from diffusers import DiffusionPipeline; pipe = DiffusionPipeline.from_pretrained("{repo}", revision="{tag}")'
    )
    if not full:
        spec = recipe.generator
        more = {"revision": spec.revision if on_hub(spec.id) else None, "scheduler": spec.scheduler}
        said = "".join(f", {name}={value!r}" for name, value in more.items() if value)
        load = f'from spro_hf.diffusion.environment import load_generator; pipe = load_generator("{spec.id}"{said}); '
        load += (
            f'pipe.load_lora_weights("{repo}", weight_name="{WEIGHTS}", revision="{tag}")' if stock
            else f'from spro_hf.diffusion.lora import load_lora; load_lora(pipe, "{repo}", revision="{tag}")'
        )  # fmt: skip
    return room.publish("generator", "model", tag, folder, text, load, used, branch)


def inputs(room: Room) -> dict[str, Artifact]:
    """The guider and the generator that a multimodal recipe begins with, as artifacts."""
    recipe = room.recipe
    found = {"guider": recipe.guider.adapter, "generator": recipe.generator.lora}
    return {n: Artifact(r.repo, "model", r.revision, resolve(r.repo, "model", r.revision)) for n, r in found.items()}


def pipeline(
    room: Room,
    tag: str,
    newest: dict[str, Artifact],
    learned: list[Artifact],
    asked: Guider,
    drawn: DiffusionPipeline,
    shown: Path,
) -> Artifact:
    """Push guider and generator, which are ``newest``, together as an ``SPROPipeline``.

    ``learned`` are the rollouts of this stage that both learned from last, if there are any.
    """
    recipe, repo = room.recipe, room.recipe.push["pipeline"]
    folder = fresh(room, "pipeline")
    # one all of whose weights were trained is named itself, in the place of what it began from
    guider_at = (recipe.guider.id, recipe.guider.revision)
    guider_at = guider_at if isinstance(asked.model, PeftModel) else (newest["guider"].repo, newest["guider"].tag)
    base_at = (recipe.generator.id, recipe.generator.revision)
    base_at = base_at if has_lora(drawn) else (newest["generator"].repo, newest["generator"].tag)
    SPROPipeline(
        asked,
        drawn,
        guider_at[0],
        base_at[0],
        guider_at[1],
        base_at[1],
        recipe.generator.call,
        recipe.generator.scheduler,
    ).save_pretrained(folder)
    told, used = lay(shown, folder), [*(newest.values() if recipe.rounds else ()), *learned]
    text = card(
        room, "pipeline", "pipeline", tag, used, guider=vars(recipe.guider), rounds=recipe.rounds,
        parts={name: vars(one) for name, one in newest.items()},
        holds=[name for name in (ADAPTER, LORA) if (folder / name).is_dir()], **told,
    )  # fmt: skip
    scores(room, "pipeline", tag, folder, told, used)
    load = (
        f'from spro_hf import SPROPipeline; pipe = SPROPipeline.from_pretrained("{repo}", revision="{tag}"); '
        f'out = pipe("a red circle", objective="{recipe.objective}"); print(out.prompts[0]); out.images[0]'
    )
    return room.publish("pipeline", "model", tag, folder, text, load, used)


def results(room: Room, tag: str, step: Path) -> Artifact:
    """Push an evaluation: its numbers and sample pictures."""
    recipe, repo = room.recipe, room.recipe.push["results"]
    told = json.loads((step / "told.json").read_text())
    means = {(row["system"], row["metric"]): row for row in told["table"]}
    names = ["total", *(["planted", "alignment"] if recipe.oracle else []), *recipe.judges]
    rows = [
        {"name": f"{system}: {name}", "value": row["mean"], "se": row["se"], "n": row["n"],
         "base": means["base", name]["mean"]}
        for system in told["systems"] if system != "base" for name in names if (row := means[system, name])
    ]  # fmt: skip
    captions = len({seed.rpartition("/")[0] for seed in told["seed_ids"]})
    folder = shutil.copytree(step, fresh(room, "results"), dirs_exist_ok=True)
    text = card(
        room, "results", "results", tag, systems=told["systems"], captions=captions, noise_seeds=recipe.noise_seeds,
        judges=list(recipe.judges), results=rows, evaluated_on=f"{captions} held-out captions",
        told=portrait.of_results(folder),
    )  # fmt: skip
    load = (
        "import json; from huggingface_hub import hf_hub_download; "
        f'told = json.load(open(hf_hub_download("{repo}", "told.json", repo_type="dataset", revision="{tag}")))'
    )
    return room.publish("results", "dataset", tag, folder, text, load)


def load_dataset_line(repo: str, tag: str) -> str:
    """The line by which anybody loads a data set's version."""
    return f'from datasets import load_dataset; rows = load_dataset("{repo}", revision="{tag}", split="train")'
