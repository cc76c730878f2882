"""Sample a guider's replies with vLLM instead of transformers; what the guider learns, it learns with TRL as ever.

vLLM needs an accelerator and wants older versions of some packages than the rest, so it is an extra that is installed by
hand. This module follows its documented interface (``LLM``, ``SamplingParams``, ``LoRARequest``) and is tested against a
stand-in of it; it was never run against the real one.

An engine takes most of the accelerator's memory and reads its weights from files. So one is made for each call, out of
the weights as they are now, while the guider's own model waits in the CPU's memory, and it is gone before anything is
learned or rendered. That takes a minute or so: ask for many replies at once.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel

from spro_hf import parallel
from spro_hf.errors import UserError
from spro_hf.steps import derive

if TYPE_CHECKING:
    from spro_hf.guider.guider import Guider, Task

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that an engine can be laid out for
SHARE = 0.9  # of the memory that is free


def check() -> None:
    """Raise a UserError where vLLM cannot be used: if it is not installed, or several processes run."""
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise UserError(
            "guider.backend: vllm is not installed; `pip install 'spro_hf[vllm]'`, or leave the field out."
        ) from error
    if parallel.world() > 1:
        raise UserError("guider.backend: 'vllm' samples in one process, and several run; leave the field out.")


def sample(guider: Guider, rows: Sequence[tuple[Task, float]], seed: int) -> list[tuple[str, bool]]:
    """The text of one reply per task and temperature (0 for the most probable one), and whether it came to its end.

    Each row has a seed of its own; the same rows and seed give the same replies as far as vLLM's own arithmetic does.
    """
    check()
    from vllm import SamplingParams

    asked, parameters = [], []
    for i, (task, temperature) in enumerate(rows):
        text = guider.written(task)
        ids = guider.tokenizer(text, add_special_tokens=guider.lacks_start(text))["input_ids"]
        picture = {"multi_modal_data": {"image": task.image.convert("RGB")}} if guider.sees else {}
        asked.append({"prompt_token_ids": ids, **picture})
        parameters.append(
            SamplingParams(
                temperature=temperature,
                max_tokens=guider.max_new_tokens,
                seed=derive(seed, "reply", i),
                stop_token_ids=guider.ends,
                skip_special_tokens=True,
            )
        )
    with tempfile.TemporaryDirectory() as folder, _aside(guider):
        outputs = _generate(guider, Path(folder), asked, parameters)
    return [(output.outputs[0].text, output.outputs[0].finish_reason == "stop") for output in outputs]


def _generate(guider: Guider, folder: Path, asked: list[dict[str, Any]], parameters: list[Any]) -> list[Any]:
    """An engine's outputs; the engine is gone when this returns."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    settings: dict[str, Any] = {"dtype": str(guider.model.dtype).removeprefix("torch.")}
    model, lora = guider.folder, None
    if isinstance(guider.model, PeftModel):
        if model is None:
            raise UserError(
                "guider.backend: vllm reads the model under an adapter from files; save it whole and load it."
            )
        rank = guider.model.peft_config["default"].r
        settings |= {"enable_lora": True, "max_lora_rank": next((r for r in RANKS if r >= rank), rank)}
        guider.model.save_pretrained(folder / "adapter")
        lora = LoRARequest(lora_name="guider", lora_int_id=1, lora_path=str(folder / "adapter"))
    elif model is None:
        model = str(folder / "model")
        guider.save(model)
    if guider.sees:
        settings["limit_mm_per_prompt"] = {"image": 1}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        settings["gpu_memory_utilization"] = SHARE * free / total
    engine = LLM(model=model, **settings)
    return engine.generate(asked, parameters, use_tqdm=False, lora_request=lora)


@contextmanager
def _aside(guider: Guider) -> Iterator[None]:
    """The guider's model in the CPU's memory, and the accelerator's given back before and behind."""
    device = guider.device
    guider.model.to("cpu")
    _give_back()
    try:
        yield
    finally:
        _give_back()
        guider.model.to(device)


def _give_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
