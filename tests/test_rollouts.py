"""Rollouts on disk: what is written comes back, row by row or without pictures, from one file or several."""

import pytest
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
