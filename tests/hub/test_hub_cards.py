"""Cards of models: complete or not at all, accepted by the Hub and read back by its clients as what was measured."""

from __future__ import annotations

import ast
import re

import hub_clients as ask
import pytest
import yaml
from huggingface_hub import ModelCard, metadata_eval_result, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from spro_hf.errors import UserError
from spro_hf.guider.instructions import instruction
from spro_hf.hub import cards, front_matter, results
from spro_hf.methods import Adversary, Policy
from spro_hf.parts import Generator, Guider, References

COMMIT, MODELS = "0123456789ab" + "c" * 28, ("guider", "generator", "reinforced", "reward", "pipeline")
ROW = {"caption": "a red circle", "prompt": "a red circle, soft glow", "base_total": 3.0, "total": 4.5,
       "base": "showcase/00-base.png", "image": "showcase/00.png"}  # fmt: skip
GIVEN = {
    # of every card
    "repo": "spro/tiny-aesthetics", "tag": "round-3", "objective": "aesthetics", "world": True, "license": "apache-2.0",
    "seed": 0, "recipe": "tiny", "settings": {"rounds": 3, "lora": {"rank": 16, "alpha": 32.0}, "temperatures": (0.7, 0.8)},
    "hours": 0.25, "reward": {"aesthetic": 1.0, "clip": 0.5}, "showcase": [ROW],
    "inputs": [{"what": "pairs", "repo": "spro/pairs", "kind": "dataset", "revision": "round-3", "commit": COMMIT},
               {"what": "guider adapter", "repo": "spro/g", "kind": "model", "revision": "v1", "commit": COMMIT}],
    "terms": [{"what": "generator", "id": "spro_hf/tiny/generator", "license": "apache-2.0"},
              {"what": "seeds", "id": "org/seeds", "license": "unknown"}],
    "failures": ["Of 96 replies 5 did not parse."], "evaluated_on": "8 captions of its training set, one picture each",
    "measured_on": {"id": "spro/rollouts", "revision": COMMIT, "split": "train"},
    "results": [{"name": "aesthetic", "value": 5.5, "se": 0.04, "base": 5.0, "n": 8},
                {"name": "alignment", "value": 0.9, "se": None, "base": None, "n": None}],
    "generator": vars(Generator("spro_hf/tiny/generator", call={"num_inference_steps": 8})),
    "guider": vars(Guider("spro_hf/tiny/guider", style="compact", word_limit=22, max_new_tokens=72)),
    # of some
    "full": False, "stock": True, "sees": True, "drawn_by": "spro_hf/tiny/generator@2e59",
    "template_words": {}, "round": 3, "seeds": 64, "method": "dpo", "pairs": 41,
    "pictures": 90, "steps": 120, "prompts": 16, "group": 8, "calls": 4096,
    "policy": vars(Policy(transition="flow_sde", range=(0, 3))), "holds": ["guider", "lora"], "rounds": 1,
    "parts": {name: {"repo": f"spro/{name}", "tag": "v1", "revision": COMMIT} for name in ("guider", "generator")},
    "kind": "adversarial", "base_model": "facebook/dinov2-base", "fields": {"patches": 64}, "updates": 300,
    "references": vars(References("spro/references", revision="v1", columns={"caption": "text", "image": "image"})),
    "adversary": vars(Adversary(reward="dino", batch_size=64)), "remarks": ["It has won."],
    "last": {"references": 1.25, "generated": -0.5, "told_apart": 0.875},
}  # fmt: skip
REAL = {
    "world": False, "license": "other",
    "generator": vars(Generator("org/sd", COMMIT, call={"num_inference_steps": 28}, dtype="bfloat16")),
    "guider": vars(Guider("org/vlm", COMMIT, dtype="bfloat16")),
    "terms": [{"what": "scorers.clip", "id": "org/clip", "license": "mit", "link": "https://x.org/mit"},
              {"what": "generator", "id": "org/sd", "license": "sd-community", "link": "https://x.org/sd"}],
}  # fmt: skip


