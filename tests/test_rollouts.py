"""Rollouts on disk: what is written comes back, row by row or without pictures, from one file or several."""

import pyarrow.parquet
import pytest
from datasets import Features, load_dataset
from PIL import Image

from spro_hf import rollouts

SCHEMA = {name: rollouts.ROLLOUT[name] for name in ("seed_id", "image", "kept", "why", "plan", "total")}


def rows(count):
    return [
        {"seed_id": f"s{i}", "image": Image.new("RGB", (4, 4), (i % 256, i // 256, 7)) if i % 5 else None, "kept": False,
         "why": "", "plan": [f"step {i}"], "total": None if i % 5 == 0 else i / 2}
        for i in range(count)
    ]  # fmt: skip


def shade(image):
    return image and image.getpixel((0, 0))


def test_pictures_are_read_by_row_over_files_and_row_groups(tmp_path):
    rollouts.write_in_parts(iter(rows(300)), SCHEMA, tmp_path, size=130, count=300)
    assert [file.name for file in rollouts.files(tmp_path)] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    wanted = [1, 63, 64, 129, 131, 299, 5, 2]
    found = [shade(image) for image in rollouts.pictures(tmp_path, "image", wanted)]
    assert found == [(i % 256, i // 256, 7) if i % 5 else None for i in wanted]
    with pytest.raises(IndexError, match="has 300 rows; there is no row 300"):
        list(rollouts.pictures(tmp_path, "image", [300]))


def test_told_rows_lack_pictures_and_nothing_else(tmp_path):
    rollouts.write(rows(7), SCHEMA, tmp_path)
    told, whole = rollouts.read_told(tmp_path), rollouts.read(tmp_path)
    assert told == [{key: value for key, value in row.items() if key != "image"} for row in whole]
    assert (told[3]["plan"], told[3]["total"], told[5]["total"]) == (["step 3"], 1.5, None)
    assert shade(whole[3]["image"]) == (3, 0, 7) and whole[5]["image"] is None


def test_amending_changes_the_named_columns_alone(tmp_path):
    rollouts.write(rows(70), SCHEMA, tmp_path / "part")
    values = {"kept": [i % 2 == 0 for i in range(70)], "why": [f"because {i}" for i in range(70)]}
    (file,) = rollouts.files(tmp_path / "part")
    rollouts.amend(file, 0, 2, values, tmp_path / "whole")
    rollouts.amend(file, 1, 2, {"why": ["second"] * 70}, tmp_path / "whole")
    told, before = rollouts.read_told(tmp_path / "whole"), rollouts.read_told(tmp_path / "part")
    assert len(told) == 140 and told[69] == before[69] | {"kept": False, "why": "because 69"}
    assert told[68]["kept"] and told[70] == before[0] | {"why": "second"}
    assert [shade(p) for p in rollouts.pictures(tmp_path / "whole", "image", [69, 71])] == [(69, 0, 7), (1, 0, 7)]


def test_a_round_without_a_row_is_a_file_of_none(tmp_path):
    rollouts.write_in_parts([], rollouts.PAIR, tmp_path, size=8, count=0)
    assert rollouts.read(tmp_path) == [] and len(rollouts.files(tmp_path)) == 1


def test_files_tell_their_own_features_and_amended_ones_do_too(tmp_path):
    rollouts.write([], rollouts.PAIR, tmp_path / "pairs")  # `datasets` loads no split without a row
    told = pyarrow.parquet.read_schema(rollouts.files(tmp_path / "pairs")[0])
    assert Features.from_arrow_schema(told) == Features(rollouts.PAIR)
    rollouts.write(rows(3), SCHEMA, tmp_path / "part")
    rollouts.amend(rollouts.files(tmp_path / "part")[0], 0, 1, {"why": ["a", "b", "c"]}, tmp_path / "whole")
    found = load_dataset(str(tmp_path / "whole"), split="train")
    assert found.features == Features(SCHEMA) and found["why"] == ["a", "b", "c"]
    assert found[1]["image"].getpixel((0, 0)) == (1, 0, 7) and found[0]["image"] is None


def test_a_row_group_ends_when_its_pictures_are_many_bytes(tmp_path, monkeypatch):
    (size,) = {len(cell) for cell in encoded(rows(20)) if cell}
    monkeypatch.setattr(rollouts, "GROUP_BYTES", 3 * size)  # of five rows the first has no picture
    rollouts.write(rows(20), SCHEMA, tmp_path / "few")
    (file,) = rollouts.files(tmp_path / "few")
    opened = pyarrow.parquet.ParquetFile(file)
    found = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
    assert found == [4, 4, 4, 3, 4, 1]  # three pictures each: rows 0-3, 4-7, 8-12 ...
    rollouts.amend(file, 0, 1, {"total": [0.5] * 20}, tmp_path / "amended")
    assert pyarrow.parquet.ParquetFile(rollouts.files(tmp_path / "amended")[0]).num_row_groups == 6
    wanted = [19, 0, 7, 8]
    assert [shade(p) for p in rollouts.pictures(tmp_path / "amended", "image", wanted)] == [
        (19, 0, 7), None, (7, 0, 7), (8, 0, 7)
    ]  # fmt: skip


def encoded(found):
    feature = rollouts.ROLLOUT["image"]
    return [feature.encode_example(row["image"])["bytes"] if row["image"] else None for row in found]


def test_pages_have_an_index_for_readers_of_single_rows(tmp_path):
    rollouts.write(rows(3), SCHEMA, tmp_path)
    column = pyarrow.parquet.read_metadata(rollouts.files(tmp_path)[0]).row_group(0).column(0)
    assert column.has_offset_index and column.has_column_index


PLAYED = [  # seed, round, reward, kept
    ("b", 1, 2.0, True), ("b", 1, 3.0, True), ("b", 1, 9.0, False), ("a", 1, 1.0, False), ("a", 2, None, False),
    ("a", 2, 4.0, True), ("a", 2, 4.5, True), ("b", 2, 1.0, True),
]  # fmt: skip


def played():
    for i, (seed, number, total, kept) in enumerate(PLAYED):
        yield {"seed_id": seed, "round": number, "total": total, "kept": kept, "objective": "preference",
               "base_caption": f"a {seed}", "prompt": f"a {seed}, way {i}",
               "image": Image.new("RGB", (4, 4), (i, 0, 0))}  # fmt: skip


def test_the_prompts_are_the_winners_in_the_authors_columns(tmp_path):
    names = ("seed_id", "round", "total", "kept", "objective", "base_caption", "prompt", "image")
    rollouts.write_in_parts(played(), {n: rollouts.ROLLOUT[n] for n in names}, tmp_path, size=3, count=len(PLAYED))
    assert rollouts.winners(tmp_path) == [1, 6, 7]
    assert rollouts.write_prompts(tmp_path) == 3
    found = load_dataset("parquet", data_files=str(tmp_path / "prompts" / "*.parquet"), split="train")
    assert found.column_names == ["filename", "caption", "improved_prompt_new", "score", "image_path", "objective"]
    pictures = found["image_path"]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(1, 0, 0), (6, 0, 0), (7, 0, 0)]
    told = found.remove_columns("image_path").to_list()
    assert told[0] == {"filename": "b.png", "caption": "a b", "improved_prompt_new": "a b, way 1", "score": 3.0,
                       "objective": "preference"}  # fmt: skip
    assert [row["score"] for row in told] == [3.0, 4.5, 1.0]
    (file,) = (tmp_path / "prompts").glob("*.parquet")
    paths = pyarrow.parquet.read_table(file, columns=["image_path"]).column(0).to_pylist()
    assert [cell["path"] for cell in paths] == ["rollouts/train/1", "rollouts/train/6", "rollouts/train/7"]
    assert len(rollouts.files(tmp_path)) == 3  # those of the rollouts alone


def test_without_a_winner_there_are_no_prompts(tmp_path):
    rollouts.write([], rollouts.ROLLOUT, tmp_path)
    assert rollouts.write_prompts(tmp_path) == 0 and not (tmp_path / "prompts").exists()
