import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from families import builders, pictures

from spro_hf.diffusion.environment import Environment
from spro_hf.diffusion.player import Play
from spro_hf.errors import UserError

CAPTIONS = ["a red circle", "a blue square on a white ground", "a red circle", "two green triangles"]
SD3 = {"num_inference_steps": 3, "guidance_scale": 2.5, "max_sequence_length": 0}


def stack(images):
    return np.stack([np.asarray(i, dtype=int) for i in images])


def test_render_equals_the_stock_call(sd3):
    got = Environment(sd3, SD3).render(CAPTIONS, [0, 1, 2, 3])
    stock = sd3(CAPTIONS, generator=[torch.Generator().manual_seed(s) for s in range(4)], **SD3).images
    assert np.array_equal(stack(got), stack(stock))
    assert stack(got).std() > 1


@pytest.mark.parametrize("family", ["sd3", "sd15", "sdxl"])
def test_picture_does_not_depend_on_its_batch(family, request):
    pipe = request.getfixturevalue(family)
    call = SD3 if family == "sd3" else {"num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": "red"}
    counts: list[int] = []
    whole = Environment(pipe, call).render(CAPTIONS, [5, 6, 7, 8])
    again = Environment(pipe, call).render(CAPTIONS, [5, 6, 7, 8])
    split = Environment(pipe, call, batch_size=3).render(CAPTIONS, [5, 6, 7, 8], counts.append)
    last = Environment(pipe, call).render(CAPTIONS[3:], [8])
    assert counts == [3, 1]
    assert np.array_equal(stack(whole), stack(again))
    assert abs(stack(whole) - stack(split)).max() <= 1
    assert abs(stack(whole)[3] - stack(last)[0]).max() <= 1
    assert not np.array_equal(stack(whole)[0], stack(whole)[2])  # the same prompt from other noise


def test_noise_of_the_schedule_belongs_to_the_picture(sdxl):
    sdxl.scheduler = EulerAncestralDiscreteScheduler.from_config(sdxl.scheduler.config)
    call = {"num_inference_steps": 3, "guidance_scale": 1.0}
    whole = Environment(sdxl, call).render(CAPTIONS, [5, 6, 7, 8])
    split = Environment(sdxl, call, batch_size=1).render(CAPTIONS, [5, 6, 7, 8])
    assert abs(stack(whole) - stack(split)).max() <= 1


@pytest.mark.parametrize("family", ["sd3", "sd15", "sdxl"])
def test_encode_is_undone_by_the_pipelines_decoding(family, request, pictures):
    pipe = request.getfixturevalue(family)
    environment = Environment(pipe, {}, batch_size=3)
    pictures = [p.resize((32, 32) if family == "sd3" else (16, 16)) for p in pictures[:4]]
    x0 = environment.encode(pictures)
    pixels = pipe.image_processor.preprocess(pictures)
    with torch.no_grad():
        raw = pipe.vae.encode(pixels)
        raw = raw.latents if family == "sd3" else raw.latent_dist.mean
    scale = {"sd3": 3.0, "sd15": 0.18215, "sdxl": 0.18215}[family]
    assert torch.allclose(x0, raw * scale, atol=1e-5)
    assert pixels.min() == -1  # the autoencoder was given [-1, 1]


def test_encode_knows_shift_and_per_channel_statistics(sd15, pictures):
    plain = Environment(sd15, {}).encode(pictures[:1])
    sd15.vae.register_to_config(shift_factor=0.5)
    assert torch.allclose(Environment(sd15, {}).encode(pictures[:1]), plain - 0.5 * 0.18215, atol=1e-6)
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 4.0, 8.0]
    sd15.vae.register_to_config(shift_factor=None, latents_mean=mean, latents_std=std)
    m, s = (torch.tensor(v).view(1, 4, 1, 1) for v in (mean, std))
    expected = (plain / 0.18215 - m) / s * 0.18215
    assert torch.allclose(Environment(sd15, {}).encode(pictures[:1]), expected, atol=1e-6)


