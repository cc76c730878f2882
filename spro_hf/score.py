"""``spro-hf score``: pictures on disk by the scorers of a recipe, or by a reward that has learned.

Nothing heavy is imported before the Hub's address is set: the Hub's clients read it once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from spro_hf import recipe as recipes_of
from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub
from spro_hf.parts import DTYPES, SCORERS
from spro_hf.strict import nearest

Scorers = dict[str, dict[str, Any]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of the pictures in a folder
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Kinds that look at the picture and at nothing else
ALONE = ("adversarial", "aesthetic", "blur", "clip_iqa", "engagement", "judge")


def main(arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Score and print a table, or JSON."""
    scorers, weights = chosen(arguments.what, changes)
    files = pictures(arguments.pictures)
    captions = [arguments.caption] * len(files)
    if arguments.captions:
        captions = lines(arguments.captions, len(files))
    # huggingface_hub tells on standard output what it loads, and there is to be nothing but the scores
    with at_hub(arguments.hub), redirect_stdout(sys.stderr):
        rows = score(scorers, weights, files, captions)
    if arguments.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        tell(rows)
    return 0


def chosen(what: str, changes: dict[str, Any]) -> tuple[Scorers, dict[str, float]]:
    """The scorers that ``what`` names, and the weights of their total: a recipe's, or one that has learned.

    Args:
        what: a recipe's file, a repository as user/repo or user/repo@revision, or a folder that holds a trained reward.
        changes: fields that win over the recipe's, by dotted key; or of the trained reward, as "device".
    """
    if Path(what).suffix in (".yaml", ".yml"):
        return _of_recipe(Path(what), changes)
    repo, _, revision = what.partition("@")
    if not Path(what).is_dir() and not REPOSITORY.fullmatch(repo):
        raise UserError(
            f"{what}: is neither a recipe (.yaml), nor a folder, nor a repository; write user/repo or user/repo@revision."
        )
    known = set(SCORERS["trained"]) - {"id", "revision"}
    for field in changes:
        if field not in known:
            raise UserError(
                f"--set: a trained reward has no field '{field}' that can be changed; {nearest(field, known)}"
            )
    if changes.get("dtype", DTYPES[0]) not in DTYPES:
        raise UserError(f"--set: 'dtype' is '{changes['dtype']}'; {nearest(str(changes['dtype']), DTYPES)}")
    where = {"id": what} if Path(what).is_dir() else {"id": repo, "revision": revision or None}
    return {"reward": {"kind": "trained", **where, **changes}}, {"reward": 1.0}


def _of_recipe(path: Path, changes: dict[str, Any]) -> tuple[Scorers, dict[str, float]]:
    ways = []
    for recipe in recipes_of.load(path, changes):
        if recipe.scorers and (recipe.scorers, recipe.reward) not in ways:
            ways.append((recipe.scorers, recipe.reward))
    if not ways:
        raise UserError(f"{path.name}: names no scorers; give a recipe that does.")
    if len(ways) > 1:
        raise UserError(f"{path.name}: its stages score in {len(ways)} different ways; give the recipe of one of them.")
    return ways[0]


def pictures(paths: list[Path]) -> list[Path]:
    """The files among ``paths``, and of folders the PNG, JPEG and WebP files in them, sorted by name."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path.")
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not inside:
            raise UserError(f"{path}: holds no pictures; give a folder with PNG, JPEG or WebP files in it.")
        found += inside
    return found


def lines(file: Path, count: int) -> list[str]:
    """The captions of ``count`` pictures from a file, one a line."""
    try:
        found = [line.strip() for line in file.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--captions: '{file}' cannot be read ({error}); give a UTF-8 text file.") from None
    if len(found) != count:
        raise UserError(
            f"--captions: '{file}' has {len(found)} lines for {count} pictures; write one for each picture."
        )
    if "" in found:
        raise UserError(f"--captions: line {found.index('') + 1} of '{file}' is blank; write a caption on each line.")
    return found


def score(
    scorers: Scorers, weights: dict[str, float], files: list[Path], captions: list[str | None]
) -> list[dict[str, Any]]:
    """Load the scorers and score the pictures: a row of each, its ``picture``, ``caption``, ``scores`` and ``total``.

    Raises:
        UserError: if a picture cannot be read, a scorer cannot be loaded, or one needs more than is given: a caption, or a
            base picture, which a file alone has not.
    """
    for name, spec in scorers.items():
        _check_needs(name, spec, captions)
    from spro_hf import rewards
    from spro_hf.run import quiet

    quiet()
    for file in files:  # before models are loaded
        read(file)
    briefs = [rewards.Brief(caption or "") for caption in captions]
    rows = []
    for file, caption, scores in zip(
        files, captions, rewards.load(scorers, weights).score(Pictures(files), briefs), strict=True
    ):
        total = scores.pop("total")
        rows.append({"picture": str(file), "caption": caption, "scores": scores, "total": total})
    return rows


class Pictures(Sequence):
    """Pictures that are read each time they are asked for, so that thousands of them need no memory."""

    def __init__(self, files: list[Path]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: Any) -> Any:
        return [read(file) for file in self.files[at]] if isinstance(at, slice) else read(self.files[at])


def read(file: Path) -> Any:
    """The RGB picture of a file, as training would see it (``hub.rows.decoded``): upright, on white where transparent."""
    from spro_hf.hub.rows import UNREADABLE, decoded, said

    try:
        return decoded(file.read_bytes())
    except UNREADABLE as error:
        raise UserError(
            f"{file}: holds no picture that can be read ({said(error)}); give PNG, JPEG or WebP."
        ) from error


def _check_needs(name: str, spec: dict[str, Any], captions: list[str | None]) -> None:
    field, kind = f"scorers.{name}", spec.get("kind", name)
    if kind == "adversarial":
        raise UserError(f"{field}: its head is new and knows nothing; score by what it became, as user/repo@revision.")
    if kind == "trained":
        from spro_hf.models import locate
        from spro_hf.rewards.learning import read_reward

        kind, *_ = read_reward(Path(locate(spec["id"], spec.get("revision"))), spec["id"], f"{field}.id")
    if kind == "similarity":
        raise UserError(f"{field}: it compares with a base picture, and there is none here; give a recipe without it.")
    if kind == "vlm" and spec.get("mode") == "pairwise":
        raise UserError(
            f"{field}.mode: 'pairwise' compares with a base picture, and there is none here; choose 'yes' or 'rubric'."
        )
    if kind not in ALONE and None in captions:
        raise UserError(f"{field}: it scores a picture for its caption; give --caption or --captions.")


def tell(rows: list[dict[str, Any]]) -> None:
    """Print a table, a line of each picture."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("picture", *rows[0]["scores"], "total"):
        table.add_column(
            escape(column),
            justify="left" if column == "picture" else "right",
            overflow="fold",
            no_wrap=column != "picture",
        )
    for row in rows:
        table.add_row(escape(row["picture"]), *(f"{value:.4f}" for value in (*row["scores"].values(), row["total"])))
    # a file or a pipe has no width, and nothing in it is to be cut
    (Console() if sys.stdout.isatty() else Console(width=10_000)).print(table)
