"""Policy gradient as a user runs it: by the command line, killed, in two processes, and with mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spro_hf import rollouts

from .conftest import RECIPES, killed, spro

FLOW = RECIPES / "reinforce" / "flow_grpo.yaml"
SMALL = ("--set", "prompts=2", "--set", "group=4", "--set", "steps=4", "--set", "policy.checkpoint_every=2",
         "--set", "policy.batch_size=4", "--set", "generator.batch_size=4", "--set", "seeds.count=6",
         "--set", "generator.call.num_inference_steps=3", "--set", "policy.range=[0, 2]")  # fmt: skip
LORA = "generator/pytorch_lora_weights.safetensors"


def stage(out: Path) -> Path:
    return out / "stages" / "01-aesthetics-reinforce"


def rows(out: Path) -> list[dict]:
    """What every training step told, without its time."""
    found = [json.loads((stage(out) / "train" / f"step-{n}" / "curve.json").read_text()) for n in (2, 4)]
    return [{k: v for k, v in row.items() if "seconds" not in k} for part in found for row in part]


def lora(out: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(stage(out) / "train" / f"step-{step}" / LORA)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished small run that pushed its checkpoint."""
    out = tmp_path_factory.mktemp("reinforce") / "run"
    spro("run", FLOW, "--out", out, *SMALL, "--set", "policy.push_checkpoints=true")
    return out


def test_it_trains_counts_and_tells(whole):
    told = rows(whole)
    assert [row["step"] for row in told] == [1, 2, 3, 4]
    # 8 pictures a step, two latents each for guidance: 3 steps recorded, 2 of them learned from, and asked for the KL
    assert [row["calls"] for row in told] == [8 * 2 * (3 + 2 + 2)] * 4
    assert all(row["scores"]["total"]["n"] == 8 and row["norm"] > 0 for row in told)
    assert told[0]["scores"]["total"]["mean"] == told[0]["scores"]["aesthetic"]["mean"]
    assert {"planted", "alignment"} <= told[0]["scores"].keys()
    moved = lora(whole)
    assert any(value.abs().max() > 0 for name, value in moved.items() if "lora_B" in name)
    assert any(not torch.equal(value, lora(whole, 2)[name]) for name, value in moved.items())
    states = [path.parent.name for path in sorted((stage(whole) / "train").glob("*/state"))]
    assert states == ["step-4"]  # what is needed to go on is kept of the newest alone


def test_artifacts_are_versions_on_the_hub(whole):
    notes = [json.loads(f.read_text()) for f in sorted((stage(whole) / "published").glob("*.json"))]
    assert [(note["repo"], note["tag"]) for note in notes] == [
        ("spro/tiny-aesthetics-flow-grpo", "step-2"), ("spro/tiny-aesthetics-flow-grpo", "v1"),
    ]  # fmt: skip
    left = stage(whole) / "outbox" / "generator"
    training = json.loads((left / "training.json").read_text())
    assert training["calls"] == 4 * 112 and training["pictures"] == 32 and len(training["rows"]) == 4
    card = (left / "README.md").read_text()
    assert "reinforcement-learning" in card and "4 training steps of 2 captions × 4 pictures" in card


