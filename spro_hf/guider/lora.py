"""The adapter that a guider learns in: which of its layers it stands on, and that it stays the same one."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, forked, renamed
from spro_hf.strict import nearest

LORA_FIELDS = ("rank", "alpha", "targets")
# The layers of the language part: of the part that has that name where pictures are seen (Idefics3, Mllama, Llava, Gemma 3,
# the Qwen-VLs), whose vision towers and connectors stay as they are, and those of a text-only model.
LAYERS = r"(.*\b(text_model|language_model)\b.*|model\.layers\..*)\."
PROJECTIONS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def add_lora(guider: Guider, lora: dict[str, Any] | None, seed: int) -> None:
    """Give the guider an adapter, or check that the one it carries is the one asked for.

    ``lora`` has rank, alpha and targets: names of layers of the language part joined by "|", a regular expression over
    whole module names, or None for all projections of the language part. Without ``lora`` nothing is done.

    Raises:
        UserError: for another field, targets that fit no layer, or other numbers than those of the adapter it carries.
    """
    if lora is None:
        return
    for name in lora:
        if name not in LORA_FIELDS:
            raise UserError(f"learn.lora: unknown field '{name}'; {nearest(name, LORA_FIELDS)}")
    rank, alpha = lora.get("rank", 8), lora.get("alpha", 16)
    targets = lora.get("targets") or PROJECTIONS
    pattern = f"{LAYERS}({targets})" if re.fullmatch(r"\w+(\|\w+)*", targets) else targets
    if isinstance(guider.model, PeftModel):
        has = guider.model.peft_config["default"]
        other = lora.get("targets") is not None and pattern != has.target_modules
        if other or (has.r, has.lora_alpha) != (rank, alpha):
            raise UserError(
                f"learn.lora: the guider carries an adapter of rank {has.r}, alpha {has.lora_alpha} and targets"
                f" '{has.target_modules}', and training goes on with it; give the same here."
            )
        return
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern, task_type="CAUSAL_LM")
    with forked(guider.device), renamed():
        torch.manual_seed(seed)
        try:
            guider.model = get_peft_model(guider.model, config)
        except ValueError as error:
            raise UserError(f"learn.lora.targets: '{targets}' matches no module of the guider ({error}).") from error
