"""What the tests of data sets ask of the real clients; runs in a process whose environment points at a local Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from spro_hf.errors import UserError


def code(card: str) -> list[str]:
    """The Python of a card, block by block."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def run(blocks: list[str], shown: list[str], **given: Any) -> dict[str, Any]:
    """Run a card's blocks as pasted, one after another; gives what the expressions ``shown`` are then."""
    for block in blocks:
        exec(block, given)
    return {expression: eval(expression, given) for expression in shown}


def load(repo: str, revision: str, config: str | None = None, streaming: bool = False) -> list[str] | str:
    """The base captions (or captions) of a version, or the sentence that says why there are none."""
    from spro_hf.hub.load import load_rows

    try:
        rows = load_rows(repo, revision, config, streaming=streaming)
    except UserError as error:
        return str(error)
    return [row.get("base_caption", row.get("caption")) for row in rows]


def stock(repo: str, revision: str, config: str | None = None, streaming: bool = False) -> list[str]:
    from datasets import load_dataset

    rows = load_dataset(repo, config, revision=revision, split="train", streaming=streaming)
    return [row.get("base_caption", row.get("caption")) for row in rows]


def offline() -> bool:
    return constants.HF_HUB_OFFLINE


def home() -> Path:
    return Path(constants.HF_HOME)


def types(repo: str, revision: str, config: str | None = None) -> Any:
    """The features with which a version is loaded, without a word about them."""
    from datasets import load_dataset

    return load_dataset(repo, config, revision=revision, split="train").features


def seeds_of(repo: str, revision: str, count: int) -> list[tuple[str, str, float]]:
    """Caption, prompt and score of a recipe's prompts, with the mapping of recipes/_data/spro_prompts.yaml."""
    import yaml

    from spro_hf import seeds
    from spro_hf.parts import Seeds

    told = yaml.safe_load(Path("recipes/_data/spro_prompts.yaml").read_text())["prompts"]
    where = {"source": repo, "revision": revision, "config": "prompts", "count": count, "streaming": False}
    return [(s.caption, s.prompt, s.score) for s in seeds.load(Seeds(**(told | where)), 0, "prompts")]


def train(card: str, folder: str) -> dict[str, float]:
    """Run the card of the pairs, and a step of its TRL trainer with the embedded world's guider; gives what it logged."""
    from peft import LoraConfig, get_peft_model
    from trl import DPOConfig

    from spro_hf.guider.guider import Guider

    guider = Guider.load("spro_hf/tiny/guider")
    model = get_peft_model(guider.model, LoraConfig(target_modules=["q_proj"]))
    kept, settings = DPOConfig.__init__, {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 1,
                                          "per_device_train_batch_size": 2, "report_to": "none", "logging_steps": 1,
                                          "save_strategy": "no", "disable_tqdm": True, "seed": 0}  # fmt: skip
    given = {"model": model, "processor": guider.processor}
    DPOConfig.__init__ = lambda self, *a, **named: kept(self, folder, *a[1:], **(settings | named))
    try:
        for block in code(card):
            exec(block, given)
    finally:
        DPOConfig.__init__ = kept
    trainer = given["trainer"]
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    (loss,) = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    pictures = given["pictures"]
    return {"loss": loss, "pictures": len(batch["pixel_values"]), "columns": pictures.column_names,
            "pick": pictures[0]["jpg_0"].getpixel((0, 0)), "label": pictures[0]["label_0"]}  # fmt: skip