def test_probe_equals_the_transformer_called_by_hand(sd3):
    environment = Environment(sd3, SD3)
    latents = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 0.9, 1.0])
    scheduler, config = sd3.scheduler, dict(sd3.config)
    got = environment.probe(CAPTIONS, latents, sigma)
    with torch.no_grad():
        embeds, _, pooled, _ = sd3.encode_prompt(
            CAPTIONS, None, None, do_classifier_free_guidance=False, max_sequence_length=0
        )
    hand = sd3.transformer(latents, embeds, pooled, timestep=sigma * 1000, return_dict=False)[0]
    # not to the bit on every CPU: the environment encodes each distinct caption once, a batch of another size
    assert torch.allclose(got, hand, atol=2e-5)
    assert got.requires_grad
    assert sd3.scheduler is scheduler and dict(sd3.config) == config


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_probe_works_for_unets(family, request):
    pipe = request.getfixturevalue(family)
    environment = Environment(pipe, {"guidance_scale": 5.0})
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0, 10, 500, 999])
    got = environment.probe(CAPTIONS, latents, levels)
    with torch.no_grad():
        parts = pipe.encode_prompt(CAPTIONS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    sizes = torch.tensor([[16, 16, 0, 0, 16, 16]] * 4, dtype=torch.float32)  # original size, corner, target size
    added = {"text_embeds": parts[2], "time_ids": sizes} if family == "sdxl" else None
    hand = pipe.unet(latents, levels, parts[0], added_cond_kwargs=added, return_dict=False)[0]
    assert torch.allclose(got, hand, atol=2e-5)


def test_scheduler_comes_back_when_the_denoiser_fails(sd3):
    scheduler = sd3.scheduler
    with pytest.raises(UserError, match=r"latents of shape \(4, 16, 8, 8\) and was given \(4, 3, 8, 8\)"):
        Environment(sd3, SD3).probe(CAPTIONS, torch.zeros(4, 3, 8, 8), torch.ones(4))
    assert sd3.scheduler is scheduler
    assert "prepare_latents" not in vars(sd3) and "encode_prompt" not in vars(sd3)


def test_noising_by_hand(sd3, sd15):
    x0, noise = torch.full((2, 16, 1, 1), 2.0), torch.full((2, 16, 1, 1), -1.0)
    flow = Environment(sd3, {})
    # (1 − σ)·2 − σ: 1.25 at σ = ¼, −1 at σ = 1; target ε − x0 = −3
    assert flow.noised(x0, noise, torch.tensor([0.25, 1.0]))[:, 0, 0, 0].tolist() == [1.25, -1.0]
    assert flow.target(x0, noise, torch.tensor([0.25, 1.0])).unique().tolist() == [-3.0]
    ddpm = Environment(sd15, {})
    # ᾱ at 500 from the betas' own definition
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = (1 - betas).cumprod(0)[500]
    level = torch.tensor([500, 500])
    assert torch.allclose(ddpm.noised(x0, noise, level).double(), a.sqrt() * 2 - (1 - a).sqrt())
    assert ddpm.target(x0, noise, level) is noise
    sd15.scheduler = DDIMScheduler.from_config(sd15.scheduler.config, prediction_type="v_prediction")
    assert torch.allclose(ddpm.target(x0, noise, level).double(), -a.sqrt() - (1 - a).sqrt() * 2)


def test_levels_are_drawn_from_their_distributions(sd3, sd15):
    sigma = Environment(sd3, {}).draw_levels(20000, torch.Generator().manual_seed(0))
    assert abs(sigma.logit().mean()) < 0.03 and abs(sigma.logit().std() - 1) < 0.03
    steps = Environment(sd15, {}).draw_levels(20000, torch.Generator().manual_seed(0))
    assert (steps.min(), steps.max()) == (0, 999) and abs(steps.float().mean() - 499.5) < 8


def test_bad_input_is_named(sd3, sd15):
    with pytest.raises(UserError, match="'guidance_scal'; did you mean 'guidance_scale'"):
        Environment(sd3, {"guidance_scal": 2.0})
    with pytest.raises(UserError, match="'latents' is set by"):
        Environment(sd3, {"latents": None})
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        Environment(sd3, SD3).render(["a", "b"], [0])
    sd15.scheduler = EDMEulerScheduler()
    with pytest.raises(UserError, match="EDMEulerScheduler"):
        _ = Environment(sd15, {}).kind


def test_what_goes_by_the_steps_number_is_not_replayed(sd3):
    """A replay of the third step alone calls it the first: what begins or ends at a step would be at another."""
    played = Environment(sd3, SD3).record(CAPTIONS, [1, 2, 3, 4], Play("flow_sde", 0.7, (2,)))[1]
    with pytest.raises(UserError, match="call: 'skip_guidance_layers' goes by the step's number"):
        Environment(sd3, SD3 | {"skip_guidance_layers": [0]}).replay(played, print)
    seen = []
    Environment(sd3, SD3 | {"skip_guidance_layers": None}).replay(played, seen.append)
    assert [at.number for at in seen] == [2]


def test_steps_are_the_calls_or_the_pipelines(sd3, sd15):
    assert Environment(sd3, SD3).steps == 3
    assert (Environment(sd3, {}).steps, Environment(sd15, {}).steps) == (28, 50)


def test_guidance_is_switched_off_by_what_the_pipeline_knows(sd3):
    assert Environment(sd3, SD3).unguided == {"guidance_scale": 1.0}
    sd3.transformer.register_to_config(guidance_embeds=True)  # then the scale is an input of the denoiser, as FLUX's
    assert Environment(sd3, SD3).unguided == {}


def test_calls_are_counted_over_runs(sd3):
    environment = Environment(sd3, SD3)
    environment.render(CAPTIONS, [1, 2, 3, 4])
    assert environment.calls == 0
    _, played = environment.record(CAPTIONS, [1, 2, 3, 4], Play("flow_sde", 0.7, (0, 1)))
    assert environment.calls == 4 * 3 * 2  # pictures, steps, with and without the prompt
    environment.replay(played, lambda at: None, (1,), guidance=False)
    assert environment.calls == 24 + 4


def test_a_probe_has_one_step_whatever_the_strength():
    """Half the strength of one step would be no step: the probe's levels are its own."""
    pipe = StableDiffusionImg2ImgPipeline(**builders.sd15().components, requires_safety_checker=False)
    given, levels = pictures(2), torch.tensor([100, 700])
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    call = {"num_inference_steps": 3, "guidance_scale": 1.0}
    whole, part = (Environment(pipe, call | {"strength": strength}) for strength in (1.0, 0.5))
    expected = whole.probe(["a", "b"], latents, levels, given)
    assert torch.equal(part.probe(["a", "b"], latents, levels, given), expected)
