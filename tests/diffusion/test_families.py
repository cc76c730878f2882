"""Every family of pipelines through one door: nothing here or in the library knows a family but ``families.UNGUIDED``."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from families.hand import BY_HAND, Ask

from spro_hf.diffusion import families as table
from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.lora import add_lora, switched
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.diffusion.player import Play
from spro_hf.diffusion.schedule import play_with
from spro_hf.steps import derive

PROMPTS = ["a red circle", "two green triangles", "a blue square on a white ground"]  # of several lengths
SEEDS = [5, 6, 7]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=str)


def open_up(family, **more):
    """The family's environment on a fresh pipeline that can be played."""
    pipe = family.build()
    if family.swap:
        play_with(pipe, family.swap)
    return Environment(pipe, family.call | more)


def inputs(family, rows=(0, 1, 2)):
    given = family.inputs(3) if family.inputs else {}
    return {name: [values[row] for row in rows] for name, values in given.items()}


def kinds(environment):
    return ["flow_sde", "cps", "dance"] if environment.kind == "flow" else ["ddim"]


def play(environment, steps=(0, 1), exploration=0.7):
    return Play(kinds(environment)[0], exploration, steps)


def record(environment, family, steps=(0, 1)):
    return environment.record(PROMPTS, SEEDS, play(environment, steps), inputs(family))[1]


@torch.no_grad()
def replayed(environment, trajectory, steps=None, guidance=True):
    seen = {}
    environment.replay(trajectory, lambda at: seen.update({at.number: at}), steps, guidance)
    return seen


def stack(pictures):
    return np.stack([np.asarray(p, dtype=int) if not isinstance(p, list) else stack(p) for p in pictures])


def stock(family):
    """Pictures of the pipeline's own call: nothing of ours but the scheduler that the family must be given."""
    pipe, call = family.build(), family.call | inputs(family) | {"output_type": "pil"}
    if family.swap:
        play_with(pipe, family.swap)
    pipe.set_progress_bar_config(disable=True)
    if "negative_prompt" in call:  # StableDiffusionPipeline takes it in the prompt's form alone
        call["negative_prompt"] = [call["negative_prompt"]] * 3
    out = pipe(prompt=list(PROMPTS), generator=[torch.Generator().manual_seed(s) for s in SEEDS], **call)
    return stack(out.frames if hasattr(out, "frames") else out.images)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@every_family
def test_a_replay_is_what_was_recorded(family, guided):
    """To the last bit, with a step between that is not explored, all of the explored steps and only some."""
    environment = open_up(family, num_inference_steps=4, **({} if guided else family.unguided))
    for kind in kinds(environment):
        _, played = environment.record(PROMPTS, SEEDS, Play(kind, 0.6, (0, 2)), inputs(family))
        assert sorted(played.taken) == [0, 2]
        for steps in (None, (0, 2), (2,)):
            seen = replayed(environment, played, steps)
            assert sorted(seen) == sorted(steps or (0, 2))
            for number, at in seen.items():
                taken = played.taken[number]
                assert torch.equal(at.log_prob, taken.log_prob) and torch.equal(at.mean, taken.mean)
                for i, seed in enumerate(SEEDS):  # the sample is the mean and the seed's own noise
                    generator = torch.Generator().manual_seed(derive("step noise", seed, number))
                    noise = torch.randn(taken.mean[0].shape, generator=generator)
                    assert torch.equal(taken.y[i], taken.mean[i] + at.std * noise)


@every_family
def test_a_replay_without_guidance_is_the_unguided_call(family):
    environment = open_up(family)
    played = record(environment, family)
    asked = environment.calls
    guided, plain = replayed(environment, played), replayed(environment, played, guidance=False)
    told = environment.calls - asked
    by_call = replayed(Environment(environment.pipe, family.call | family.unguided), played)
    for number in (0, 1):
        assert torch.equal(plain[number].log_prob, by_call[number].log_prob)
        same = torch.equal(plain[number].log_prob, guided[number].log_prob)
        assert same != bool(family.unguided)
    # two steps of three samples, asked twice with guidance and once without; once in both where there is no such thing
    assert told == (12 + 6 if family.unguided else 6 + 6)


