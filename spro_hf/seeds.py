"""Seed captions: the embedded world's own, those that the user wrote, one a line, or a data set of the Hub.

Of a data set the first ``count`` rows that fit are taken, in its own order: the paper does not say how seeds were drawn.
A row fits if it has the values of ``where``, a caption, and a prompt and a score where these are mapped. A caption is used
once; but where pictures are mapped each row is a pair of its own, and where prompts are mapped a caption has as many as
it has different prompts.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.parts import Seeds
from spro_hf.steps import derive
from spro_hf.tiny import world

_OWN = ("caption", "image", "prompt", "score")  # of the mapped columns; all others are context
Row = tuple[int, Mapping[str, Any]]  # its number in the split, and its columns


@dataclass(frozen=True)
class Seed:
    """One base caption and its name; a caption that is used again gets a new name and so another picture.

    ``image`` reads the base picture, RGB, each time it is called, so that thousands of them need no memory; of streamed
    rows their compressed bytes are held. ``prompt`` and ``score`` are a rewritten caption and its reward, ``context`` is
    what else is known of the post that the picture is for, as text.
    """

    seed_id: str
    caption: str
    image: Callable[[], Image.Image] | None = None
    prompt: str = ""
    score: float | None = None
    context: Mapping[str, str] = field(default_factory=dict)


def check(seeds: Seeds, field: str = "seeds") -> None:
    """Raise a UserError if the seeds cannot be read, as far as this can be told without the Hub; loads no model."""
    if seeds.hub:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(seeds.source)
        except HFValidationError:
            raise UserError(
                f"{field}.source: '{seeds.source}' is no name of a data set; write namespace/name, or leave 'columns' out "
                "if it is a file of captions."
            ) from None
    elif seeds.source != "world":
        _lines(Path(seeds.source))


def preflight(seeds: Seeds, field: str = "seeds") -> None:
    """Ask the Hub whether a data set has the revision, config, split and columns; a UserError if not. Its rows stay there."""
    if seeds.hub:
        from spro_hf.hub.rows import survey

        survey(seeds, field)


def load(seeds: Seeds, seed: int, field: str = "seeds") -> list[Seed]:
    """``seeds.count`` captions. A file shorter than that is gone through again, each time with other noise.

    ``seed`` is for the embedded world's captions only; ``field`` is the recipe's, for messages.

    Raises:
        UserError: if a file cannot be read, or a data set has not what the seeds name, or too few captions.
    """
    if seeds.hub:
        return _of_data_set(seeds, field)
    if seeds.source == "world":
        rng = np.random.default_rng(derive(seed, "seeds", seeds.split))
        truths = [replace(world.sample_truth(rng, seeds.split), modifiers=frozenset()) for _ in range(seeds.count)]
        # a held-out caption says everything, since one that is silent would fit scenes of the training split too
        silent = rng if seeds.split == "train" else None
        return [Seed(f"{seeds.split}-{i:04d}", world.caption(t, silent)) for i, t in enumerate(truths)]
    lines = _lines(Path(seeds.source))
    return [
        Seed(
            f"line-{i % len(lines) + 1:04d}" + (f"-{i // len(lines)}" if i >= len(lines) else ""), lines[i % len(lines)]
        )
        for i in range(seeds.count)
    ]


def digest(seeds: Seeds) -> str | None:
    """The sha256 of a seed file's captions; None for the embedded world's own, and for data sets, which are ``pinned``."""
    if seeds.hub or seeds.source == "world":
        return None
    return hashlib.sha256("\n".join(_lines(Path(seeds.source))).encode()).hexdigest()


def pinned(seeds: Seeds) -> str | None:
    """``id@commit`` of a data set of the Hub, the commit cut to twelve digits; None for other seeds."""
    if not seeds.hub:
        return None
    from spro_hf.hub.rows import commit

    return f"{seeds.source}@{commit(seeds)[:12]}"


def unknown_words(captions: list[str]) -> list[dict[str, object]]:
    """The captions that hold words the embedded world does not know, with those words."""
    found = {caption: world.read(caption).unknown for caption in captions}
    return [{"caption": caption, "words": list(words)} for caption, words in found.items() if words]


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"seeds.source: there is no file '{path}'; give a text file with one caption a line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"seeds.source: '{path}' cannot be read ({error}); give a UTF-8 text file.") from None
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"seeds.source: '{path}' holds no caption; write one a line.")
    return lines


def _of_data_set(seeds: Seeds, field: str) -> list[Seed]:
    from spro_hf.hub.rows import open_rows

    rows, image, pictures, bands = open_rows(seeds, field), seeds.columns.get("image"), None, None
    if image and not seeds.streaming:  # they stay in the file, and are read from there when they are asked for
        pictures = rows.select_columns(image)
        rows = rows.select_columns([name for name in rows.column_names if name != image])
    if seeds.bands:
        numbers = rows.select_columns(list(dict.fromkeys([seeds.bands.column, *seeds.where])))
        bands = _bands(seeds, _fitting(seeds, numbers), field)
    found, enough = _take(seeds, _made(seeds, _fitting(seeds, rows), pictures, field), bands)
    if enough < seeds.count:
        held = f"{enough} captions that fit{' in equal parts' if seeds.bands and len(seeds.bands.shares) > 1 else ''}"
        fix = f"give at most {enough}." if enough else "check 'columns', 'where' and 'bands'."
        raise UserError(f"{field}.count: the split '{seeds.split}' of '{seeds.source}' holds {held}; {fix}")
    return found


def _fitting(seeds: Seeds, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows that have the values of ``where``, any of them where that is a list."""
    wanted = {name: value if isinstance(value, list) else [value] for name, value in seeds.where.items()}
    return ((i, row) for i, row in enumerate(rows) if all(row[name] in values for name, values in wanted.items()))


