"""``results.json``: every number of every table of a run, gathered from what its stages left."""

from __future__ import annotations

import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spro_hf import seeds, watch
from spro_hf.schema import EvaluateRecipe, ImageRecipe, PromptRecipe, Recipe, ReferencesRecipe, ReinforceRecipe
from spro_hf.statistics import mean_se
from spro_hf.steps import write_whole

PACKAGES = ("torch", "transformers", "trl", "diffusers", "peft", "accelerate", "datasets", "evaluate", "huggingface_hub",
            "safetensors")  # fmt: skip
NOTES = [
    "The embedded world is a toy: 32×32 pictures, planted tastes, models of a few million parameters made for it. Its "
    "numbers say how the method behaves, not how good it is on real pictures.",
    "The engagement scorer is a stand-in: EngageNet's weights are not public.",
]
TITLES = {  # by what the run is about
    "self-play": ("SPRO", "Self-play reward optimisation: the guider learns from its own wins and losses, the generator from the "
           "winning pictures."),
    "policy": ("Policy gradient", "The generator draws groups of pictures, and the denoising steps that led to the better ones "
            "become likelier."),
    "adversary": ("Adversarial reward", "The generator and its reward learn in turns: the one to please, the other to tell its "
                  "pictures from references."),
    "references": ("Reference pictures", "What a reward is to learn to prefer."),
}  # fmt: skip
TOLD = ("table", "changes", "gains", "win_rates", "strategies", "costs", "samples")  # what an evaluation leaves as rows
LOWER = {"blur"}  # metrics of which less is better
POINTS = 8  # of a training's curve
KINDS = {  # of curves; all others are judges'
    "total": "reward", "planted": "planted", "alignment": "oracle", "subject": "oracle", "style": "oracle",
    "diversity": "diversity", "saturation": "saturation",
}  # fmt: skip
METRICS = {
    "total": ("reward", "reward", "the objective's own reward: what was optimised"),
    "aesthetic": ("reward", "0–10", "the aesthetic scorer: a linear head on CLIP, as LAION's"),
    "engagement": ("reward", "0–100", "the engagement scorer: a stand-in for EngageNet"),
    "pickscore": ("reward", "about 20", "the PickScore-like scorer, against the base caption"),
    "aesthetic_v2": ("reward", "0–10", "LAION's improved aesthetic predictor, five linear layers on CLIP"),
    "blur": ("reward", "0–1", "how blurred a picture is, without a reference; lower is better"),
    "clip_iqa": ("reward", "0–100", "CLIP-IQA: a good photo against a bad photo"),
    "engagenet": ("reward", "0–100", "a vision-language model under EngageNet's interface"),
    "hpsv2": ("reward", "about 0.2–0.35", "Human Preference Score v2, against the base caption"),
    "imagereward": ("reward", "about −2–2", "ImageReward, against the base caption"),
    "pickscore_prompt": ("reward", "about 20", "PickScore against the rewritten prompt"),
    "similarity": ("reward", "0–100", "CLIP likeness to the base picture"),
    "clip": ("reward", "0–100", "CLIP text–image score against the base caption"),
    "judge": ("judge", "about 0–3", "a judge nobody trained on"),
    "alignment": ("oracle", "share", "share of what the base caption names that the picture truly shows"),
    "subject": ("oracle", "share", "pictures in which every thing of the base caption stands, in shape and colour"),
    "style": ("oracle", "share", "pictures that show all of the style that is asked for"),
    "planted": ("planted", "truth", "the planted truth of the objective, which nobody trained on directly"),
    "diversity": ("diversity", "1/255", "mean pixel difference between pictures of one caption"),
    "saturation": ("watch", "share", "how colourful pictures are: the mean of HSV's saturation"),
}


