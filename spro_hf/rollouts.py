"""The row of a rollout, one schema for every stage, and its parquet file with pictures inside."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def write(rows: Iterable[dict[str, Any]], schema: dict[str, Any], folder: Path) -> None:
    """Write rows to ``folder/data/train-00000-of-00001.parquet``; pictures go in as PNG, losslessly."""
    file = folder / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    columns = {name: [row[name] for row in rows] for name in schema}  # also where there is no row
    Dataset.from_dict(columns, features=Features(schema)).to_parquet(file)


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's parquet files, pictures decoded to PIL."""
    rows: list[dict[str, Any]] = []
    for file in sorted((folder / "data").glob("*.parquet")):
        rows += pyarrow.parquet.read_table(file).to_pylist()
    return [{key: _picture(value) for key, value in row.items()} for row in rows]


def _picture(value: Any) -> Any:
    if isinstance(value, dict) and "bytes" in value:
        return Pictures.open(io.BytesIO(value["bytes"])).convert("RGB")
    return value
