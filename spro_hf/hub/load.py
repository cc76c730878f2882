"""The rows of a data set that this project published, as a tag holds them, with a network and without.

``datasets.load_dataset`` takes a revision, but without a network it gives whatever version it loaded last, and of a folder it
passes the revision over in silence. Here a revision is first made a commit, and the files at that commit are what is read.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from spro_hf.errors import UserError
from spro_hf.hub import front_matter
from spro_hf.hub.artifacts import pull, resolve
from spro_hf.hub.errors import HubError
from spro_hf.hub.trouble import briefly, explained
from spro_hf.strict import nearest

_CARD = ["README.md", ".gitattributes"]  # the second is in every repository, and a pull of no file at all is warned of


def load_rows(
    repo: str, revision: str = "main", config: str | None = None, split: str = "train", streaming: bool = False
) -> Dataset | IterableDataset:
    """The rows of one split of a config (the default one) at a tag, branch or commit.

    Under ``HF_HUB_OFFLINE=1`` they come from the cache, if this revision was loaded before, under this very name or as a
    commit. With ``streaming`` nothing is kept: rows are read over the network as they are asked for.

    Raises:
        UserError: if there is no such repository, revision, config or split, if its files are no parquet, or if it is not in
            the cache where there is no network.
    """
    card = _card(repo, revision)
    commit, patterns = card.name, _patterns(repo, card / "README.md", config, split)

    def wanted(names: list[str]) -> list[str]:
        return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]

    if streaming and not constants.HF_HUB_OFFLINE:
        with explained(repo, "dataset", revision):
            names = wanted(briefly(lambda: HfApi().list_repo_files(repo, repo_type="dataset", revision=commit)))
        files = [f"hf://datasets/{repo}@{commit}/{name}" for name in names]
    else:
        names = []
        folder = pull(repo, "dataset", commit, lambda all: names.extend(wanted(all)) or [*names, *_CARD])
        files = [str(folder / name) for name in names]
    _whole(repo, commit, sorted(names))
    return load_dataset("parquet", data_files={split: sorted(files)}, split=split, streaming=streaming)


def _card(repo: str, revision: str) -> Path:
    """The folder of the commit behind a revision, with the card in it; the cache remembers which commit it was."""
    if not constants.HF_HUB_OFFLINE:
        resolve(repo, "dataset", revision)  # says what is wrong in a sentence
    try:
        load = partial(snapshot_download, repo, repo_type="dataset", revision=revision, allow_patterns=_CARD)
        return Path(briefly(load))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"dataset {repo}: '{revision}' is not in the cache; load it once without HF_HUB_OFFLINE."
        ) from error


def _patterns(repo: str, card: Path, config: str | None, split: str) -> list[str]:
    """Which files of the repository a split of a config is made of, as its card says."""
    try:
        told: dict[str, Any] = front_matter.read(card.read_text(encoding="utf-8")) if card.is_file() else {}
    except HubError as error:
        said = f"its card cannot be read ({error.message})"
        raise UserError(f"dataset {repo}: {said}; load it by datasets.load_dataset.") from None
    configs = {one["config_name"]: one for one in told.get("configs", [])}
    if not configs:
        raise UserError(f"dataset {repo}: its card names no configs; load it by datasets.load_dataset.")
    if config is None:
        config = next((name for name, one in configs.items() if one.get("default")), next(iter(configs)))
    if config not in configs:
        raise UserError(f"dataset {repo}: there is no config '{config}'; {nearest(config, configs)}")
    splits = {one["split"]: one["path"] for one in configs[config]["data_files"]}
    if split not in splits:
        raise UserError(f"dataset {repo}: the config '{config}' has no split '{split}'; {nearest(split, splits)}")
    return [splits[split]] if isinstance(splits[split], str) else splits[split]


def _whole(repo: str, commit: str, names: list[str]) -> None:
    """Refuse a set of which the cache holds a part, or that is no parquet."""
    if not names or not all(name.endswith(".parquet") for name in names):
        fix = "load it once without HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "load it by datasets.load_dataset"
        raise UserError(f"dataset {repo}: at {commit[:12]} there are no parquet files of this split; {fix}.")
    of = re.search(r"-of-(\d+)\.parquet$", names[0])
    if of and int(of[1]) != len(names):
        raise UserError(
            f"dataset {repo}: of the {int(of[1])} files at {commit[:12]} the cache holds {len(names)}; load it once without "
            "HF_HUB_OFFLINE."
        )
