"""Recipes on disk all parse; a mistake is one sentence that names the field and the fix."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from spro_hf import parts, recipe, rewards, run, selection
from spro_hf.errors import UserError
from spro_hf.strict import parse_yaml, write_yaml

ROOT = Path(__file__).parents[1] / "recipes"
FILES = recipe.find(ROOT)
PROMPT = ROOT / "tiny" / "1_prompt.yaml"


def test_every_recipe_on_disk_parses():
    assert len(FILES) >= 90
    for file in FILES:
        assert recipe.load(file), file


def test_what_begins_with_an_underscore_is_a_part_of_recipes(tmp_path):
    for name in ("a/1.yaml", "a/_b.yaml", "_c/2.yaml", "a/_d/3.yaml", "accelerate/cpu.yaml", "4.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert recipe.find(tmp_path) == [tmp_path / "4.yaml", tmp_path / "a/1.yaml"]


def test_of_several_parents_the_later_wins(tmp_path):
    (tmp_path / "one.yaml").write_text("rounds: 1\nseed: 1\nselect: {gain: above_base_mean, min_similarity: 0.1}\n")
    (tmp_path / "two.yaml").write_text("rounds: 2\nseed: 2\nselect: {min_similarity: 0.2}\n")
    file = tmp_path / "r.yaml"
    file.write_text(f"extends: [{PROMPT}, one.yaml, two.yaml]\nseed: 3\nname: mine\n")
    (one,) = recipe.load(file)
    assert (one.rounds, one.seed, one.select.gain, one.select.min_similarity) == (2, 3, "above_base_mean", 0.2)


def test_two_scorers_of_one_kind():
    twice = {"scorers.other": {"kind": "pickscore", "id": "spro_hf/tiny/pickscore", "against": "prompt"}}
    (one,) = recipe.load(PROMPT, twice)
    assert ("scorers.other.id", "spro_hf/tiny/pickscore", None) in one.models
    with pytest.raises(UserError, match="scorers: unknown reward 'pickscor'; did you mean 'pickscore'"):
        recipe.load(PROMPT, {"scorers.other": {"kind": "pickscor", "id": "x"}})
    with pytest.raises(UserError, match="scorers: unknown reward 'other'"):
        recipe.load(PROMPT, {"scorers.other": {"id": "x"}})


def test_the_whole_of_spro_is_four_stages_for_each_objective():
    found = recipe.load(ROOT / "tiny" / "spro.yaml", {"seed": 5})
    assert [r.stage for r in found[:4]] == ["prompt", "image", "multimodal", "evaluate"]
    assert [r.objective for r in found[::4]] == ["aesthetics", "engagement", "preference"]
    assert [list(r.reward) for r in found[::4]] == [["aesthetic"], ["engagement"], ["pickscore"]]
    assert {r.seed for r in found} == {5}
    assert found[5].push["generator"] == "spro/tiny-engagement-generator"


def test_changes_win_and_names_are_filled():
    (one,) = recipe.load(PROMPT, {"select.gain": "above_mean_gain", "namespace": "me", "learn.dpo.beta": 0.2})
    assert one.select.gain == "above_mean_gain" and one.learn.trainer["beta"] == 0.2
    assert one.push["guider"] == "me/tiny-aesthetics-guider"
    (other,) = recipe.load(PROMPT, {"reward": {"engagement": 2.0}})
    assert other.reward == {"engagement": 2.0}  # replaced, not added to


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sed": 1}, "1_prompt.yaml: unknown field 'sed'; did you mean 'seed'?"),
        ({"select.gan": "x"}, "unknown field 'gan'; did you mean 'gain'?"),
        ({"temperatures": [0, 1]}, "'temperatures' holds 0"),
        ({"temperatures": [0.7]}, "at least two"),
        ({"reward": {"astetic": 1}}, "unknown reward 'astetic'; did you mean 'aesthetic'?"),
        ({"scorers.picscore": {"id": "x"}}, "unknown reward 'picscore'; did you mean 'pickscore'?"),
        ({"scorers.clip": {"idd": "x"}}, "scorers.clip: unknown field 'idd'; did you mean 'id'?"),
        ({"rounds": "three"}, "1_prompt.yaml.rounds: expected a whole number, not 'three'."),
        ({"rounds": True}, "expected a whole number"),
        ({"seeds.count": 0}, "empty seed set"),
        ({"learn.method": "ppo"}, "'method' is 'ppo'"),
        ({"stage": "promt"}, "'promt' is not a stage; did you mean 'prompt'?"),
        ({"push": {"gider": "x/y"}}, "unknown artifact 'gider'"),
        ({"objective": "beauty"}, "'objective' is 'beauty'"),
        ({"seeds.columns": {"image": "jpg"}}, "seeds: columns: the field 'caption' is missing"),
        ({"seeds.streaming": True}, "seeds: 'streaming' is for data sets of the Hub; give 'columns' too"),
        (
            {"seeds": {"source": "a/b", "columns": {"caption": "c"}, "bands": {"column": "n", "shares": [[0.5]]}}},
            "'shares' holds [0.5]; a range is its lower and its upper quantile",
        ),
        ({"select.improve": ["clip"]}, "select: 'improve' names 'clip'"),
        ({"select.most": 0}, "'most' is 0; give at least 1"),
        ({"part": 0}, "'part' is 0; give at least 1"),
        ({"guider.backend": "vlm"}, "'backend' is 'vlm'; did you mean 'vllm'?"),
        ({"guider.dtype": "float8"}, "'dtype' is 'float8'"),
    ],
)
def test_mistakes_are_named(changes, told):
    with pytest.raises(UserError) as error:
        recipe.load(PROMPT, changes)
    assert told in str(error.value) and str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("2_image", {"finetune.steps": 0}, "'steps' is 0; give at least 1."),
        ("2_image", {"finetune.captions": "all"}, "'captions' is 'all'"),
        ("2_image", {"finetune.accumulation": 99}, "'accumulation' is 99, but a batch has 16 pictures"),
        ("2_image", {"finetune.steps": None}, "give 'epochs', passes over the winners, or 'steps'"),
        ("2_image", {"rollouts": []}, "give either 'rollouts', what earlier rounds played, or 'prompts'"),
        (
            "2_image",
            {"rollouts": [], "prompts": {"source": "a/b", "columns": {"caption": "c"}}},
            "prompts.columns: the field 'prompt' is missing",
        ),
        ("4_evaluate", {"systems.mine": {"hops": 2}}, "'hops' needs `guided: true`"),
        ("3_multimodal", {"finetune.lora": None}, "finetune: 'lora' is null"),
        ("4_evaluate", {"systems.base": {"guided": True}}, "'base' must be there and be empty"),
        ("4_evaluate", {"systems.mine": {"best_of": 8}}, "'best_of' and 'adapter' need `guided: true`"),
        ("4_evaluate", {"judges": ["aesthetic"]}, "'aesthetic' is also the reward"),
        ("4_evaluate", {"noise_seeds": 0}, "'noise_seeds' is 0"),
        ("spro", {"seeds.source": "mine.txt"}, "use --seeds to train on a file"),
    ],
)
def test_mistakes_of_other_stages_are_named(file, changes, told):
    with pytest.raises(UserError) as error:
        recipe.load(ROOT / "tiny" / f"{file}.yaml", changes)
    assert told in str(error.value)


def test_a_list_is_checked_for_each(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text(f"recipes: [{PROMPT}]\nfor_each: [{{objectve: engagement}}]\n")
    with pytest.raises(UserError, match="unknown field 'objectve'"):
        recipe.load(file)
    file.write_text(f"recipes: [{PROMPT}]\nfor_each: [engagement]\n")
    with pytest.raises(UserError, match="expected a list of mappings"):
        recipe.load(file)


def test_models_and_outputs_of_the_whole_of_spro():
    found = recipe.load(ROOT / "tiny" / "spro.yaml")
    left = [item for r in found for item in run.outputs(r)]
    assert len(left) == len(set(left)) == 3 * (9 + 1 + 5 + 1)  # rounds 1-3 by three, v1; round 4 by three, v2, v1; v1
    assert ("select.similarity", "spro_hf/tiny/clip", None) in found[0].models
    assert ("scorers.aesthetic.backbone", "spro_hf/tiny/clip", None) in found[3].models


def test_references_and_a_reward_that_learned_are_left_beside_the_generator():
    (drawn,) = recipe.load(ROOT / "qwen-image/references/preference.yaml", {"namespace": "me"})
    assert run.outputs(drawn) == {("me/qwen-image-preference-references", "dataset", "v1")}
    small = {"steps": 3, "policy.checkpoint_every": 2}
    (trained,) = recipe.load(ROOT / "sd35-medium/adversarial/dino.yaml", small)
    repos = ("spro/sd35-medium-adv-dino", "spro/sd35-medium-adv-dino-reward")
    assert run.outputs(trained) == {(repo, "model", tag) for repo in repos for tag in ("step-2", "v1")}
    (trained,) = recipe.load(ROOT / "sd35-medium/adversarial/dino.yaml", small | {"policy.push_checkpoints": False})
    assert run.outputs(trained) == {(repo, "model", "v1") for repo in repos}


def test_captions_with_text_quote_one_text_each_and_are_held_out_of_each_other():
    found = [(ROOT / "_data" / name).read_text().splitlines() for name in ("ocr_captions.txt", "ocr_captions_test.txt")]
    assert [len(set(lines)) for lines in found] == [300, 50]
    quoted = [{re.fullmatch(r'[^"]*"([^"]+)"[^"]*', line)[1] for line in lines} for lines in found]
    assert [len(texts) for texts in quoted] == [300, 50] and not quoted[0] & quoted[1]


def test_missing_file_missing_field_and_broken_yaml(tmp_path):
    with pytest.raises(UserError, match=r"nope.yaml: there is no such recipe"):
        recipe.load(tmp_path / "nope.yaml")
    file = tmp_path / "r.yaml"
    file.write_text("stage: [")
    with pytest.raises(UserError, match="is not YAML"):
        recipe.load(file)
    file.write_text("stage: image\nscorers: {}\n")
    with pytest.raises(UserError, match="the field 'generator' is missing"):
        recipe.load(file)
    with pytest.raises(UserError, match="unknown field 'sede'; none of its recipes has it"):
        recipe.load(ROOT / "tiny" / "spro.yaml", {"sede": 1})


def test_numbers_with_an_exponent_are_numbers():
    assert parse_yaml("[1e-4, -2E3, 1.5e+2, 3, abc1e4, '1e-4']") == [1e-4, -2000.0, 150.0, 3, "abc1e4", "1e-4"]
    # a commit that begins with digits, an e and digits is text, and what is written is read as it was
    told = {"revision": "2694e64b0b36b73a9faa23bd8f731017931aa1d7", "tag": "12e34", "lr": 1e-4, "on": "yes"}
    assert parse_yaml(f"revision: {told['revision']}") == {"revision": told["revision"]}
    assert parse_yaml(write_yaml(told)) == told
    with pytest.raises(yaml.YAMLError, match="month must be"):
        parse_yaml("date: 2024-13-45")


def test_the_schema_knows_every_reward_and_filter():
    assert set(parts.SCORERS) == set(rewards.REWARDS)
    for name, reward in rewards.REWARDS.items():
        parameters = inspect.signature(reward).parameters.values()
        assert parts.SCORERS[name] == {p.name: p.default is p.empty for p in parameters}, name
    assert set(parts.GAINS) == set(selection.GAIN_FILTERS)


def test_a_change_inside_a_block_goes_to_the_stages_of_a_list_that_have_it():
    folder = Path(__file__).parents[1] / "recipes" / "tiny" / "adversarial"
    found = recipe.load(folder / "compare.yaml", {"adversary.head_steps": 3, "references.count": 100})
    learning = [one for one in found if getattr(one, "adversary", None)]
    assert [one.method for one in learning] == ["Adv-GRPO PickScore", "Adv-GRPO"]
    assert all(one.adversary.head_steps == 3 and one.references.count == 100 for one in learning)
    with pytest.raises(UserError, match="unknown field 'adversary'; none of its recipes has it"):
        recipe.load(folder.parent / "reinforce" / "methods.yaml", {"adversary.head_steps": 3})
