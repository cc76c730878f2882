import dataclasses

import pytest
import torch

from spro_hf import advantages, methods, parts
from spro_hf.diffusion import schedule, transitions
from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.player import Play
from spro_hf.diffusion.policy import improve, plan
from spro_hf.errors import UserError
from spro_hf.methods import Lora, Policy

PROMPTS = ["a red circle", "a blue square", "a red circle", "two green triangles"]
CALL = {"num_inference_steps": 4, "guidance_scale": 2.5, "max_sequence_length": 0}
LORA = {"rank": 4, "alpha": 8, "targets": None}
WORTH = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.float64)
ALL = [[0, 1, 2, 3]]


def game(folder, policy, call=CALL, steps=(0, 1, 2), **options):
    """A learner, the weights it began with, and a recorded rollout of four pictures."""
    environment = Environment(load_generator(str(folder)), call)
    learner = Learner(environment, LORA, **{"lr": policy.lr, "seed": 0} | options)
    _, trajectory = environment.record(PROMPTS, [1, 2, 3, 4], Play(policy.transition, policy.exploration, steps))
    return learner, learner.copy(), trajectory


def gradients(folder, policy, parts=ALL, **options):
    """The summed gradients of one update, before clipping."""
    learner, start, trajectory = game(folder, policy, **options)
    found = {}
    learner.update = lambda: (
        found.update({n: p.grad.clone() for n, p in learner.named.items() if p.grad is not None}) or 0.0
    )
    improve(learner, start, trajectory, WORTH, parts, policy, tuple(trajectory.taken))
    return found


def chances(learner, trajectory):
    """Log-probabilities of the recorded steps under today's weights, (steps, samples)."""
    found = []
    with torch.no_grad():
        learner.environment.replay(trajectory, lambda at: found.append(at.log_prob))
    return torch.stack(found)


@pytest.mark.parametrize("transition", ["flow_sde", "cps", "dance"])
def test_good_pictures_become_likelier_and_bad_ones_less(sd3_folder, transition):
    policy = Policy(transition=transition, exploration=0.5, lr=1e-4, clip=1.0)
    learner, start, trajectory = game(sd3_folder, policy)
    before = chances(learner, trajectory)
    told = improve(learner, start, trajectory, WORTH, ALL, policy, (0, 1, 2))
    change = (chances(learner, trajectory) - before).mean(0)
    assert (change * WORTH).sum() > 0
    assert change[0] > change[1]
    assert told["ratio"] == 0.0 and told["clipped"] == 0.0 and told["norm"] > 0  # the rollout is the policy's own


def test_the_first_gradient_is_the_score_times_the_advantage(sd3_folder):
    """At ratio 1 the clipped loss has the gradient of −A·log p, averaged over four samples and three steps."""
    policy = Policy(exploration=0.5)
    got = gradients(sd3_folder, policy)
    learner, _, trajectory = game(sd3_folder, policy)
    learner.environment.replay(trajectory, lambda at: (-(WORTH * at.log_prob).sum() / 12).backward())
    for name, gradient in got.items():
        assert torch.allclose(gradient, learner.named[name].grad, atol=1e-9), name


def test_accumulation_is_a_larger_batch(sd3_folder):
    whole = gradients(sd3_folder, Policy(batch_size=4))
    split = gradients(sd3_folder, Policy(batch_size=1))
    scale = max(g.abs().max() for g in whole.values())
    assert max((whole[n] - split[n]).abs().max() for n in whole) < 1e-5 * scale
    assert scale > 1e-5


def test_kl_is_zero_at_the_start_and_pulls_back_later(sd3_folder):
    policy = Policy(exploration=0.5, kl=10.0, lr=1e-2)
    learner, start, trajectory = game(sd3_folder, policy)
    assert improve(learner, start, trajectory, WORTH, ALL, policy, (0, 1, 2))["kl"] == 0.0
    told = improve(learner, start, trajectory, torch.zeros(4), ALL, policy, (0, 1, 2))
    assert told["kl"] > 0
    again = improve(learner, start, trajectory, torch.zeros(4), ALL, dataclasses.replace(policy, lr=1e-3), (0, 1, 2))
    assert again["kl"] < told["kl"]


def test_published_kl_variances_differ_by_their_factors(sd3_folder):
    """Two transitions σ 1 → ¾ → ½ of four steps: std² has −Δ = ¼ in it; without it the divergence is ¼ of the true one."""
    told = {}
    for variance in ("true", "without_step", "none"):
        policy = Policy(exploration=0.5, kl=1.0, kl_variance=variance, lr=1e-2)
        learner, start, trajectory = game(sd3_folder, policy, steps=(1,))
        improve(learner, start, trajectory, WORTH, ALL, policy, (1,))
        told[variance] = improve(learner, start, trajectory, WORTH, ALL, policy, (1,))["kl"]
    sigma, after = learner.environment.pipe.scheduler.sigmas[1:3].tolist()
    std2 = 0.25 * sigma / (1 - sigma) * (sigma - after)  # a² σ/(1 − σ)·(−Δ)
    assert told["without_step"] == pytest.approx(told["true"] * (sigma - after), rel=1e-4)
    assert told["none"] == pytest.approx(told["true"] * 2 * std2, rel=1e-4)


