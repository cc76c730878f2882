"""The rows of a data set of the Hub that a recipe's seeds name: what is there, opened at a commit, and its pictures.

Only the files of the chosen split are downloaded, and of parquet files only the named columns are read. The folder at the
commit is what is loaded: ``load_dataset`` of a repository goes back to whatever its cache holds when the Hub cannot be
reached. A data set that only a script can read is refused, since datasets runs none.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, get_dataset_config_names, load_dataset_builder
from datasets import Image as Picture
from datasets.exceptions import DatasetNotFoundError
from datasets.packaged_modules.parquet.parquet import ParquetConfig
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image, UnidentifiedImageError

from spro_hf.errors import UserError
from spro_hf.hub import unpublished
from spro_hf.hub.artifacts import full, pull, resolve
from spro_hf.parts import Seeds
from spro_hf.strict import nearest

# Where a data set says which of its files are which split; the last is nothing of the kind, but in every repository, and a
# pull of no file at all is warned of.
_CARD = ("README.md", ".huggingface.yaml", ".gitattributes")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises over a file


@dataclass(frozen=True)
class Survey:
    """What a data set has at a commit: the chosen split's files and its columns, with their types where they are known."""

    commit: str
    files: list[str]
    features: Features | None
    parquet: bool


def commit(seeds: Seeds) -> str:
    """The commit that the seeds' revision names now; a full commit needs no network where there is none."""
    revision = seeds.revision or "main"
    if constants.HF_HUB_OFFLINE and full(revision):
        return revision
    return resolve(seeds.source, "dataset", revision)


def named(seeds: Seeds) -> dict[str, str]:
    """Field of the recipe → column, of all columns that the seeds name."""
    found = {f"columns.{name}": column for name, column in seeds.columns.items()}
    found |= {f"where.{column}": column for column in seeds.where}
    return found | ({"bands.column": seeds.bands.column} if seeds.bands else {})


def survey(seeds: Seeds, field: str) -> Survey:
    """What the data set has. Downloads its card, and of its rows at most the first few.

    Raises:
        UserError: if it has not what the seeds name: revision, config, split or column.
    """
    at = commit(seeds)
    local = _local(seeds, at)
    folder = _pull(seeds, at)  # this also tells a gated one
    builder = _builder(seeds, field, at, folder if local else None)
    splits = {str(split): files for split, files in builder.config.data_files.items()}
    if seeds.split not in splits:
        raise UserError(
            f"{field}.split: '{seeds.source}' has no split '{seeds.split}' among {', '.join(splits)}; "
            f"{_nearest(seeds.split, splits)}"
        )
    root = f"{folder.resolve()}/" if local else f"@{at}/"
    files = [str(file).partition(root)[2] for file in splits[seeds.split]]
    rows = builder.as_streaming_dataset(split=seeds.split)
    columns = rows.column_names or list(next(iter(rows), {}))
    for name, column in named(seeds).items():
        if column not in columns:
            raise UserError(
                f"{field}.{name}: '{seeds.source}' has no column '{column}' among {', '.join(columns)}; "
                f"{_nearest(column, columns)}"
            )
    features = builder.info.features or rows.features
    image = seeds.columns.get("image")
    if image and not (features and _holds_pictures(features[image])):
        raise UserError(
            f"{field}.columns.image: the column '{image}' of '{seeds.source}' holds no pictures; name one that does, or "
            "leave it out and the base pictures are rendered."
        )
    return Survey(at, files, features, isinstance(builder.config, ParquetConfig))


def open_rows(seeds: Seeds, field: str) -> Dataset | IterableDataset:
    """The rows of the split with the named columns, pictures as their bytes; an IterableDataset if they are streamed.

    Without a network they are read from the cache, streamed or not, if they are there.
    """
    found, columns = survey(seeds, field), list(dict.fromkeys(named(seeds).values()))
    features = found.features
    more: dict[str, Any] = {"data_files": {seeds.split: [glob.escape(name) for name in found.files]}}
    if found.parquet:  # the only format of which single columns are read
        features = Features({name: features[name] for name in columns})
        more["columns"] = columns
    if seeds.streaming and not _local(seeds, found.commit):
        rows = _builder(seeds, field, found.commit, None, features=features, **more).as_streaming_dataset(seeds.split)
    else:
        folder = _pull(seeds, found.commit, found.files)
        builder = _builder(seeds, field, found.commit, folder, features=features, **more)
        builder.download_and_prepare(verification_mode="no_checks")  # the card counts all splits and all columns
        rows = builder.as_dataset(split=seeds.split)
    rows = rows.select_columns(columns)
    for name in columns:
        if features and isinstance(features[name], Picture):
            rows = rows.cast_column(name, Picture(decode=False))
    return rows


