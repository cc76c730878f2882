"""What changed from one artifact to another of its kind: recipe, inputs, models, libraries, results, and the same seeds.

Both are plain data by the time they are compared: what a folder holds is read once, and pictures only of what is shown.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from spro_hf import rollouts
from spro_hf.errors import UserError
from spro_hf.lineage.place import LINEAGE, MADE_BEFORE, checked, clean, read_json

SHOWN = 12  # the same seeds, side by side
LARGEST = 256  # pixels of a picture in the page
KINDS = {  # by a file that only this kind has; looked for in this order
    "model_index.json": "pipeline", "adapter_config.json": "guider", "reward.json": "reward",
    "pytorch_lora_weights.safetensors": "generator", "told.json": "results",
}  # fmt: skip
COLUMNS = {"kept": "rollouts", "chosen": "pairs", "generator": "references"}  # of data/*.parquet, in this order


@dataclass(frozen=True)
class Moment:
    """What an artifact did with one seed: the prompt that it drew (or the reply), its reward, and how to get the picture."""

    caption: str
    prompt: str
    total: float | None
    picture: Callable[[], Image.Image | None] = field(repr=False)


@dataclass(frozen=True)
class Side:
    """One of the two: ``lineage`` as ``place.checked`` gives it, ``results`` by name, ``moments`` by what must agree."""

    name: str
    kind: str
    lineage: dict[str, Any]
    results: dict[str, dict[str, float | None]]
    moments: dict[tuple[Any, ...], Moment]


@dataclass(frozen=True)
class Change:
    """One thing that is not the same; None where a side has it not."""

    name: str
    old: Any
    new: Any


def wanted(names: list[str]) -> list[str]:
    """Of an artifact's files those that are read: rows and what is told, no weights."""
    told = [name for name in names if name.endswith((".json", ".parquet"))]
    pictures = [name for name in names if name.startswith(("samples/", "showcase/")) and name.endswith(".png")]
    marks = [name for name in names if name in KINDS and name not in told and not name.endswith(".safetensors")]
    return [*told, *pictures, *marks] or names[:1]


def kind_of(names: list[str], folder: Path) -> str:
    """The kind of an artifact by the names of its files, of a data set by its columns."""
    for file, kind in KINDS.items():
        if file in names:
            return kind
    if not rollouts.files(folder):
        return "model"
    columns = rollouts.columns(folder)
    return next((kind for column, kind in COLUMNS.items() if column in columns), "data set")


def read_side(name: str, kind: str, folder: Path) -> Side:
    """What is told of an artifact in the folder that holds its ``wanted`` files.

    Raises:
        UserError: if it has no lineage.json, or files of another form.
    """
    told = checked(read_json(folder / LINEAGE))
    if told is None:
        raise UserError(
            f"{name}: it holds no lineage.json, so nothing tells how it was made; name an artifact of a run."
        )
    try:
        results, moments = _READERS.get(kind, _model)(folder)
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # anyone may have written them
        raise UserError(
            f"{name}: its files are not in the form of a {kind} of ours; name an artifact of a run."
        ) from error
    return Side(name, kind, told, results, moments)


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The keys of two flat mappings whose values differ, those of the old one first; none and nothing are the same."""
    keys = dict.fromkeys([*old, *new])
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def dotted(value: Any, where: str = "") -> dict[str, Any]:
    """A recipe's fields by dotted names; a list is one value, unless it holds mappings."""
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        parts = enumerate(value)
    else:
        return {where: value}
    found: dict[str, Any] = {}
    for key, inner in parts:
        found |= dotted(inner, f"{where}.{key}" if where else clean(key))
    return found


def made_of(told: dict[str, Any]) -> dict[str, str]:
    """The inputs of a lineage: as what → repository, revision and commit, several of one kind told apart by their names."""
    found: dict[str, str] = {}
    for given in told["inputs"]:
        what = clean(given.get("what", ""))
        if what == MADE_BEFORE:
            what = f"{MADE_BEFORE}, {clean(given['repo'])}"
        revision = clean(given.get("revision") or "")
        at = given["commit"][:12] if revision in ("", given["commit"]) else f"{revision} ({given['commit'][:12]})"
        found[what] = f"{clean(given['repo'])} {at}"
    return found


def differences(old: Side, new: Side) -> dict[str, list[Change]]:
    """What changed, by section; a section in which nothing did is empty."""
    a, b = old.lineage, new.lineage
    shorter = [{field: _short_model(name) for field, name in told["models"].items()} for told in (a, b)]
    versions = [{"python": told.get("python")} | (told.get("versions") or {}) for told in (a, b)]
    return {
        "recipe": changed(dotted(a["recipe"]), dotted(b["recipe"])),
        "inputs": changed(made_of(a), made_of(b)),
        "models": changed(*shorter),
        "versions": changed(*versions),
        "seed": changed({"seed": a.get("seed")}, {"seed": b.get("seed")}),
    }


def _short_model(name: str) -> str:
    repo, _, commit = clean(name).rpartition("@")
    return f"{repo} {commit[:12]}"


def results(old: Side, new: Side) -> list[dict[str, Any]]:
    """Each number that both tell, or one of them: its name, and value and error of both."""
    nothing = {"value": None, "se": None}
    names = dict.fromkeys([*old.results, *new.results])
    return [{"name": n, "old": old.results.get(n, nothing), "new": new.results.get(n, nothing)} for n in names]


def same_seeds(old: Side, new: Side) -> list[tuple[Moment, Moment]]:
    """What both did with the same seeds, in the old one's order."""
    return [(moment, new.moments[key]) for key, moment in old.moments.items() if key in new.moments]