def test_killed_and_continued_equals_uninterrupted(whole, tmp_path):
    out = tmp_path / "run"
    command = ["run", FLOW, "--out", out, *SMALL, "--set", "policy.push_checkpoints=true"]
    killed(*command, when=(stage(out) / "train" / "step-2").is_dir)
    assert (stage(out) / "train" / "step-2").is_dir() and not (stage(out) / "finished").exists()
    spro(*command)
    assert rows(out) == rows(whole)
    ours, theirs = lora(out), lora(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def torchrun(*arguments, processes=2) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
         "-m", "spro_hf", *map(str, arguments)],
        capture_output=True, text=True, timeout=600,
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The same small run by two processes."""
    out = tmp_path_factory.mktemp("two") / "run"
    # what a block left on the way is kept where it is pushed
    process = torchrun("run", FLOW, "--out", out, *SMALL, "--set", "policy.push_checkpoints=true")
    assert process.returncode == 0, process.stderr[-3000:]
    return out


def test_two_processes_take_the_same_steps_as_one(whole, two):
    """The same global batch; gradients are added up in another order, and the LoRA ends within rounding."""
    for a, b in zip(rows(two), rows(whole), strict=True):
        assert (a["step"], a["pictures"], a["skipped"], a["calls"]) == (
            b["step"],
            b["pictures"],
            b["skipped"],
            b["calls"],
        )
    first = [row["scores"]["total"]["mean"] for row in (rows(two)[0], rows(whole)[0])]
    assert first[0] == pytest.approx(first[1], abs=1e-5)  # the same pictures were drawn
    ours, theirs = lora(two, 2), lora(whole, 2)
    away = torch.cat([(ours[name] - theirs[name]).flatten().abs() for name in ours])
    moved = torch.cat([theirs[name].flatten().abs() for name in ours if "lora_B" in name])
    print(
        f"two processes against one, after 2 steps: max {away.max():.2e}, mean {away.mean():.2e}; moved {moved.mean():.2e}"
    )
    assert away.mean() < 1e-3 * moved.mean()
    files = sorted(f.name for f in (stage(two) / "train" / "step-4" / "state").glob("generators-*"))
    assert files == ["generators-0.safetensors", "generators-1.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["group=1"], "'group' is 1: a picture alone is neither better nor worse"),
        (["policy.exploration=0"], "policy: 'exploration' is 0: a step without noise has no probability"),
        (["policy.range=[2, 9]"], "policy: 'range' is [2, 9], but the call has 8 steps (0 to 7)"),
        (["policy.lora.targets=to_nothing"], "lora.targets: 'to_nothing' fits no layer"),
        (
            ["policy.transition=ddim"],
            "'transition' is 'ddim', but FlowMatchEulerDiscreteScheduler is played with flow_sde",
        ),
        (["generator.scheduler=ddim"], "'scheduler' is 'ddim', but FlowMatchEulerDiscreteScheduler predicts"),
        (["policy.lrr=1"], "unknown field 'lrr'; did you mean 'lr'?"),
        (["policy.lora.rank=0"], "policy.lora: 'rank' is 0; give at least 1"),
        (["generator.dtype=float16"], "'dtype' is float16, in which gradients vanish"),
        (
            ["policy.lora=null", "generator.dtype=bfloat16"],
            "policy: 'lora' is null and the generator's 'dtype' bfloat16",
        ),
        (["policy.window=4"], "policy: 'window' is 4, but steps 0 to 2 may explore; give 1 to 3"),
        (["generator.call.skip_guidance_layers=[1]"], "call: 'skip_guidance_layers' goes by the step's number"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(changes, message, tmp_path):
    out = tmp_path / "run"
    process = spro("run", FLOW, "--out", out, *[x for change in changes for x in ("--set", change)], check=False)
    assert process.returncode == 2
    assert message in process.stderr and process.stderr.count("error:") == 1
    assert not (stage(out) / "train").exists()


def test_two_processes_play_a_round_between_them(tmp_path):
    """Each plays its share of every part of the seeds; TRL trains the guider with both."""
    out = tmp_path / "run"
    small = ["rounds=1", "seeds.count=5", "part=3", "temperatures=[0.8,1.0,1.2]", "learn.dpo.num_train_epochs=1"]
    changes = [x for change in small for x in ("--set", change)]
    process = torchrun("run", RECIPES / "1_prompt.yaml", "--out", out, *changes)
    assert process.returncode == 0, process.stderr[-3000:]
    folder = out / "stages" / "01-aesthetics-prompt" / "round-1"
    # five seeds in parts of three and two: shares of 1 and 2, then of 1 and 1, each with three candidates
    assert [rollouts.count(file) for file in rollouts.files(folder / "rollouts")] == [3, 6, 3, 3]
    played, account = rollouts.read_told(folder / "rollouts"), json.loads((folder / "account.json").read_text())
    assert len({row["seed_id"] for row in played}) == 5 and len({row["reply"] for row in played}) > 10
    assert (
        sum(row["kept"] for row in played) == 2 * account["kept_pairs"] == 2 * len(rollouts.read_told(folder / "pairs"))
    )
    adapter = load_file(folder / "guider" / "adapter_model.safetensors")
    assert all(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    assert not (folder.parent / "playing-1").exists()


def test_other_ways_to_learn_run_and_are_told(tmp_path):
    """Two updates a step, no guidance in learning, a KL, a window, one noise a group, an average, bfloat16, recomputation."""
    out = tmp_path / "run"
    changes = ["policy.updates=2", "policy.guidance=false", "policy.range=null", "policy.window=1", "policy.shared_noise=true",
               "policy.gradient_checkpointing=true", "generator.dtype=bfloat16", "policy.clip=1e-4", "steps=2"]  # fmt: skip
    spro("run", FLOW, "--out", out, *SMALL, *[x for change in changes for x in ("--set", change)])
    told = json.loads((stage(out) / "train" / "step-2" / "curve.json").read_text())
    # 8 pictures: 3 guided steps recorded; of one step, without guidance: as it was, for the KL, and to learn
    assert [row["calls"] for row in told] == [8 * (2 * 3 + 3)] * 2
    assert told[1]["kl"] > 0 and told[0]["norm"] > 0
    assert {value.dtype for value in lora(out, 2).values()} == {torch.float32}


def test_nothing_to_tell_apart_is_said(tmp_path):
    """A weight of zero: every group's pictures are worth the same, no update is made, and the run says so."""
    out = tmp_path / "run"
    process = spro("run", FLOW, "--out", out, *SMALL, "--set", "reward.aesthetic=0.0", "--set", "steps=2")
    told = json.loads((stage(out) / "train" / "step-2" / "curve.json").read_text())
    assert [row["skipped"] for row in told] == [2, 2] and [row["norm"] for row in told] == [0.0, 0.0]
    assert all(value.abs().max() == 0 for name, value in lora(out, 2).items() if "lora_B" in name)
    assert "nothing was learned in steps 1 to 2" in process.stderr
