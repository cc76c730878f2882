"""Rollouts on the disk: rows of one schema for every stage (``spro_hf.columns``) as parquet files with pictures inside.

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
from datasets import Features
from datasets.config import DEFAULT_CDC_OPTIONS
from PIL import Image as Pictures

from spro_hf.columns import PAIR, PROMPT, REFERENCE, ROLLOUT

__all__ = [
    "GROUP", "PAIR", "PROMPT", "REFERENCE", "ROLLOUT", "amend", "count", "files", "pictures", "read", "read_told", "told",
    "winners", "write", "write_in_parts", "write_prompts",
]  # fmt: skip

GROUP = 64  # rows that are held at most until they are written, and read together when one picture is asked for
GROUP_BYTES = 100_000_000  # of pictures in them at most: the Hub's viewer refuses to read more than 300 MB for a row
# Pages end where the content says so, as `datasets` has it: what two versions share is then stored once by a Hub with Xet. The
# page index lets a reader fetch one row's picture without its whole group.
_PARQUET = {"use_content_defined_chunking": DEFAULT_CDC_OPTIONS, "write_page_index": True}


def write(rows: Iterable[dict[str, Any]], schema: dict[str, Any], folder: Path, part: int = 0, of: int = 1) -> None:
    """Write rows to ``folder``/data/train-<part>-of-<of>.parquet; pictures go in as PNG, losslessly.

    A row group ends after GROUP rows, or with the row whose pictures make it GROUP_BYTES.
    """
    _write(rows, Features(schema), _file(folder, part, of))


def _write(rows: Iterable[dict[str, Any]], features: Features, file: Path) -> None:
    some, size = [], 0
    with _writer(file, features.arrow_schema) as writer:
        for row in rows:
            some.append(features.encode_example({name: row[name] for name in features}))
            size += _size(some[-1])
            if len(some) == GROUP or size >= GROUP_BYTES:
                writer.write_table(pyarrow.Table.from_pylist(some, features.arrow_schema))
                some, size = [], 0
        if some:
            writer.write_table(pyarrow.Table.from_pylist(some, features.arrow_schema))


def _writer(file: Path, schema: pyarrow.Schema) -> pyarrow.parquet.ParquetWriter:
    return pyarrow.parquet.ParquetWriter(file, schema, **_PARQUET)


def _size(value: Any) -> int:
    """The bytes of the pictures in an encoded row."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else len(value) if isinstance(value, bytes) else 0


def write_in_parts(rows: Iterable[dict[str, Any]], schema: dict[str, Any], folder: Path, size: int, count: int) -> None:
    """Write ``count`` rows, ``size`` to a file."""
    rows, of = iter(rows), max(1, -(-count // size))
    for part in range(of):
        write(islice(rows, size), schema, folder, part, of)


def _file(folder: Path, part: int, of: int, where: str = "data") -> Path:
    file = folder / where / f"train-{part:05d}-of-{of:05d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def amend(file: Path, part: int, of: int, values: dict[str, list[Any]], target: Path) -> None:
    """Copy a parquet file into the folder ``target`` as one of several, with other values in some columns."""
    with pyarrow.parquet.ParquetFile(file) as opened:
        schema, start = opened.schema_arrow, 0
        with _writer(_file(target, part, of), schema) as writer:
            for number in range(opened.num_row_groups):
                table = opened.read_row_group(number)
                for name, column in values.items():
                    at = schema.get_field_index(name)
                    some = pyarrow.array(column[start : start + len(table)], schema.field(at).type)
                    table = table.set_column(at, schema.field(at), some)
                writer.write_table(table)
                start += len(table)


def files(folder: Path) -> list[Path]:
    """The parquet files of a data set's folder, in order."""
    return sorted((folder / "data").glob("*.parquet"))


def wanted(names: list[str]) -> list[str]:
    """Of a rollouts repository's files those with all that was tried; not the winners once more, nor the card's pictures."""
    return [name for name in names if name.startswith("data/")]


def count(file: Path) -> int:
    """How many rows a parquet file has."""
    return pyarrow.parquet.read_metadata(file).num_rows


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's parquet files, pictures decoded to PIL."""
    rows = [row for file in files(folder) for row in pyarrow.parquet.read_table(file).to_pylist()]
    return [{key: _picture(value) for key, value in row.items()} for row in rows]


def columns(folder: Path) -> list[str]:
    """The columns of a folder's rows."""
    return pyarrow.parquet.read_schema(files(folder)[0]).names


def told(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of all rows, one by one; a row group is held at a time."""
    for file in files(folder):
        with pyarrow.parquet.ParquetFile(file) as opened:
            for number in range(opened.num_row_groups):
                yield from opened.read_row_group(number, columns=columns).to_pylist()


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
    return (_picture(row[column]) for row in _rows(folder, [column], rows))


def _rows(folder: Path, columns: list[str], rows: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Some columns of the rows with these numbers, one by one, as they are stored; a row group is held at a time."""
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
                held = opened[1].read_row_group(number, columns=columns).to_pylist()
            yield held[row - at[0]]
    finally:
        if opened:
            opened[1].close()


def winners(folder: Path) -> list[int]:
    """The row numbers, rising, of the winners: of each seed of a round the kept candidate with the highest reward."""
    best: dict[tuple[int, str], tuple[float, int]] = {}
    for i, row in enumerate(told(folder, ["round", "seed_id", "total", "kept"])):
        key = (row["round"], row["seed_id"])
        if row["kept"] and (key not in best or row["total"] > best[key][0]):
            best[key] = row["total"], i
    return sorted(row for _, row in best.values())


def write_prompts(folder: Path) -> int:
    """Write the winners of a folder's rollouts to ``folder``/prompts, in the columns of the set that SPRO's authors released.

    Pictures are copied as they are stored. A picture's path is ``rollouts/train/<row>``: config, split and row of where it
    is from. Returns how many winners there are; of none there is no file, since `datasets` loads no split without a row.
    """
    found = winners(folder)
    if not found:
        return 0
    columns = ["seed_id", "base_caption", "prompt", "total", "image", "objective"]
    rows = (
        {
            "filename": f"{row['seed_id']}.png", "caption": row["base_caption"], "improved_prompt_new": row["prompt"],
            "score": row["total"], "image_path": {"bytes": row["image"]["bytes"], "path": f"rollouts/train/{number}"},
            "objective": row["objective"],
        }
        for number, row in zip(found, _rows(folder, columns, found), strict=True)
    )  # fmt: skip
    _write(rows, Features(PROMPT), _file(folder, 0, 1, "prompts"))
    return len(found)


def _picture(value: Any) -> Any:
    if isinstance(value, dict) and "bytes" in value:
        return Pictures.open(io.BytesIO(value["bytes"])).convert("RGB")
    return value