def card(name: str, **changes: object) -> str:
    return cards.render_card(name, **{key: (GIVEN | changes)[key] for key in cards.fields(name)})


def blocks(text: str, language: str = "python") -> list[str]:
    """The code blocks of a card, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("changes", [{}, REAL, REAL | {"showcase": [], "results": [], "inputs": [], "full": True}])
@pytest.mark.parametrize("name", MODELS)
def test_every_card_passes_the_hub_and_its_blocks_are_python(do, name, changes):
    text = card(name, **changes)
    read = do(ask.metadata, text, "model")
    given = GIVEN | changes
    assert read["license"] == given["license"] and {"spro", "aesthetics"} <= set(read["tags"])
    assert read["eval_results"] == ([("aesthetic", 5.5), ("alignment", 0.9)] if given["results"] else [])
    assert read.get("datasets") == (["spro/pairs"] if given["inputs"] else None)
    assert ("\n\n> **This is a toy.**" in text) == given["world"]
    assert len(blocks(text)) == (2 if name == "guider" else 1) and 'revision="round-3"' in text
    for block in blocks(text):
        defined = {node.id for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name)}
        imported = {
            a.asname or a.name for n in ast.walk(ast.parse(block)) if isinstance(n, ast.ImportFrom) for a in n.names
        }
        assert imported <= defined, imported - defined  # nothing is imported in vain ...
        compiled = {n for n in ("torch", "locate", "Image", "hf_hub_download", "PeftModel") if n in defined}
        assert all(re.search(rf"import .*\b{n}\b", block) for n in compiled)  # ... and nothing is missing
    assert "spro-hf reproduce spro/tiny-aesthetics@round-3\n" in blocks(text, "bash")[0]
    assert "\n\n\n" not in text and "{{" not in text.replace("{{SPRO}", "")


def test_results_come_back_with_error_base_and_the_data_they_were_measured_on():
    (aesthetic, alignment) = ModelCard(card("generator")).data.eval_results
    assert (aesthetic.metric_value, alignment.metric_value) == (5.5, 0.9)
    assert aesthetic.metric_args == {"standard_error": 0.04, "before_training": 5.0, "n": 8}
    assert alignment.metric_args is None and aesthetic.task_type == "text-to-image"
    assert (aesthetic.dataset_type, aesthetic.dataset_revision, aesthetic.dataset_split) == (
        "spro/rollouts",
        COMMIT,
        "train",
    )
    assert aesthetic.dataset_name == GIVEN["evaluated_on"]
    assert aesthetic.source_url == "https://huggingface.co/spro/tiny-aesthetics/tree/round-3"
    again = metadata_eval_result(
        model_pretty_name="m", task_pretty_name="t", task_id="text-to-image", metrics_pretty_name=aesthetic.metric_name,
        metrics_id=aesthetic.metric_type, metrics_value=aesthetic.metric_value, dataset_pretty_name=aesthetic.dataset_name,
        dataset_id=aesthetic.dataset_type, dataset_revision=aesthetic.dataset_revision, dataset_split="train",
    )  # fmt: skip
    (made,) = model_index_to_eval_results(again["model-index"])[1]
    assert made.unique_identifier == aesthetic.unique_identifier and made.metric_value == 5.5
    nowhere = ModelCard(card("generator", measured_on={"id": None, "revision": None})).data.eval_results[0]
    assert (nowhere.dataset_type, nowhere.dataset_revision) == ("spro", None)


def test_results_are_written_as_the_hub_reads_them(tmp_path):
    found = results.entries(GIVEN["results"], "spro/rollouts", COMMIT, "8 captions", "https://huggingface.co/spro/x")
    file = results.write(tmp_path, found)
    assert file == tmp_path / ".eval_results/spro.yaml"
    (first, second) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    assert [first, second] == found
    assert (first.dataset_id, first.task_id, first.value, first.dataset_revision) == (
        "spro/rollouts",
        "aesthetic",
        5.5,
        COMMIT,
    )
    assert first.notes == "8 captions; standard error 0.04; before training 5; n 8" and second.notes == "8 captions"
    assert first.source_url == "https://huggingface.co/spro/x"
    assert results.write(tmp_path / "none", results.entries(GIVEN["results"], None, None, "", "")) is None
    assert not (tmp_path / "none").exists()
    # a commit that YAML would take for a number
    odd = results.entries(GIVEN["results"][:1], "spro/r", "1" * 40, "", "x")
    results.write(tmp_path, odd)
    assert parse_eval_result_entries(yaml.safe_load(file.read_text())) == odd
    with pytest.raises(UserError, match="results: 'clip' is nan, which is no number"):
        results.entries([{"name": "clip", "value": float("nan"), "se": 0, "base": 0, "n": 1}], "a/b", None, "", "")


def test_a_real_base_model_is_linked_and_a_built_in_one_is_located():
    real = card("guider", **REAL)
    header = front_matter.read(real)
    assert header["base_model"] == "org/vlm" and header["base_model_relation"] == "adapter"
    assert header["library_name"] == "peft" and header["pipeline_tag"] == "image-text-to-text"
    assert "locate" not in real and 'base = "org/vlm"' in real
    assert f'AutoModelForImageTextToText.from_pretrained(base, revision="{COMMIT}", dtype=torch.bfloat16)' in real
    assert "[`org/vlm`](https://huggingface.co/org/vlm)" in real
    tiny = card("guider")
    assert "base_model" not in front_matter.read(tiny) and 'base = locate("spro_hf/tiny/guider")' in tiny
    assert "`spro_hf/tiny/guider`, which ships with the package `spro_hf` and is no repository of the Hub" in tiny
    assert "| aesthetic | 5.000 | 5.500 ± 0.040 | 8 |" in real and "| alignment | – | 0.900 | – |" in real


def test_the_pipeline_names_both_base_models_and_both_parts():
    header = front_matter.read(card("pipeline", **REAL))
    assert header["base_model"] == ["org/vlm", "org/sd"] and header["base_model_relation"] == "adapter"
    half = front_matter.read(card("pipeline", guider=REAL["guider"]))
    assert half["base_model"] == "org/vlm" and "base_model" not in front_matter.read(card("pipeline"))
    text = card("pipeline")
    assert "[`spro/guider`](https://huggingface.co/spro/guider) at `v1`, commit `0123456789ab`" in text
    assert 'SPROPipeline.from_pretrained("spro/tiny-aesthetics", revision="round-3")' in text
    assert "`guider/`, for peft) and the generator's LoRA" in text and "peft" not in card("pipeline", holds=["lora"])


def test_a_folder_of_the_trainers_is_named_and_its_path_is_not_told(tmp_path):
    text = card("generator", generator=vars(Generator(str(tmp_path))))
    assert str(tmp_path.parent) not in text and "base_model" not in front_matter.read(text)
    assert f"`{tmp_path.name}`, a folder of whoever trained it, not published" in text
    assert f'from_pretrained("path/to/{tmp_path.name}")' in text


def test_the_generator_card_loads_a_lora_by_name_or_the_whole_pipeline():
    lora, full = card("generator"), card("generator", full=True, **REAL)
    assert 'weight_name="pytorch_lora_weights.safetensors", revision="round-3"' in lora
    assert 'pipe("a red circle", generator=torch.Generator().manual_seed(0), num_inference_steps=8)' in lora
    assert "load_lora_weights" not in full and front_matter.read(full)["base_model_relation"] == "finetune"
    assert 'from_pretrained("spro/tiny-aesthetics", revision="round-3", dtype=torch.bfloat16)' in full
    odd = card("generator", stock=False)
    assert "load_lora_weights" not in odd and 'load_lora(pipe, "spro/tiny-aesthetics", revision="round-3")' in odd
    call = {"negative_prompt": " ", "height": 1024}
    quoted = card("generator", generator=vars(Generator("org/base", call=call)))
    assert 'manual_seed(0), negative_prompt=" ", height=1024)' in quoted


@pytest.mark.parametrize("name, kind", [("ddim", "PNDM"), ("ddim", "EulerDiscrete"), ("flow", "UniPCMultistep")])
def test_the_card_sets_the_scheduler_that_the_recipe_trained_with(name, kind):
    """The card's lines and ``play_with`` make the same scheduler of another one."""
    import diffusers

    from spro_hf.diffusion.schedule import play_with

    class Pipe:
        def __init__(self):
            flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
            made = {"beta_schedule": "scaled_linear", "beta_start": 0.001, "steps_offset": 1}
            self.scheduler = getattr(diffusers, f"{kind}Scheduler")(**(flow if name == "flow" else made))

    (block,) = blocks(card("reinforced", generator=vars(Generator("spro_hf/tiny/generator", scheduler=name))))
    assert "load_lora_weights" in block
    ours, stock = Pipe(), Pipe()
    play_with(ours, name)
    kept = re.search(r"^settings = .*?from_config\(settings\)\n", block, re.DOTALL | re.MULTILINE)[0]
    imports = re.search(r"^from diffusers import .*\n", block, re.MULTILINE)[0]
    exec(imports + kept, {"pipe": stock})
    assert type(stock.scheduler) is type(ours.scheduler)
    hidden = ("_use_default_values", "_class_name", "_diffusers_version")
    asked, given = ({k: v for k, v in p.scheduler.config.items() if k not in hidden} for p in (ours, stock))
    assert {key: given[key] for key in asked} == asked
    assert "Scheduler" not in blocks(card("reinforced"))[0]