def gather(folder: Path, recipes: list[Recipe], rooms: list[Path], seconds: float, command: str) -> dict[str, Any]:
    """Write ``results.json`` and the sample pictures of a run; returns what was written (see ``spro_hf.report``)."""
    told = [json.loads(file.read_text()) for room in rooms if (file := room / "told" / "told.json").exists()]
    (folder / "samples").mkdir(exist_ok=True)
    for room in rooms:
        for picture in (room / "told" / "samples").glob("*.png"):
            shutil.copy(picture, folder / "samples" / picture.name)
    curves, replies = [], []
    for recipe, room in zip(recipes, rooms, strict=True):
        if isinstance(recipe, PromptRecipe):
            some, counted = _rounds(recipe, room)
            curves += some
            replies += counted
        if isinstance(recipe, ReinforceRecipe):
            curves += _training(recipe, room)
    names = dict.fromkeys([*(row["metric"] for t in told for row in t["table"]), *(row["name"] for row in curves)])
    kinds = {name: spec.get("kind", name) for recipe in recipes for name, spec in recipe.scorers.items()}
    called = {name for t in told for name in t["judges"]}
    name, subtitle = TITLES[_about(recipes)]
    results = {
        "title": f"{name} on the embedded world" if all(r.oracle for r in recipes) else name,
        "subtitle": subtitle,
        "made": {
            "date": time.strftime("%Y-%m-%d"), "seconds": round(seconds, 1), "seed": recipes[0].seed,
            "versions": {name: version(name) for name in PACKAGES}, "command": command,
        },
        "objectives": list(dict.fromkeys(recipe.objective for recipe in recipes)),
        "systems": list(dict.fromkeys(name for t in told for name in t["systems"])),
        "metrics": [_metric(name, kinds.get(name, name), called) for name in names],
        "judges": judges(recipes),
        **{key: [row for t in told for row in t.get(key, [])] for key in TOLD},
        "curves": curves,
        "prompts": [_before_after(sample) for t in told for sample in t["samples"]],
        "replies": replies,
        "artifacts": [json.loads(f.read_text()) for room in rooms for f in _in_order(room)],
        "unknown_words": unknown_words(recipes),
        "notes": (NOTES if all(r.oracle for r in recipes) else []) + _unparsed(told),
    }  # fmt: skip
    write_whole(folder / "results.json", json.dumps(results, indent=1))
    return results


def _about(recipes: list[Recipe]) -> str:
    """Which of the titles is a run's: of self-play, where anybody plays, or a system of an evaluation has a guider."""
    if all(isinstance(r, ReferencesRecipe) for r in recipes):
        return "references"
    if any(isinstance(r, ReinforceRecipe) and r.adversary for r in recipes):
        return "adversary"
    guided = any(s.guided for r in recipes if isinstance(r, EvaluateRecipe) for s in r.systems.values())
    return "self-play" if guided or any(isinstance(r, PromptRecipe | ImageRecipe) for r in recipes) else "policy"


def _in_order(room: Path) -> list[Path]:
    return sorted((room / "published").glob("*.json"), key=lambda f: f.stat().st_mtime)


def _metric(name: str, scorer: str, judges: set[str]) -> dict[str, Any]:
    """What is to be known of a metric; ``scorer`` is the kind of scorer that is called so, or the name itself."""
    kind, unit, what = METRICS.get(name) or METRICS.get(scorer, ("reward", "", f"the scorer '{name}'"))
    kind = "judge" if name in judges else kind
    return {"name": name, "kind": kind, "unit": unit, "higher_is_better": scorer not in LOWER, "what": what}


def judges(recipes: list[Recipe]) -> list[dict[str, str]]:
    """The judges of each objective's evaluations: scorers that no recipe of that objective trains on, or lets learn.

    A scorer that has learned (``trained``) was some training's reward; it is one only if the recipe calls it so.
    """
    learned = {
        (recipe.objective, name) for recipe in recipes for name in recipe.scorers if name not in watch.judges(recipe)
    }
    found = {
        (recipe.objective, name): None
        for recipe in recipes
        if isinstance(recipe, EvaluateRecipe)
        for name in watch.judges(recipe)
        if (recipe.objective, name) not in learned
        and (name in recipe.judges or recipe.scorers[name].get("kind", name) != "trained")
    }
    return [{"objective": objective, "name": name} for objective, name in found]


