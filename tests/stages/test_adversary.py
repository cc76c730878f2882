"""Adv-GRPO as a user runs it: references, a reward that learns beside the generator, killed, in two processes, and used again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from spro_hf import recipe as recipes_of
from spro_hf import rewards
from spro_hf.errors import UserError
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth

from .conftest import RECIPES, killed, spro
from .test_reinforce import torchrun

FOLDER = RECIPES / "adversarial"
SMALL = {"prompts": 2, "group": 4, "steps": 4, "policy.checkpoint_every": 2, "policy.batch_size": 4,
         "policy.range": [0, 2], "generator.batch_size": 4, "generator.call.num_inference_steps": 3,
         "seeds.count": 6, "policy.push_checkpoints": True}  # fmt: skip
MEETING = {"references.count": 6, "adversary.batch_size": 4, "adversary.head_steps": 3, "adversary.lr": 1e-3}
LORA = "generator/pytorch_lora_weights.safetensors"


def put(file: Path, above: str, changes: dict) -> Path:
    """A recipe over one on disk, with fields by dotted key."""
    nested: dict = {"extends": str(FOLDER / f"{above}.yaml")}
    for dotted, value in changes.items():
        place, *path = nested, *dotted.split(".")
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    file.write_text(yaml.safe_dump(nested))
    return file


def small(folder: Path, fixed: bool = False, **more) -> Path:
    """Few references by the renderer, a short training against them and, by choice, one by the reward that it left."""
    put(folder / "references.yaml", "references", {"seeds.count": 6})
    put(folder / "dino.yaml", "dino", SMALL | MEETING | more)
    learned = {"kind": "trained", "id": "spro/tiny-preference-adv-dino-reward", "revision": "v1"}
    put(folder / "fixed.yaml", "style_fixed", SMALL | {"scorers.learned": learned})
    file = folder / "list.yaml"
    file.write_text(yaml.safe_dump({"recipes": ["references.yaml", "dino.yaml"] + ["fixed.yaml"] * fixed}))
    return file


def stage(out: Path, number: int = 2, name: str = "reinforce") -> Path:
    return out / "stages" / f"{number:02d}-preference-{name}"


def rows(out: Path) -> list[dict]:
    """What every training step told, without its time."""
    found = [json.loads((stage(out) / "train" / f"step-{n}" / "curve.json").read_text()) for n in (2, 4)]
    return [{k: v for k, v in row.items() if "seconds" not in k} for part in found for row in part]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """References by the renderer, a reward that learns from them, and that reward held fixed for another generator."""
    out = tmp_path_factory.mktemp("adversary")
    spro("run", small(out, fixed=True), "--out", out / "run")
    return out / "run"


def test_every_picture_serves_both_and_the_reward_learns(whole):
    told = rows(whole)
    assert [row["adversary"]["learned"] for row in told] == [3] * 4
    assert all(row["pictures"] == 8 and row["norm"] > 0 for row in told)
    # of a head that knows nothing the hinges are about one; the mean is over three updates
    assert (
        0.8 < told[0]["adversary"]["loss"] < 1.05 and told[-1]["adversary"]["loss"] < 0.8 * told[0]["adversary"]["loss"]
    )
    apart = [row["adversary"]["references"] - row["adversary"]["generated"] for row in told]
    assert apart[-1] > max(0, apart[0])
    # pictures are scored by the head that has learned from them
    assert told[0]["scores"]["dino"]["mean"] != pytest.approx(told[0]["adversary"]["generated"], abs=1e-6)
    heads = [load_file(stage(whole) / "train" / f"step-{n}" / "reward" / "model.safetensors") for n in (2, 4)]
    assert all(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_the_reward_is_an_artifact_that_other_recipes_use(whole):
    notes = [json.loads(f.read_text()) for f in sorted((stage(whole) / "published").glob("*.json"))]
    assert {(note["repo"], note["tag"]) for note in notes} == {
        (f"spro/tiny-preference-adv-dino{what}", tag) for what in ("", "-reward") for tag in ("step-2", "v1")
    }
    left = stage(whole) / "outbox" / "reward"
    card = (left / "README.md").read_text()
    assert "12 updates of the reward" in card and "spro/tiny-references" in card and "toy" in card
    lineage = json.loads((left / "lineage.json").read_text())
    assert {i["repo"] for i in lineage["inputs"]} == {"spro/tiny-references"} and len(
        json.loads((left / "training.json").read_text())
    ) == 4
    # the third stage read it at its commit, and learned by it
    used = json.loads((stage(whole, 3) / "outbox" / "generator" / "lineage.json").read_text())["inputs"]
    reward = next(n for n in notes if n["what"] == "reward" and n["tag"] == "v1")
    assert [(i["repo"], i["commit"]) for i in used] == [("spro/tiny-preference-adv-dino-reward", reward["revision"])]
    told = [json.loads((stage(whole, 3) / "train" / f"step-{n}" / "curve.json").read_text()) for n in (2, 4)]
    assert all(row["scores"]["learned"]["mean"] == row["scores"]["total"]["mean"] for part in told for row in part)
    generator = json.loads((stage(whole) / "outbox" / "generator" / "lineage.json").read_text())["inputs"]
    assert ("made before", reward["revision"]) in {(i["what"], i["commit"]) for i in generator}


def test_it_scores_pictures_on_the_command_line_as_it_does_here(whole, tmp_path):
    file = picture(tmp_path / "a.png")
    command = ["score", "spro/tiny-preference-adv-dino-reward@v1", file, "--hub", whole, "--json"]
    (told,) = json.loads(spro(*command).stdout)
    here = rewards.trained(str(stage(whole) / "outbox" / "reward"))
    assert told["total"] == pytest.approx(here([Image.open(file)], [""])[0], abs=1e-5)


def picture(file: Path) -> Path:
    Image.fromarray(render(Truth((Thing("red", "star"),), "center", "navy"), 1)).save(file)
    return file


def test_killed_and_continued_equals_uninterrupted(whole, tmp_path):
    out = tmp_path / "run"
    command = ["run", small(tmp_path), "--out", out]
    killed(*command, when=(stage(out) / "train" / "step-2").is_dir)
    assert (stage(out) / "train" / "step-2").is_dir() and not (stage(out) / "finished").exists()
    spro(*command)
    assert rows(out) == rows(whole)
    for name in (LORA, "reward/model.safetensors"):
        ours, theirs = (load_file(stage(at) / "train" / "step-4" / name) for at in (out, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_two_processes_learn_one_head(whole, tmp_path):
    """The same global batches; gradients are added up in another order, and the head ends within rounding."""
    process = torchrun("run", small(tmp_path, steps=2), "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr[-3000:]
    (ours, theirs) = (
        load_file(stage(at) / "train" / "step-2" / "reward" / "model.safetensors") for at in (tmp_path / "run", whole)
    )
    told = json.loads((stage(tmp_path / "run") / "train" / "step-2" / "curve.json").read_text())
    assert told[0]["adversary"] == pytest.approx(rows(whole)[0]["adversary"], abs=1e-4)
    away = torch.cat([(ours[name] - theirs[name]).flatten().abs() for name in ours])
    print(f"two processes against one: the heads differ by {away.mean():.1e} on average")
    assert away.mean() < 1e-6  # six Adam steps of 1e-3 each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary.reward": "pickscore"}, "adversary: the scorer 'pickscore' cannot learn; of these kinds can: adversarial"),
        ({"adversary.reward": "dinno"}, "adversary: 'reward' is 'dinno'; did you mean 'dino'?"),
        ({"references": None}, "the field 'references' is missing"),
        ({"references.missing": "drop"}, "'missing' is 'drop'; known: any, error, leave_out."),
        ({"adversary.batch_size": 9}, "'batch_size' is 9, but a turn has 8 pictures"),
        ({"adversary.generator_steps": 3}, "'checkpoint_every' is 2, which ends within a turn"),
        ({"adversary.when": "sometimes"}, "'when' is 'sometimes'"),
        ({"reward": {"pickscore": 1.0}}, "adversary: 'dino' learns, but has no weight above 0 in 'reward'"),
        ({"reward": {"dino": -1.0}}, "adversary: 'dino' learns, but has no weight above 0 in 'reward'"),
        ({"adversary": None}, "scorers.dino: its head is new and knows nothing; let it learn in a stage"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(changes, message, whole, tmp_path):
    file, out = put(tmp_path / "one.yaml", "dino", SMALL | MEETING), tmp_path / "run"
    told = yaml.safe_load(file.read_text())
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        place = told
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    file.write_text(yaml.safe_dump(told))
    shutil.copytree(whole / "hub", out / "hub")
    process = spro("run", file, "--out", out, check=False)
    assert process.returncode == 2, process.stderr
    assert message in process.stderr and process.stderr.count("error:") == 1 and "Traceback" not in process.stderr


def test_captions_without_a_reference_stop_the_run_before_anything_is_drawn(whole, tmp_path):
    push = {"push.generator": "spro/other", "push.reward": "spro/other-reward"}
    file, out = put(tmp_path / "one.yaml", "dino", SMALL | MEETING | {"seeds.count": 8} | push), tmp_path / "run"
    shutil.copytree(whole / "hub", out / "hub")
    process = spro("run", file, "--out", out, check=False)
    assert process.returncode == 2  # a set of another count has other captions
    assert "references: 7 of the captions to train on have none in 'spro/tiny-references' ('" in process.stderr
    assert not (stage(out, 1) / "train" / "step-2").exists()


def test_a_head_that_nobody_teaches_is_refused_in_every_stage(tmp_path):
    for above in ("proxy", "evaluate"):
        head = {"kind": "adversarial", "backbone": "spro_hf/tiny/clip"}
        file = put(tmp_path / "one.yaml", above, {"scorers.dino": head})
        with pytest.raises(
            UserError, match=r"scorers.dino: its head is new and knows nothing; let it learn in a stage"
        ):
            recipes_of.load(file)
    file = put(tmp_path / "one.yaml", "dino", {"scorers.dino.backbone": str(tmp_path)})
    with pytest.raises(UserError, match=r"is a folder of this machine, and the reward that is pushed would name it"):
        recipes_of.load(file)