@every_family
def test_gradients_reach_the_lora_and_nothing_else(family):
    environment = open_up(family)
    parameters = add_lora(environment.pipe, 2, 2, family.lora_targets)
    played = record(environment, family, (1,))
    environment.replay(played, lambda at: at.log_prob.sum().backward())
    named = dict(environment.denoiser.named_parameters())
    up = [p for n, p in named.items() if "lora_B" in n]
    assert 2 * len(up) == len(parameters) >= 8
    # A's gradient is 0 as long as B is, but it is there
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    assert all(p.grad.abs().max() > 0 for p in up)
    learn = {id(p) for p in parameters}
    others = [p for m in modules(environment.pipe) for p in m.parameters() if id(p) not in learn]
    assert len(others) > 20 and all(p.grad is None and not p.requires_grad for p in others)
    before = copy.deepcopy([p.detach() for p in others])
    torch.optim.AdamW(parameters, lr=0.01).step()
    assert all(map(torch.equal, before, others))
    at = replayed(environment, played)[1]
    assert not (at.log_prob == played.taken[1].log_prob).any()
    with switched(environment.pipe, False):  # B is no longer 0; without it the base answers as it was recorded
        assert torch.equal(replayed(environment, played)[1].log_prob, played.taken[1].log_prob)
    assert torch.equal(replayed(environment, played)[1].log_prob, at.log_prob)


def modules(pipe):
    return [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]


@torch.no_grad()
@every_family
def test_a_probe_is_the_denoiser_called_by_hand(family):
    """Three noise levels in one batch, and what the scheduler's step would be given: the same batch, so the same bits."""
    latents = record(open_up(family), family).taken[1].x
    environment = open_up(family)  # whose scheduler has no timesteps yet
    flow = environment.kind == "flow"
    levels = torch.tensor([0.1537, 0.6, 0.95]) if flow else torch.tensor([20, 500, 960])
    got = environment.probe(PROMPTS, latents, levels, inputs(family))
    t = levels * 1000 if flow else levels
    ask = Ask(environment.pipe, family.call, PROMPTS, latents, t, inputs(family))
    assert torch.equal(got, BY_HAND[family.name](ask))
    other = environment.probe(PROMPTS, latents, levels[[1, 1, 2]], inputs(family))
    assert not torch.equal(other[0], got[0]) and torch.equal(other[1:], got[1:])


@torch.no_grad()
@every_family
def test_a_probe_is_what_the_scheduler_is_told(family):
    """The sign above all: a probe gives what the stock call gives to ``scheduler.step``."""
    environment = open_up(family, **family.unguided)
    scheduler, seen = environment.pipe.scheduler, []
    step = scheduler.step
    scheduler.step = lambda *args, **more: (seen.append(args), step(*args, **more))[1]
    # seeds of 0, as a probe has them: inpainting draws what is left of the picture from them
    environment.record(PROMPTS, [0, 0, 0], play(environment, ()), inputs(family))
    assert len(seen) == 3
    for output, t, latents in seen[:2]:
        level = t.repeat(3) / (1000 if environment.kind == "flow" else 1)
        got = environment.probe(PROMPTS, latents, level, inputs(family))
        torch.testing.assert_close(got, output, rtol=0, atol=1e-5)  # t / 1000 · 1000 is not always t


@every_family
def test_without_exploration_it_is_the_stock_call(family):
    environment = open_up(family)
    expected = stock(family)
    assert expected.std() > 1 and not np.array_equal(expected[0], expected[1])
    for limit in (play(environment, (0, 1), exploration=0.0), play(environment, ())):
        pictures, played = environment.record(PROMPTS, SEEDS, limit, inputs(family))
        assert played.taken == {}
        assert np.array_equal(stack(pictures), expected)
    explored, _ = environment.record(PROMPTS, SEEDS, play(environment), inputs(family))
    assert not np.array_equal(stack(explored), expected)


