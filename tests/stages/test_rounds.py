"""Which prompt and picture a seat is shown next: read off the rows alone, so that a resumed run has the same memory.

And what the report is told of a round.
"""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from spro_hf import rollouts
from spro_hf.guider.instructions import Reply
from spro_hf.stages.rounds import account, advance_seats
from spro_hf.stages.studio import Seat, Studio


def row(seed, total, prompt, why="", parsed=True, candidate=0):
    return {"seed_id": seed, "parsed": parsed, "why": why, "total": total, "prompt": prompt, "image": None,
            "caption_in": f"{seed} before", "image_in": None, "base_total": 2.0, "measures": "{}",
            "candidate": candidate, "problem": "" if parsed else "empty prompt"}  # fmt: skip


@pytest.fixture
def played(tmp_path):
    """A round's rollouts on disk."""
    rollouts.write(ROWS, {name: rollouts.ROLLOUT[name] for name in ROWS[0]}, tmp_path)
    return tmp_path


def seats():
    return [Seat(name, f"caption {name}", f"{name} before", "live picture") for name in "abcd"]


ROWS = [
    row("a", 3.0, "a good"), row("a", 5.0, "a best", candidate=1),
    row("a", 9.0, "a far", "similarity below 0.5", True, 2), row("a", None, "", "empty prompt", False, 3),
    row("b", 4.0, "b far", "similarity below 0.5"), row("b", None, "", "empty prompt", False, 1),
    row("c", 4.0, "c good"),
]  # fmt: skip


def test_the_best_that_kept_its_likeness_goes_on(played):
    table = seats()
    advance_seats(table, played, carry=0.5)
    assert (table[0].shown_prompt, table[0].shown_at) == ("a best", (played, "image", 1))
    # all of b's were dropped: it is shown again what its rows say it was shown, whatever this process remembers
    assert (table[1].shown_prompt, table[1].shown_at) == ("b before", (played, "image_in", 4))
    # the half that is not carried begins again from the caption and a fresh picture
    assert [(s.shown_prompt, s.shown_at) for s in table[2:]] == [("caption c", None), ("caption d", None)]
    assert all(seat.shown_image is None for seat in table)


def test_a_seat_that_was_never_drawn_begins_again(played):
    table = seats()
    advance_seats(table, played, carry=1.0)
    assert table[2].shown_prompt == "c good" and (table[3].shown_prompt, table[3].shown_at) == ("caption d", None)


def test_the_account_of_a_round_and_of_a_round_in_which_nothing_parsed():
    told = account(ROWS, 1)
    assert (told["replies"], told["unparsed"], told["too_similar_or_far"]) == (7, 2, 2)
    assert told["problems"] == {"empty prompt": 2} and told["curves"]["total"]["mean"] == (3 + 5 + 9 + 4 + 4) / 5
    assert set(account([ROWS[5]], 0)["curves"]) == {"base"}


def test_the_account_tells_judges_and_measures_over_the_same_candidates():
    def played(total, judge, measures):
        return row("a", total, "p") | {
            "rewards": json.dumps({"own": total, "other": judge}),
            "measures": json.dumps(measures),
        }

    rows = [
        played(1.0, 5.0, {"saturation": 0.2, "diversity": 8.0}), played(3.0, 7.0, {"saturation": 0.4, "diversity": 6.0}),
        played(5.0, 12.0, {"saturation": 0.9}), row("b", None, "", parsed=False),
    ]  # fmt: skip
    curves = account(rows, 1, ["other"])["curves"]
    assert set(curves) == {"base", "total", "saturation", "diversity", "other"}  # of what is trained on only the total
    assert {name: (curve["mean"], curve["n"]) for name, curve in curves.items()} == {
        "base": (2.0, 4), "total": (3.0, 3), "other": (8.0, 3), "saturation": (0.5, 3),
        "diversity": (7.0, 2),  # the third was its seed's only picture
    }  # fmt: skip


def test_candidates_of_a_seed_are_told_how_far_apart_they_are():
    shades = {"dark": 10, "bright": 30, "alone": 99}
    studio = object.__new__(Studio)  # a studio whose pictures are grey and whose reward is their brightness
    studio.recipe, studio.oracle, studio.similarity, studio.names = (
        SimpleNamespace(objective="aesthetics", style=()),
        None,
        None,
        {},
    )
    studio.environment = SimpleNamespace(
        batch_size=4,
        render=lambda prompts, seeds, advance: [Image.new("RGB", (2, 2), (shades[p],) * 3) for p in prompts],
    )
    studio.rewards = SimpleNamespace(
        score=lambda images, briefs: [{"own": float(i.getpixel((0, 0))[0]), "total": 1.0} for i in images]
    )
    a, b = Seat("a", "a star", "a star", None), Seat("b", "a star", "a star", None)
    asked = [(a, 0, Reply("", (), "dark")), (b, 0, Reply("", (), "alone")), (a, 1, Reply("", (), "bright")),
             (b, 1, Reply("", (), None, "empty prompt"))]  # fmt: skip
    rows = studio.judge(asked)
    # by seed, though both seeds have one caption: 30 − 10 in every channel; the other's second reply was not understood
    assert [json.loads(r["measures"]) for r in rows] == [
        {"saturation": 0.0, "diversity": 20.0}, {"saturation": 0.0}, {"saturation": 0.0, "diversity": 20.0}, {},
    ]  # fmt: skip
