"""TRL under the guider: what moves, what stays, which reference a later round has, and that it samples again."""

from __future__ import annotations

import math

import pytest
import torch
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from spro_hf.errors import UserError
from spro_hf.guider.learn import Pair, _answer, _reward_function, _row, learn_dpo, learn_grpo, learn_sft
from spro_hf.tiny.make.guider import batch, new_guider

LORA = {"rank": 4, "alpha": 8}
FAST = {"learning_rate": 5e-3, "per_device_train_batch_size": 4, "num_train_epochs": 3}
RECITE = {
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 30,
    "lr_scheduler_type": "constant",
}
GOOD, BAD = "Plan: 1. keep a star Prompt: a star, soft shadow", "Plan: 1. keep a star Prompt: a star, film grain"


@pytest.fixture
def pairs(tasks):
    return [Pair(task, GOOD, BAD) for task in tasks]


def weights(guider, adapter: bool) -> dict[str, torch.Tensor]:
    """Weights of the adapter or of the base, by the base's own names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): p.detach().clone()
        for name, p in guider.model.named_parameters()
        if ("lora_" in name) == adapter
    }


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_dpo_raises_the_margin_and_moves_the_adapter_only(guider, pairs, tasks, tmp_path):
    base, config = weights(guider, adapter=False), guider.model.config.to_dict()
    metrics = learn_dpo(guider, pairs, FAST, tmp_path, 0, LORA)
    assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["rewards/margins"] > 0.05 and metrics["rewards/accuracies"] == 1.0
    assert equal(weights(guider, adapter=False), base)
    moved = weights(guider, adapter=True)
    assert moved and all("text_model" in name for name in moved)
    assert all(p.abs().sum() > 0 for p in moved.values())
    assert guider.model.get_base_model().config.to_dict() == config
    assert not list(tmp_path.iterdir()), "nothing is saved while training"


def test_a_later_round_starts_from_its_own_reference(guider, pairs, tmp_path):
    learn_dpo(guider, pairs, FAST, tmp_path, 0, LORA)
    after_one = weights(guider, adapter=True)
    second = learn_dpo(guider, pairs, FAST, tmp_path, 1, LORA)
    # policy = reference at the first step: the loss is −log σ(0) = ln 2, though the adapter is far from the base by now
    assert second["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert list(guider.model.peft_config) == ["default"]
    after_two = weights(guider, adapter=True)
    assert after_one.keys() == after_two.keys() and not equal(after_one, after_two)


def test_all_weights_have_the_round_before_as_reference_too(guider, pairs, tmp_path):
    settings = {**FAST, "learning_rate": 1e-3}
    before = weights(guider, adapter=False)
    for seed in range(2):
        metrics = learn_dpo(guider, pairs, settings, tmp_path, seed, None)
        assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert metrics["rewards/margins"] > 0
    assert not equal(weights(guider, adapter=False), before)


def test_learning_is_deterministic_and_leaves_the_random_state(guider, pairs, tmp_path):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = learn_dpo(guider, pairs, FAST, tmp_path, 3, LORA)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    twin = new_guider(seed=0)
    second = learn_dpo(twin, pairs, FAST, tmp_path, 3, LORA)
    assert first["loss"] == second["loss"]
    assert equal(weights(guider, adapter=True), weights(twin, adapter=True))


def test_the_guider_samples_after_training(guider, pairs, tasks, tmp_path):
    guider.max_new_tokens = 6
    learn_dpo(guider, pairs, FAST, tmp_path, 0, LORA)
    assert not guider.model.training
    assert "forward" not in vars(guider.model.get_base_model())
    assert all(p.grad is None for p in guider.model.parameters())
    assert guider.model.config.use_cache
    assert len(guider.reply(tasks, [1.0, None], seed=0)[0]) == 2


def test_training_reads_what_sampling_reads(guider, tasks, tmp_path):
    """The prompt that TRL's collator makes of a row is, token by token, the one that replies are sampled from."""
    rows = [_row(guider, task, chosen=_answer(GOOD), rejected=_answer(BAD)) for task in tasks]
    batch = DataCollatorForVisionPreference(guider.processor)(rows)
    sampled = guider.encode(tasks)
    tokenizer = guider.processor.tokenizer
    for i in range(len(tasks)):
        ids, mask = batch["input_ids"][i], batch["completion_mask"][i].bool()
        prompt = ids[batch["attention_mask"][i].bool() & ~mask].tolist()
        assert prompt == sampled["input_ids"][i][sampled["attention_mask"][i].bool()].tolist()
        assert tokenizer.decode(ids[mask]) == GOOD + " <end_of_utterance>"
        assert torch.equal(batch["pixel_values"][i], sampled["pixel_values"][i])


