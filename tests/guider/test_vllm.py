"""Sampling by vLLM, against a stand-in that takes the arguments which vLLM documents and no others.

The stand-in's engine loads the files that it is given with transformers, so that what it says was read from there.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider
from spro_hf.guider.learn import Pair, learn_dpo
from spro_hf.guider.processor import load_processor

QWEN3, IDEFICS = "Qwen/Qwen3-8B", "HuggingFaceTB/SmolVLM-Instruct"
PAIR = (
    "Plan:\n1. keep subjects\n2. add depth\nPrompt: misty river at dawn",
    "Plan:\n1. keep details\n2. add mist\nPrompt: bold",
)
MADE: list[weakref.ref] = []  # the engines
ASKED: list[dict] = []  # what each was asked
FAST = {"learning_rate": 3e-2, "per_device_train_batch_size": 2, "max_steps": 2}


@dataclass(frozen=True)
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    skip_special_tokens: bool = True


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass(frozen=True)
class Said:
    text: str
    finish_reason: str


class LLM:
    """Says the most probable reply whatever the temperature, and keeps what it was asked."""

    def __init__(
        self, model: str, *, dtype: str = "auto", enable_lora: bool = False, max_lora_rank: int = 16,
        limit_mm_per_prompt: dict[str, int] | None = None, gpu_memory_utilization: float = 0.9,
    ):  # fmt: skip
        assert max_lora_rank in (1, 8, 16, 32, 64, 128, 256, 320, 512)
        assert 0 < gpu_memory_utilization <= 1
        self.lora, self.pictures = enable_lora, limit_mm_per_prompt
        self.processor = load_processor(model)
        kind = AutoModelForImageTextToText if self.pictures else AutoModelForCausalLM
        self.model = kind.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        MADE.append(weakref.ref(self))
        ASKED.append({"model": model, "rank": max_lora_rank, "pictures": limit_mm_per_prompt, "lora": enable_lora})

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        assert self.lora == (lora_request is not None) and len(prompts) == len(sampling_params)
        model = PeftModel.from_pretrained(self.model, lora_request.lora_path) if lora_request else self.model
        ASKED[-1]["parameters"] = sampling_params
        return [
            types.SimpleNamespace(outputs=[self._say(model.eval(), *row)])
            for row in zip(prompts, sampling_params, strict=True)
        ]

    def _say(self, model, prompt, parameters) -> Said:
        assert prompt.keys() == {"prompt_token_ids"} | ({"multi_modal_data"} if self.pictures else set())
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        inputs = {"input_ids": torch.tensor([prompt["prompt_token_ids"]])}
        if self.pictures:
            # as vLLM does it: of one placeholder in the prompt's tokens as many as the picture takes
            text = tokenizer.decode(prompt["prompt_token_ids"])
            picture = prompt["multi_modal_data"]["image"]
            inputs = self.processor(text=[text], images=[[picture]], add_special_tokens=False, return_tensors="pt")
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=parameters.max_tokens)
        tokens = tokens[0, inputs["input_ids"].shape[1] :].tolist()
        done = tokens[-1] in parameters.stop_token_ids
        return Said(tokenizer.decode(tokens, skip_special_tokens=True), "stop" if done else "length")


@pytest.fixture
def vllm(monkeypatch):
    package, lora, request = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    package.LLM, package.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    MADE.clear(), ASKED.clear()
    return LLM


def texts(replies):
    return [[reply.text for reply in row] for row in replies]


@pytest.mark.parametrize("id", [QWEN3, IDEFICS])
def test_the_same_replies_as_transformers(vllm, shadows, scenes, id):
    own = Guider.load(str(shadows[id]), max_new_tokens=40)
    other = Guider.load(str(shadows[id]), max_new_tokens=40, backend="vllm")
    seen = []
    # unknown words are lost where the stand-in makes text of the tokens again, and are unknown words again
    assert texts(other.reply(scenes, [None, None], 0, seen.append)) == texts(own.reply(scenes, [None, None], 0))
    assert seen == [8]
    (asked,) = ASKED
    assert (asked["model"], asked["lora"]) == (str(shadows[id]), False)
    assert asked["pictures"] == (None if id == QWEN3 else {"image": 1})
    assert not [made for made in MADE if made() is not None], "the engine is gone"


def test_what_is_asked_of_the_sampler(vllm, shadows, scenes):
    guider = Guider.load(str(shadows[QWEN3]), max_new_tokens=40, backend="vllm")
    guider.reply(scenes[:2], [0.7, None], 5)
    guider.reply(scenes[:2], [0.7, None], 5)
    guider.reply(scenes[:2], [0.7, None], 6)
    first, again, other = (asked["parameters"] for asked in ASKED)
    assert [p.temperature for p in first] == [0.7, 0.0, 0.7, 0.0]
    assert {p.max_tokens for p in first} == {40} and first[0].stop_token_ids == guider.ends
    assert len({p.seed for p in first}) == 4  # a seed for each row
    assert first == again and not {p.seed for p in first} & {p.seed for p in other}
    guider.max_new_tokens = 3
    assert {row[0].problem for row in guider.reply(scenes, [1.0], 5)} == {"cut off"}


@pytest.mark.parametrize("lora", [{"rank": 12, "alpha": 24}, None])
def test_what_was_learned_is_what_samples(vllm, shadows, scenes, tmp_path, lora):
    guider = Guider.load(str(shadows[IDEFICS]), max_new_tokens=40, backend="vllm")
    before = texts(guider.reply(scenes, [None], 0))
    for seed in range(2):
        learn_dpo(guider, [Pair(task, *PAIR) for task in scenes], FAST, tmp_path, seed, lora)
        guider.backend = "transformers"
        own = texts(guider.reply(scenes, [None], 0))
        guider.backend = "vllm"
        assert texts(guider.reply(scenes, [None], 0)) == own != before
    assert ASKED[-1]["lora"] == (lora is not None)
    if lora:
        assert (ASKED[-1]["model"], ASKED[-1]["rank"]) == (str(shadows[IDEFICS]), 16)  # the next above 12
    else:
        assert not Path(ASKED[-1]["model"]).exists(), "written for the engine, and gone with it"
    gc.collect()
    assert not [made for made in MADE if made() is not None]


def test_without_vllm_and_with_several_processes(vllm, shadows, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        Guider.load(str(shadows[QWEN3]), backend="vllm")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'spro_hf\[vllm\]'"):
        Guider.load(str(shadows[QWEN3]), backend="vllm")
    with pytest.raises(UserError, match="did you mean 'vllm'"):
        Guider.load(str(shadows[QWEN3]), backend="vlm")


def test_an_adapter_wants_its_model_in_files(vllm, guider, tasks, tmp_path):
    guider.max_new_tokens, guider.backend = 4, "vllm"
    learn_dpo(guider, [Pair(task, *PAIR) for task in tasks], FAST, tmp_path, 0, {"rank": 4, "alpha": 8})
    with pytest.raises(UserError, match="save it whole and load it"):
        guider.reply(tasks, [1.0], 0)
    assert guider.device == torch.device("cpu")
