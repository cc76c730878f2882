"""Every kind of chat model as guider: loaded by its configuration, sampled, taught, saved and loaded again."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from spro_hf.errors import UserError
from spro_hf.guider import learn
from spro_hf.guider.guider import Guider
from spro_hf.guider.learn import Pair, _answer, _closing, _row, learn_dpo, learn_grpo, learn_sft
from spro_hf.guider.mllama import with_whole_mask
from tests.shadow.guiders import CHATS

MLLAMA, QWEN3 = "meta-llama/Llama-3.2-11B-Vision-Instruct", "Qwen/Qwen3-8B"
LLAVA, NUMBERS = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"
SEEING = [id for id in CHATS if id != QWEN3]
GOOD = "Plan:\n1. keep subjects\n2. add depth\nPrompt: misty river at dawn, soft"
BAD = "Plan:\n1. keep details\n2. add mist\nPrompt: bold market under rain"
LORA = {"rank": 4, "alpha": 8}
FAST = {"learning_rate": 1e-2, "per_device_train_batch_size": 2, "max_steps": 1}
VISION = re.compile("vision|visual|connector|projector")


def texts(replies):
    return [reply.text for candidates in replies for reply in candidates]


def weights(guider) -> dict[str, torch.Tensor]:
    """All weights, those of the base by the base's own names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): value.detach().clone()
        for name, value in guider.model.state_dict().items()
    }


@pytest.mark.parametrize("id", CHATS)
def test_samples_replies_that_parse(shadows, scenes, id):
    assert sum(file.stat().st_size for file in shadows[id].iterdir()) < 2e6
    guider = Guider.load(str(shadows[id]), max_new_tokens=40)
    assert guider.sees == (id != QWEN3)
    replies = [reply for row in guider.reply(scenes, [0.7, 1.0, 1.0, 1.2], seed=1) for reply in row]
    assert sum(reply.prompt is not None for reply in replies) >= 15  # of 16
    assert len({reply.prompt for reply in replies}) > 8
    # padding changes nothing: the most probable reply is the same alone and beside longer prompts
    assert texts(guider.reply(scenes, [None], 0)) == [texts(guider.reply([task], [None], 0))[0] for task in scenes]


def test_a_text_begins_with_its_first_token_once(shadows, scenes):
    """Llama's chat template writes it; LLaVA-1.5's leaves it to the tokenizer, which then writes it before each."""
    guider = Guider.load(str(shadows[MLLAMA]))
    ids = guider.encode(scenes[:1])["input_ids"][0].tolist()
    assert ids[0] == guider.tokenizer.bos_token_id and ids.count(ids[0]) == 1
    guider = Guider.load(str(shadows[LLAVA]))
    before = guider.encode(scenes[:1])["input_ids"][0].tolist()
    guider.tokenizer.add_special_tokens({"bos_token": "yes"})  # any token will do
    start = ("yes", guider.tokenizer.bos_token_id)
    guider.tokenizer.backend_tokenizer.post_processor = TemplateProcessing("yes $A", special_tokens=[start])
    assert guider.encode(scenes[:1])["input_ids"][0].tolist() == [start[1], *before]


@pytest.mark.parametrize("id", SEEING)
def test_the_picture_matters(shadows, scenes, id):
    guider = Guider.load(str(shadows[id]))
    with torch.no_grad():
        one, two = (guider.model(**guider.encode([task])).logits[0, -1] for task in scenes[:2])
    assert (one - two).abs().max() > 1e-4


def test_a_number_is_answered_too(shadows, scenes):
    answers = texts(Guider.load(str(shadows[NUMBERS]), max_new_tokens=8).reply(scenes, [1.0] * 3, seed=0))
    assert all(re.fullmatch(r"[1-9]\d?", answer) for answer in answers)
    assert len(set(answers)) > 4


