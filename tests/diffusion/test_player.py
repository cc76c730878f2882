import math
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusionImg2ImgPipeline
from families import builders, masked, pictures

from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.player import Play, Trajectory
from spro_hf.errors import UserError
from spro_hf.steps import derive

PROMPTS, SEEDS = ["a red circle", "two green triangles", "a blue square"], [3, 4, 5]
PLAIN = {"num_inference_steps": 3, "guidance_scale": 1.0}
SD3 = PLAIN | {"max_sequence_length": 16}


@pytest.fixture
def flow():
    return Environment(builders.sd3(), SD3)


@pytest.fixture
def ddim():
    return Environment(builders.sd15(), PLAIN)


@torch.no_grad()
def replayed(environment, trajectory, *args):
    seen = {}
    environment.replay(trajectory, lambda at: seen.update({at.number: at}), *args)
    return seen


def noise(shape, number, seeds=SEEDS):
    """The step noise of each sample."""
    generators = [torch.Generator().manual_seed(derive("step noise", seed, number)) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def gaussian(y, mean, std):
    return torch.distributions.Normal(mean, std).log_prob(y).flatten(1).mean(1)


# σ of three steps with shift 3 (see test_rungs_of_flow_by_hand), and for each kind: μ = x·of_x + v·of_v, and std
M = 0.003 / 1.002
LEVELS = [1.0, 1.5 * (1 + M) / (2 + M), 3 * M / (1 + 2 * M), 0.0]


def flow_sde(sigma, after, a):
    s2 = a * a * sigma / (1 - (LEVELS[1] if sigma == 1 else sigma))
    delta = after - sigma
    return 1 + s2 * delta / (2 * sigma), (1 + s2 * (1 - sigma) / (2 * sigma)) * delta, math.sqrt(-s2 * delta)


def dance(sigma, after, a):
    delta = after - sigma
    return 1 + a * a * delta / (2 * sigma), (1 + a * a * (1 - sigma) / (2 * sigma)) * delta, a * math.sqrt(-delta)


def cps(sigma, after, a):
    std = after * math.sin(a * math.pi / 2)
    left = math.sqrt(after**2 - std**2)  # of x1 = x + (1 − σ)v; 1 − σ' of x0 = x − σv
    return 1 - after + left, left * (1 - sigma) - (1 - after) * sigma, std


@torch.no_grad()
@pytest.mark.parametrize(("kind", "steps"), [("flow_sde", (0, 1, 2)), ("dance", (0, 1, 2)), ("cps", (0, 1))])
def test_flow_steps_by_hand(flow, kind, steps):
    """Each recorded step from its own latents, the prediction there, and the paper's formula."""
    _, played = flow.record(PROMPTS, SEEDS, Play(kind, 0.7, steps))
    seen = replayed(flow, played)
    assert sorted(played.taken) == list(steps) and played.begin == 0
    for number, taken in played.taken.items():
        sigma, after = LEVELS[number : number + 2]
        of_x, of_v, std = {"flow_sde": flow_sde, "dance": dance, "cps": cps}[kind](sigma, after, 0.7)
        mean = of_x * taken.x + of_v * flow.probe(PROMPTS, taken.x, torch.full((3,), sigma))
        torch.testing.assert_close(taken.mean, mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(taken.y, mean + std * noise(mean.shape[1:], number), rtol=0, atol=2e-5)
        error = (taken.y - taken.mean).pow(2).mean((1, 2, 3))
        expected = -error if kind == "cps" else gaussian(taken.y, taken.mean, std)
        torch.testing.assert_close(taken.log_prob, expected, rtol=0, atol=1e-5)
        at = seen[number]
        assert (at.level, at.next_level, at.std) == pytest.approx((sigma, after, std), abs=1e-6)
        if number + 1 in played.taken:  # nothing of this pipeline's happens between two steps
            assert torch.equal(played.taken[number + 1].x, taken.y)


@torch.no_grad()
def test_ddim_steps_by_hand(ddim):
    _, played = ddim.record(PROMPTS, SEEDS, Play("ddim", 0.8, (0, 1, 2)))
    seen = replayed(ddim, played)
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    times = [667, 334, 1, 0]  # thirds of 1000 and an offset of 1; the last step ends at the first ᾱ of all
    for number, taken in played.taken.items():
        alpha, after = (kept[t].item() for t in times[number : number + 2])
        epsilon = ddim.probe(PROMPTS, taken.x, torch.tensor([times[number]] * 3))
        std = 0.8 * math.sqrt((1 - after) / (1 - alpha) * (1 - alpha / after))
        clean = (taken.x - math.sqrt(1 - alpha) * epsilon) / math.sqrt(alpha)
        mean = math.sqrt(after) * clean + math.sqrt(1 - after - std**2) * epsilon
        torch.testing.assert_close(taken.mean, mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(taken.y, taken.mean + std * noise(mean.shape[1:], number), rtol=0, atol=1e-5)
        torch.testing.assert_close(taken.log_prob, gaussian(taken.y, taken.mean, std), rtol=0, atol=1e-3)
        at = seen[number]
        assert (at.level, at.next_level, at.std) == pytest.approx((alpha, after, std), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["flow", "ddim"])
def test_steps_between_are_the_schedulers_own(name, request):
    """Explored first and last, so that the one between is a step of a scheduler that was not asked at the first."""
    environment = request.getfixturevalue(name)
    kind, at_middle = ("flow_sde", LEVELS[1]) if name == "flow" else ("ddim", 334)
    _, played = environment.record(PROMPTS, SEEDS, Play(kind, 0.7, (0, 2)))
    start, end = played.taken[0].y, played.taken[2].x
    prediction = environment.probe(PROMPTS, start, torch.tensor([at_middle] * 3))
    scheduler = environment.pipe.scheduler
    scheduler.set_timesteps(3)
    expected = scheduler.step(prediction, scheduler.timesteps[1], start).prev_sample
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-5)


def test_noise_of_steps_may_have_seeds_of_its_own(flow):
    """Same initial noise and other steps, as for a group that shares its beginning."""
    how = Play("flow_sde", 0.7, (0,))
    _, played = flow.record(PROMPTS, [3, 3, 3], how, step_seeds=SEEDS)
    _, plain = flow.record(PROMPTS, SEEDS, how)
    taken = played.taken[0]
    assert torch.equal(taken.x[0], taken.x[1]) and torch.equal(taken.x[0], plain.taken[0].x[0])
    std = flow_sde(1.0, LEVELS[1], 0.7)[2]
    torch.testing.assert_close((taken.y - taken.mean) / std, noise(taken.x.shape[1:], 0), rtol=0, atol=1e-5)
    assert torch.equal(replayed(flow, played)[0].log_prob, taken.log_prob)


def test_trajectories_are_selected_and_joined():
    environment = Environment(builders.sd15_inpaint(), PLAIN)
    how, given = Play("ddim", 0.7, (0, 2)), masked(3)
    _, played = environment.record(PROMPTS, SEEDS, how, given)
    some = played[[2, 0]]
    assert (len(played), len(some), some.prompts, some.seeds) == (3, 2, [PROMPTS[2], PROMPTS[0]], [5, 3])
    assert some.inputs["mask_image"] == [given["mask_image"][2], given["mask_image"][0]] and some.play == how
    for number, taken in played.taken.items():
        for name, value in vars(taken).items():
            assert torch.equal(getattr(some.taken[number], name), torch.stack([value[2], value[0]]))
    seen = replayed(environment, some)  # two are another batch than three: rounding, of log-probabilities about −1
    for number, taken in some.taken.items():
        torch.testing.assert_close(seen[number].log_prob, taken.log_prob, rtol=0, atol=1e-5)
    whole = Trajectory.join([played[[0]], played[[1, 2]]])
    assert (whole.prompts, whole.seeds, whole.inputs, whole.play) == (PROMPTS, SEEDS, given, how)
    again = replayed(environment, whole)
    for number, taken in played.taken.items():
        assert all(torch.equal(getattr(whole.taken[number], name), value) for name, value in vars(taken).items())
        assert torch.equal(again[number].log_prob, taken.log_prob)


def begun(name):
    """Pipelines that begin within their schedule, by strength: what they take beside prompts, and their transition."""
    if name == "sd15_inpaint_blend":
        return builders.sd15_inpaint_blend(), masked(3), "ddim"
    if name == "sd15":
        pipe = builders.sd15()
        image = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
        return image, pictures(3), "ddim"
    pipe = builders.sd3()
    return StableDiffusion3Img2ImgPipeline(**pipe.components), pictures(3), "flow_sde"


@pytest.mark.parametrize("name", ["sd15", "sd3", "sd15_inpaint_blend"])
def test_a_loop_that_begins_within_its_schedule(name):
    """Strength .67 of four steps is two of them (.5 for SD3, which rounds otherwise): begin at 2. Steps count from there."""
    pipe, given, kind = begun(name)
    call = PLAIN | {"num_inference_steps": 4, "strength": 0.5 if name == "sd3" else 0.67, "guidance_scale": 3.0}
    call |= {"max_sequence_length": 16} if name == "sd3" else {}
    environment = Environment(pipe, call)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    expected = pipe(prompt=PROMPTS, generator=generators, **call, **given).images
    still, _ = environment.record(PROMPTS, SEEDS, Play(kind, 0.7, ()), given)
    assert [p.tobytes() for p in still] == [p.tobytes() for p in expected]
    for steps in ((0, 1), (1,)):
        _, played = environment.record(PROMPTS, SEEDS, Play(kind, 0.7, steps), given)
        assert played.begin == 2 and sorted(played.taken) == list(steps)
        seen = replayed(environment, played)
        for number, at in seen.items():
            assert torch.equal(at.log_prob, played.taken[number].log_prob)
            if name == "sd3":
                assert (at.level, at.next_level) == tuple(pipe.scheduler.sigmas[2 + number :][:2].tolist())
            else:
                # 751, 501, 251, 1
                assert at.level == pipe.scheduler.alphas_cumprod[[251, 1][number]].item()
    assert torch.equal(replayed(environment, played, (1,))[1].mean, played.taken[1].mean)


@pytest.mark.parametrize("build", [builders.sd15_inpaint_blend, builders.flux_inpaint])
@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_what_is_blended_in_has_the_level_of_its_step(build, strength):
    """The part of a picture that is kept comes back after each step, with the noise of that step: explored or not."""
    more = {"max_sequence_length": 16, "height": 16, "width": 16} if build is builders.flux_inpaint else {}
    environment = Environment(build(), PLAIN | more | {"num_inference_steps": 4, "strength": strength})
    kind = "flow_sde" if more else "ddim"
    _, late = environment.record(PROMPTS, SEEDS, Play(kind, 0.7, (2,)), masked(3))
    assert late.begin == (0 if strength == 1 else 1)
    _, early = environment.record(PROMPTS, SEEDS, Play(kind, 0.7, (0, 1, 2)), masked(3))
    same = (early.taken[2].x == late.taken[2].x).float().flatten(1).mean(1)
    # of 16 columns the first picture's mask paints 8, the others' 10 and 12; FLUX's latents are two pixels wide as well
    assert same.tolist() == [8 / 16, 6 / 16, 4 / 16]
    for played, steps in (early, (0, 2)), (early, None), (late, None):
        assert torch.equal(replayed(environment, played, steps)[2].log_prob, played.taken[2].log_prob)


def test_what_cannot_be_played_is_told(flow, ddim, sdxl):
    with pytest.raises(UserError, match=r"EulerDiscreteScheduler cannot be played: .*`scheduler: ddim`"):
        Environment(sdxl, PLAIN).record(PROMPTS, SEEDS, Play("ddim", 0.7, (0,)))
    with pytest.raises(UserError, match=r"Step 7 is to be explored, but the call has 3 steps \(0 to 2\)"):
        flow.record(PROMPTS, SEEDS, Play("flow_sde", 0.7, (1, 3, 7)))
    with pytest.raises(UserError, match=r"Step 2, from noise level 0.0089 to 0.0000, cannot be explored with 'cps'"):
        flow.record(PROMPTS, SEEDS, Play("cps", 0.7, (2,)))
    ddim.pipe.scheduler = type(ddim.pipe.scheduler).from_config(ddim.pipe.scheduler.config, set_alpha_to_one=True)
    with pytest.raises(UserError, match=r"Step 2, from noise level 0.\d+ to 1.0000, cannot be explored with 'ddim'"):
        ddim.record(PROMPTS, SEEDS, Play("ddim", 0.7, (2,)))
    zero = Environment(flow.pipe, SD3 | {"sigmas": [1.0, 0.5, 0.0]})
    with pytest.raises(UserError, match=r"Step 2, from noise level 0.0000 to 0.0000, cannot be explored"):
        zero.record(PROMPTS, SEEDS, Play("flow_sde", 0.7, (2,)))
    for still in (Play("flow_sde", 0.7, ()), Play("flow_sde", 0.0, (0, 1))):
        _, played = flow.record(PROMPTS, SEEDS, still)
        with pytest.raises(UserError, match="No step of this rollout was explored"):
            flow.replay(played, print)


def test_a_log_probability_that_is_not_finite_stops_the_run(flow):
    how = Play("flow_sde", 0.7, (0, 1))
    _, played = flow.record(PROMPTS, SEEDS, how)
    count = []

    def spoil(module, args, out):
        count.append(1)
        if len(count) == 2:
            out[0][1, 0, 0, 0] = math.nan

    handle = flow.denoiser.register_forward_hook(spoil)
    told = (
        r"The log-probability is nan at step 1 \(noise level 0.7511\) of the prompt 'two green triangles'; lower `lr`"
    )
    with pytest.raises(UserError, match=told):
        flow.record(PROMPTS, SEEDS, how)
    handle.remove()
    with torch.no_grad():
        flow.denoiser.proj_out.weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"is nan at step 0 \(noise level 1.0000\) of the prompt 'a red circle'"):
        replayed(flow, played)
    with pytest.raises(UserError, match=r"is nan at step 1 "):
        replayed(flow, played, (1,))


def test_latents_that_differ_stop_the_replay():
    """Blended with other noise after the first step, the second does not begin where it was recorded."""
    environment = Environment(builders.sd15_inpaint_blend(), PLAIN)
    _, played = environment.record(PROMPTS, SEEDS, Play("ddim", 0.7, (0, 1)), masked(3))
    assert sorted(replayed(environment, played)) == [0, 1]
    with pytest.raises(RuntimeError, match="At step 1 the pipeline came with other latents than were recorded"):
        replayed(environment, replace(played, seeds=[7, 8, 9]))


def test_what_was_recorded_lies_on_the_cpu_without_gradients(flow):
    flow.denoiser.requires_grad_(True)
    _, played = flow.record(PROMPTS, SEEDS, Play("flow_sde", 0.7, (0,)))
    assert not any(value.requires_grad for value in vars(played.taken[0]).values())
    seen = {}
    flow.replay(played, lambda at: seen.update({at.number: at}))
    assert seen[0].mean.requires_grad and seen[0].log_prob.requires_grad


def test_half_precision_is_replayed_to_the_bit(flow):
    """What was sampled is what the pipeline goes on with, rounded; mean and log-probability are in float32."""
    flow.pipe.to(torch.bfloat16)
    _, played = flow.record(PROMPTS, SEEDS, Play("flow_sde", 0.7, (0, 1)))
    seen = replayed(flow, played)
    for number, taken in played.taken.items():
        assert (taken.x.dtype, taken.y.dtype) == (torch.bfloat16, torch.bfloat16)
        assert torch.equal(taken.log_prob, seen[number].log_prob) and taken.log_prob.dtype == torch.float32
        drawn = taken.mean + seen[number].std * noise(taken.mean.shape[1:], number)
        assert torch.equal(taken.y, drawn.bfloat16())
        expected = gaussian(taken.y.float(), taken.mean, seen[number].std)
        torch.testing.assert_close(taken.log_prob, expected, rtol=0, atol=1e-5)