def test_the_guider_card_holds_what_the_guider_is_asked():
    full = vars(Guider("org/vlm", reasoning=True, word_limit=60))
    (block, _) = blocks(card("guider", guider=full, template_words={"enable_thinking": False}))
    (asked,) = [n.value for n in ast.walk(ast.parse(block)) if isinstance(n, ast.Constant) and "{caption}" in str(n.value)
                and n.value != "{caption}"]  # fmt: skip
    written = instruction("full", "aesthetics", "a red circle", True, 60)
    assert asked.replace("{caption}", "a red circle") == written and "enable_thinking=False" in block
    assert 'hf_hub_download("spro/tiny-aesthetics", "showcase/00-base.png", revision="round-3")' in block
    assert '{"type": "image", "image": image}' in block
    (drawn, _) = blocks(card("guider", showcase=[]))
    assert 'DiffusionPipeline.from_pretrained(locate("spro_hf/tiny/generator"))' in drawn and "Image.open" not in drawn
    blind = card("guider", sees=False, full=True, guider=vars(Guider("org/words")))
    assert "language model [`org/words`](https://huggingface.co/org/words). It reads a caption, thinks in" in blind
    assert (
        front_matter.read(blind)["pipeline_tag"] == "text-generation"
        and "image" not in blocks(blind)[0].split("request =")[0]
    )
    assert 'AutoModelForCausalLM.from_pretrained("spro/tiny-aesthetics"' in blind and "AutoProcessor" not in blind
    assert cards.request(full, "aesthetics", sees=False)[0]["content"].startswith("You improve prompts")


