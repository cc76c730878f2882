"""Pictures into latents: undone by each pipeline's own unpacking and scaling, they are what its autoencoder made of them."""

import pytest
import torch
from PIL import Image

from spro_hf.diffusion.environment import Environment
from spro_hf.errors import UserError
from tests.diffusion.families import builders

CALL = {"height": 16, "width": 32, "num_inference_steps": 2}


@pytest.fixture
def picture():
    values = torch.arange(16 * 32 * 3, dtype=torch.uint8).reshape(16, 32, 3)
    return Image.fromarray(values.numpy())


def pixels(pipe, picture):
    return pipe.image_processor.preprocess([picture])


def test_flux_packs_what_its_unpacking_undoes(picture):
    pipe = builders.flux()
    x0 = Environment(pipe, CALL).encode([picture] * 3)
    assert x0.shape == (3, 8 * 4 * 4 // 4, 16)  # 8×16 latents in patches of two by two, 4 channels each
    back = pipe._unpack_latents(x0, 16, 32, pipe.vae_scale_factor)
    back = back / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    with torch.no_grad():
        assert torch.allclose(back[0], pipe.vae.encode(pixels(pipe, picture)).latent_dist.mode()[0], atol=1e-5)


def test_qwen_image_packs_one_frame_normalised_by_channel(picture):
    pipe = builders.qwen_image()
    x0 = Environment(pipe, CALL).encode([picture])
    back = pipe._unpack_latents(x0, 16, 32, pipe.vae_scale_factor)
    mean, std = (torch.tensor(pipe.vae.config[n]).view(1, -1, 1, 1, 1) for n in ("latents_mean", "latents_std"))
    with torch.no_grad():
        own = pipe.vae.encode(pixels(pipe, picture).unsqueeze(2)).latent_dist.mode()
    assert torch.allclose(back * std + mean, own, atol=1e-5)


@pytest.mark.parametrize("build", [builders.sd3, builders.z_image, builders.sdxl, builders.sana])
def test_latents_of_other_families_stay_as_they_are(build, picture):
    pipe = build()
    x0 = Environment(pipe, CALL).encode([picture])
    config = pipe.vae.config
    with torch.no_grad():
        own = pipe.vae.encode(pixels(pipe, picture))
        own = own.latent if hasattr(own, "latent") else own.latent_dist.mode()
    # the pipelines decode x0 / scale + shift
    assert torch.allclose(x0 / config.scaling_factor + (config.get("shift_factor") or 0.0), own, atol=1e-5)


@pytest.mark.parametrize("build", [builders.flux, builders.qwen_image])
def test_the_probe_takes_packed_latents(build, picture):
    environment = Environment(build(), CALL)
    x0 = environment.encode([picture] * 2)
    said = environment.probe(
        ["a red circle", "a star"], x0, environment.draw_levels(2, torch.Generator().manual_seed(0))
    )
    assert said.shape == x0.shape and said.std() > 0


def test_pictures_are_brought_to_the_calls_size(picture):
    environment = Environment(builders.sd3(), CALL)
    large = picture.resize((64, 32), Image.Resampling.NEAREST)
    assert environment.encode([large]).shape == environment.encode([picture]).shape
    assert Environment(builders.sd3(), {}).encode([large]).shape[-1] == 2 * environment.encode([picture]).shape[-1]


def test_a_layout_of_its_own_is_refused(picture):
    with pytest.raises(UserError, match="Flux2Pipeline packs its latents in its own way"):
        Environment(builders.flux2(), CALL).encode([picture])
