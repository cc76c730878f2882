"""Seed captions: the embedded world's own, or those that the user wrote, one a line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spro_hf.errors import UserError
from spro_hf.parts import Seeds
from spro_hf.steps import derive
from spro_hf.tiny import world


@dataclass(frozen=True)
class Seed:
    """One base caption and its name; a caption that is used again gets a new name and so another picture."""

    seed_id: str
    caption: str


def check(seeds: Seeds) -> None:
    """Raise a UserError if the seeds cannot be read; loads no model."""
    if seeds.source != "world":
        _lines(Path(seeds.source))


def load(seeds: Seeds, seed: int) -> list[Seed]:
    """``seeds.count`` captions. A file shorter than that is gone through again, each time with other noise."""
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
    """The sha256 of a seed file's captions, None for the embedded world's own."""
    if seeds.source == "world":
        return None
    return hashlib.sha256("\n".join(_lines(Path(seeds.source))).encode()).hexdigest()


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
