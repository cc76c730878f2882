"""How far two values are apart that a file holds: numbers, texts, pictures, and lists and mappings of them."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

COMMIT = re.compile(r"(?<=@)[0-9a-f]{12,64}\b")  # by which rows name what made them: user/repo@commit
SHOWN = 60  # letters of a text that are told
ROWS = 5  # that are named
BY_COMMIT = "commits by which things are named"
REVISIONS = "revisions by which things are named"


@dataclass(frozen=True)
class Bounds:
    """|a − b| ≤ atol + rtol·|b| is within them."""

    atol: float = 0.0
    rtol: float = 0.0

    def hold(self, apart: float, size: float) -> bool:
        """Whether two numbers that are so far apart are within, the second of this size."""
        return apart <= self.atol + self.rtol * size


@dataclass(frozen=True)
class Found:
    """One difference: where, in words, whether it is within the bounds, and of numbers how great (absolute, relative)."""

    place: str
    said: str
    within: bool
    absolute: float = 0.0
    relative: float = 0.0


def values(a: Any, b: Any, place: str, bounds: Bounds, apart: list[str]) -> Iterator[Found]:
    """The differences of two plain values; what tells of the making goes into ``apart``."""
    if isinstance(a, dict) and isinstance(b, dict):
        if isinstance(a.get("bytes"), bytes) and isinstance(b.get("bytes"), bytes):
            found = pixels(a["bytes"], b["bytes"], place, bounds)
            yield from [found] if found else []
            return
        for key in [*a, *(key for key in b if key not in a)]:
            where = f"{place}: {key}" if place.endswith(".json") else f"{place}.{key}"
            if key not in a or key not in b:
                yield Found(where, f"is only in the {'first' if key in a else 'second'}", False)
            elif str(key).rpartition("_")[2] == "revision" and a[key] != b[key]:
                apart.append(REVISIONS)
            else:
                yield from values(a[key], b[key], where, bounds, apart)
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield Found(place, f"has {len(a)} and {len(b)} entries", False)
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from values(x, y, f"{place}[{i}]", bounds, apart)
    elif isinstance(a, str) and isinstance(b, str):
        yield from _texts(a, b, place, bounds, apart)
    elif _is_number(a) and _is_number(b):
        yield from _numbers(a, b, place, bounds)
    elif type(a) is not type(b) or a != b:
        yield Found(place, f"{_short(a)} and {_short(b)}", False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(a: float, b: float, place: str, bounds: Bounds) -> Iterator[Found]:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return
    apart = abs(a - b)
    if isinstance(a, int) and isinstance(b, int):
        yield Found(place, f"{a} and {b}", False, apart, apart / max(abs(a), abs(b)))
        return
    apart = math.inf if math.isnan(apart) else apart
    size = max(abs(a), abs(b))
    relative = apart / size if math.isfinite(apart) else math.inf
    yield Found(place, f"{a!r} and {b!r}", math.isfinite(apart) and bounds.hold(apart, abs(b)), apart, relative)


def _texts(a: str, b: str, place: str, bounds: Bounds, apart: list[str]) -> Iterator[Found]:
    """Texts, or the JSON in them: a row's rewards are such."""
    if a == b:
        return
    if COMMIT.sub("", a) == COMMIT.sub("", b):
        apart.append(BY_COMMIT)
        return
    try:
        x, y = json.loads(a), json.loads(b)
    except json.JSONDecodeError:
        x = y = None
    if isinstance(x, dict | list) and isinstance(y, type(x)):
        yield from values(x, y, place, bounds, apart)
        return
    yield Found(place, f"{_short(a)} and {_short(b)}", False)


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= SHOWN else f"{told[: SHOWN - 1]}…"


def pixels(a: bytes, b: bytes, place: str, bounds: Bounds) -> Found | None:
    """None if two files hold the same picture; else the mean absolute difference of their pixels, of 255."""
    if a == b:
        return None
    try:
        one, other = (_decoded(content) for content in (a, b))
    except (OSError, SyntaxError, ValueError) as error:
        return Found(place, f"cannot be read as a picture ({' '.join(str(error).split())})", False)
    if one.shape != other.shape:
        told = " and ".join("×".join(map(str, (p.shape[1], p.shape[0], *p.shape[2:]))) for p in (one, other))
        return Found(place, f"is a picture of {told}", False)
    apart = np.abs(one - other)
    if not apart.any():
        return None
    mean, share = apart.mean().item(), (apart.reshape(*one.shape[:2], -1) > 0).any(-1).mean().item()
    within = bounds.hold(mean / 255, other.mean().item() / 255)
    return Found(place, f"mean pixel difference {mean:.3g} of 255, {share:.2%} of the pixels", within, mean)


def _decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"), np.float64)


@dataclass
class Tally:
    """The differences of one column over the rows, told as one."""

    place: str
    rows: list[int] = field(default_factory=list)
    count: int = 0
    within: bool = True
    worst: Found | None = None

    def add(self, row: int, found: list[Found]) -> None:
        """Count what differs in a row."""
        if not found:
            return
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)
        for one in found:
            self.within = self.within and one.within
            if self.worst is None or (one.within, -one.absolute) < (self.worst.within, -self.worst.absolute):
                self.worst = one

    def told(self) -> Found:
        """The column's one difference: which rows, and the worst of them."""
        rows = ", ".join(map(str, self.rows)) + (" …" if self.count > len(self.rows) else "")
        inside = self.worst.place.partition(".")[2]  # of a column that holds mappings
        worst = f"{inside}: {self.worst.said}" if inside else self.worst.said
        said = f"{self.count} row{'s' if self.count > 1 else ''} ({rows}), at worst {worst}"
        return Found(self.place, said, self.within, self.worst.absolute, self.worst.relative)
