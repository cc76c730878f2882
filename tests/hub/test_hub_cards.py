"""Cards: complete or not at all, readable by the clients, and true to the schema of the rows."""

from __future__ import annotations

import hub_clients as ask
import pytest

from spro_hf import rollouts
from spro_hf.errors import UserError
from spro_hf.hub import cards, front_matter

GIVEN = {
    "repo": "spro/tiny-aesthetics", "tag": "round-3", "objective": "aesthetics", "round": 3, "world": True,
    "license": "apache-2.0", "base_model": "spro_hf/tiny/guider", "generator": "spro_hf/tiny/generator", "seed": 0,
    "datasets": ["spro/tiny-aesthetics-pairs"], "reward": {"aesthetic": 1.0, "clip": 0.5}, "method": "dpo", "pairs": 41,
    "seeds": 64, "manner": "style='compact', reasoning=True, word_limit=22, max_new_tokens=72", 
    "evaluated_on": "the captions of round 3", "full": False, "sees": True, "pictures": 90,
    "steps": 120, "call": {"num_inference_steps": 8}, "guider": "spro/g@0123456789ab", "rounds": 1, "rows": 512,
    "parsed": 500, "kept_pairs": 41, "rollouts": "spro/r@0123456789ab", "systems": ["base", "SPRO-MM"], "captions": 48,
    "noise_seeds": 2, "judges": ["judge"],
    "results": [{"name": "aesthetic", "value": 5.5, "se": 0.04, "base": 5.0, "n": 96},
                {"name": "alignment", "value": 0.9, "se": 0.01, "base": None, "n": 96}],
}  # fmt: skip
MODELS, DATASETS = ("guider", "generator", "pipeline"), ("rollouts", "preferences", "results")


def card(name: str, **changes: object) -> str:
    given = GIVEN | ({"base_model": ["spro_hf/tiny/guider", "spro_hf/tiny/generator"]} if name == "pipeline" else {})
    return cards.render_card(name, **{key: (given | changes)[key] for key in cards.fields(name)})


REFERENCES = GIVEN | {"source": "world", "prompt": "{caption}, neat frame", "per_caption": 2,
                      "generator": "spro_hf/tiny/renderer@01", "call": {}}  # fmt: skip
REWARD = {"repo": "spro/dino-reward", "tag": "v1", "license": "apache-2.0", "objective": "aesthetics", "world": True, "seed": 3,
          "kind": "adversarial", "base_model": "facebook/dinov2-base", "fields": {"patches": 64}, "references": "spro/references",
          "adversary": {"head_steps": 10, "generator_steps": 1, "when": "always", "batch_size": 64, "lr": 1e-4,
                        "betas": (0.5, 0.999)},
          "updates": 300, "steps": 30, "generator": "spro_hf/tiny/generator",
          "remarks": ["It has won."], "last": {"references": 1.25, "generated": -0.5, "told_apart": 0.875}}  # fmt: skip


def test_the_card_of_references_says_how_they_were_drawn(do):
    text = cards.render_card("references", **{key: REFERENCES[key] for key in cards.fields("references")})
    read = do(ask.metadata, text, "dataset")
    assert read["license"] == "apache-2.0" and "spro" in read["tags"]
    assert "{caption}, neat frame" in text and "spro_hf/tiny/renderer@01" in text and 'revision="round-3"' in text


def test_the_card_of_a_reward_says_what_it_learned_and_how_to_load_it(do):
    text = cards.render_card("reward", **REWARD)
    read = do(ask.metadata, text, "model")
    assert read["license"] == "apache-2.0" and {"spro", "reward-model"} <= set(read["tags"])
    assert 'rewards.trained("spro/dino-reward", revision="v1")' in text
    assert "learned: {kind: trained, id: spro/dino-reward, revision: v1}" in text
    assert "300 updates of the reward" in text and "references scored 1.250 and drawn pictures -0.500" in text
    assert "the higher score in 87.5 % of pairs" in text and "\n- It has won.\n" in text
    pick = cards.render_card(
        "reward", **(REWARD | {"kind": "adversarial_pickscore", "base_model": "yuvalkirstain/PickScore_v1"})
    )
    assert "whose last vision layer learned to prefer" in pick


