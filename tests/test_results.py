"""Which curves and judges a run's results hold, from hand-made stages on disk."""

import dataclasses
import json
from pathlib import Path

import pytest

from spro_hf import recipe, results
from spro_hf.methods import Adversary
from spro_hf.parts import References

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny"
FLOW = RECIPES / "reinforce" / "flow_grpo.yaml"


def scored(**means):
    return {name: {"mean": mean, "se": 0.5, "n": 8} for name, mean in means.items()}


def trained(folder, steps):
    """The room of a training whose step i scored ``steps[i]``, in blocks of two steps."""
    for end in range(2, len(steps) + 2, 2):
        block = folder / "train" / f"step-{min(end, len(steps))}"
        block.mkdir(parents=True)
        rows = [{"step": i + 1, "scores": steps[i]} for i in range(end - 2, min(end, len(steps)))]
        (block / "curve.json").write_text(json.dumps(rows))
    return folder


def curves(rows, *fields):
    return [tuple(row[field] for field in fields) for row in rows]


def adversarial(reward):
    plain = recipe.load(FLOW)[0]
    return dataclasses.replace(
        plain,
        scorers=plain.scorers | {"dino": {"kind": "adversarial", "backbone": "spro_hf/tiny/clip"}},
        reward=reward,
        adversary=Adversary("dino", batch_size=8),
        references=References(source="a/b", columns={"caption": "caption", "image": "image"}),
        push=plain.push | {"reward": "a/reward"},
    )


def test_curves_of_a_training_say_what_they_are(tmp_path):
    steps = [
        scored(
            aesthetic=i,
            engagement=10 * i,
            pickscore=20,
            total=i,
            planted=2 * i,
            saturation=0.1 * i,
            diversity=9 - i,
            style=0.5,
        )
        for i in range(12)
    ]
    plain = recipe.load(FLOW)[0]
    told = results._training(plain, trained(tmp_path, steps))
    assert {(row["objective"], row["stage"], row["unit"]) for row in told} == {("aesthetics", "Flow-GRPO", "step")}
    # 12 steps in 8 points: four of two steps, then four of one
    assert curves([r for r in told if r["name"] == "total"], "round", "mean", "se", "n") == [
        (2, 0.5, 0.5, 2), (4, 2.5, 0.5, 2), (6, 4.5, 0.5, 2), (8, 6.5, 0.5, 2),
        (9, 8.0, 0.0, 1), (10, 9.0, 0.0, 1), (11, 10.0, 0.0, 1), (12, 11.0, 0.0, 1),
    ]  # fmt: skip
    assert dict.fromkeys(curves(told, "name", "kind")) == dict.fromkeys([
        ("total", "reward"), ("planted", "planted"), ("style", "oracle"), ("diversity", "diversity"), ("saturation", "saturation"),
        ("engagement", "judge"), ("pickscore", "judge"),
    ])  # fmt: skip
    assert [r["mean"] for r in told if r["name"] == "engagement"][:2] == [5.0, 25.0]
    assert not any("moving" in row for row in told)
    alone = results._training(
        dataclasses.replace(plain, group=1, policy=dataclasses.replace(plain.policy, advantage="batch")), tmp_path
    )
    assert not any(row["name"] == "diversity" for row in alone)  # of one picture a caption there is none


def test_a_training_from_before_there_was_a_watch_has_its_curves(tmp_path):
    told = results._training(recipe.load(FLOW)[0], trained(tmp_path, [scored(total=1, planted=2)] * 3))
    assert dict.fromkeys(curves(told, "name", "kind")) == {("total", "reward"): None, ("planted", "planted"): None}


def test_a_reward_that_learns_is_marked_and_is_no_judge(tmp_path):
    steps = [scored(aesthetic=1, engagement=2, pickscore=3, dino=0, total=1, saturation=0.5)] * 2
    room = trained(tmp_path, steps)
    told = results._training(adversarial({"aesthetic": 0.7, "dino": 0.3}), room)
    found = {(row["name"], row["kind"], row.get("moving", False)) for row in told}
    assert found == {
        ("total", "reward", True), ("dino", "reward", True), ("aesthetic", "reward", False), ("engagement", "judge", False),
        ("pickscore", "judge", False), ("saturation", "saturation", False),
    }  # fmt: skip
    alone = results._training(adversarial({"dino": 1.0}), room)
    found = {(row["name"], row["kind"], row.get("moving", False)) for row in alone}
    assert {name for name, kind, _ in found if kind == "judge"} == {"aesthetic", "engagement", "pickscore"}
    assert ("total", "reward", True) in found and "dino" not in {
        name for name, _, _ in found
    }  # one reward is the total


