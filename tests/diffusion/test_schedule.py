import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from families import builders

from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.player import Play
from spro_hf.diffusion.schedule import Rung, family, play_with, predicted, rung
from spro_hf.diffusion.transitions import ddim
from spro_hf.errors import UserError

PROMPTS, SEEDS = ["a red circle", "two green triangles"], [3, 4]


def tenth(**config):
    """DDIM over ten timesteps that each keep nine tenths of the signal: ᾱ at t is 0.9^(t + 1)."""
    return DDIMScheduler(num_train_timesteps=10, trained_betas=[0.1] * 10, clip_sample=False, **config)


def rungs(scheduler):
    return [rung(scheduler, index) for index in range(len(scheduler.timesteps))]


def levels(scheduler):
    return [level for at in rungs(scheduler) for level in (at.level, at.next_level)]


def test_rungs_of_flow_by_hand():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    # 3σ/(1 + 2σ): 2.25/2.5, 1.5/2, .75/1.5; then 0
    assert levels(scheduler) == pytest.approx([1, 0.9, 0.9, 0.75, 0.75, 0.5, 0.5, 0], abs=1e-7)
    assert [at.second for at in rungs(scheduler)] == pytest.approx([0.9] * 4, abs=1e-7)
    assert [at.index for at in rungs(scheduler)] == [0, 1, 2, 3]
    scheduler.set_timesteps(3)
    # evenly from 1 to the least shifted level, m = .003/1.002: the middle (1 + m)/2 is shifted to 3(1 + m)/(2(2 + m)),
    # the last to 3m/(1 + 2m)
    m = 0.003 / 1.002
    middle, last = 1.5 * (1 + m) / (2 + m), 3 * m / (1 + 2 * m)
    assert levels(scheduler) == pytest.approx([1, middle, middle, last, last, 0], abs=1e-7)
    assert (round(middle, 4), round(last, 4)) == (0.7511, 0.0089)


