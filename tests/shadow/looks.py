"""What a recipe left on the Hub, looked at with the stock clients; runs in the worker, whose environment names the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

from spro_hf import recipe as recipes_of
from spro_hf import run
from spro_hf.schema import Recipe

WEIGHTS, REWARD = "pytorch_lora_weights.safetensors", "reward.json"
_families: set[str] = set()  # of which a LoRA has been loaded


def look(file: Path, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each artifact that the recipe leaves: where it is, its commit, its files, its card and its lineage.

    Of rollouts, pairs, references and results also what ``load_dataset`` or the stock download gives, of the first LoRA of
    each family how its matrices come back when the pipeline loads them, and of a reward that learned how it scores.
    """
    (recipe,) = recipes_of.load(file, changes)
    found = []
    for repo, kind, tag in sorted(run.outputs(recipe)):
        what = {"repo_type": kind, "revision": tag}
        info = HfApi().repo_info(repo, **what)
        told = {
            "repo": repo,
            "kind": kind,
            "tag": tag,
            "commit": info.sha,
            "files": [s.rfilename for s in info.siblings],
        }
        for name, key in (("README.md", "card"), ("lineage.json", "lineage"), ("told.json", "told")):
            if name in told["files"]:
                text = Path(hf_hub_download(repo, name, **what)).read_text(encoding="utf-8")
                told[key] = text if name == "README.md" else json.loads(text)
        if kind == "dataset" and "told" not in told:
            told |= _rows(repo, tag)
        if WEIGHTS in told["files"] and recipe.generator.id not in _families:
            _families.add(recipe.generator.id)
            told["lora"] = _lora(recipe, repo, tag)
        if REWARD in told["files"]:
            told["scores"] = _scores(repo, tag)
        found.append(told)
    found_inputs = {
        what: HfApi().repo_info(r, repo_type=k, revision=t).sha for what, (r, k, t) in recipe.inputs.items()
    }
    return [told | {"inputs": found_inputs} for told in found]


def _rows(repo: str, tag: str) -> dict[str, Any]:
    from datasets import load_dataset

    rows = load_dataset(repo, revision=tag, split="train")
    return {"columns": rows.column_names, "rows": rows.num_rows}


def _scores(repo: str, tag: str) -> list[float]:
    """What a reward that learned says of two pictures."""
    from spro_hf.rewards import Brief, trained
    from tests.shadow.datasets import painted

    caption = 'a sign that says "Open"'
    return trained(repo, tag)([painted(1), painted(2)], [Brief(caption, caption)] * 2)


def _lora(recipe: Recipe, repo: str, tag: str) -> dict[str, Any]:
    """Rank and the number of matrices of the LoRA in the pipeline, and whether training moved any B from zero."""
    from spro_hf.diffusion.environment import denoiser_name, load_generator
    from spro_hf.diffusion.lora import load_lora

    pipe = load_generator(recipe.generator.id, recipe.generator.revision)
    load_lora(pipe, repo, tag)
    denoiser = getattr(pipe, denoiser_name(pipe))
    ups = {name: p for name, p in denoiser.named_parameters() if "lora_B" in name}
    return {
        "rank": denoiser.peft_config["default"].r,
        "matrices": len(ups),
        "moved": sum(bool(p.abs().max() > 0) for p in ups.values()),
    }
