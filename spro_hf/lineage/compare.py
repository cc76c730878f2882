"""Whether two folders of an artifact hold the same: file by file, and within a file by what it holds.

Compared are tensors, rows, fields and pixels, not the bytes around them: a parquet file written by another version of a
library, or JSON in another order, is the same if its values are. What tells of the making (card, lineage, machine, seconds,
and the commits by which rows name what a run itself left) is set apart, and is no difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spro_hf.lineage.values import Bounds, Found, Tally, pixels, values

EQUAL, WITHIN, DIFFERENT = "equal bit for bit", "equal within bounds", "different"
APART = ("README.md", "lineage.json", "environment.json", "recipe.yaml", ".gitattributes")
FOLDERS = (".eval_results/", "card/")  # what the card shows, and results once more with addresses of the Hub
TIMES = ("seconds", "cpu_seconds")  # fields of training.json
PARTS = re.compile(r"(.+?)-\d+-of-\d+\.parquet$")  # files of one table
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
NAMED = 8  # differences that are told


@dataclass
class Comparison:
    """``differences`` are in the order of the files; ``apart`` is what was set apart because it tells of the making.

    ``compared`` counts files.
    """

    bounds: Bounds
    compared: int = 0
    differences: list[Found] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """EQUAL, WITHIN or DIFFERENT."""
        if not self.differences:
            return EQUAL
        return WITHIN if all(found.within for found in self.differences) else DIFFERENT

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than the bounds."""
        return self.verdict != DIFFERENT

    def lines(self, most: int = NAMED) -> list[str]:
        """What differs, first what is beyond the bounds, ``most`` of it named."""
        found = sorted(self.differences, key=lambda found: found.within)
        more = [f"and {len(found) - most} more"] if len(found) > most else []
        return [f"{one.place}: {one.said}" for one in found[:most]] + more


def compare(one: Path, other: Path, atol: float = 0.0, rtol: float = 0.0) -> Comparison:
    """Compare the files of two folders; ``other`` is the one that bounds are relative to.

    Numbers are within bounds if |a − b| ≤ atol + rtol·|b|, whole numbers and text only if they are equal. A picture is within
    them if its pixels, as numbers from 0 to 1, are on average.
    """
    result = Comparison(Bounds(atol, rtol))
    left, right = _files(Path(one)), _files(Path(other))
    for name in sorted(set(left) | set(right)):
        if name in APART or name.startswith(FOLDERS):
            result.apart.append(name)
        elif name not in left or name not in right:
            where = "second" if name not in left else "first"
            result.differences.append(Found(name, f"is only in the {where}", False))
        else:
            result.compared += max(len(left[name]), len(right[name]))
            _compare_file(name, left[name], right[name], result)
    result.apart = list(dict.fromkeys(result.apart))
    return result


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by name; those that are parts of one table together."""
    found: dict[str, list[Path]] = {}
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name = file.relative_to(folder).as_posix()
        parts = PARTS.match(name)
        found.setdefault(f"{parts[1]}.parquet" if parts else name, []).append(file)
    return found


def _compare_file(name: str, left: list[Path], right: list[Path], result: Comparison) -> None:
    if len(left) == len(right) and all(map(_same_bytes, left, right)):
        return
    (one, *_), (other, *_) = left, right
    suffix = one.suffix.lower()
    if suffix == ".parquet":
        found = _tables(name, left, right, result)
    elif suffix == ".safetensors":
        found = _tensors(name, one, other, result.bounds)
    elif suffix == ".json":
        found = _json(name, one, other, result)
    elif suffix in PICTURES:
        told = pixels(one.read_bytes(), other.read_bytes(), name, result.bounds)
        found = iter([told] if told else [])
    else:
        found = iter([Found(name, "its bytes differ", False)])
    result.differences.extend(found)


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while block := a.read(1 << 20):
            if block != b.read(1 << 20):
                return False
    return True


def _json(name: str, one: Path, other: Path, result: Comparison) -> Iterator[Found]:
    try:
        a, b = (json.loads(file.read_text(encoding="utf-8")) for file in (one, other))
    except (UnicodeDecodeError, json.JSONDecodeError):
        yield Found(name, "it is no JSON, and its bytes differ", False)
        return
    timed = TIMES if Path(name).name == "training.json" else ()
    yield from values(_without(a, timed), _without(b, timed), name, result.bounds, result.apart)
    result.apart += [f"{name}: {field}" for field in timed if f'"{field}"' in one.read_text(encoding="utf-8")]


def _without(value: Any, fields: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(v, fields) for key, v in value.items() if key not in fields}
    return [_without(v, fields) for v in value] if isinstance(value, list) else value


def _tables(name: str, left: list[Path], right: list[Path], result: Comparison) -> Iterator[Found]:
    """One table against the other, a group of rows at a time; a difference is told of each column."""
    import pyarrow.parquet

    schemas = [pyarrow.parquet.read_schema(files[0]) for files in (left, right)]
    kinds = [{column.name: str(column.type) for column in schema} for schema in schemas]
    both = [column for column in kinds[0] if kinds[0][column] == kinds[1].get(column)]
    for column in sorted(set(kinds[0]) | set(kinds[1])):
        if column not in both:
            told = " and ".join(kind.get(column, "not there") for kind in kinds)
            yield Found(f"{name}, column {column}", f"is {told}", False)
    counts = [sum(pyarrow.parquet.read_metadata(file).num_rows for file in files) for files in (left, right)]
    if counts[0] != counts[1]:
        yield Found(name, f"has {counts[0]} and {counts[1]} rows", False)
    tallies = {column: Tally(f"{name}, column {column}") for column in both}
    for number, (a, b) in enumerate(zip(_rows(left, both), _rows(right, both), strict=False)):
        for column in both:
            if a[column] != b[column]:
                found = list(values(a[column], b[column], column, result.bounds, result.apart))
                tallies[column].add(number, found)
    yield from (tally.told() for tally in tallies.values() if tally.rows)


def _rows(files: list[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    from spro_hf.rollouts import GROUP

    for file in files:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=GROUP, columns=columns):
                yield from batch.to_pylist()


def _tensors(name: str, one: Path, other: Path, bounds: Bounds) -> Iterator[Found]:
    from safetensors import safe_open

    from spro_hf.lineage.tensors import difference

    with safe_open(one, "pt") as a, safe_open(other, "pt") as b:
        if (a.metadata() or {}) != (b.metadata() or {}):
            yield Found(f"{name}: metadata", "differs", False)
        left, right = set(a.keys()), set(b.keys())
        for tensor in sorted(left ^ right):
            yield Found(f"{name}: {tensor}", f"is only in the {'first' if tensor in left else 'second'}", False)
        for tensor in sorted(left & right):
            found = difference(a.get_tensor(tensor), b.get_tensor(tensor), f"{name}: {tensor}", bounds)
            if found:
                yield found
