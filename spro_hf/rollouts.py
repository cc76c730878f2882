"""The row of a rollout, one schema for every stage, and its parquet files with pictures inside.

A round may have more pictures than fit into memory, so rows are read without their pictures, and pictures by row.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pictures

_TEXT, _REAL = Value("string"), Value("float64")
ROLLOUT = {
    "seed_id": _TEXT,
    "objective": _TEXT,
    "round": Value("int32"),
    "candidate": Value("int32"),
    "base_caption": _TEXT,
    "context": _TEXT,
    "caption_in": _TEXT,
    "image_in": Image(),
    "reply": _TEXT,
    "plan": List(_TEXT),
    "parsed": Value("bool"),
    "problem": _TEXT,
    "prompt": _TEXT,
    "image": Image(),
    "image_base": Image(),
    "image_seed": Value("int64"),
    "rewards": _TEXT,
    "total": _REAL,
    "base_rewards": _TEXT,
    "base_total": _REAL,
    "similarity": _REAL,
    "measures": _TEXT,
    "kept": Value("bool"),
    "why": _TEXT,
    "guider": _TEXT,
    "generator": _TEXT,
    "scorers": _TEXT,
}
PAIR = {
    "seed_id": _TEXT,
    "objective": _TEXT,
    "prompt": List({"role": _TEXT, "content": _TEXT}),
    "images": List(Image()),
    "chosen": List({"role": _TEXT, "content": _TEXT}),
    "rejected": List({"role": _TEXT, "content": _TEXT}),
    "image_chosen": Image(),
    "image_rejected": Image(),
    "score_chosen": _REAL,
    "score_rejected": _REAL,
    "base_caption": _TEXT,
    "image_seed": Value("int64"),
}
GROUP = 64  # rows that are read together when one picture is asked for


def write(rows: Iterable[dict[str, Any]], schema: dict[str, Any], folder: Path, part: int = 0, of: int = 1) -> None:
    """Write rows to ``folder``/data/train-<part>-of-<of>.parquet, GROUP at a time; pictures go in as PNG, losslessly."""
    features, rows = Features(schema), iter(rows)
    with pyarrow.parquet.ParquetWriter(_file(folder, part, of), features.arrow_schema) as writer:
        while some := list(islice(rows, GROUP)):
            columns = {name: [row[name] for row in some] for name in schema}
            writer.write_table(Dataset.from_dict(columns, features=features).data.table.cast(features.arrow_schema))


def write_in_parts(rows: Iterable[dict[str, Any]], schema: dict[str, Any], folder: Path, size: int, count: int) -> None:
    """Write ``count`` rows, ``size`` to a file."""
    rows, of = iter(rows), max(1, -(-count // size))
    for part in range(of):
        write(islice(rows, size), schema, folder, part, of)


def _file(folder: Path, part: int, of: int) -> Path:
    file = folder / "data" / f"train-{part:05d}-of-{of:05d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def amend(file: Path, part: int, of: int, values: dict[str, list[Any]], target: Path) -> None:
    """Copy a parquet file into the folder ``target`` as one of several, with other values in some columns."""
    table = pyarrow.parquet.read_table(file)
    for name, column in values.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pyarrow.array(column, table.schema.field(at).type))
    pyarrow.parquet.write_table(table, _file(target, part, of), row_group_size=GROUP)


def files(folder: Path) -> list[Path]:
    """The parquet files of a data set's folder, in order."""
    return sorted((folder / "data").glob("*.parquet"))


def count(file: Path) -> int:
    """How many rows a parquet file has."""
    return pyarrow.parquet.read_metadata(file).num_rows


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's parquet files, pictures decoded to PIL."""
    rows = [row for file in files(folder) for row in pyarrow.parquet.read_table(file).to_pylist()]
    return [{key: _picture(value) for key, value in row.items()} for row in rows]


def read_told(folder: Path) -> list[dict[str, Any]]:
    """All rows without their pictures; the place of a row in the list is its number."""
    rows = []
    for file in files(folder):
        opened = pyarrow.parquet.ParquetFile(file)
        told = [f.name for f in opened.schema_arrow if not pyarrow.types.is_struct(f.type) and f.name != "images"]
        rows += opened.read(columns=told).to_pylist()
    return rows


def pictures(folder: Path, column: str, rows: Iterable[int]) -> Iterator[Pictures.Image | None]:
    """The pictures of a column at row numbers, one by one in the order of ``rows``; best asked for in rising order."""
    places, start = [], 0  # of each file: its first row, and the row behind its last
    for file in files(folder):
        places.append((start, start + count(file), file))
        start = places[-1][1]
    opened, at, held = None, None, []
    try:
        for row in rows:
            if at is None or not at[0] <= row < at[1]:
                first, _, file = next((p for p in places if p[0] <= row < p[1]), (0, 0, None))
                if file is None:
                    raise IndexError(f"{folder} has {start} rows; there is no row {row}")
                if opened is None or opened[0] != file:  # one at a time: a round may have a thousand
                    if opened:
                        opened[1].close()
                    opened = (file, pyarrow.parquet.ParquetFile(file))
                number, begin = 0, first
                while row >= begin + (size := opened[1].metadata.row_group(number).num_rows):
                    number, begin = number + 1, begin + size
                at = (begin, begin + size)
                held = opened[1].read_row_group(number, columns=[column]).column(0).to_pylist()
            yield _picture(held[row - at[0]])
    finally:
        if opened:
            opened[1].close()


def _picture(value: Any) -> Any:
    if isinstance(value, dict) and "bytes" in value:
        return Pictures.open(io.BytesIO(value["bytes"])).convert("RGB")
    return value
