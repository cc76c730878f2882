"""What a version draws for its card: equal noise before and after, both by the same scorers, and nothing that is not shown."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from PIL import Image

from spro_hf.guider.instructions import Reply
from spro_hf.report.progress import Progress
from spro_hf.stages import showcase
from spro_hf.stages.showcase import SHOWN, Showcase, lay, shown_by
from spro_hf.steps import Steps

GUESTS = [(f"seed-{i}", f"caption {i}", {"tweet": str(i)}) for i in range(10)]


class Studio:
    """Environment and scorers in one: draws grey pictures, brighter by ``shade`` than the prompt is long.

    A picture's reward is its brightness.
    """

    def __init__(self, recipe, shade, weights=1.0):
        self.recipe, self.shade, self.asked, self.told = recipe, shade, [], []
        self.pipe, self.batch_size = None, 4
        self.rewards, self.weight = self, weights

    def render(self, prompts, seeds, advance=None):
        self.asked += zip(prompts, seeds, strict=True)
        return [Image.new("RGB", (600, 300), (len(p) + self.shade,) * 3) for p in prompts]

    def score(self, images, briefs):
        self.told.append([(brief.caption, brief.prompt, brief.context) for brief in briefs])
        light = [float(image.getpixel((0, 0))[0]) for image in images]
        return [{"bright": x, "total": self.weight * x} for x in light]

    def measure(self, images, captions):
        return [{"saturation": 0.5} for _ in images]


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.setattr(showcase, "switched", lambda pipe, on: nullcontext())
    recipe = SimpleNamespace(
        seed=3, objective="aesthetics", reward={"bright": 1.0}, generator=SimpleNamespace(lora=None, dtype="float32")
    )
    steps = Steps(tmp_path, {})
    return SimpleNamespace(
        recipe=recipe, folder=tmp_path, do=steps.do, progress=Progress(silent=True), title="aesthetics · image"
    )


def test_both_are_drawn_on_the_same_noise_and_scored_under_the_same_captions(room):
    before, after = Studio(room.recipe, 0), Studio(room.recipe, 100)
    show = Showcase(room, GUESTS)
    show.before(lambda: before)
    show.draw("v1", lambda: after)
    folder = show.score("v1", lambda: after)
    assert before.asked == after.asked and len(set(before.asked)) == SHOWN == 8
    # of "caption 0" the plain picture is as bright as its nine letters, the trained generator's is brighter by a hundred
    told = json.loads((folder / "showcase.json").read_text())
    assert {(row["base_total"], row["total"]) for row in told["rows"]} == {(9.0, 109.0)}
    assert told["results"] == [
        {"name": "bright", "value": 109.0, "se": 0.0, "base": 9.0, "n": 8},
        {"name": "saturation", "value": 0.5, "se": 0.0, "base": 0.5, "n": 8},
    ]
    assert told["evaluated_on"] == "8 captions of its training set, one picture each"
    assert (
        after.told == [[(f"caption {i}", f"caption {i}", {"tweet": str(i)}) for i in range(8)]] * 2 and not before.told
    )
    # published pictures are small ones
    assert Image.open(folder / "07.png").size == (512, 256) and Image.open(
        room.folder / "showcase/before/07.png"
    ).size == (600, 300)
    assert Image.open(folder / "before_after.png").getpixel((20, 60)) == (9, 9, 9)


def test_a_guider_is_asked_before_the_plain_picture_and_an_unread_reply_leaves_the_caption(room):
    tasks = []

    class Guider:
        def reply(self, asked, temperatures, seed):
            tasks.extend(asked)
            assert temperatures == [None]  # its most probable reply
            return [[Reply("", (), f"{task.caption}, {'x' * i}" if i % 2 else None)] for i, task in enumerate(asked)]

    show, studio = Showcase(room, GUESTS[:4]), Studio(room.recipe, 0, weights=2.0)
    show.before(lambda: studio)
    room.recipe.reward = {"bright": 2.0}
    show.draw("round-1", lambda: studio, Guider)
    told = json.loads((show.score("round-1", lambda: studio) / "showcase.json").read_text())
    assert [row["prompt"] for row in told["rows"]] == ["caption 0", "caption 1, x", "caption 2", "caption 3, xxx"]
    assert [task.image.getpixel((0, 0)) for task in tasks] == [(9, 9, 9)] * 4
    # 9, 12, 9 and 14 letters, twice: the total is more than a scorer's own number, and stands beside it
    assert [(r["name"], r["value"], r["base"]) for r in told["results"][:2]] == [
        ("reward", 22.0, 18.0),
        ("bright", 11.0, 9.0),
    ]


def test_what_is_drawn_once_is_not_drawn_again(room):
    show = Showcase(room, GUESTS)
    show.before(lambda: Studio(room.recipe, 0))
    show.draw("v1", lambda: Studio(room.recipe, 5))
    first = show.score("v1", lambda: Studio(room.recipe, 5))
    again = Showcase(room, GUESTS)
    again.before(lambda: pytest.fail("drawn again"))
    again.draw("v1", lambda: pytest.fail("drawn again"))
    assert again.score("v1", lambda: pytest.fail("scored again")) == first


def test_an_artifact_holds_its_showcase_and_another_stage_takes_its_captions(room, tmp_path, monkeypatch):
    show = Showcase(room, GUESTS[:2])
    show.before(lambda: Studio(room.recipe, 0))
    show.draw("v1", lambda: Studio(room.recipe, 1))
    card = lay(show.score("v1", lambda: Studio(room.recipe, 1)), tmp_path / "artifact")
    assert card["evaluated_on"].startswith("2 captions") and len(card["results"]) == 2
    assert all((tmp_path / "artifact" / row["image"]).is_file() for row in card["showcase"])
    monkeypatch.setattr(showcase, "pull", lambda repo, kind, revision, choose: tmp_path / "artifact")
    assert shown_by("user/guider", "v1") == GUESTS[:2]
    assert lay(None, tmp_path / "other") == {"results": [], "evaluated_on": "", "showcase": []}
    monkeypatch.setattr(showcase, "pull", lambda repo, kind, revision, choose: tmp_path)
    assert shown_by("somebody/else", "v1") == []


def test_without_captions_nothing_is_shown(room):
    show = Showcase(room, [])
    show.before(lambda: Studio(room.recipe, 0))
    show.draw("v1", lambda: Studio(room.recipe, 1))
    folder = show.score("v1", lambda: Studio(room.recipe, 1))
    assert json.loads((folder / "showcase.json").read_text())["results"] == [] and not list(folder.glob("*.png"))
