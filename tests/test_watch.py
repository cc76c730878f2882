"""What the hacking watch measures, pixel by pixel, and whom it asks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spro_hf import recipe, watch
from spro_hf.methods import Adversary
from spro_hf.parts import References
from spro_hf.stages.studio import Studio
from spro_hf.tiny.oracle import Oracle
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny"


def picture(*pixels, mode="RGB"):
    """One row of pixels."""
    return Image.fromarray(np.array([pixels], dtype=np.uint8), mode)


def test_saturation_by_hand():
    # red 255/255, grey 0/128, black counts as 0, (200 − 50)/200
    image = picture((255, 0, 0), (128, 128, 128), (0, 0, 0), (200, 100, 50))
    assert watch.saturation(image) == pytest.approx((1 + 0 + 0 + 0.75) / 4)
    assert watch.saturation(Image.new("L", (3, 2), 90)) == 0.0


def test_saturation_is_that_of_hsv():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).convert("HSV"))[..., 1].mean() / 255  # cut to whole numbers
    assert theirs < watch.saturation(Image.fromarray(pixels)) < theirs + 1 / 255


def test_diversity_by_hand():
    a, b, c = picture((0, 0, 0), (10, 10, 10)), picture((0, 0, 0), (40, 10, 10)), picture((6, 6, 6), (10, 10, 10))
    # over 6 numbers: a to b 30/6 = 5, a to c 18/6 = 3, b to c 48/6 = 8; the fourth is of another caption, and alone
    found = watch.diversity(["x", "x", "y", "x"], [a, b, a, c])
    assert found == pytest.approx([(5 + 3) / 2, (5 + 8) / 2, 0.0, (3 + 8) / 2])
    assert watch.diversity(["x", "x"], [a, a]) == [0.0, 0.0]
    assert watch.diversity([], []) == []


def test_judges_are_the_scorers_that_are_not_trained_on():
    plain = recipe.load(RECIPES / "reinforce" / "flow_grpo.yaml")[0]
    assert plain.reward == {"aesthetic": 1.0} and watch.judges(plain) == ["engagement", "pickscore"]
    assert watch.judges(dataclasses.replace(plain, reward={"aesthetic": 1.0, "pickscore": 0.0})) == [
        "engagement",
        "pickscore",
    ]
    learning = dataclasses.replace(
        plain,
        scorers=plain.scorers | {"dino": {"kind": "adversarial", "backbone": "spro_hf/tiny/clip"}},
        reward={"aesthetic": 0.5, "dino": 0.5},
        adversary=Adversary("dino", batch_size=8),
        references=References(source="a/b", columns={"caption": "caption", "image": "image"}),
        push=plain.push | {"reward": "a/reward"},
    )
    assert watch.judges(learning) == ["engagement", "pickscore"]


def test_every_picture_is_measured_with_and_without_an_oracle():
    truth = Truth((Thing("red", "circle"),), "center", "navy", frozenset())
    image, caption = Image.fromarray(render(truth, 0)), "a red circle on navy"
    studio = object.__new__(Studio)  # what it takes to measure, without a generator and scorers
    studio.oracle, studio.recipe = None, recipe.load(RECIPES / "1_prompt.yaml")[0]
    assert studio.measure([image], [caption]) == [{"saturation": watch.saturation(image)}]
    assert studio.measure([], []) == []
    studio.oracle = Oracle.load()
    (told,) = studio.measure([image], [caption])
    assert told["alignment"] == told["subject"] == 1.0 and told["saturation"] == watch.saturation(image)
    assert list(told) == ["planted", "alignment", "subject", "saturation"]
