"""Cards of data sets: complete, true to the schemas of the rows, with what rows were made of and what they are not for."""

from __future__ import annotations

import ast
import re

import pytest
import yaml
from huggingface_hub import DatasetCard

from spro_hf import columns
from spro_hf.errors import UserError
from spro_hf.hub import cards
from spro_hf.parts import Seeds

NUMBERS = {
    "n": 24,
    "mean": 3.25,
    "std": 0.5,
    "min": 2.0,
    "q1": 3.0,
    "median": 3.1,
    "q3": 3.5,
    "max": 4.375,
    "shape": "▁█",
}
PICTURES = {"scores": "card/scores.png", "sheet": "card/samples.jpg"}
HOSTILE = "a `cat` | <b>\nsecond line"
TOLD = {
    "rollouts": {
        "rows": 192, "seeds": 24, "parsed": 190, "pairs": 22, "size": "n<1K", "columns": columns.told("rollouts"),
        "prompt_columns": columns.told("prompts"), "why": [{"what": "similarity below 0.5", "rows": 33}],
        "problems": [{"what": "two prompts | or more", "rows": 2}],
        "statistics": [{"name": "aesthetic", "of": "base pictures"} | NUMBERS],
        "samples": [{"caption": HOSTILE, "base": 3.0, "best": {"total": 5.6, "prompt": HOSTILE},
                     "worst": {"total": 2.875, "prompt": "a dog"}}],
    } | PICTURES,
    "preferences": {
        "rows": 1022, "size": "1K<n<10K", "columns": columns.told("preferences"), "samples": [{"caption": "a cat"}],
        "statistics": [{"name": "reward", "of": "chosen"} | NUMBERS],
    } | PICTURES,
    "references": {"rows": 96, "captions": 48, "size": "n<1K", "columns": columns.told("references"), "sheet": PICTURES["sheet"]},
    "results": {"unparsed": [{"what": "SPRO-MM", "rows": 3}], "pictures": 96, "sheet": PICTURES["sheet"]},
}  # fmt: skip
GIVEN = {
    "repo": "spro/tiny", "tag": "round-2", "license": "apache-2.0", "objective": "aesthetics", "world": False, "seed": 7,
    "reward": {"aesthetic": 1.0, "clip": 0.5}, "round": 2, "guider": "spro/g@01", "generator": "spro/d@02", "sees": True,
    "rollouts": "spro/r@0123456789ab", "per_caption": 2, "prompt": "{caption}, neat frame", "call": {"height": 1024},
    "source": "world", "systems": ["base", "SPRO-MM"], "captions": 48, "noise_seeds": 2, "judges": ["judge"],
    "results": [{"name": "SPRO-MM: aesthetic", "value": 5.5, "se": 0.04, "base": 5.0, "n": 96}],
    "evaluated_on": "48 held-out captions",
    "terms": [{"what": "guider", "id": "org/guider", "license": "llama3.2", "link": "https://example.org/terms"},
              {"what": "seeds", "id": "org/captions", "license": "unknown"}],
}  # fmt: skip
NAMES = list(TOLD)


def card(name: str, **changes: object) -> str:
    given = GIVEN | {"told": TOLD[name]} | changes
    return cards.render_card(name, **{key: given[key] for key in cards.fields(name)})


def header(text: str) -> dict:
    return DatasetCard(text).data.to_dict()