@pytest.mark.parametrize("id", CHATS)
def test_lora_stands_on_the_language_part_and_alone_is_moved(shadows, scenes, tmp_path, id):
    guider = Guider.load(str(shadows[id]), max_new_tokens=40)
    before, config = weights(guider), guider.model.config.to_dict()
    projections = {
        name
        for name, module in guider.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not VISION.search(name) and name != "lm_head"
    }
    metrics = learn_dpo(guider, [Pair(task, GOOD, BAD) for task in scenes], FAST, tmp_path, 0, LORA)
    assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    adapted = {name for name, module in guider.model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == projections and len(adapted) == 14  # two layers; q, k, v, o and gate, up, down of each
    after = weights(guider)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    moved = [value for name, value in after.items() if "lora_B" in name]
    assert len(moved) == 14 and all(value.abs().sum() > 0 for value in moved)
    assert guider.model.get_base_model().config.to_dict() == config


@pytest.mark.parametrize("id", CHATS)
def test_all_weights_are_trained_saved_and_trained_on(shadows, scenes, tmp_path, id):
    guider = Guider.load(str(shadows[id]), max_new_tokens=40)
    before, pairs = weights(guider), [Pair(task, GOOD, BAD) for task in scenes]
    first = learn_dpo(guider, pairs, {**FAST, "learning_rate": 1e-4}, tmp_path, 0, None)
    after = weights(guider)
    language = [name for name in after if "layers." in name and not VISION.search(name)]
    # of an Mllama's cross-attention the keys and values see the picture, all else the text too: everything moves
    assert len(language) > 14 and all((before[name] != after[name]).any() for name in language)
    guider.save(tmp_path / "all")
    again = Guider.load(str(shadows[id]), adapter=str(tmp_path / "all"), max_new_tokens=40)
    loaded = weights(again)
    assert loaded.keys() == after.keys() and all(torch.equal(loaded[name], after[name]) for name in after)
    assert texts(again.reply(scenes, [1.0], 3)) == texts(guider.reply(scenes, [1.0], 3))
    # the reference of a later round is what it begins with, not the checkpoint that all began with
    second = learn_dpo(again, pairs, FAST, tmp_path, 0, None)
    assert [first["first_loss"], second["first_loss"]] == pytest.approx([math.log(2)] * 2, abs=1e-5)


@pytest.mark.parametrize("id", SEEING)
def test_training_reads_what_sampling_reads(shadows, scenes, id):
    guider = Guider.load(str(shadows[id]))
    end = _closing(guider)
    rows = [_row(guider, task, chosen=_answer(GOOD, end), rejected=_answer(BAD, end)) for task in scenes]
    batch = with_whole_mask(DataCollatorForVisionPreference(guider.processor), guider.model)(rows)
    sampled = guider.encode(scenes)
    for i in range(len(scenes)):
        ids, mask = batch["input_ids"][i], batch["completion_mask"][i].bool()
        prompt = ids[batch["attention_mask"][i].bool() & ~mask].tolist()
        assert prompt == sampled["input_ids"][i][sampled["attention_mask"][i].bool()].tolist()
        # the reply, the token that ends it, and at most the space that the template writes behind
        reply = guider.tokenizer.decode(ids[mask]).strip()
        assert reply == GOOD + guider.tokenizer.eos_token
        assert torch.equal(batch["pixel_values"][i], sampled["pixel_values"][i])
    if id == MLLAMA:
        whole = [guider.written(task) + GOOD for task in scenes]
        pictures = [[task.image] for task in scenes]
        own = guider.processor(text=whole, images=pictures, padding=True, padding_side="right", return_tensors="pt",
                               add_special_tokens=False)  # fmt: skip
        rows, length = len(scenes), own["input_ids"].shape[1]
        # where there is text; what padding sees is nobody's concern
        there = own["attention_mask"].bool()
        assert torch.equal(batch["cross_attention_mask"][:rows, :length][there], own["cross_attention_mask"][there])


def test_a_thinking_model_is_told_not_to(shadows, scenes, tmp_path, monkeypatch):
    """Where it samples and where it learns; if it is let, the shadow thinks until it is cut off."""
    guider = Guider.load(str(shadows[QWEN3]), max_new_tokens=40)
    assert guider.written(scenes[0]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    learned = []
    monkeypatch.setattr(learn, "_run", lambda trainer: learned.append(trainer.train_dataset[0]) or {})
    learn_dpo(guider, [Pair(task, GOOD, BAD) for task in scenes], FAST, tmp_path, 0, LORA)
    learn_sft(guider, [(task, GOOD) for task in scenes], FAST, tmp_path, 0, LORA)
    prompt = guider.encode(scenes[:1])["input_ids"][0].tolist()
    pair, example = learned
    assert pair["prompt_ids"] == prompt
    assert guider.tokenizer.decode(pair["chosen_ids"]) == GOOD + "<|im_end|>\n"
    assert example["input_ids"] == prompt + pair["chosen_ids"]
    guider.template_words = {}
    assert {row[0].problem for row in guider.reply(scenes, [1.0], 0)} == {"cut off"}


def test_grpo_of_a_text_only_guider_and_of_none_that_loses_its_picture(shadows, scenes, tmp_path):
    seen = []

    def reward(asked, replies):
        seen.extend(reply.problem for reply in replies)
        return [float("misty" in (reply.prompt or "")) for reply in replies]

    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 2}
    guider = Guider.load(str(shadows[QWEN3]), max_new_tokens=40)
    metrics = learn_grpo(guider, scenes, reward, settings, tmp_path, 0, LORA)
    assert seen == [None] * 16 and 0 <= metrics["reward"] <= 1
    with pytest.raises(UserError, match="choose dpo or sft"):
        learn_grpo(Guider.load(str(shadows[MLLAMA])), scenes, reward, settings, tmp_path, 0, LORA)


def test_the_end_is_learned_where_the_template_writes_none(shadows):
    assert {id: _closing(Guider.load(str(shadows[id]))) for id in CHATS} == {
        id: "</s>" if id == LLAVA else "" for id in CHATS
    }


def test_bfloat16_and_checkpointing_leave_no_trace(shadows, scenes, tmp_path):
    guider = Guider.load(str(shadows[LLAVA]), dtype="bfloat16", max_new_tokens=40)
    pairs = [Pair(task, GOOD, BAD) for task in scenes]
    settings = {**FAST, "bf16": True, "activation_checkpointing": True}
    for _ in range(2):
        metrics = learn_dpo(guider, pairs, settings, tmp_path, 0, LORA)
        assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
        base = guider.model.get_base_model()
        assert not {"forward", "_original_forward"} & (vars(base).keys() | vars(guider.model).keys())
        assert not base.is_gradient_checkpointing
    kinds = {"lora_" in name: parameter.dtype for name, parameter in guider.model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert all(reply.prompt for row in guider.reply(scenes, [1.0], 0) for reply in row)


def test_a_whole_guider_without_a_processor_takes_the_first_ones(shadows, scenes, tmp_path):
    guider = Guider.load(str(shadows[QWEN3]), max_new_tokens=40)
    guider.model.save_pretrained(tmp_path)
    again = Guider.load(str(shadows[QWEN3]), adapter=str(tmp_path), max_new_tokens=40)
    assert texts(again.reply(scenes, [1.0], 0)) == texts(guider.reply(scenes, [1.0], 0))
    assert (guider.folder, again.folder) == (str(shadows[QWEN3]), None)


def test_what_is_no_guider_is_refused(shadows, scenes, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"guider\.id: .* is no model of transformers"):
        Guider.load(str(tmp_path / "none"))
    (tmp_path / "none" / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    with pytest.raises(UserError, match="writes no text"):
        Guider.load(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"guider\.adapter: .* is no adapter of this guider"):
        (tmp_path / "empty").mkdir()
        Guider.load(str(shadows[QWEN3]), adapter=str(tmp_path / "empty"))
    llava = Guider.load(str(shadows[LLAVA]))
    learn_dpo(llava, [Pair(scenes[0], GOOD, BAD)], FAST, tmp_path, 0, LORA)
    llava.save(tmp_path / "llava")
    with pytest.raises(UserError, match=r"guider\.adapter: .* is no adapter of this guider"):
        Guider.load(str(shadows[QWEN3]), adapter=str(tmp_path / "llava"))
