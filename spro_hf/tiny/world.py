"""The embedded world: what a 32×32 picture can show, and how a caption says it.

A :class:`Truth` is everything a picture shows; a :class:`Request` is the part of it that a caption names. Seeds are
split by the *content* of a scene (objects, arrangement, background), so that no held-out combination is ever trained on,
whatever its modifiers.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring", "moon", "arrow")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "black", "white")
BACKGROUNDS = ("gray", "navy", "forest", "maroon", "olive", "sand", "silver", "mint")
ARRANGEMENTS = ("center", "left", "right", "top", "bottom", "side by side", "stacked")
POSITIONS = ARRANGEMENTS[:5]
RELATIONS = ("left of", "right of", "above", "below")
MODIFIERS = (
    "soft shadow",
    "gradient sky",
    "warm palette",
    "cool palette",
    "neat frame",
    "gentle glow",
    "bold outline",
    "film grain",
    "heavy blur",
    "busy clutter",
    "dark vignette",
    "high contrast",
)
EXCLUSIVE = frozenset({"warm palette", "cool palette"})
HELD_OUT_PERCENT = 12
MAX_TOKENS = 24  # the text encoders' context: start, 22 words or commas, end


@dataclass(frozen=True)
class Thing:
    """One object: a name out of SHAPES in a name out of COLOURS."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Truth:
    """All that a picture shows. ``things`` stand from left to right, or from top to bottom."""

    things: tuple[Thing, ...]
    arrangement: str
    background: str
    modifiers: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The content without its style: what the held-out split is made on."""
        return f"{self.things}|{self.arrangement}|{self.background}"


@dataclass(frozen=True)
class Request:
    """What a caption names; ``None`` or empty where it is silent. ``unknown`` are words outside the world."""

    things: tuple[Thing, ...] = ()
    relation: str | None = None
    position: str | None = None
    background: str | None = None
    modifiers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def ordered(self) -> tuple[tuple[Thing, ...], str | None]:
        """Things in reading order and the arrangement that position or relation stands for."""
        if len(self.things) < 2 or self.relation is None:
            return self.things[:1] if self.relation is None and len(self.things) < 2 else self.things, self.position
        things = self.things[::-1] if self.relation in ("right of", "below") else self.things
        return things, "side by side" if self.relation in ("left of", "right of") else "stacked"


def held_out(truth: Truth) -> bool:
    """True if the scene belongs to the held-out part: decided by a checksum of its content, about 12 in 100."""
    return zlib.crc32(truth.key.encode()) % 100 < HELD_OUT_PERCENT


def sample_truth(rng: np.random.Generator, split: str | None = "train", single: float = 0.6) -> Truth:
    """Draw a scene of the split ("train", "held-out", None for both); ``single`` is the share of one-object scenes."""
    while True:
        if rng.random() < single:
            arrangement = POSITIONS[0] if rng.random() < 0.4 else POSITIONS[rng.integers(1, 5)]
            count = 1
        else:
            arrangement = ARRANGEMENTS[rng.integers(5, 7)]
            count = 2
        things = tuple(Thing(COLOURS[rng.integers(10)], SHAPES[rng.integers(10)]) for _ in range(count))
        truth = Truth(things, arrangement, BACKGROUNDS[rng.integers(8)])
        if count == 2 and (things[0].shape == things[1].shape or things[0].colour == things[1].colour):
            continue
        if split is None or held_out(truth) == (split == "held-out"):
            return replace(truth, modifiers=sample_modifiers(rng))


def sample_modifiers(rng: np.random.Generator) -> frozenset[str]:
    """None to four modifiers, warm and cool never together."""
    count = rng.choice(5, p=(0.25, 0.25, 0.24, 0.16, 0.10))
    chosen: set[str] = set()
    for i in rng.permutation(12)[: count + 1]:
        if len(chosen) < count and not (MODIFIERS[i] in EXCLUSIVE and chosen & EXCLUSIVE):
            chosen.add(MODIFIERS[i])
    return frozenset(chosen)


def caption(truth: Truth, rng: np.random.Generator | None = None) -> str:
    """Say a scene in words. With ``rng`` the position, background and modifiers are left out now and then."""

    def said(chance: float) -> bool:
        return rng is None or rng.random() < chance

    if len(truth.things) == 1:
        text = str(truth.things[0])
        if said(0.5):
            text += f" at the {truth.arrangement}"
    else:
        first, second = truth.things
        forward, backward = ("left of", "right of") if truth.arrangement == "side by side" else ("above", "below")
        flip = rng is not None and rng.random() < 0.5
        text = f"{second} {backward} {first}" if flip else f"{first} {forward} {second}"
    if said(0.6):
        text += f" on {truth.background}"
    modifiers = [m for m in MODIFIERS if m in truth.modifiers and said(0.92)]
    if rng is not None:
        rng.shuffle(modifiers)
    return ", ".join([text, *modifiers])


_FILLER = frozenset(["a", "an", "the", "on", "at", "of", "and", "with", "in", "background"])
_SYNONYMS = {"centre": "center", "middle": "center", "grey": "gray"}
_WORDS = (
    _FILLER
    | set(SHAPES + COLOURS + BACKGROUNDS + POSITIONS)
    | {w for phrase in RELATIONS + MODIFIERS for w in phrase.split()}
)


def read(text: str) -> Request:
    """Read a caption. Never fails: what it does not understand is listed in ``unknown``, in order."""
    words = [_SYNONYMS.get(w, w) for w in re.findall(r"[a-z0-9]+", text.lower())]
    flat = " ".join(words)
    modifiers = tuple(sorted((m for m in MODIFIERS if m in flat), key=flat.index))
    plain = flat
    for modifier in modifiers:
        plain = plain.replace(modifier, " ")
    things = tuple(Thing(*pair) for pair in re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b", plain))
    relation = next((r for r in RELATIONS if r in plain), None) if len(things) > 1 else None
    position = re.search(rf"\bat (?:the )?({'|'.join(POSITIONS)})\b", plain)
    background = re.search(rf"\bon (?:a |an |the )?({'|'.join(BACKGROUNDS)})\b", plain)
    return Request(
        things[:2],
        relation,
        position.group(1) if position and relation is None else None,
        background.group(1) if background else None,
        modifiers,
        tuple(dict.fromkeys(w for w in words if w not in _WORDS)),
    )


def alignment(request: Request, truth: Truth) -> float:
    """Share of what the caption names that the picture shows, in [0, 1]; a silent caption is always obeyed.

    Every thing counts twice (its shape, its colour), the order of two things or the position of one once, the
    background once, each modifier once.
    """
    things, arrangement = request.ordered()
    checks: list[bool] = []
    shown = list(truth.things) + [None] * (len(things) - len(truth.things))
    for asked, seen in zip(things, shown, strict=False):
        checks += [seen is not None and asked.colour == seen.colour, seen is not None and asked.shape == seen.shape]
    if arrangement is not None:
        checks.append(arrangement == truth.arrangement)
    if request.background is not None:
        checks.append(request.background == truth.background)
    checks += [m in truth.modifiers for m in request.modifiers]
    return sum(checks) / len(checks) if checks else 1.0