def picture(cell: Any, place: str) -> Image.Image:
    """A cell of an undecoded column of pictures as an RGB picture, see ``decoded``."""
    if isinstance(cell, bytes):
        cell = {"bytes": cell, "path": None}
    if not cell or not (cell["bytes"] or cell.get("path")):
        raise UserError(f"{place} holds no picture; leave such rows out with 'where', or map no pictures.")
    try:
        return decoded(cell["bytes"], cell.get("path"))
    except UNREADABLE as error:
        raise UserError(
            f"{place} holds no picture that can be read ({said(error)}); leave it out with 'where'."
        ) from error


def decoded(content: bytes | None, path: str | None = None) -> Image.Image:
    """The RGB picture of a file: upright, on white where it is transparent, the first of several; 16 bits become 8.

    Raises:
        UNREADABLE: if it is none. Numbers of 32 bits say nowhere which of them is white, and are refused as well.
    """
    found = Picture().decode_example({"bytes": content, "path": path})
    if found.mode.startswith("I;16"):  # `convert` would make all above 255 white
        found = Image.fromarray((np.asarray(found) // 257).astype(np.uint8))
    if found.mode in ("I", "F"):
        raise ValueError(f"its mode is {found.mode}")
    if not found.has_transparency_data:
        return found.convert("RGB")
    found = found.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", found.size, "white"), found).convert("RGB")


def said(error: Exception) -> str:
    """What is wrong with a file, in words; PIL's own name an object in memory where it knows no format of that kind."""
    return "of no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())


def _holds_pictures(feature: Any) -> bool:
    """Whether a column of this type holds pictures: Image, or the bytes of a file."""
    if isinstance(feature, dict):
        return "bytes" in feature
    return isinstance(feature, Picture) or getattr(feature, "dtype", "") in ("binary", "large_binary")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The nearest of names that were told, or to name one."""
    hint = nearest(name, known)
    return hint if hint.startswith("did you mean") else "name one of them."


def _local(seeds: Seeds, at: str) -> bool:
    """Whether only a folder can be read: of the cache without a network, or of a dry run."""
    return constants.HF_HUB_OFFLINE or unpublished.find(seeds.source, "dataset", at) is not None


def _pull(seeds: Seeds, at: str, files: Iterable[str] = ()) -> Path:
    """The folder of the cache that holds these files at a commit; without a network what lies there already."""
    wanted = {*_CARD, *files}
    if constants.HF_HUB_OFFLINE and not unpublished.find(seeds.source, "dataset", at):
        try:
            return Path(snapshot_download(seeds.source, repo_type="dataset", revision=at, allow_patterns=list(_CARD)))
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"dataset {seeds.source}: {at[:12]} is not in the cache; load it once without HF_HUB_OFFLINE."
            ) from error
    return pull(seeds.source, "dataset", at, lambda names: [name for name in names if name in wanted])


def _builder(seeds: Seeds, field: str, at: str, folder: Path | None, **more: Any) -> Any:
    """datasets' builder of the config, over the Hub at a commit or over a folder that holds it; it reads no rows yet."""
    place = {"path": str(folder)} if folder else {"path": seeds.source, "revision": at}
    try:
        builder = load_dataset_builder(**place, name=seeds.config, **more)
    except DatasetNotFoundError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{field}.source: '{seeds.source}' holds no rows at {at[:12]}; name another.") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"{field}.source: '{seeds.source}' is a script, and none is run; set 'revision' to refs/convert/parquet, where "
            "the Hub may hold its rows, or name another."
        ) from error
    except ValueError as error:
        configs = get_dataset_config_names(**place)
        if (seeds.config or len(configs) == 1) and seeds.config in [*configs, None]:
            raise
        told = f"has no config '{seeds.config}' among" if seeds.config else "has the configs"
        fix = _nearest(seeds.config, configs) if seeds.config else "name one of them."
        raise UserError(f"{field}.config: '{seeds.source}' {told} {', '.join(configs)}; {fix}") from error
    if not folder and builder.hash != at:  # datasets fell back on its cache, which may hold another commit
        raise UserError(f"{field}.source: '{seeds.source}' cannot be read at {at[:12]}; check the network.")
    return builder