def test_the_card_of_a_reward_says_what_it_learned_and_how_to_load_it():
    text = card("reward")
    assert 'rewards.trained("spro/tiny-aesthetics", revision="round-3")' in text
    assert (
        'load_dataset("spro/references", split="train", revision="v1", streaming=True)' in text
        and 'row["text"]' in text
    )
    assert "learned: {kind: trained, id: spro/tiny-aesthetics, revision: round-3}" in text
    assert "300 updates of the reward" in text and "references scored 1.250 and drawn pictures -0.500" in text
    assert "the higher score in 87.5 % of pairs" in text and "\n- It has won.\n" in text
    pick = card("reward", kind="adversarial_pickscore", base_model="yuvalkirstain/PickScore_v1")
    assert "whose last vision layer learned to prefer" in pick


def test_pictures_before_and_after_stand_in_header_and_body():
    text = card("generator", showcase=[ROW | {"prompt": ROW["caption"]}] * 2)
    assert front_matter.read(text)["widget"] == [{"text": "a red circle", "output": {"url": "showcase/00.png"}}] * 2
    assert "![before and after](showcase/before_after.png)" in text and "| a red circle | 3.000 | 4.500 |" in text
    guided = card("guider")
    assert front_matter.read(guided)["widget"][0]["output"] == {"text": "a red circle, soft glow"}
    assert "| a red circle | a red circle, soft glow | 3.000 | 4.500 |" in guided
    assert "before_after" not in card("generator", showcase=[])
    sly = card("generator", showcase=[ROW | {"caption": 'a | <b>"x"</b>\n---\n{{ 7 * 7 }}'}])
    assert '| a \\| &lt;b&gt;"x"&lt;/b&gt; --- {{ 7 \\* 7 }} |' in sly
    assert front_matter.read(sly)["widget"][0]["text"] == 'a | <b>"x"</b>\n---\n{{ 7 * 7 }}'


