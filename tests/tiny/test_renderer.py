"""The renderer as a pipeline: what a caption asks for is in the picture, what it leaves open is drawn as scenes are drawn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spro_hf import models
from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.errors import UserError
from spro_hf.tiny import home, world
from spro_hf.tiny.oracle import Oracle
from spro_hf.tiny.render import render
from spro_hf.tiny.renderer import Renderer, scene
from spro_hf.tiny.world import Request, Thing, Truth

CIRCLE, SQUARE = Thing("red", "circle"), Thing("blue", "square")
STYLE = {"soft shadow", "neat frame"}


def captions(count: int) -> list[str]:
    """Plain captions of the training split, which leave much open."""
    rng = np.random.default_rng(3)
    truths = [replace(world.sample_truth(rng), modifiers=frozenset()) for _ in range(count)]
    return [world.caption(truth, rng) for truth in truths]


@pytest.mark.parametrize(("prompt", "style"), [("{caption}", set()), ("{caption}, soft shadow, neat frame", STYLE)])
def test_the_oracle_reads_what_was_asked_for(prompt, style):
    environment = Environment(load_generator(models.RENDERER), {}, batch_size=64)
    prompts = [prompt.replace("{caption}", caption) for caption in captions(200)]
    told = Oracle.load().read(environment.render(prompts, list(range(200))))
    asked = [world.read(text) for text in prompts]
    assert np.mean([world.alignment(a, t) == 1.0 for a, t in zip(asked, told, strict=True)]) >= 0.95
    assert np.mean([style <= truth.modifiers for truth in told]) >= 0.95


def test_pictures_repeat_and_belong_to_caption_and_seed_alone():
    environment = Environment(Renderer(), {}, batch_size=3)
    texts = captions(7)
    first = [np.asarray(image) for image in environment.render(texts, list(range(7)))]
    turned = environment.render(texts[::-1], list(range(7))[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(first, turned[::-1], strict=True))
    assert first[0].shape == (32, 32, 3) and first[0].dtype == np.uint8
    other = environment.render(texts, list(range(10, 17)))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_as_a_pipeline_by_itself():
    """The picture is the renderer's own, of the scene that the generator's numbers give."""
    told = "a red circle at the left on gray, film grain"
    (image,) = Renderer()(told, generator=torch.Generator().manual_seed(5)).images
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=torch.Generator().manual_seed(5))))
    truth = scene(world.read(told), rng)
    assert truth == Truth((CIRCLE,), "left", "gray", frozenset({"film grain"}))
    assert np.array_equal(np.asarray(image), render(truth, int(rng.integers(1 << 31))))
    one = torch.Generator().manual_seed(5)
    several = Renderer()([told, told], generator=one).images  # one generator for both: another picture each
    assert np.array_equal(np.asarray(several[0]), np.asarray(image)) and several[0].tobytes() != several[1].tobytes()


def test_what_is_left_open_is_drawn_as_scenes_are():
    rng = np.random.default_rng(0)
    drawn = [scene(Request((CIRCLE,)), rng) for _ in range(2000)]
    assert {truth.things for truth in drawn} == {(CIRCLE,)} and {truth.modifiers for truth in drawn} == {frozenset()}
    places = Counter(truth.arrangement for truth in drawn)
    # 0.4 of them in the middle and 0.15 at each side, but for the scenes that are held out (12 in 100)
    assert 600 < places["center"] < 1000 and all(180 < places[side] < 420 for side in world.POSITIONS[1:])
    assert {truth.background for truth in drawn} == set(world.BACKGROUNDS)
    assert not any(map(world.held_out, drawn))


def test_a_held_out_scene_is_drawn_where_it_is_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = replace(world.sample_truth(rng, "held-out"), modifiers=frozenset())
        assert scene(world.read(world.caption(truth)), rng) == truth  # a held-out caption says everything


def test_two_things_stand_as_they_are_told_or_in_the_order_of_the_words():
    rng = np.random.default_rng(0)
    assert scene(world.read("a red circle right of a blue square on navy"), rng) == Truth(
        (SQUARE, CIRCLE), "side by side", "navy"
    )
    drawn = [scene(world.read("a red circle and a blue square"), rng) for _ in range(100)]
    assert {truth.things for truth in drawn} == {(CIRCLE, SQUARE)}
    assert {truth.arrangement for truth in drawn} == {"side by side", "stacked"}
    # a place is for one thing alone
    assert scene(world.read("a red circle and a blue square at the left"), rng).arrangement != "left"


def test_mistakes_are_named():
    with pytest.raises(UserError, match="knows no thing in 'a cat on navy'; name a colour and a shape"):
        Renderer()(["a red circle", "a cat on navy"])
    with pytest.raises(UserError, match="not as 'latent'"):
        Renderer()("a red circle", output_type="latent")
    with pytest.raises(UserError, match="call: Renderer has no argument 'height'"):
        Environment(Renderer(), {"height": 64})


def test_its_commit_is_that_of_its_source(monkeypatch, tmp_path):
    before = models.commit(models.RENDERER)
    assert before == models.commit(models.RENDERER) and not models.on_hub(models.RENDERER)
    assert models.pinned(models.RENDERER) == f"spro_hf/tiny/renderer@{before[:12]}"
    for name in ("render.py", "renderer.py", "world.py"):
        (tmp_path / name).write_bytes((home.WEIGHTS.parent / name).read_bytes())
    monkeypatch.setattr(home, "__file__", str(tmp_path / "home.py"))
    assert models.commit(models.RENDERER) == before
    (tmp_path / "world.py").write_text("# another world\n")
    assert models.commit(models.RENDERER) != before