@pytest.mark.parametrize("name", MODELS + DATASETS)
def test_every_card_passes_the_hub_and_says_that_it_is_a_toy(do, name):
    text = card(name)
    read = do(ask.metadata, text, "model" if name in MODELS else "dataset")
    assert read["license"] == "apache-2.0" and {"spro", "aesthetics"} <= set(read["tags"])
    assert read["eval_results"] == ([("aesthetic", 5.5), ("alignment", 0.9)] if name in MODELS else [])
    assert "\n\n> **This is a toy.**" in text and "toy" not in card(name, world=False)
    assert "spro/tiny-aesthetics" in text and 'revision="round-3"' in text
    assert "1.0 × aesthetic + 0.5 × clip" in text


def test_a_real_base_model_is_linked_and_a_built_in_one_is_located():
    real = card("guider", base_model="meta-llama/Llama-3.2-11B-Vision-Instruct", world=False)
    header = front_matter.read(real)
    assert header["base_model"] == "meta-llama/Llama-3.2-11B-Vision-Instruct"
    assert header["base_model_relation"] == "adapter" and header["library_name"] == "peft"
    assert "locate" not in real and 'base = "meta-llama/Llama-3.2-11B-Vision-Instruct"' in real
    assert "base_model" not in front_matter.read(card("guider")) and 'locate("spro_hf/tiny/guider")' in card("guider")
    assert "| aesthetic | 5.000 | 5.500 ± 0.040 | 96 |" in real and "| alignment | – | 0.900 ± 0.010 | 96 |" in real


def test_the_generator_card_loads_a_lora_by_name_or_the_whole_pipeline():
    lora, full = card("generator"), card("generator", full=True, base_model="org/base")
    assert 'weight_name="pytorch_lora_weights.safetensors", revision="round-3"' in lora
    assert "num_inference_steps=8" in lora
    assert "load_lora_weights" not in full and front_matter.read(full)["base_model_relation"] == "finetune"


def test_missing_and_unknown_fields_are_named():
    with pytest.raises(UserError, match=r"card rollouts: missing field\(s\): .*generator, .*world"):
        cards.render_card("rollouts", repo="spro/x")
    with pytest.raises(UserError, match=r"unknown field 'licence'; did you mean 'license'\?"):
        cards.render_card("guider", **{k: GIVEN[k] for k in cards.fields("guider")}, licence="mit")
    with pytest.raises(UserError, match="there is no card 'guide'; did you mean 'guider'"):
        cards.render_card("guide")
    with pytest.raises(UserError, match=r"a field is incomplete \(.*'se'"):
        card("guider", results=[{"name": "a", "value": 1.0, "base": 0.5, "n": 2}])


def test_dataset_cards_describe_every_column():
    for name, schema in (("rollouts", rollouts.ROLLOUT), ("preferences", rollouts.PAIR)):
        text = card(name)
        assert [column for column in schema if f"`{column}`" not in text] == []


def test_a_text_only_guider_is_loaded_as_what_it_is():
    text = card("guider", sees=False, full=True, base_model="org/words")
    assert (
        "language model `org/words`. It reads a caption, thinks in" in text and "pipeline_tag: text-generation" in text
    )
    assert (
        'AutoModelForCausalLM.from_pretrained("' in text
        and "AutoProcessor" not in text
        and "ImageTextToText" not in text
    )
    assert "vision-language model" in card("guider") and "AutoModelForImageTextToText" in card("guider")


def test_words_in_a_call_are_quoted():
    call = {"negative_prompt": " ", "height": 1024}
    assert "pipe(\"a caption\", negative_prompt=' ', height=1024)" in card(
        "generator", base_model="org/base", call=call
    )