def test_where_it_comes_from_and_under_which_terms():
    text = card("generator")
    at = (
        f"[`spro/pairs`](https://huggingface.co/datasets/spro/pairs/tree/{COMMIT}) at `round-3`, commit `0123456789ab`."
    )
    assert f"- Pairs: {at}" in text and f"(https://huggingface.co/spro/g/tree/{COMMIT})" in text
    assert "- Settings: rounds: 3, lora (rank: 16, alpha: 32.0), temperatures: [0.7, 0.8]." in text
    assert (
        "Recipe `tiny`, seed 0, 0.25 hours." in text
        and "hours" not in card("generator", hours=None).split("## Results")[0]
    )
    assert "| seeds | org/seeds | unknown: ask its authors before you build on it |" in text
    assert "- Of 96 replies 5 did not parse.\n" in text and "1.0 × aesthetic + 0.5 × clip" in text
    other = front_matter.read(card("generator", **REAL))
    assert (other["license_name"], other["license_link"]) == ("sd-community", "https://x.org/sd")
    # the guider's own terms tell nothing
    assert front_matter.read(card("guider", **REAL))["license_name"] == "terms-of-what-went-in"
    assert "year = {2025}" in blocks(text, "bibtex")[0] and "title = {{SPRO}: Improving" in text


def test_the_cards_of_references_and_results_pass_too(do):
    told = {"rows": 12, "captions": 6, "size": "n<1K", "sheet": "", "columns": [], "unparsed": [], "pictures": 12}
    more = {"told": told, "generator": "spro_hf/tiny/renderer@01", "call": {}, "prompt": "{caption}, neat frame", "source": "world",
            "per_caption": 2, "systems": ["base", "SPRO-MM"], "captions": 6, "noise_seeds": 2, "judges": ["judge"]}  # fmt: skip
    for name, said in (
        ("references", "{caption}, neat frame"),
        ("results", "| aesthetic | 5.000 | 5.500 ± 0.040 | 8 |"),
    ):
        text = card(name, **more)
        read = do(ask.metadata, text, "dataset")
        assert read["license"] == "apache-2.0" and {"spro", "aesthetics"} <= set(read["tags"]) and said in text


def test_missing_unknown_and_wrong_fields_are_named():
    with pytest.raises(UserError, match=r"card generator: missing field\(s\): .*showcase.*, terms, world"):
        cards.render_card("generator", repo="spro/x")
    with pytest.raises(UserError, match=r"unknown field 'licence'; did you mean 'license'\?"):
        cards.render_card("guider", **{k: GIVEN[k] for k in cards.fields("guider")}, licence="mit")
    with pytest.raises(UserError, match="there is no card 'guide'; did you mean 'guider'"):
        cards.render_card("guide")
    with pytest.raises(UserError, match=r"a field is incomplete \(.*'se'"):
        card("guider", results=[{"name": "a", "value": 1.0, "base": 0.5, "n": 2}])
    with pytest.raises(UserError, match=r"card generator: a field is of the wrong type \("):
        card("generator", hours="a while")
    with pytest.raises(UserError, match=r"card guider: \"license\" is \"apache2\".*; did you mean 'apache-2.0'\?$"):
        card("guider", license="apache2")


