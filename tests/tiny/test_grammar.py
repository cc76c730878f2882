"""The grammar keeps what is named, stays within the text encoders' room and draws additions as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spro_hf.errors import UserError
from spro_hf.guider.instructions import parse
from spro_hf.tiny.grammar import ADDED, propose
from spro_hf.tiny.world import MODIFIERS, caption, read, sample_truth


def test_every_reply_parses_and_keeps_what_is_named():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        text = caption(sample_truth(rng), rng)
        reply = parse(propose(text, rng), reasoning=True, word_limit=22)
        assert reply.problem is None, reply
        asked, got = read(text), read(reply.prompt)
        assert asked.things == got.things and asked.relation == got.relation
        assert asked.position in (None, got.position)
        assert asked.background in (None, got.background)
        assert got.modifiers[: len(asked.modifiers)] == asked.modifiers
        assert not {"warm palette", "cool palette"} <= set(got.modifiers)
        assert got.unknown == ()
        assert len(reply.prompt.replace(",", " ,").split()) <= 22


def test_plan_tells_each_addition_and_no_other():
    rng = np.random.default_rng(1)
    for _ in range(300):
        text = caption(replace(sample_truth(rng), modifiers=frozenset()), rng)
        reply = parse(propose(text, rng), True, 22)
        asked, got = read(text), read(reply.prompt)
        steps = [f"add {m}" for m in got.modifiers if m not in asked.modifiers]
        steps += [f"set on {got.background}"] if got.background != asked.background else []
        steps += [f"place at the {got.position}"] if got.position != asked.position else []
        assert reply.plan[0].startswith("keep a")
        assert sorted(reply.plan[1:]) == sorted(steps)


def test_chances_of_additions():
    rng, n = np.random.default_rng(2), 4000
    prompts = [read(propose("a red circle", rng, reasoning=False)) for _ in range(n)]
    counts = np.bincount([len(p.modifiers) for p in prompts], minlength=4) / n
    # standard error of a share near a third: sqrt(.35·.65/4000) = .0075
    assert np.abs(counts - ADDED).max() < 0.03
    assert abs(sum(p.background is not None for p in prompts) / n - 0.25) < 0.03
    assert abs(sum(p.position is not None for p in prompts) / n - 0.25) < 0.03
    # 1.5 modifiers a prompt over twelve: 0.125 each; warm and cool a little rarer, as they exclude each other
    shares = [sum(m in p.modifiers for p in prompts) / n for m in MODIFIERS]
    assert min(shares) > 0.09 and max(shares) < 0.16


def test_a_full_caption_is_left_alone():
    text = "a red circle left of a blue star on navy, film grain, soft shadow, gentle glow, neat frame"
    assert len(text.replace(",", " ,").split()) == 22
    for seed in range(20):
        assert propose(text, np.random.default_rng(seed), False) == f"Prompt: {text}"


def test_same_seed_same_reply_and_no_object_no_reply():
    assert propose("a red circle", np.random.default_rng(3)) == propose("a red circle", np.random.default_rng(3))
    with pytest.raises(UserError, match="names no object"):
        propose("soft shadow", np.random.default_rng(0))