@every_family
def test_a_picture_does_not_depend_on_its_batch(family):
    """Two runs of one batch are equal to the last bit. Alone, a sample's arithmetic is that of another batch size.

    Measured on CPUs in float32: latents differ by 2e-5 of their size at most (on most of them by 7e-6 in all),
    log-probabilities by 3e-7, pixels by 1 of 255.
    """
    environment = open_up(family)
    with remembered_prompts(environment.pipe):
        pictures, whole = environment.record(PROMPTS, SEEDS, play(environment), inputs(family))
        again, same = environment.record(PROMPTS, SEEDS, play(environment), inputs(family))
        padded = environment.record(PROMPTS[:1], SEEDS[:1], play(environment), inputs(family, (0,)))
    assert np.array_equal(stack(pictures), stack(again))
    for number, taken in whole.taken.items():
        assert all(torch.equal(value, getattr(same.taken[number], name)) for name, value in vars(taken).items())
    # the shortest prompt: with the memory of the batch it is padded to the longest, afresh it is not
    for alone, played in padded, environment.record(PROMPTS[:1], SEEDS[:1], play(environment), inputs(family, (0,))):
        assert abs(stack(alone)[0] - stack(pictures)[0]).max() <= 1
        for number, taken in whole[[0]].taken.items():
            for name, value in vars(taken).items():
                near = 1e-6 if name == "log_prob" else 2e-5
                torch.testing.assert_close(getattr(played.taken[number], name), value, rtol=5e-5, atol=near)


@every_family
def test_what_is_not_trained_costs_nothing(family):
    """A replay asks the denoiser about the steps it shows alone, and the text encoders about nothing."""
    environment = open_up(family, num_inference_steps=4)
    twice = 2 if family.unguided else 1
    read = []
    for name, component in environment.pipe.components.items():
        if name.startswith("text_encoder") and component is not None:
            component.register_forward_pre_hook(lambda m, args, name=name: read.append(name))
    with remembered_prompts(environment.pipe):
        played = record(environment, family, (0, 1, 3 if environment.kind == "ddim" else 2))
        assert environment.calls == 4 * 3 * twice
        first = list(read)
        assert first
        replayed(environment, played, (1,))
        assert environment.calls == (4 + 1) * 3 * twice
        replayed(environment, played[[0, 2]])
        assert environment.calls == (4 + 1) * 3 * twice + 3 * 2 * twice
        environment.record(PROMPTS[::-1], SEEDS, play(environment), inputs(family))
        assert read == first
    record(environment, family)
    assert read == first * 2


@every_family
def test_a_pipeline_comes_back_as_it_was(family):
    environment = open_up(family)
    pipe = environment.pipe
    played = record(environment, family)
    scheduler, config, settings = pipe.scheduler, dict(pipe.config), dict(pipe.scheduler.config)
    latents = played.taken[0].x
    levels = torch.tensor([0.5] * 3) if environment.kind == "flow" else torch.tensor([500] * 3)

    def back():
        assert pipe.scheduler is scheduler and dict(pipe.config) == config
        assert dict(scheduler.config) == settings and "step" not in vars(scheduler)
        assert not {"prepare_latents", "encode_prompt"} & set(vars(pipe))
        assert not environment.denoiser._forward_pre_hooks

    back()
    replayed(environment, played)
    environment.probe(PROMPTS, latents, levels, inputs(family))
    back()

    def fail(*args):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        environment.replay(played, fail)
    back()
    handle = environment.denoiser.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        record(environment, family)
    with pytest.raises(ArithmeticError):
        environment.probe(PROMPTS, latents, levels, inputs(family))
    handle.remove()
    back()
    pictures, _ = environment.record(PROMPTS, SEEDS, play(environment, ()), inputs(family))
    assert np.array_equal(stack(pictures), stock(family))


def test_what_the_library_knows_of_families_is_one_line():
    tested = {type(family.build()).__name__: family for family in FAMILIES}
    assert list(table.UNGUIDED) == ["ZImagePipeline"] and set(table.UNGUIDED) <= set(tested)
    assert all(tested[name].unguided == line for name, line in table.UNGUIDED.items())
    assert len(FAMILIES) == 16 == len(BY_HAND)