def test_sft_teaches_a_reply(guider, tasks, tmp_path):
    on_reply = guider.model(**batch(guider.processor, [(task, True, GOOD) for task in tasks])).loss.item()
    metrics = learn_sft(guider, [(task, GOOD) for task in tasks], RECITE, tmp_path, 0, None)
    # the mean over the reply's tokens and its end, with random weights near ln 99 = 4.6
    assert metrics["first_loss"] == pytest.approx(on_reply, abs=1e-4)
    replies = guider.reply(tasks, [None], seed=0)
    assert {c[0].prompt for c in replies} == {"a star, soft shadow"}


def test_grpo_gives_every_reply_to_the_reward(guider, tasks, tmp_path):
    learn_sft(guider, [(task, GOOD) for task in tasks], RECITE, tmp_path, 0, None)
    calls = []

    def reward(asked, replies):
        calls.append([(task.caption, reply.prompt) for task, reply in zip(asked, replies, strict=True)])
        return [-1.0 if reply.prompt is None else float("shadow" in reply.prompt) for reply in replies]

    settings = {
        "learning_rate": 1e-3, "per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 2,
        "max_completion_length": 24, "beta": 0.1,
    }  # fmt: skip
    base = weights(guider, adapter=False)
    metrics = learn_grpo(guider, tasks, reward, settings, tmp_path, 0, LORA)
    seen = [entry for call in calls for entry in call]
    assert seen and {caption for caption, _ in seen} <= {task.caption for task in tasks}
    assert len(seen) == 16 and any(prompt for _, prompt in seen)  # two steps of eight
    assert -1.0 <= metrics["reward"] <= 1.0
    assert equal(weights(guider, adapter=False), base)
    assert list(guider.model.peft_config) == ["default"]


def test_the_reward_function_by_hand(guider, tasks):
    end = guider.processor.tokenizer.eos_token_id
    problems = []

    def reward(asked, replies):
        problems.extend(reply.problem for reply in replies)
        return [-3.0 if r.prompt is None else float(len(t.caption)) for t, r in zip(asked, replies, strict=True)]

    answers = [[{"role": "assistant", "content": text}] for text in (GOOD, "garbage", GOOD)]
    # good; garbage; good but without its end, so cut off
    ends = {"completion_ids": [[5, end], [5, end], [5, 6]], "index": [1, 1, 2]}
    assert _reward_function(guider, tasks, reward)(completions=answers, **ends) == [
        float(len("a blue star at the left on navy")), -3.0, -3.0,
    ]  # fmt: skip
    assert problems[0] is None and all(problems[1:])
    with pytest.raises(UserError, match="1 numbers for 3 replies"):
        _reward_function(guider, tasks, lambda asked, replies: [1.0])(completions=answers, **ends)


@pytest.mark.parametrize(
    ("settings", "lora", "words"),
    [
        ({"learning_rte": 1.0}, LORA, "DPOConfig has no field 'learning_rte'; did you mean 'learning_rate'"),
        ({"loss_type": ["sigmoid"], "loss_weights": [1.0, 2.0]}, LORA, "does not take"),
        ({}, {"rnk": 4}, "unknown field 'rnk'; did you mean 'rank'"),
        ({}, {**LORA, "targets": "no_such_module"}, "matches no module"),
    ],
)
def test_bad_settings_are_refused(guider, pairs, tmp_path, settings, lora, words):
    with pytest.raises(UserError, match=words):
        learn_dpo(guider, pairs, settings, tmp_path, 0, lora)


def test_targets_by_name_are_the_language_parts(guider, tasks, tmp_path):
    """The vision tower has layers called q_proj as well."""
    lora = {**LORA, "targets": "q_proj|v_proj"}
    learn_sft(guider, [(tasks[0], GOOD)], {"max_steps": 1}, tmp_path, 0, lora)
    learn_sft(guider, [(tasks[0], GOOD)], {"max_steps": 1}, tmp_path, 0, lora)  # and once more with the same
    adapted = [n for n, m in guider.model.get_base_model().named_modules() if hasattr(m, "lora_A")]
    assert sorted(adapted) == sorted(
        f"model.text_model.layers.{i}.self_attn.{name}" for i in range(4) for name in ("q_proj", "v_proj")
    )
    with pytest.raises(UserError, match="training goes on with it"):
        learn_sft(guider, [(tasks[0], GOOD)], {"max_steps": 1}, tmp_path, 0, {**LORA, "targets": "q_proj"})


def test_nothing_to_learn_from_and_another_adapter(guider, pairs, tasks, tmp_path):
    with pytest.raises(UserError, match="no pairs"):
        learn_dpo(guider, [], FAST, tmp_path, 0, LORA)
    with pytest.raises(UserError, match="no tasks"):
        learn_grpo(guider, [], lambda t, r: [], {}, tmp_path, 0, LORA)
    learn_sft(guider, [(tasks[0], GOOD)], {"max_steps": 1}, tmp_path, 0, LORA)
    with pytest.raises(UserError, match="rank 4, alpha 8"):
        learn_dpo(guider, pairs, FAST, tmp_path, 0, {"rank": 16, "alpha": 32})
