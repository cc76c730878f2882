import json

import pytest
import torch
from safetensors.torch import load_file

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.lora import load_lora
from spro_hf.errors import UserError

LORA = {"rank": 4, "alpha": 8, "targets": None}
CALL = {"num_inference_steps": 2, "max_sequence_length": 0}


def learner_of(folder, **options):
    return Learner(Environment(load_generator(str(folder)), CALL), LORA, **{"lr": 0.1, "seed": 0} | options)


def pull(learner, number):
    """Gradients that depend on the number alone."""
    generator = torch.Generator().manual_seed(number)
    for parameter in learner.parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_update_by_hand(sd3_folder):
    """AdamW's first step by hand: decay 1 − lr·0.01, then lr·sign(g), whatever g's size; warm-up of 4 gives lr/4."""
    learner = learner_of(sd3_folder, warmup=4)
    before = learner.copy()
    pull(learner, 1)
    signs = {name: p.grad.sign() for name, p in learner.named.items()}
    total = sum(p.grad.pow(2).sum() for p in learner.parameters).sqrt().item()
    assert learner.update() == pytest.approx(total, rel=1e-6)
    for name, value in learner.copy().items():
        expected = before[name] * (1 - 0.025 * 0.01) - 0.025 * signs[name]
        away = (value - expected).abs()
        # |g|/(|g| + 1e-8) is below 1 where the clipped gradient (about 5e-3) happens to be very small
        assert away.mean() < 1e-5 and away.max() < 0.025, (name, away.mean(), away.max())
    assert all(p.grad is None for p in learner.parameters)


def test_average_by_hand(sd3_folder):
    """Every second update counts; the first replaces the start, the n-th after it has min(ema, (1 + n)/(10 + n))."""
    learner = learner_of(sd3_folder, ema=0.5, ema_every=2)
    seen = []
    for number in range(6):
        pull(learner, number)
        learner.update()
        seen.append(learner.copy())
    name = next(iter(seen[0]))
    expected = seen[1][name]
    for decay, live in ((2 / 11, seen[3][name]), (3 / 12, seen[5][name])):
        expected = decay * expected + (1 - decay) * live
    assert torch.allclose(learner.average.shadow_params[0], expected, atol=1e-6)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_continued_from_disk_equals_uninterrupted_to_the_bit(sd3_folder, tmp_path, ema):
    whole = learner_of(sd3_folder, ema=ema, warmup=3)
    for number in range(5):
        if number == 2:
            (tmp_path / "half").mkdir()
            whole.save(tmp_path / "half")
            drawn = torch.rand(3)  # the global generators are kept as well
        pull(whole, number)
        whole.update()
    other = learner_of(sd3_folder, ema=ema, warmup=3, seed=9)  # another start, which restoring must replace
    torch.manual_seed(123)
    other.restore(tmp_path / "half")
    assert torch.equal(torch.rand(3), drawn)
    for number in range(2, 5):
        pull(other, number)
        other.update()
    for name, value in whole.copy().items():
        assert torch.equal(value, other.copy()[name]), name
    if ema:
        for a, b in zip(whole.average.shadow_params, other.average.shadow_params, strict=True):
            assert torch.equal(a, b)
    assert json.loads((tmp_path / "half" / "state" / "counts.json").read_text())["updates"] == 2


def test_what_is_saved_as_the_result_is_the_average(sd3_folder, tmp_path):
    learner = learner_of(sd3_folder, ema=0.9)
    for number in range(3):
        pull(learner, number)
        learner.update()
    live = learner.copy()
    learner.save(tmp_path)
    assert all(torch.equal(value, live[name]) for name, value in learner.copy().items())  # training goes on from these
    state = load_file(tmp_path / "state" / "state.safetensors")
    pipe = load_generator(str(sd3_folder))
    load_lora(pipe, tmp_path / "generator")
    loaded = dict(pipe.transformer.named_parameters())
    for name, value in live.items():
        assert torch.equal(state[f"parameter.{name}"], value)
        assert torch.equal(loaded[name].float(), state[f"average.{name}"])
        assert not torch.equal(value, state[f"average.{name}"])


def test_holding_gives_the_weights_back_even_after_an_error(sd3_folder):
    learner = learner_of(sd3_folder)
    zeros = {name: torch.zeros_like(p) for name, p in learner.named.items()}
    before = learner.copy()
    with pytest.raises(RuntimeError), learner.holding(zeros):
        assert all(p.abs().max() == 0 for p in learner.parameters)
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in learner.copy().items())


def test_gradient_checkpointing_changes_no_gradient(sd3_folder):
    found = []
    for on in (False, True):
        learner = learner_of(sd3_folder, checkpointing=on)
        assert learner.environment.denoiser.is_gradient_checkpointing is on
        latents = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
        out = learner.environment.probe(["a", "b"], latents, torch.tensor([0.3, 0.7]))
        out.pow(2).mean().backward()
        found.append([p.grad for p in learner.parameters if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found, strict=True))


def test_bad_input_is_named(sd3_folder):
    learner = learner_of(sd3_folder)
    pull(learner, 0)
    learner.parameters[0].grad[0, 0] = float("nan")
    with pytest.raises(UserError, match="norm is nan at update 1; lower `lr`"):
        learner.update()
    with pytest.raises(UserError, match="'to_nothing' fits no layer"):
        Learner(Environment(load_generator(str(sd3_folder)), CALL), LORA | {"targets": "to_nothing"}, lr=1.0, seed=0)