def embedded(picture: Image.Image | None) -> dict[str, Any] | None:
    """A picture as a data URI for a page, reduced where it is large."""
    if picture is None:
        return None
    size, stream = picture.size, io.BytesIO()
    if max(size) <= LARGEST:
        picture.save(stream, "png", optimize=True)
        kind = "png"
    else:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        picture.save(stream, "webp", quality=86)
        kind = "webp"
    data = base64.b64encode(stream.getvalue()).decode()
    return {"uri": f"data:image/{kind};base64,{data}", "small": max(size) < 128}


def _from_file(file: Path) -> Callable[[], Image.Image | None]:
    def read() -> Image.Image | None:
        if not file.is_file():
            return None
        with Image.open(file) as picture:
            return picture.convert("RGB")

    return read


def _from_row(folder: Path, column: str, row: int) -> Callable[[], Image.Image | None]:
    return lambda: next(rollouts.pictures(folder, column, [row]))


def _number(value: Any, se: Any = None) -> dict[str, float | None]:
    return {"value": value if isinstance(value, int | float) else None, "se": se}


def _rollouts(folder: Path):
    """A round: of each seed its best candidate that was understood."""
    rows = rollouts.read_told(folder)
    parsed = [row for row in rows if row["parsed"]]
    told = {"rows": len(rows), "seeds": len({row["seed_id"] for row in rows})}
    if rows:
        told |= {"parsed, share": len(parsed) / len(rows), "kept, share": fmean(row["kept"] for row in rows),
                 "base reward, mean": fmean(row["base_total"] for row in rows)}  # fmt: skip
    if parsed:
        told["reward, mean"] = fmean(row["total"] for row in parsed)
        told["gain, mean"] = fmean(row["total"] - row["base_total"] for row in parsed)
    best: dict[tuple, int] = {}
    for i, row in enumerate(rows):
        key = (row["seed_id"], row["base_caption"])
        if row["parsed"] and (key not in best or row["total"] > rows[best[key]]["total"]):
            best[key] = i
    moments = {
        key: Moment(key[1], rows[i]["prompt"], rows[i]["total"], _from_row(folder, "image", i))
        for key, i in best.items()
    }
    return {name: _number(value) for name, value in told.items()}, moments


def _pairs(folder: Path):
    """Preferences: of each seed what was chosen."""
    rows = rollouts.read_told(folder)
    told = {"pairs": len(rows)}
    if rows:
        told |= {"chosen, mean reward": fmean(row["score_chosen"] for row in rows),
                 "rejected, mean reward": fmean(row["score_rejected"] for row in rows)}  # fmt: skip
    moments = {
        (row["seed_id"], row["base_caption"]): Moment(
            row["base_caption"], row["chosen"][-1]["content"], row["score_chosen"], _from_row(folder, "image_chosen", i)
        )
        for i, row in enumerate(rows)
    }
    return {name: _number(value) for name, value in told.items()}, moments


def _references(folder: Path):
    """Reference pictures: by caption and noise."""
    rows = rollouts.read_told(folder)
    told = {"pictures": len(rows), "captions": len({row["caption"] for row in rows})}
    moments = {
        (row["caption"], row["image_seed"]): Moment(row["caption"], row["prompt"], None, _from_row(folder, "image", i))
        for i, row in enumerate(rows)
    }
    return {name: _number(value) for name, value in told.items()}, moments


def _results(folder: Path):
    """An evaluation: its table, and the sample pictures of every system."""
    told = read_json(folder / "told.json") or {}
    table = {f"{row['system']}: {row['metric']}": _number(row["mean"], row["se"]) for row in told.get("table", [])}
    moments = {}
    for sample in told.get("samples", []):
        for name, system in sample["systems"].items():
            moments[sample["caption"], sample["image_seed"], name] = Moment(
                f"{sample['caption']} · {name}",
                system["prompt"],
                system["scores"].get("total"),
                _from_file(_in(folder, system["image"])),
            )
    return table, moments


def _model(folder: Path):
    """A model: what its showcase told, and the last step of its training."""
    told = read_json(folder / "showcase" / "showcase.json") or {}
    found = {row["name"]: _number(row["value"], row.get("se")) for row in told.get("results", [])}
    moments = {
        (row["caption"], row["image_seed"]): Moment(
            row["caption"], row["prompt"], row["total"], _from_file(_in(folder, row["image"]))
        )
        for row in told.get("rows", [])
    }
    return found | _last_step(read_json(folder / "training.json")), moments


def _last_step(told: Any) -> dict[str, dict[str, float | None]]:
    """The numbers of a training's last step; a reward's training is a list, a generator's holds it."""
    rows = told.get("rows") if isinstance(told, dict) else told
    if not isinstance(rows, list) or not rows or not isinstance(rows[-1], dict):
        return {}
    last, found = rows[-1], {}
    for name, value in last.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("seconds"):
            found[f"last step: {name}"] = _number(value)
    for name, score in (last.get("scores") or {}).items():
        found[f"last step: {name}"] = _number(score.get("mean"), score.get("se"))
    return found


def _in(folder: Path, name: str) -> Path:
    """A file that somebody's JSON names, which must lie in the folder (by name: files of the cache are links)."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{json.dumps(name)} is named as a picture, and lies outside of the artifact; do not trust it.")
    return folder / name


_READERS = {"rollouts": _rollouts, "pairs": _pairs, "references": _references, "results": _results}