def test_the_fields_of_every_card():
    common = {"repo", "tag", "license", "terms", "objective", "world", "seed", "told"}
    assert {name: cards.fields(name) - common for name in NAMES} == {
        "rollouts": {"reward", "round", "guider", "generator"},
        "preferences": {"reward", "round", "rollouts", "sees"},
        "references": {"per_caption", "prompt", "generator", "call", "source"},
        "results": {"reward", "systems", "captions", "noise_seeds", "judges", "results", "evaluated_on"},
    }
    assert all(common <= cards.fields(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_card_says_whose_terms_hold_and_what_it_is_no_good_for(name):
    text = card(name)
    read = header(text)
    assert read["license"] == "apache-2.0" and read["source_datasets"] == ["org/captions"]
    assert {"spro", "aesthetics"} <= set(read["tags"]) and len(set(read["tags"])) == len(read["tags"])
    assert "org/guider" in text and "llama3.2" in text and "https://example.org/terms" in text
    assert re.search(r"org/captions.*unknown", text) and "\n## Limits\n" in text
    assert "toy" not in text and "\n\n> **This is a toy.**" in card(name, world=True)
    assert header(card(name, license="other"))["license_name"] == "terms-of-what-went-in"
    assert "source_datasets" not in header(card(name, terms=GIVEN["terms"][:1]))
    assert "](card/samples.jpg)" in text and "{{" not in text.replace("{{SPRO}", "")


def test_sizes_and_configs_are_those_of_the_rows():
    rollouts, pairs = header(card("rollouts")), header(card("preferences"))
    assert rollouts["size_categories"] == ["n<1K"] and pairs["size_categories"] == ["1K<n<10K"]
    assert rollouts["configs"] == [
        {
            "config_name": "rollouts",
            "default": True,
            "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
        },
        {"config_name": "prompts", "data_files": [{"split": "train", "path": "prompts/train-*.parquet"}]},
    ]
    text = card("rollouts", told=TOLD["rollouts"] | {"pairs": 0})
    assert [c["config_name"] for c in header(text)["configs"]] == ["rollouts"] and '"prompts"' not in text
    assert "no row" in card("preferences", told=TOLD["preferences"] | {"rows": 0})
    assert "no row" not in card("preferences")


def test_every_column_is_described_once_and_with_its_type():
    for name, about in (("rollouts", "rollouts"), ("rollouts", "prompts"), ("preferences", "preferences"),
                        ("references", "references")):  # fmt: skip
        lines = card(name).splitlines()
        for column in columns.ABOUT[about]:
            assert any(line.startswith(f"| `{column}` | ") for line in lines), (name, column)
    text = card("preferences")
    assert "| `prompt` | messages |" in text and "| `images` | list of image |" in text
    assert "| `score` | float64 |" in card("rollouts") and "| `plan` | list of string |" in card("rollouts")


def test_numbers_and_reasons_stand_in_the_card():
    text = card("rollouts")
    assert "| aesthetic | base pictures | 24 | 3.250 | 0.500 | 2.000 | 3.000 | 3.100 | 3.500 | 4.375 | ▁█ |" in text
    assert "](card/scores.png)" in text and "| similarity below 0.5 | 33 |" in text
    assert "| two prompts \\| or more | 2 |" in text
    assert (
        "- `a 'cat' | <b> second line`\n  - best, 5.60: `a 'cat' | <b> second line`\n  - worst, 2.88: `a dog`" in text
    )
    assert "| SPRO-MM | 3 |" in card("results") and "Replies that could not" not in card(
        "results", told=TOLD["results"] | {"unparsed": []}
    )


def test_what_a_card_shows_to_paste_is_python_and_a_recipe():
    for name in NAMES:
        for sees in (True, False):
            for block in re.findall(r"```python\n(.*?)```", card(name, sees=sees), re.DOTALL):
                ast.parse(block)
    (block,) = re.findall(r"```yaml\n(.*?)```", card("rollouts"), re.DOTALL)
    found = Seeds(**yaml.safe_load(block)["prompts"])
    assert (found.source, found.revision, found.config, found.count) == ("spro/tiny", "round-2", "prompts", 22)
    assert 'remove_columns("images")' in card("preferences", sees=False)


def test_a_card_that_lacks_numbers_is_refused():
    short = {key: value for key, value in TOLD["rollouts"].items() if key != "why"}
    with pytest.raises(UserError, match=r"card rollouts: a field is incomplete \(.*'why'"):
        card("rollouts", told=short)
    with pytest.raises(UserError, match=r"card preferences: missing field\(s\): .*told"):
        cards.render_card("preferences", repo="spro/x")
