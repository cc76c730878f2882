"""`make world` in seconds: every training runs, and what is assembled loads by stock classes and scores by ours."""

from __future__ import annotations

import torch
from diffusers import AutoPipelineForText2Image

from spro_hf import rewards
from spro_hf.tiny import home
from spro_hf.tiny.make import ddim, generator
from spro_hf.tiny.make.__main__ import MINUTES, _beside, _generators, assemble
from spro_hf.tiny.make.common import clip_tokenizer, scenes, token_ids


def test_every_training_runs_and_the_world_comes_together(tmp_path):
    parts, out, threads = tmp_path / "parts", tmp_path / "world", torch.get_num_threads()
    parts.mkdir()
    _beside(parts, dict.fromkeys(MINUTES, 0.02), examples=512)
    _generators(parts, dict.fromkeys(MINUTES, 0.02))
    torch.set_num_threads(threads)
    assemble(parts, out)
    pipe = AutoPipelineForText2Image.from_pretrained(out / "generator")
    pipe.set_progress_bar_config(disable=True)
    (image,) = pipe("a red circle", num_inference_steps=2, max_sequence_length=1).images
    assert image.size == (32, 32)
    pipe = AutoPipelineForText2Image.from_pretrained(out / "ddim-generator")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=2).images[0].size == (32, 32)
    for name in ("aesthetic", "engagement"):
        (score,) = rewards.REWARDS[name](str(out / name), str(out / "clip"))([image], ["a red circle"])
        assert isinstance(score, float)
    assert {f.name for f in out.iterdir()} == {
        "aesthetic", "clip", "ddim-generator", "engagement", "flawed-pickscore", "generator", "guider", "judge", "oracle",
        "pickscore", "varied-generator",
    }  # fmt: skip


def test_the_encoder_carries_principal_components_exactly():
    import numpy as np

    vae = generator.build().vae
    pictures = scenes(np.random.default_rng(3), 8)[1]
    with torch.no_grad():
        latents = vae.encode(pictures).latents * generator.SCALING
    assert latents.shape == (8, 16, 8, 8) and 0.9 < latents.std() < 1.15
    # linear: the latents of a mean of pictures are the mean of their latents
    with torch.no_grad():
        mixed = vae.encode((pictures[:4] + pictures[4:]) / 2).latents * generator.SCALING
    assert torch.allclose(mixed, (latents[:4] + latents[4:]) / 2, atol=1e-4)
    # a patch is seen by itself: changing one 4×4 patch moves one latent pixel
    changed = pictures.clone()
    changed[:, :, 8:12, 16:20] = 0
    with torch.no_grad():
        moved = (vae.encode(changed).latents * generator.SCALING - latents).abs().sum((0, 1)) > 1e-6
    assert moved.nonzero().tolist() == [[2, 4]]


def test_the_ddim_generator_starts_as_the_identity_and_weighs_errors_as_those_of_v():
    unet = ddim.build(home.path("generator")).unet.eval()
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = unet(x, torch.tensor([1, 999]), torch.ones(2, 24, 64)).sample
    # the last norm has 16 groups of 4 channels, x and −x of two latents: mean zero, so it divides by their mean square's root
    size = x.reshape(2, 8, 2 * 64).pow(2).mean(-1).add(1e-5).sqrt().repeat_interleave(2, 1)[:, :, None, None]
    assert torch.allclose(told, x / size, atol=1e-5)
    assert ddim.weights(torch.tensor([0.8, 0.5, 0.01])).tolist() == [1.25, 2, 20]


def test_the_tokenizer_gives_one_token_a_word():
    tokenizer = clip_tokenizer()
    words = ["a", "red", "circle", "left", "of", "an", "orange", "triangle", "on", "forest", ",", "soft", "shadow"]
    assert len(tokenizer.tokenize(" ".join(words))) == len(words)
    assert token_ids(tokenizer, ["a red circle", ""]).shape == (2, 24)