def _bands(seeds: Seeds, rows: Iterable[Row], field: str) -> dict[int, int]:
    """Row number → the first of the bands in which it lies; rows in no band, or without a number, are left out.

    Of n rows in the order of their numbers, equal ones in the data set's order, the band [low, high] is those of rank
    low·n ≤ r < high·n, r from 0: bands that meet share no row, and many equal numbers (likes of 0) leave none empty.
    """
    column, place = seeds.bands.column, f"{field}.bands.column"
    numbers = [(_cell(seeds, row, place, column, _number, "numbers"), i) for i, row in rows]
    order, found = sorted(pair for pair in numbers if pair[0] is not None), {}
    for band, share in enumerate(seeds.bands.shares):
        first, last = (math.ceil(round(quantile * len(order), 6)) for quantile in share)  # 0.14·50 is 7.000000000000001
        for _, i in order[first:last]:
            found.setdefault(i, band)
    return found


def _take(seeds: Seeds, made: Iterable[tuple[int, Seed]], bands: dict[int, int] | None) -> tuple[list[Seed], int]:
    """The first ``seeds.count`` different ones, as many from each band, and for how high a count there are enough.

    Where the count is no multiple of the bands, the first of them give one more.
    """
    parts = len(seeds.bands.shares) if seeds.bands else 1
    wanted, taken, found, used = _parts(seeds.count, parts), [0] * parts, [], set()
    for number, seed in made:
        band = bands.get(number) if bands is not None else 0
        key = (seed.caption, seed.prompt)
        if band is None or taken[band] == wanted[band] or (key in used and seed.image is None):
            continue
        taken[band] += 1
        used.add(key)
        found.append(seed)
        if len(found) == seeds.count:
            return found, seeds.count
    enough = (n for n in range(seeds.count, -1, -1) if all(map(operator.le, _parts(n, parts), taken)))
    return found, next(enough)


def _parts(count: int, parts: int) -> list[int]:
    return [count // parts + (i < count % parts) for i in range(parts)]


def _made(seeds: Seeds, rows: Iterable[Row], pictures: Any, field: str) -> Iterator[tuple[int, Seed]]:
    """Row numbers and seeds, of the rows that lack no caption, and no prompt and score where these are mapped.

    ``pictures`` are all rows with nothing but their picture; without them a row itself holds its own.
    """
    columns, image = seeds.columns, None
    readers = {"caption": (_text, "text"), "prompt": (_text, "text"), "score": (_number, "numbers")}
    readers = {name: reader for name, reader in readers.items() if name in columns}
    for number, row in rows:
        own = {
            name: _cell(seeds, row, f"{field}.columns.{name}", columns[name], *reader)
            for name, reader in readers.items()
        }
        if None in own.values() or "" in own.values():
            continue
        if "image" in columns:
            place = f"{field}.columns.image: row {number} of the split '{seeds.split}' of '{seeds.source}'"
            at = (pictures, number) if pictures is not None else ([row], 0)
            image = partial(_picture, *at, columns["image"], place)
        context = {name: _as_text(row[column]) for name, column in columns.items() if name not in _OWN}
        context = {name: value for name, value in context.items() if value}
        yield number, Seed(f"{seeds.split}-{number:06d}", image=image, context=context, **own)


def _cell(
    seeds: Seeds, row: Mapping[str, Any], place: str, column: str, read: Callable[[Any], Any], wanted: str
) -> Any:
    try:
        return read(row[column])
    except TypeError:
        told = f"the column '{column}' of '{seeds.source}' holds something else than {wanted}"
        raise UserError(f"{place}: {told}; name a column of {wanted}.") from None


def _text(value: Any) -> str:
    """A caption, the first of a list of them, "" if there is none; a TypeError if it is no text."""
    value = (value[0] if value else None) if isinstance(value, list) else value
    if not isinstance(value, str | None):
        raise TypeError
    return (value or "").strip()


def _number(value: Any) -> float | None:
    """A number, None if there is none; a TypeError if it is something else."""
    if not isinstance(value, int | float | None) or isinstance(value, bool):
        raise TypeError
    return None if value is None or math.isnan(value) else float(value)


def _as_text(value: Any) -> str:
    """A value of the context as the guider and the rewards read it; "" if there is none."""
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return "" if value is None else str(value).strip()


def _picture(rows: Any, at: int, column: str, place: str) -> Image.Image:
    from spro_hf.hub.rows import picture

    return picture(rows[at][column], place)
