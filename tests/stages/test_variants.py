"""The fields that change how a stage learns: grpo and sft, reasoning off, full fine-tuning, captions of the user's own."""

from __future__ import annotations

import json
import math

import pytest
from safetensors import safe_open

from spro_hf import rollouts
from tests.stages.conftest import RECIPES, spro

SMALL = ("--set", "seeds.count=4", "--set", "temperatures=[0.9,1.1,1.2]", "--set", "rounds=1")
GRPO = "{num_generations: 4, per_device_train_batch_size: 8, max_steps: 2, learning_rate: 1.0e-3, beta: 0.05}"


def account(out):
    return json.loads((out / "stages" / "01-aesthetics-prompt" / "round-1" / "account.json").read_text())


def test_grpo_with_renderer_and_scorer_in_its_reward(tmp_path):
    spro("run", RECIPES / "1_prompt.yaml", "--out", tmp_path, *SMALL, "--set", "learn.method=grpo",
         "--set", f"learn.grpo={GRPO}")  # fmt: skip
    told = account(tmp_path)
    assert told["replies"] == 16 and told["training"]["reward"] > 0  # two steps of eight
    rows = rollouts.read(tmp_path / "stages" / "01-aesthetics-prompt" / "round-1" / "rollouts")
    assert len({r["reply"] for r in rows}) > 4 and sum(r["parsed"] for r in rows) == 16 - told["unparsed"]


def test_sft_without_reasoning_on_captions_of_the_user(tmp_path):
    (tmp_path / "mine.txt").write_text("a red circle on navy\na golden retriever and a blue star\n\n")
    done = spro(
        "run", RECIPES / "1_prompt.yaml", "--out", tmp_path / "run", "--seeds", tmp_path / "mine.txt", *SMALL,
        "--set", "learn.method=sft", "--set", "guider.reasoning=false", "--set", "learn.sft.max_steps=2",
    )  # fmt: skip
    rows = rollouts.read(tmp_path / "run" / "stages" / "01-aesthetics-prompt" / "round-1" / "rollouts")
    assert {r["base_caption"] for r in rows} == {"a red circle on navy", "a golden retriever and a blue star"}
    assert not any(r["plan"] for r in rows) and any(r["parsed"] for r in rows)
    told = json.loads((tmp_path / "run" / "results.json").read_text())
    assert told["unknown_words"] == [
        {"caption": "a golden retriever and a blue star", "words": ["golden", "retriever"]}
    ]
    assert "golden" in done.stdout and "retriever" in done.stdout


def test_full_fine_tuning_by_one_field(tmp_path):
    changes = ("--set", "finetune.lora=null", "--set", "finetune.steps=2", "--set", "finetune.lr=1e-5")
    spro("run", RECIPES / "1_prompt.yaml", "--out", tmp_path / "a", *SMALL)
    # the image stage reads round-1 of the very Hub that the prompt stage wrote to
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "hub").rename(tmp_path / "b" / "hub")
    repo = '[{repo: "spro/tiny-aesthetics-rollouts", revision: round-1}]'
    spro("run", RECIPES / "2_image.yaml", "--out", tmp_path / "b", *changes, "--set", f"rollouts={repo}")
    folder = tmp_path / "b" / "stages" / "01-aesthetics-image" / "fine-tune"
    with safe_open(folder / "step-2" / "state" / "state.safetensors", "pt") as state:
        trained = [state.get_slice(name).get_shape() for name in state.keys() if name.startswith("parameter.")]  # noqa: SIM118
    assert sum(map(math.prod, trained)) > 3_000_000
    assert (folder / "step-2" / "generator" / "model_index.json").exists()
    configs = list((folder.parent / "outbox" / "generator").rglob("*.json"))
    assert len(configs) > 5 and not any("_name_or_path" in f.read_text() for f in configs if "token" not in f.name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "sed=1"), "unknown field 'sed'; did you mean 'seed'?"),
        (("--set", "temperatures=[0.0, 1.0]"), "'temperatures' holds 0"),
        (("--set", "reward={beauty: 1}"), "unknown reward 'beauty'"),
        (("--seeds", "nowhere.txt"), "there is no file 'nowhere.txt'"),
        (("--set", "learn.dpo.bata=1"), "learn.dpo: DPOConfig has no field 'bata'; did you mean 'beta'?"),
        (("--set", "learn.dpo.beta=high"), "learn.dpo.beta: expected a number like 0.1, not 'high'"),
        (("--set", "learn.unparsed_reward=null", "--set", "learn.method=grpo"), "'unparsed_reward' is missing"),
        (("--set", "select.similarity=spro_hf/tiny/clap"), "has no model 'clap'"),
        (
            ("--hub", "http://127.0.0.1:9", "--set", "rounds=1"),
            "There is no token; set HF_TOKEN to one that may write.",
        ),
        (("--set", "rounds"), "is not of the form field=value"),
        (
            ("--set", "guider.adapter={repo: spro/none, revision: v1}"),
            "guider adapter: model spro/none: no such repository",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, arguments, words):
    done = spro("run", RECIPES / "1_prompt.yaml", "--out", tmp_path / "run", *arguments, check=False)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "stages").exists()


def test_a_hub_that_does_not_answer_is_told_before_anything_is_made(tmp_path):
    arguments = ("run", RECIPES / "1_prompt.yaml", "--out", tmp_path / "run", "--hub", "http://127.0.0.1:9")
    done = spro(*arguments, check=False, HF_TOKEN="hf_x")
    assert done.returncode == 2 and "no connection to http://127.0.0.1:9" in done.stderr
    assert "hf_x" not in done.stderr and not (tmp_path / "run" / "stages").exists()


def test_a_revision_that_does_not_exist_is_named_with_those_that_do(whole):
    repo = '[{repo: "spro/tiny-engagement-rollouts", revision: round-99}]'
    done = spro("run", RECIPES / "2_image.yaml", "--out", whole, "--set", "objective=engagement",
                "--set", "reward={engagement: 1.0}", "--set", f"rollouts={repo}", check=False)  # fmt: skip
    assert done.returncode == 2
    assert "there is no revision 'round-99'; its tags: round-1, round-2, round-3" in done.stderr
