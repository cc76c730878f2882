"""Two folders of an artifact: what is equal, what is within bounds, what differs and where."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from spro_hf import rollouts
from spro_hf.lineage.compare import DIFFERENT, EQUAL, WITHIN, compare

from . import artifacts_made as made


@pytest.fixture
def two(tmp_path):
    """Two folders that hold the same."""
    return tmp_path / "one", tmp_path / "other"


def weights(folder, changed=0.0, **more):
    folder.mkdir(exist_ok=True)
    tensors = {"a": torch.arange(8.0).reshape(2, 4), "b": torch.ones(3, dtype=torch.bfloat16)} | more
    tensors["a"][1, 0] += changed
    save_file(tensors, folder / "w.safetensors", metadata={"format": "pt"})


def test_the_same_tensors_are_equal_bit_for_bit(two):
    weights(two[0])
    weights(two[1])
    found = compare(*two)
    assert (found.verdict, found.equal, found.compared, found.lines(), found.apart) == (EQUAL, True, 1, [], [])


def test_one_element_of_one_tensor(two):
    weights(two[0], changed=0.5)
    weights(two[1])  # 4.5 and 4
    found = compare(*two)
    (one,) = found.differences
    assert found.verdict == DIFFERENT and one.place == "w.safetensors: a"
    assert one.said == "1 of 8 elements differ (12.50%), by at most 0.5, relative 0.111"
    assert (one.absolute, one.relative) == (0.5, 0.5 / 4.5)
    assert compare(*two, atol=0.5).verdict == WITHIN and compare(*two, atol=0.4).verdict == DIFFERENT
    assert compare(*two, rtol=0.125).verdict == WITHIN and compare(*two, rtol=0.12).verdict == DIFFERENT


def test_bits_count_and_not_only_values(two):
    weights(two[0], zero=torch.tensor([0.0, float("nan")]))
    weights(two[1], zero=torch.tensor([-0.0, float("nan")]))
    (one,) = compare(*two).differences
    assert one.said.startswith("1 of 2 elements differ (50.00%), by at most 0,") and one.within
    assert compare(*two).verdict == WITHIN
    weights(two[1], zero=torch.tensor([0.0, 1.0]))
    assert compare(*two, atol=1e9).verdict == DIFFERENT  # a number in the place of none


def test_names_shapes_types_and_what_only_one_has(two):
    weights(two[0], c=torch.zeros(2), d=torch.tensor([1, 2]))
    weights(two[1], c=torch.zeros(2, 1), b=torch.ones(3), d=torch.tensor([1, 3]), e=torch.zeros(()))
    made.lay(two[0], note_dot_txt="x")
    found = compare(*two, atol=10.0)
    assert found.verdict == DIFFERENT and found.lines() == [
        "note.txt: is only in the first",
        "w.safetensors: e: is only in the second",
        "w.safetensors: b: is bfloat16 [3] and float32 [3]",
        "w.safetensors: c: is float32 [2] and float32 [2, 1]",
        "w.safetensors: d: 1 of 2 elements differ (50.00%), by at most 1, relative 0.333",
    ]
    assert found.lines(2)[2] == "and 3 more"


def test_what_tells_of_the_making_is_set_apart(two):
    told = {"steps": 2, "seconds": 9.5, "rows": [{"kl": 0.25, "cpu_seconds": 1.0}]}
    other = {"rows": [{"cpu_seconds": 2.0, "kl": 0.25}], "seconds": 7.5, "steps": 2}
    for folder, training, text in ((two[0], told, "a"), (two[1], other, "b")):
        made.lay(folder, {"text": text}, README_dot_md=text, recipe_dot_yaml=text, environment_dot_json=f'"{text}"',
                 training_dot_json=json.dumps(training), _dot_eval_results__spro_dot_yaml=text, card__a_dot_png=text)  # fmt: skip
    found = compare(*two)
    assert found.verdict == EQUAL and found.compared == 1
    assert found.apart == [
        ".eval_results/spro.yaml", "README.md", "card/a.png", "environment.json",
        "lineage.json", "recipe.yaml", "training.json: seconds",
        "training.json: cpu_seconds",
    ]  # fmt: skip


def test_json_by_fields(two):
    made.lay(two[0], told_dot_json='{"mean": 0.5, "n": 3, "by": [{"a": "x"}, 1.0], "revision": "v1", "b": true}')
    made.lay(two[1], told_dot_json='{"n": 4, "mean": 0.50001, "by": [{"a": "y"}, 1], "revision": "v2", "b": 1}')
    found = compare(*two, atol=1e-4)
    assert found.lines() == [
        "told.json: n: 3 and 4", "told.json: by[0].a: 'x' and 'y'", "told.json: b: True and 1", "told.json: mean: 0.5 and 0.50001",
    ]  # fmt: skip
    assert found.apart == ["revisions by which things are named"]
    assert [one.within for one in found.differences] == [True, False, False, False]


def test_pictures_by_their_pixels(two):
    one, other = made.png(made.picture(100, True)), made.png(made.picture(100))
    made.lay(two[0], a_dot_png=one, same_dot_png=other)
    made.lay(two[1], a_dot_png=other, same_dot_png=other)
    found = compare(*two)  # 4 in one of twelve numbers
    assert found.lines() == ["a.png: mean pixel difference 0.333 of 255, 25.00% of the pixels"]
    assert found.verdict == DIFFERENT
    assert compare(*two, atol=0.34 / 255).verdict == WITHIN and compare(*two, atol=0.33 / 255).verdict == DIFFERENT


def test_a_table_of_the_same_rows_is_equal_however_it_is_written(two):
    rows = [made.rollout("dog", i, 1.0 + i, f"p{i}") for i in range(3)]
    made.write_rollouts(two[0], rows)
    for part in range(3):
        rollouts.write(rows[part : part + 1], rollouts.ROLLOUT, two[1], part, 3)
    found = compare(*two)
    assert found.verdict == EQUAL and found.compared == 3


def test_one_pixel_one_reward_and_one_text_of_a_table(two):
    rows = [made.rollout("dog", i, 1.0 + i, f"p{i}") for i in range(3)]
    made.write_rollouts(two[0], rows)
    rows[1] |= {"image": made.picture(50, True)}
    rows[2] |= {"total": 3.0000001, "prompt": "another", "rewards": '{"total": 1.5}', "guider": "spro/g@ba9876543210"}
    made.write_rollouts(two[1], rows)
    found = compare(*two)
    assert found.lines() == [
        "data/train.parquet, column prompt: 1 row (2), at worst 'p2' and 'another'",
        "data/train.parquet, column image: 1 row (1), at worst mean pixel difference 0.333 of 255, 25.00% of the pixels",
        "data/train.parquet, column rewards: 1 row (2), at worst total: 1.0 and 1.5",
        "data/train.parquet, column total: 1 row (2), at worst 3.0 and 3.0000001",
    ]
    assert found.apart == ["commits by which things are named"]
    assert [one.within for one in compare(*two, atol=1e-6).differences] == [False, False, False, True]


def test_columns_and_rows_that_only_one_has(two):
    for folder, columns in zip(two, ({"a": [1, 2], "b": [1.0, 2.0]}, {"a": ["1"], "c": [0]}), strict=True):
        (folder / "data").mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data/train-00000-of-00001.parquet")
    assert compare(*two).lines() == [
        "data/train.parquet, column a: is int64 and string",
        "data/train.parquet, column b: is double and not there",
        "data/train.parquet, column c: is not there and int64",
        "data/train.parquet: has 2 and 1 rows",
    ]


def test_other_files_by_their_bytes(two):
    made.lay(two[0], vocab_dot_txt="a", broken_dot_json="{", broken_dot_png=b"1")
    made.lay(two[1], vocab_dot_txt="b", broken_dot_json="[", broken_dot_png=b"2")
    lines = compare(*two, atol=1.0).lines()
    assert lines[0] == "broken.json: it is no JSON, and its bytes differ"
    assert lines[1].startswith("broken.png: cannot be read as a picture") and lines[2] == "vocab.txt: its bytes differ"
