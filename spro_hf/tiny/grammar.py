"""How the untrained tiny guider answers: random plausible rewrites of a caption, blind to the objective.

It keeps all that the caption names, in the caption's own order, and adds modifiers, a background and a position by
chance. Whatever the guider prefers after self-play, it has learned there and not here.
"""

from __future__ import annotations

import numpy as np

from spro_hf.errors import UserError
from spro_hf.tiny.world import BACKGROUNDS, EXCLUSIVE, MODIFIERS, POSITIONS, Request, read

ADDED = (0.15, 0.35, 0.35, 0.15)  # chances of none, one, two and three new modifiers
SET, PLACE = 0.25, 0.25  # chances of a background, and of a position for one object, where none is named
ROOM = 22  # words and commas a prompt may have: the text encoders' context without start and end


def propose(request: str | Request, rng: np.random.Generator, reasoning: bool = True) -> str:
    """Draw a reply to a caption (or to what was read from it): one plan step per decision, then the prompt.

    New modifiers are uniform among those not named, warm and cool palette never together; additions that would make the
    prompt longer than ``ROOM`` are left out.

    Raises:
        UserError: if the caption names no object of the world.
    """
    asked = read(request) if isinstance(request, str) else request
    if not asked.things:
        raise UserError("caption: it names no object of the embedded world; name one, e.g. 'a red circle'.")
    core, background, position = _core(asked), asked.background, asked.position
    modifiers = list(asked.modifiers)
    set_on = background is None and rng.random() < SET
    place = len(asked.things) == 1 and position is None and rng.random() < PLACE
    count = rng.choice(len(ADDED), p=ADDED)
    if set_on:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    if place:
        position = POSITIONS[rng.integers(len(POSITIONS))]
    used = len(core.split()) + (2 if background else 0) + (3 if position else 0)
    room = (ROOM - used) // 3 - len(modifiers)  # a modifier takes two words and its comma
    steps = []
    for _ in range(min(count, max(room, 0))):
        chosen = set(modifiers)
        free = [m for m in MODIFIERS if m not in chosen and not (m in EXCLUSIVE and chosen & EXCLUSIVE)]
        modifiers.append(free[rng.integers(len(free))])
        steps.append(f"add {modifiers[-1]}")
    steps += [f"set on {background}"] if set_on else []
    steps += [f"place at the {position}"] if place else []
    plan = [f"keep {core}", *(steps[i] for i in rng.permutation(len(steps)))]
    # plan and prompt name the new modifiers in the same order
    new = [s.removeprefix("add ") for s in plan if s.startswith("add ")]
    prompt = _prompt(core, position, background, [*asked.modifiers, *new])
    if not reasoning:
        return f"Prompt: {prompt}"
    return " ".join(["Plan:", *(f"{i}. {step}" for i, step in enumerate(plan, 1)), f"Prompt: {prompt}"])


def _core(asked: Request) -> str:
    """The things with their relation, as a caption says them."""
    joint = f" {asked.relation} " if asked.relation else " and "
    return joint.join(str(t) for t in asked.things)


def _prompt(core: str, position: str | None, background: str | None, modifiers: list[str]) -> str:
    head = core + (f" at the {position}" if position else "") + (f" on {background}" if background else "")
    return ", ".join([head, *modifiers])
