"""The other side of Adv-GRPO: references for the pictures of a training step, and a reward that learns from both in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.memory import needing
from spro_hf.methods import Adversary
from spro_hf.parts import References
from spro_hf.rewards import Brief
from spro_hf.seeds import Seed
from spro_hf.steps import derive

NAMED = 3  # captions that a message names
ALIKE = 0.02  # how far two shapes may differ, width by height, to be the same


class Opponent:
    """A reward that learns, what it learns by, and the references that it learns from.

    Args:
        found: the references, whose pictures are read when they are needed.
        captions: all captions that may be drawn for; those without references are found out here.

    Raises:
        UserError: if references are fewer than a batch, or a caption has none and ``missing`` does not say what then.
    """

    def __init__(
        self, reward: Any, spec: Adversary, references: References, found: list[Seed], captions: list[str], seed: int
    ):
        self.reward, self.spec, self.references, self.seed = reward, spec, references, seed
        if len(found) < spec.batch_size:
            raise UserError(
                f"references: there are {len(found)} of them and adversary.batch_size is {spec.batch_size}; give more references "
                "or a smaller batch."
            )
        self.found, self.of = found, {}
        for number, reference in enumerate(found):
            self.of.setdefault(reference.caption, []).append(number)
        lacking = [caption for caption in dict.fromkeys(captions) if caption not in self.of]
        if lacking and references.missing == "error":
            named = ", ".join(map(repr, lacking[:NAMED])) + (" …" if len(lacking) > NAMED else "")
            raise UserError(
                f"references: {len(lacking)} of the captions to train on have none in '{references.source}' ({named}); add them, "
                "or set references.missing to leave_out or any."
            )
        if len(lacking) == len(set(captions)) and references.missing == "leave_out":
            raise UserError(
                f"references: no caption to train on has one in '{references.source}'; check references.columns.caption, or set "
                "references.missing to any."
            )
        reward.learn_by(spec, derive(seed, "adversary"))
        self.turn: tuple[list[Image.Image], list[Brief], list[int]] = ([], [], [])

    def playable(self, captions: Sequence[str]) -> list[int]:
        """The numbers of those captions that are trained on."""
        return [i for i, caption in enumerate(captions) if self.references.missing != "leave_out" or caption in self.of]

    def meet(
        self, step: int, images: Sequence[Image.Image], briefs: Sequence[Brief], rows: Sequence[int]
    ) -> dict[str, float]:
        """Take in the pictures of a training step; learn, if it is the last of a turn or the first of all.

        Args:
            rows: the pictures' numbers among those of all processes.

        Returns:
            What ``update`` tells; empty within a turn.
        """
        numbers = [derive(self.seed, "reference", step, row) for row in rows]
        for held, more in zip(self.turn, (images, briefs, numbers), strict=True):
            held.extend(more)
        if step and (step + 1) % self.spec.generator_steps:
            return {}
        generated, told_of, numbers = self.turn
        self.turn = ([], [], [])
        with needing("adversary.batch_size", self.spec.batch_size):
            chosen = [self._reference(*entry) for entry in zip(generated, told_of, numbers, strict=True)]
            return self.reward.update(generated, chosen, told_of)

    def _reference(self, image: Image.Image, brief: Brief, number: int) -> Image.Image:
        """A reference for a picture, of its caption if there is one, at the picture's size."""
        places = self.of.get(brief.caption) or range(len(self.found))
        reference = self.found[places[int(np.random.default_rng(number).integers(len(places)))]]
        found = reference.image()
        if abs(found.width / found.height * image.height / image.width - 1) > ALIKE:
            raise UserError(
                f"references: the picture of {reference.caption!r} in '{self.references.source}' has {found.width}×{found.height} "
                f"pixels, and what is drawn {image.width}×{image.height}: by their shape alone they could be told apart; crop the "
                "references, or set the generator's height and width to their shape."
            )
        return found if found.size == image.size else found.resize(image.size, Image.Resampling.LANCZOS)

    def save(self, folder: Path) -> None:
        """Write what has learned to ``folder``/reward, and all that is needed to go on to ``folder``/state."""
        self.reward.save(folder / "reward")
        self.reward.learning.save(folder / "state")

    def restore(self, folder: Path) -> None:
        """Go on from what ``save`` wrote."""
        self.reward.learning.restore(folder / "state")


def remarks(rows: Sequence[dict[str, Any]], reward: str) -> list[str]:
    """What is to be said of the adversary's part in a run of training steps: that it won or lost completely, or never learned.

    It has won if it makes no mistake and its loss is nothing, so that it learns no more; it has lost if it tells no
    picture from a reference better than chance.
    """
    met = [row["adversary"] for row in rows if row.get("adversary")]
    learned = [told for told in met if told["learned"]]
    span = f"steps {rows[0]['step']} to {rows[-1]['step']}"
    if met and not learned:
        return [
            f"The reward '{reward}' did not learn in {span}: references score higher than what is drawn already, and "
            "adversary.when waits until they do not."
        ]
    if learned and all(told["told_apart"] == 1.0 and told["loss"] == 0.0 for told in learned):
        return [
            f"The reward '{reward}' has won completely in {span}: it tells every picture from every reference, and learns no "
            "more. Lower adversary.head_steps or adversary.lr, raise adversary.generator_steps, or take references that the "
            "generator can come near to."
        ]
    if learned and all(told["told_apart"] <= 0.5 for told in learned):
        return [
            f"The reward '{reward}' has lost completely in {span}: it prefers the drawn pictures to the references, or tells them "
            "no better than chance. They may be alike by now; if not, raise adversary.head_steps or adversary.lr, or choose "
            "another backbone."
        ]
    return []
