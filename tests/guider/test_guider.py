"""Sampling: seeded, independent of the global random state, one temperature a candidate; loading and saving."""

from __future__ import annotations

import pytest
import torch

from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, RowTemperatures
from spro_hf.guider.learn import learn_sft

MANNER = {"style": "compact", "word_limit": 22, "max_new_tokens": 12}


def texts(replies):
    return [[reply.text for reply in candidates] for candidates in replies]


def test_row_temperatures_by_hand():
    scores = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]])
    out = RowTemperatures(torch.tensor([0.5, 2.0, 0.0]))(None, scores)
    assert out.tolist() == [[2.0, 4.0], [0.5, 1.0], [3.0, -torch.inf]]


def test_replies_come_from_the_seed_alone(guider, tasks):
    guider.max_new_tokens = 12
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = guider.reply(tasks, [0.7, 1.0, 1.0], seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert texts(guider.reply(tasks, [0.7, 1.0, 1.0], seed=5)) == texts(first)
    assert texts(guider.reply(tasks, [0.7, 1.0, 1.0], seed=6)) != texts(first)
    assert [len(c) for c in first] == [3, 3, 3, 3]
    assert first[0][1].text != first[0][2].text


def test_greedy_and_cold_agree_whatever_the_batches(guider, tasks):
    guider.max_new_tokens = 8
    seen = []
    greedy = guider.reply(tasks, [None, 1.0, 1e-4], seed=0, advance=seen.append)
    assert seen == [12]
    assert [c[0].text for c in greedy] == [c[2].text for c in greedy]
    guider.batch_size, seen[:] = 5, []
    again = guider.reply(tasks, [None, 1.0, 1e-4], seed=0, advance=seen.append)
    assert seen == [5, 5, 2]
    assert [c[0].text for c in again] == [c[0].text for c in greedy]


def test_left_padding_does_not_change_the_most_probable_reply(guider, tasks):
    guider.max_new_tokens = 8
    together = guider.reply(tasks, [None], seed=0)
    assert texts(together) == [texts(guider.reply([task], [None], seed=0))[0] for task in tasks]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_above_zero(guider, tasks, value):
    with pytest.raises(UserError, match="above 0"):
        guider.reply(tasks, [1.0, value], seed=0)


def test_the_limit_of_tokens_is_told(guider, tasks):
    guider.max_new_tokens = 2
    assert {c[0].problem for c in guider.reply(tasks, [None], seed=0)} == {"cut off"}


def test_what_the_model_reads(guider, tasks):
    inputs = guider.encode(tasks[:1])
    assert guider.processor.tokenizer.decode(inputs["input_ids"][0]) == (
        "User: <fake_token_around_image> <global-img> <image> <image> <image> <image> <fake_token_around_image>"
        " objective: aesthetics caption: a red circle plan: yes <end_of_utterance> Assistant:"
    )
    assert inputs["pixel_values"].shape == (1, 1, 3, 32, 32)


def test_save_and_load_with_and_without_adapter(guider, tasks, tmp_path):
    guider.max_new_tokens = 12
    guider.save(tmp_path / "base")
    plain = texts(guider.reply(tasks, [1.0], seed=0))
    loaded = Guider.load(str(tmp_path / "base"), **MANNER)
    assert texts(loaded.reply(tasks, [1.0], seed=0)) == plain

    settings = {"learning_rate": 1e-2, "max_steps": 2, "per_device_train_batch_size": 2}
    learn_sft(loaded, [(t, "Prompt: a red circle") for t in tasks], settings, tmp_path, 0, {"rank": 4, "alpha": 8})
    loaded.save(tmp_path / "adapter")
    assert sorted(f.name for f in (tmp_path / "adapter").iterdir() if f.suffix != ".md") == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    taught = texts(loaded.reply(tasks, [1.0], seed=0))
    assert taught != plain
    both = Guider.load(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), **MANNER)
    assert texts(both.reply(tasks, [1.0], seed=0)) == taught


def test_bad_arguments_of_load(guider, tmp_path):
    with pytest.raises(UserError, match="float32"):
        Guider.load(str(tmp_path), dtype="int8")
    guider.save(tmp_path)
    with pytest.raises(UserError, match="did you mean 'compact'"):
        Guider.load(str(tmp_path), style="compcat")
