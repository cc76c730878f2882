"""A data set of rollouts, seed by seed: the base picture, every candidate with its rewards, and why it was kept or dropped.

Of a data set one parquet file is open at a time. Its texts are read once; of its pictures those of the seed that is looked
at, by the row groups that hold them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow
import sources

from spro_hf import rollouts
from spro_hf.errors import UserError

KEPT = "kept: in a pair"
_TOLD = (
    "seed_id",
    "base_caption",
    "prompt",
    "rewards",
    "total",
    "base_rewards",
    "base_total",
    "similarity",
    "why",
    "reply",
)
_views = tempfile.TemporaryDirectory(prefix="spro-rollouts-")


@lru_cache(maxsize=8)
def rows(source: str, file: str) -> tuple[Path, list[dict[str, Any]]]:
    """A folder that shows this file alone, and its rows without their pictures; a row's place in the list is its number."""
    folder = Path(tempfile.mkdtemp(dir=_views.name))
    (folder / "data").mkdir()
    (folder / "data" / Path(file).name).symlink_to(sources.part(source, file).resolve())
    try:
        found = rollouts.read_told(folder)
    except pyarrow.ArrowException as error:
        raise UserError(f"{file} of '{source}' is no parquet file that can be read; name another.") from error
    lacking = [name for name in (*_TOLD, "plan") if found and name not in found[0]]
    if not found or lacking:
        told = f"it has no column '{lacking[0]}'" if lacking else "it has no rows"
        raise UserError(f"{file} of '{source}' holds no rollouts, {told}; name what a recipe pushes as its rollouts.")
    return folder, found


def reason(row: dict[str, Any]) -> str:
    """Why a candidate was dropped, or that it was kept."""
    return row["why"] or KEPT


def reasons(found: list[dict[str, Any]]) -> dict[str, int]:
    """Every reason with its number of candidates, the commonest first."""
    return dict(Counter(map(reason, found)).most_common())


def seeds(found: list[dict[str, Any]], why: str | None = None) -> dict[str, str]:
    """Seed ids with their captions, in order; with ``why`` those that have a candidate of this reason."""
    return {row["seed_id"]: row["base_caption"] for row in found if why is None or reason(row) == why}


def look(source: str, file: str, seed_id: str) -> dict[str, Any]:
    """All that is known of a seed.

    Returns: ``caption``, the ``base`` picture (None if it is in another file of the data set), ``base_total`` and
    ``base_scores``, and ``candidates`` in order: ``image`` (None where the reply could not be read), ``prompt``, ``plan``,
    ``reply``, ``scores``, ``total``, ``similarity``, ``why``. ``best`` and ``worst`` are places in that list: the pair of the
    seed, or if none was kept (``paired`` False) the highest and the lowest total of what was drawn; None if nothing was.
    """
    folder, found = rows(source, file)
    numbers = [i for i, row in enumerate(found) if row["seed_id"] == seed_id]
    images = list(rollouts.pictures(folder, "image", numbers))
    base = next((p for p in rollouts.pictures(folder, "image_base", numbers) if p is not None), None)
    candidates = [
        {"image": image, "scores": json.loads(found[i]["rewards"] or "{}"), "why": reason(found[i]),
         **{name: found[i][name] for name in ("prompt", "plan", "reply", "total", "similarity")}}
        for i, image in zip(numbers, images, strict=True)
    ]  # fmt: skip
    drawn = [i for i, c in enumerate(candidates) if c["image"] is not None and c["total"] is not None]
    pair = [i for i in drawn if candidates[i]["why"] == KEPT] or drawn
    order = sorted(pair, key=lambda i: candidates[i]["total"])
    first = found[numbers[0]]
    told = next((found[i] for i in numbers if found[i]["base_total"] is not None), first)
    return {
        "seed_id": seed_id, "caption": first["base_caption"], "base": base, "base_total": told["base_total"],
        "base_scores": json.loads(told["base_rewards"] or "{}"), "candidates": candidates,
        "best": order[-1] if order else None, "worst": order[0] if order else None,
        "paired": bool(order) and candidates[order[0]]["why"] == KEPT,
    }  # fmt: skip