def _rounds(recipe: PromptRecipe, room: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Curves and reply counts of a stage's rounds. Round 0 is the base captions' pictures of the first round."""
    curves, replies = [], []
    for folder in sorted(room.glob("round-*"), key=lambda f: int(f.name.rpartition("-")[2])):
        number, told = int(folder.name.rpartition("-")[2]), json.loads((folder / "account.json").read_text())
        where = {"objective": recipe.objective, "stage": recipe.stage, "unit": "round", "round": number}
        counted = ("replies", "unparsed", "problems", "too_similar_or_far", "kept_pairs")
        replies.append(where | {key: told[key] for key in counted})
        for name, value in told["curves"].items():
            if name != "base":
                curves.append(where | {"name": name, "kind": KINDS.get(name, "judge")} | value)
            elif number == 1:
                curves.append(where | {"round": 0, "name": "total", "kind": "reward"} | value)
    return sorted(curves, key=lambda row: row["round"]), replies


def _training(recipe: ReinforceRecipe, room: Path) -> list[dict[str, Any]]:
    """Curves of a policy-gradient stage: means over runs of its training steps, each named by its last step.

    Where several scorers make the reward each of them has its own. ``moving`` marks a reward that learns meanwhile: what it
    gives for a picture now and what it gave before do not compare.
    """
    folders = sorted((room / "train").glob("step-*"), key=lambda f: int(f.name.rpartition("-")[2]))
    rows = [row for folder in folders for row in json.loads((folder / "curve.json").read_text())]
    rewards = [name for name in recipe.scorers if recipe.reward.get(name)]
    kinds = {"total": "reward"} | (dict.fromkeys(rewards, "reward") if len(rewards) > 1 else {}) | KINDS
    kinds |= dict.fromkeys(watch.judges(recipe), "judge")
    if recipe.group == 1:  # of one picture a caption there is nothing to tell
        kinds.pop("diversity")
    moving = {"total", recipe.adversary.reward} if recipe.adversary else set()
    curves = []
    for some in np.array_split(np.arange(len(rows)), min(POINTS, len(rows))):
        where = {"objective": recipe.objective, "stage": recipe.method, "unit": "step", "round": rows[some[-1]]["step"]}
        for name, kind in kinds.items():
            if all(name in rows[i]["scores"] for i in some):
                told = {"name": name, "kind": kind} | ({"moving": True} if name in moving else {})
                curves.append(where | told | mean_se([rows[i]["scores"][name]["mean"] for i in some]))
    return curves


def _before_after(sample: dict[str, Any]) -> dict[str, Any]:
    systems = sample["systems"]
    last = next((systems[n] for n in ("SPRO-MM", "SPRO-Prompt") if n in systems), systems["base"])
    before = systems.get("untrained guider", systems["base"])
    return {"objective": sample["objective"], "caption": sample["caption"], "before": before["prompt"],
            "after": last["prompt"], "plan": last["plan"]}  # fmt: skip


def unknown_words(recipes: list[Recipe]) -> list[dict[str, Any]]:
    """Training captions with words that the embedded world does not know, with those words."""
    found: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        if isinstance(recipe, PromptRecipe | ReinforceRecipe) and recipe.oracle:
            for row in seeds.unknown_words([s.caption for s in seeds.load(recipe.seeds, recipe.seed)]):
                found[row["caption"]] = row
    return list(found.values())


def _unparsed(told: list[dict[str, Any]]) -> list[str]:
    """Where a system's replies did not parse in the evaluation and the base caption was drawn: said in words."""
    return [
        f"{t['objective']}, {name}: {count} of the evaluated replies did not parse; their base captions were drawn."
        for t in told
        for name, count in t["unparsed"].items()
        if count
    ]