def test_guarded_ratio_divides_by_the_step(sd3_folder):
    """At ratio 1 the guarded gradient of a step is the plain one times std/(−Δ)."""
    plain = gradients(sd3_folder, Policy(exploration=0.5), steps=(1,))
    guarded = gradients(sd3_folder, Policy(exploration=0.5, guarded=True), steps=(1,))
    learner, _, trajectory = game(sd3_folder, Policy(exploration=0.5), steps=(1,))
    seen = []
    learner.environment.replay(trajectory, seen.append)
    factor = seen[0].std / (seen[0].level - seen[0].next_level)
    for name in plain:
        assert torch.allclose(guarded[name], plain[name] * factor, rtol=1e-3, atol=1e-7), name


def test_without_guidance_learns_the_unguided_chain(sd3_folder):
    policy = Policy(exploration=0.5, guidance=False)
    learner, start, trajectory = game(sd3_folder, policy)
    asked = learner.environment.calls
    told = improve(learner, start, trajectory, WORTH, ALL, policy, (0, 1, 2))
    assert told["ratio"] == 0.0  # measured against the unguided chain as it was, not against the guided recording
    assert learner.environment.calls - asked == 2 * 4 * 3  # four samples, three steps: once as it was, once to learn
    guided = gradients(sd3_folder, Policy(exploration=0.5))
    unguided = gradients(sd3_folder, policy)
    assert any(not torch.allclose(guided[n], unguided[n], rtol=0.1) for n in guided)


def test_only_the_chosen_steps_and_rows_cost_anything(sd3_folder):
    policy = Policy(exploration=0.5)
    learner, start, trajectory = game(sd3_folder, policy)
    asked = learner.environment.calls
    improve(learner, start, trajectory, WORTH, [[0, 2]], policy, (1,))
    assert learner.environment.calls - asked == 2 * 2  # two samples, one step, with guidance
    assert learner.updates == 1
    improve(learner, start, trajectory, WORTH, [[0, 2], [1, 3]], policy, (1,))
    assert learner.updates == 3


def test_bf16_learns(sd3_folder):
    environment = Environment(load_generator(str(sd3_folder), dtype="bfloat16"), CALL)
    learner = Learner(environment, LORA, lr=1e-3, seed=0)
    assert environment.denoiser.dtype == torch.bfloat16
    assert {p.dtype for p in learner.parameters} == {torch.float32}
    _, trajectory = environment.record(PROMPTS, [1, 2, 3, 4], Play("flow_sde", 0.5, (0, 1)))
    assert trajectory.taken[0].log_prob.dtype == torch.float32
    told = improve(learner, learner.copy(), trajectory, WORTH, ALL, Policy(), (0, 1))
    assert told["ratio"] == 0.0 and told["norm"] > 0  # the same batch, so the same rounding


def test_recipes_know_the_names_of_the_functions():
    assert set(methods.TRANSITIONS) == set(transitions.TRANSITIONS)
    assert set(methods.ADVANTAGES) == set(advantages.OVER)
    assert set(parts.SCHEDULERS) == set(schedule.PLAYED)


def test_plans():
    assert plan(Policy(), 8, 0) == (Play("flow_sde", 0.7, (0, 1, 2, 3, 4, 5, 6)), (0, 1, 2, 3, 4, 5, 6))
    for seed in range(20):
        play, learned = plan(Policy(range=(1, 6), window=2), 8, seed)
        assert play.steps == learned and learned[1] == learned[0] + 1 and 1 <= learned[0] <= 4
        play, learned = plan(Policy(fraction=0.6), 8, seed)
        assert play.steps == (0, 1, 2, 3, 4, 5, 6) and len(set(learned)) == 4 and set(learned) <= set(play.steps)
    assert len({plan(Policy(range=(0, 5), window=2), 8, seed)[1] for seed in range(40)}) == 4  # every place is drawn


@pytest.mark.parametrize(
    ("policy", "total", "message"),
    [
        ({"range": (5, 12)}, 8, r"'range' is \[5, 12\], but the call has 8 steps \(0 to 7\)"),
        ({"range": (2, 4), "window": 3}, 8, "'window' is 3, but steps 2 to 3 may explore; give 1 to 2"),
        ({"range": (0, 8), "transition": "cps"}, 8, "the last step, 7, goes to σ = 0"),
        ({}, 1, "needs at least 2"),
    ],
)
def test_steps_outside_the_call_are_named(policy, total, message):
    with pytest.raises(ValueError, match=message):
        plan(Policy(**policy), total, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exploration": 0.0}, "'exploration' is 0"),
        ({"transition": "cps", "exploration": 1.5}, "with 'cps' it is at most 1"),
        ({"transition": "flow"}, "did you mean 'flow_sde'"),
        ({"window": 2, "fraction": 0.5}, "exclude each other"),
        ({"guarded": True, "transition": "cps"}, "'guarded' needs the density"),
        ({"kl_variance": "without_step", "transition": "ddim"}, "no Δσ"),
        ({"range": (3,)}, "its first step and the step behind its last"),
        ({"ema": 1.0}, "between 0 and 1"),
        ({"lora": Lora(4, 8), "clip": 0.0}, "'clip' is 0"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Policy(**fields)


def test_a_loss_that_is_not_finite_names_step_level_and_prompt(sd3_folder):
    policy = Policy(exploration=0.5)
    learner, start, trajectory = game(sd3_folder, policy)
    worth = WORTH.clone()
    worth[1] = float("inf")
    with pytest.raises(
        UserError, match=r"loss is .*inf at step 0 \(noise level 1\.0000\) of the prompt 'a blue square'"
    ):
        improve(learner, start, trajectory, worth, ALL, policy, (0, 1, 2))
