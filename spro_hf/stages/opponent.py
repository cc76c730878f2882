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
from spro_hf.rewards.learning import Place
from spro_hf.seeds import Seed
from spro_hf.steps import derive

NAMED = 3  # captions that a message names
LOOKED_AT = 64  # references, before a training begins
WON = 0.05  # a loss below it: that of a head which knows nothing is 1, PickScore's log 2
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
        self.turn: list[tuple[Image.Image, Brief, Place]] = []

    def playable(self, captions: Sequence[str]) -> list[int]:
        """The numbers of those captions that are trained on."""
        return [i for i, caption in enumerate(captions) if self.references.missing != "leave_out" or caption in self.of]

    def meet(
        self, step: int, images: Sequence[Image.Image], briefs: Sequence[Brief], rows: Sequence[int]
    ) -> dict[str, float]:
        """Take in the pictures of a training step; learn, if it is the last of a turn or the first of all.

        Args:
            rows: the pictures' numbers among the step's, of all processes.

        Returns:
            What ``update`` tells; empty within a turn.
        """
        self.turn += [(image, brief, (step, row)) for image, brief, row in zip(images, briefs, rows, strict=True)]
        if step and (step + 1) % self.spec.generator_steps:
            return {}
        turn, self.turn = self.turn, []
        generated, told_of, places = (list(column) for column in zip(*turn, strict=True))
        with needing("adversary.batch_size", self.spec.batch_size):
            return self.reward.update(generated, [self._reference(*entry) for entry in turn], told_of, places)

    def _reference(self, image: Image.Image, brief: Brief, place: Place) -> Image.Image:
        """A reference for a picture, of its caption if there is one, at the picture's size."""
        among = self.of.get(brief.caption) or range(len(self.found))
        rng = np.random.default_rng(derive(self.seed, "reference", *place))
        found = self.look(self.found[among[int(rng.integers(len(among)))]], image.size)
        return found if found.size == image.size else found.resize(image.size, Image.Resampling.LANCZOS)

    def look(self, reference: Seed, size: tuple[int, int]) -> Image.Image:
        """A reference's picture; a UserError if it has another shape than pictures of ``size`` (width, height)."""
        found = reference.image()
        if abs(found.width / found.height * size[1] / size[0] - 1) > ALIKE:
            raise UserError(
                f"references: the picture of {reference.caption!r} in '{self.references.source}' has {found.width}×{found.height} "
                f"pixels, and what is drawn {size[0]}×{size[1]}: by their shape alone they could be told apart; crop the "
                "references, or set the generator's height and width to their shape."
            )
        return found

    def sample(self, size: tuple[int, int]) -> None:
        """Look at some of the references, so that a set of another shape is refused before anything is drawn."""
        for reference in self.found[:: max(1, len(self.found) // LOOKED_AT)]:
            self.look(reference, size)

    def save(self, folder: Path) -> None:
        """Write what has learned to ``folder``/reward, and all that is needed to go on to ``folder``/state."""
        self.reward.save(folder / "reward")
        self.reward.learning.save(folder / "state")

    def restore(self, folder: Path) -> None:
        """Go on from what ``save`` wrote."""
        self.reward.learning.restore(folder / "state")


def remarks(rows: Sequence[dict[str, Any]], reward: str) -> list[str]:
    """What is to be said of the adversary's part in a run of training steps: that it won or lost completely, or never learned.

    It has won if it makes no mistake and its loss is next to nothing; it has lost if it tells pictures from references no
    better than chance, by two errors of a coin that is thrown for each pair.
    """
    met = [row["adversary"] for row in rows if row.get("adversary")]
    learned = [told for told in met if told["learned"]]
    span = f"steps {rows[0]['step']} to {rows[-1]['step']}"
    if met and not learned:
        return [
            f"The reward '{reward}' did not learn in {span}: references score higher than what is drawn already, and "
            "adversary.when waits until they do not."
        ]
    if learned and all(told["told_apart"] == 1.0 and told["loss"] < WON for told in learned):
        return [
            f"The reward '{reward}' has won completely in {span}: it tells every picture from every reference, and has next "
            "to nothing left to learn. Lower adversary.head_steps or adversary.lr, raise adversary.generator_steps, or take "
            "references that the generator can come near to."
        ]
    pairs = sum(row["pictures"] for row in rows if row.get("adversary"))
    if learned and np.mean([told["told_apart"] for told in learned]) <= 0.5 + 1 / pairs**0.5:
        return [
            f"The reward '{reward}' has lost completely in {span}: it prefers the drawn pictures to the references, or tells them "
            "no better than chance. They may be alike by now; if not, raise adversary.head_steps or adversary.lr, or choose "
            "another backbone."
        ]
    return []