def test_curves_of_rounds_say_what_they_are(tmp_path):
    one = {"mean": 1.0, "se": 0.1, "n": 24}
    for number in (1, 2):
        folder = tmp_path / f"round-{number}"
        folder.mkdir()
        counted = {"replies": 24, "unparsed": 0, "problems": {}, "too_similar_or_far": 0, "kept_pairs": 5}
        told = dict.fromkeys(("base", "total", "planted", "saturation", "diversity", "pickscore"), one)
        (folder / "account.json").write_text(json.dumps(counted | {"curves": told}))
    rows, replies = results._rounds(recipe.load(RECIPES / "1_prompt.yaml")[0], tmp_path)
    assert [row["kept_pairs"] for row in replies] == [5, 5]
    assert curves(rows, "round", "name", "kind")[:6] == [
        (0, "total", "reward"), (1, "total", "reward"), (1, "planted", "planted"), (1, "saturation", "saturation"),
        (1, "diversity", "diversity"), (1, "pickscore", "judge"),
    ]  # fmt: skip
    assert len(rows) == 11


def test_judges_of_an_evaluation_are_what_no_recipe_of_its_objective_trains_on():
    train, evaluate = recipe.load(FLOW)[0], recipe.load(RECIPES / "reinforce" / "evaluate.yaml")[0]
    names = ["engagement", "pickscore", "clip", "judge"]
    assert results.judges([train, evaluate]) == [{"objective": "aesthetics", "name": name} for name in names]
    both = dataclasses.replace(train, reward={"aesthetic": 0.5, "pickscore": 0.5})
    assert [row["name"] for row in results.judges([both, evaluate])] == ["engagement", "clip", "judge"]
    other = dataclasses.replace(both, objective="preference")  # what another objective trains on is a judge here
    assert [row["name"] for row in results.judges([other, evaluate])] == names
    learned = evaluate.scorers | {"dino": {"kind": "trained", "id": "a/reward"}}
    assert [row["name"] for row in results.judges([dataclasses.replace(evaluate, scorers=learned)])] == names
    called = dataclasses.replace(evaluate, scorers=learned, judges=("judge", "dino"))
    assert [row["name"] for row in results.judges([called])] == [*names, "dino"]
    assert results.judges([train]) == []


@pytest.mark.parametrize(
    ("name", "scorer", "judges", "told"),
    [
        ("saturation", "saturation", set(), ("watch", "share", True)),
        ("flawed", "pickscore", set(), ("reward", "about 20", True)),
        ("soft", "blur", {"soft"}, ("judge", "0–1", False)),
        ("new", "new", set(), ("reward", "", True)),
    ],
)
def test_a_metric_is_told_by_its_name_or_its_kind_of_scorer(name, scorer, judges, told):
    metric = results._metric(name, scorer, judges)
    assert (metric["kind"], metric["unit"], metric["higher_is_better"]) == told and metric["name"] == name


def test_a_run_is_titled_by_what_it_is_about():
    flow, evaluate = recipe.load(FLOW)[0], recipe.load(RECIPES / "reinforce" / "evaluate.yaml")[0]
    learning = adversarial({"dino": 1.0})
    found = [[flow, evaluate], [flow, learning, evaluate], [recipe.load(RECIPES / f"{name}.yaml")[0] for name in ("2_image",)],
             [recipe.load(RECIPES / "4_evaluate.yaml")[0]], [evaluate]]  # fmt: skip
    assert [results._about(recipes) for recipes in found] == ["policy", "adversary", "self-play", "self-play", "policy"]


def test_an_evaluation_of_before_there_was_a_watch_is_gathered(tmp_path):
    evaluate = recipe.load(RECIPES / "reinforce" / "evaluate.yaml")[0]
    row = {"objective": "aesthetics", "system": "base", "metric": "judge", "mean": 1.0, "se": 0.1, "n": 4}
    told = {"objective": "aesthetics", "systems": ["base"], "judges": ["judge"], "unparsed": {}, "table": [row]}
    told |= {key: [] for key in ("gains", "win_rates", "strategies", "costs", "samples")}
    for name, more in (("old", {}), ("new", {"changes": [{"change": 0.5}]})):
        (tmp_path / name / "told").mkdir(parents=True)
        (tmp_path / name / "told" / "told.json").write_text(json.dumps(told | more))
    found = results.gather(tmp_path, [evaluate] * 2, [tmp_path / "old", tmp_path / "new"], 1.0, "")
    assert found["table"] == [row, row] and found["changes"] == [{"change": 0.5}]
    assert [(m["name"], m["kind"]) for m in found["metrics"]] == [("judge", "judge")]
    assert {row["name"] for row in found["judges"]} == {"engagement", "pickscore", "clip", "judge"}
    assert json.loads((tmp_path / "results.json").read_text()) == found
