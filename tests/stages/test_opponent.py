"""References for a step's pictures, the turns in which a reward learns, and what is said when one side wins."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.methods import Adversary
from spro_hf.parts import References
from spro_hf.rewards import Brief
from spro_hf.seeds import Seed
from spro_hf.stages.opponent import Opponent, remarks

COLUMNS = {"caption": "caption", "image": "image"}


class Student:
    """A reward that keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def learn_by(self, spec, seed):
        self.spec = spec

    def update(self, generated, references, briefs, places):
        self.seen.append((list(generated), list(references), [b.caption for b in briefs]))
        return {"learned": 1}


def plain(value: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def reference(caption: str, value: int, size: tuple[int, int] = (8, 8)) -> Seed:
    return Seed(f"{caption}-{value}", caption, image=lambda: plain(value, size))


def opponent(found, captions, missing="error", size=(8, 8), **spec) -> Opponent:
    given = {"reward": "it", "batch_size": 2} | spec
    return Opponent(
        Student(), Adversary(**given), References("a/b", columns=COLUMNS, missing=missing), found, captions, seed=3
    )


def values(images: list[Image.Image]) -> list[int]:
    return [int(np.asarray(image)[0, 0, 0]) for image in images]


FOUND = [reference("one", 10), reference("one", 11), reference("two", 20), reference("two", 21)]
BRIEFS = [Brief("one"), Brief("two"), Brief("two")]
DRAWN = [plain(1), plain(2), plain(3)]


def test_each_picture_meets_a_reference_of_its_caption():
    it = opponent(FOUND, ["one", "two"])
    met = [it.meet(step, DRAWN, BRIEFS, range(3)) for step in range(12)]
    assert met == [{"learned": 1}] * 12
    shown = [values(references) for _, references, _ in it.reward.seen]
    assert all(a in (10, 11) and b in (20, 21) and c in (20, 21) for a, b, c in shown)
    assert len({tuple(row) for row in shown}) > 3  # another draw at each step
    assert it.reward.seen[0][2] == ["one", "two", "two"] and values(it.reward.seen[0][0]) == [1, 2, 3]
    again = opponent(FOUND, ["one", "two"])
    again.meet(0, DRAWN, BRIEFS, range(3))
    assert values(again.reward.seen[0][1]) == shown[0]


def test_a_picture_meets_the_same_reference_in_whichever_process_it_is():
    whole, part = opponent(FOUND, ["one", "two"]), opponent(FOUND, ["one", "two"])
    whole.meet(5, DRAWN, BRIEFS, range(3))
    part.meet(5, DRAWN[1:], BRIEFS[1:], range(1, 3))
    assert values(part.reward.seen[0][1]) == values(whole.reward.seen[0][1])[1:]


def test_a_turn_is_learned_from_whole_and_the_first_step_always():
    it = opponent(FOUND, ["one", "two"], generator_steps=3)
    told = [bool(it.meet(step, [plain(step)], [Brief("one")], range(1))) for step in range(7)]
    # a turn ends with steps 3 and 6 (numbers 2 and 5), and the very first step is learned from at once
    assert told == [True, False, True, False, False, True, False]
    assert [values(generated) for generated, _, _ in it.reward.seen] == [[0], [1, 2], [3, 4, 5]]


def test_captions_without_a_reference_are_named_or_left_out_or_take_any():
    captions = ["one", "three", "four", "five", "six", "two"]
    with pytest.raises(UserError) as error:
        opponent(FOUND, captions)
    assert str(error.value) == (
        "references: 4 of the captions to train on have none in 'a/b' ('three', 'four', 'five' …); add them, or set "
        "references.missing to leave_out or any."
    )
    assert opponent(FOUND, captions, "leave_out").playable(captions) == [0, 5]
    it = opponent(FOUND, captions, "any")
    assert it.playable(captions) == list(range(6))
    for step in range(20):
        it.meet(step, [plain(1)], [Brief("three")], range(1))
    assert {values(references)[0] for _, references, _ in it.reward.seen} == {10, 11, 20, 21}
    with pytest.raises(UserError, match=r"no caption to train on has one in 'a/b'; check references.columns.caption"):
        opponent(FOUND, ["seven"], "leave_out")


def test_a_set_without_pictures_is_no_set_of_references():
    with pytest.raises(ValueError, match="columns: the field 'image' is missing; name the column of the pictures"):
        References("a/b", columns={"caption": "caption"})
    with pytest.raises(ValueError, match="the field 'columns' is missing; name the columns of 'caption' and 'image'"):
        References("world")


def test_fewer_references_than_a_batch_are_an_error():
    with pytest.raises(UserError) as error:
        opponent(FOUND[:2], ["one"], batch_size=3)
    assert str(error.value) == (
        "references: there are 2 of them and adversary.batch_size is 3; give more references or a smaller batch."
    )


def test_references_come_at_the_size_of_the_pictures_and_not_in_another_shape():
    it = opponent([reference("one", 10, (32, 32))] * 2, ["one"])
    it.meet(0, DRAWN[:1], BRIEFS[:1], range(1))
    assert it.reward.seen[0][1][0].size == (8, 8)
    it = opponent([reference("one", 10, (32, 24))] * 2, ["one"])
    with pytest.raises(UserError) as error:
        it.meet(0, DRAWN[:1], BRIEFS[:1], range(1))
    assert str(error.value) == (
        "references: the picture of 'one' in 'a/b' has 32×24 pixels, and what is drawn 8×8: by their shape alone they could be "
        "told apart; crop the references, or set the generator's height and width to their shape."
    )


def row(step: int, told_apart: float, loss: float, learned: int = 10) -> dict:
    told = {"told_apart": told_apart, "loss": loss, "learned": learned}
    return {"step": step, "pictures": 100, "adversary": told}


def test_a_set_of_another_shape_is_refused_before_anything_is_drawn():
    opponent([reference("one", 10, (32, 32))] * 2, ["one"]).sample((8, 8))
    with pytest.raises(UserError, match=r"has 32×24 pixels, and what is drawn 8×8"):
        opponent([reference("one", 10, (32, 32)), reference("one", 11, (32, 24))], ["one"]).sample((8, 8))


def test_what_is_said_when_one_side_wins():
    fair = [row(1, 1.0, 0.0), row(2, 0.9, 0.1), {"step": 3, "pictures": 100, "adversary": {}}]
    assert remarks(fair, "dino") == []
    (won,) = remarks([row(1, 1.0, 0.04), {"step": 2, "pictures": 100, "adversary": {}}, row(3, 1.0, 0.005)], "dino")
    assert won.startswith(
        "The reward 'dino' has won completely in steps 1 to 3: it tells every picture from every reference"
    )
    assert "Lower adversary.head_steps" in won
    assert remarks([row(1, 1.0, 0.04), row(2, 1.0, 0.06)], "dino") == []
    # of 300 pairs a coin errs by 0.5/√300 = 0.029, twice that is 0.058
    (lost,) = remarks([row(1, 0.49, 0.9), row(2, 0.51, 1.1), row(3, 0.66, 1.0)], "dino")
    assert (
        lost.startswith("The reward 'dino' has lost completely in steps 1 to 3")
        and "raise adversary.head_steps" in lost
    )
    assert remarks([row(1, 0.49, 0.9), row(2, 0.51, 1.1), row(3, 0.69, 1.0)], "dino") == []
    (idle,) = remarks([row(1, 0.9, 0.0, 0), row(2, 1.0, 0.0, 0)], "dino")
    assert "did not learn in steps 1 to 2" in idle and "adversary.when" in idle