@pytest.mark.parametrize(
    "header, said",
    [
        ("license: apache 2", '"license" is "apache 2", which the Hub does not know; did you mean \'apache-2.0\'?'),
        ("license: 3", '"license" must be a string or a list of strings'),
        ("license: zzzz", "lists what it knows"),
        ("pipeline_tag: text-to-images", "did you mean 'text-to-image'?"),
        ("task_categories: [text-to-picture]", '"task_categories" is "text-to-picture"'),
        ("base_model_relation: lora", '"base_model_relation" is "lora", which the Hub does not know; known: adapter,'),
        ("base_model: /home/me/model", '"base_model" holds "/home/me/model", which is no model of the Hub'),
        ("datasets: [a b]", '"datasets" holds "a b", which is no data set of the Hub'),
        ("size_categories: [1K-10K]", '"size_categories" is "1K-10K"'),
        ("language: no", '"language" must be a string or a list of strings'),  # YAML's no is false
        ("language: [en-US]", '"language" holds "en-US"; give a code of ISO 639'),
        ("configs: {default: x}", '"configs" must be a list'),
        ("configs: [{data_files: x}]", '"configs[0]" must be a mapping with a config_name'),
        ("configs: [{config_name: a, data_files: [{path: x}]}]", '"configs[0].data_files" must each have a split and a path'),
        ("configs: [{config_name: a, data_files: [3]}]", '"configs[0].data_files" must be a path'),
        ("configs: [{config_name: a}, {config_name: a}]", '"configs" has two configurations named "a"'),
        ("widget: {text: a}", '"widget" must be a list of examples'),
        ("widget: [a]", '"widget[0]" must be a mapping'),
        ("widget: [{text: 3}]", '"widget[0].text" must be a string'),
        ("widget: [{text: a, output: x.png}]", '"widget[0].output" must have a url or a text'),
        ("model-index: [{name: a}]", '"model-index[0]" needs a name and a list of results'),
        ("model-index: [{name: a, results: [{task: {}}]}]", "results[0]\" needs task, dataset and metrics"),
        ("model-index: [{name: a, results: [{task: {type: t}, dataset: {type: d}, metrics: [{type: m, value: 1}]}]}]",
         'results[0].dataset.name" must be a string'),
        ("model-index: [{name: a, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: []}]}]", "at least one"),
        ("model-index: [{name: a, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: [{type: m}]}]}]",
         'metrics[0]" needs a type and a value'),
        ("model-index: [{name: a, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: "
         "[{type: m, value: .nan}]}]}]", "is nan, which is no number"),
        ("tags: 3", '"tags" must be a string or a list of strings'),
        ("a: [", "the YAML header cannot be read"),
        ("lr: .nan", "no number"),
        ("date: 2024-13-45", "the YAML header cannot be read"),
        ("a: &a [1]\nb: *a", "write the value out"),
    ],
)  # fmt: skip
def test_a_header_that_the_hub_would_not_take_is_refused(header, said):
    errors, _ = front_matter.check(f"---\n{header}\n---\ntext")
    assert len(errors) == 1 and said in errors[0], errors


def test_headers_of_other_tools_pass():
    written = """
license: [mit, cc-by-4.0]
language: [en, code]
base_model: gpt2
datasets: imdb
size_categories: [n<1K, 1K<n<10K]
configs:
- {config_name: default, data_files: [{split: train, path: [a.parquet, b.parquet]}, {split: test, path: c.parquet}]}
- {config_name: more, data_files: "*.csv"}
- {config_name: all, data_dir: data}
widget: [{src: a.png, output: [{label: cat, score: 0.9}]}, {messages: [{role: user, content: hi}]}]
dataset_info: {features: [{name: n, dtype: int64}]}
"""
    assert front_matter.check(f"---{written}---\n") == ([], [])
    assert front_matter.check("---\nlicense: other\n---\n") == (
        [],
        ['"license" is "other", and "license_name" does not say which'],
    )