def test_dynamic_shift_is_the_pipelines():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=1.0)
    # e/(e + (1/σ − 1)): e/(e + 1) = .7310586 at σ = ½
    assert levels(scheduler) == pytest.approx([1, 0.7310586, 0.7310586, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("config", "steps", "powers"),
    [
        # ten in twos: strides of 5; the timesteps 6 and 1, after which there is only the first of all, 0
        ({"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}, 2, [7, 2, 2, 1]),
        ({"timestep_spacing": "leading", "steps_offset": 1}, 2, [7, 2, 2, 0]),  # ᾱ' = 1
        ({"timestep_spacing": "leading"}, 5, [9, 7, 7, 5, 5, 3, 3, 1, 1, 0]),  # 8, 6, 4, 2, 0
        ({"timestep_spacing": "trailing"}, 2, [10, 5, 5, 0]),  # 9, 4
        # 9, 6, 2 by strides of 3: as the scheduler itself has it, the second step ends at 3, and not at the third's 2
        ({"timestep_spacing": "trailing"}, 3, [10, 7, 7, 4, 3, 0]),
    ],
)
def test_rungs_of_ddim_by_hand(config, steps, powers):
    scheduler = tenth(**config)
    scheduler.set_timesteps(steps)
    assert levels(scheduler) == pytest.approx([0.9**power for power in powers], abs=1e-6)
    for at, t in zip(rungs(scheduler), scheduler.timesteps, strict=True):
        # without noise to take away, its own step is a stretch by √(ᾱ'/ᾱ)
        stretch = scheduler.step(torch.zeros(1), t, torch.ones(1)).prev_sample.item()
        assert stretch == pytest.approx((at.next_level / at.level) ** 0.5, abs=1e-6)


def test_any_prediction_becomes_what_the_transition_takes():
    x, output, at = torch.tensor([2.0]), torch.tensor([3.0]), Rung(0, 0.64, 0.81, float("nan"))
    # √ᾱ = .8, √(1 − ᾱ) = .6: ε = .8·v + .6·x = 2.4 + 1.2, or (x − .8·x0)/.6 = (2 − 2.4)/.6
    expected = {"epsilon": 3.0, "v_prediction": 3.6, "sample": -0.4 / 0.6}
    for kind, value in expected.items():
        got = predicted(tenth(prediction_type=kind), at, output, x)
        assert got.item() == pytest.approx(value, abs=1e-6)
    assert predicted(FlowMatchEulerDiscreteScheduler(), at, output, x) is output


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_transition_without_noise_is_the_schedulers_own_step(kind):
    scheduler = tenth(prediction_type=kind, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    x, output = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for index, t in enumerate(scheduler.timesteps):
        at = rung(scheduler, index)
        mean, std = ddim(x, predicted(scheduler, at, output, x), at.level, at.next_level, 0.0)
        assert std == 0
        torch.testing.assert_close(mean, scheduler.step(output, t, x).prev_sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (DPMSolverMultistepScheduler(), "DPMSolverMultistepScheduler cannot be played: .*`scheduler: flow` for a flow-m"),
        (EulerDiscreteScheduler(), "EulerDiscreteScheduler cannot be played: .*`scheduler: ddim` for any other"),
        (UniPCMultistepScheduler(), "UniPCMultistepScheduler cannot be played"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "with stochastic_sampling .*set `scheduler: flow`"),
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "with invert_sigmas cannot be played"),
        (DDIMScheduler(), "DDIMScheduler with clip_sample cannot be played; set `scheduler: ddim`"),
        (DDIMScheduler(clip_sample=False, thresholding=True), "with thresholding cannot be played"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_named(scheduler, told):
    with pytest.raises(UserError, match=told):
        family(scheduler)


def play(pipe, kind, call, steps=(0, 1)):
    """Record and replay: the levels of the explored steps, after the log-probabilities have been compared."""
    environment, seen = Environment(pipe, call), {}
    _, played = environment.record(PROMPTS, SEEDS, Play(kind, 0.5, steps))
    with torch.no_grad():
        environment.replay(played, lambda at: seen.update({at.number: at}))
    assert all(torch.equal(at.log_prob, played.taken[number].log_prob) for number, at in seen.items())
    return [level for at in seen.values() for level in (at.level, at.next_level)]


@pytest.mark.parametrize("name", ["sana", "wan"])
def test_multistep_flow_is_played_with_its_shift(name):
    """DPM-Solver's and UniPC's ``flow_shift`` is called ``shift`` by Euler's."""
    pipe = getattr(builders, name)()
    more = {"use_resolution_binning": False} if name == "sana" else {"num_frames": 5}
    call = {"num_inference_steps": 3, "height": 32, "width": 32, "guidance_scale": 1.0, "max_sequence_length": 16}
    was = type(pipe.scheduler).__name__
    with pytest.raises(UserError, match=f"{was} cannot be played"):
        play(pipe, "flow_sde", call | more)
    play_with(pipe, "flow")
    assert type(pipe.scheduler) is FlowMatchEulerDiscreteScheduler and pipe.scheduler.config.shift == 3.0
    # as in test_rungs_of_flow_by_hand
    assert play(pipe, "flow_sde", call | more) == pytest.approx([1, 0.75112, 0.75112, 0.00893], abs=1e-5)
    play_with(pipe, "flow")  # again: what has the right name already is kept
    assert pipe.scheduler.config.shift == 3.0


def test_dpm_solver_is_played_by_ddim():
    pipe = builders.pixart()
    alphas = pipe.scheduler.alphas_cumprod
    play_with(pipe, "ddim")
    assert type(pipe.scheduler) is DDIMScheduler and torch.equal(pipe.scheduler.alphas_cumprod, alphas)
    config = pipe.scheduler.config
    assert (config.clip_sample, config.prediction_type, config.timestep_spacing) == (False, "epsilon", "trailing")
    call = {"num_inference_steps": 4, "guidance_scale": 1.0, "use_resolution_binning": False, "clean_caption": False}
    got = play(pipe, "ddim", call | {"height": 16, "width": 16, "max_sequence_length": 16})
    # fourths of 1000 from its end: 999, 749, 499; β from 1e-4 to .02
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    assert got == pytest.approx([kept[999].item(), kept[749].item(), kept[749].item(), kept[499].item()], rel=1e-4)


def test_euler_is_played_by_ddim(sdxl):
    """Its betas and its spacing, which it has by default where DDIM would have another, are kept."""
    sdxl.scheduler = LCMScheduler(timestep_spacing="linspace")  # betas of Stable Diffusion by default
    alphas = sdxl.scheduler.alphas_cumprod
    play_with(sdxl, "ddim")
    assert torch.equal(sdxl.scheduler.alphas_cumprod, alphas)
    sdxl.scheduler = EulerDiscreteScheduler(prediction_type="v_prediction")
    play_with(sdxl, "ddim")
    config = sdxl.scheduler.config
    assert (config.timestep_spacing, config.prediction_type) == ("trailing", "v_prediction")
    sdxl.scheduler = EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    play_with(sdxl, "ddim")
    kept = sdxl.scheduler.alphas_cumprod  # thirds of 1000: 667, 334, 1
    expected = [kept[t].item() for t in (667, 334, 334, 1)]
    assert play(sdxl, "ddim", {"num_inference_steps": 3, "guidance_scale": 3.0}) == pytest.approx(expected, abs=1e-7)


def test_ddim_that_begins_without_signal_explores_from_the_second_step(sd15):
    more = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    sd15.scheduler = DDIMScheduler.from_config(sd15.scheduler.config, **more)
    call = {"num_inference_steps": 3, "guidance_scale": 1.0}
    with pytest.raises(UserError, match=r"Step 0, from noise level 0.0000 to 0.\d+, cannot be explored with 'ddim'"):
        play(sd15, "ddim", call)
    assert play(sd15, "ddim", call, (1,))[0] == sd15.scheduler.alphas_cumprod[666].item()


def test_play_with_knows_what_a_model_predicts(sd3, sd15):
    with pytest.raises(UserError, match=r"'scheduler' is 'ddim', but FlowMatch.* predicts 'flow_prediction'; set flow"):
        play_with(sd3, "ddim")
    with pytest.raises(UserError, match="'scheduler' is 'flow', but DDIMScheduler predicts 'epsilon'; set ddim"):
        play_with(sd15, "flow")
    sd15.scheduler = DDIMScheduler(clip_sample=True, thresholding=True)
    play_with(sd15, "ddim")
    assert family(sd15.scheduler) == "ddim"
    sd3.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0, stochastic_sampling=True)
    play_with(sd3, "flow")
    assert family(sd3.scheduler) == "flow" and sd3.scheduler.config.shift == 2.0
