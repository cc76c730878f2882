"""What ships: small enough, safe, of stock classes, and as good as its card says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForText2Image
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.errors import UserError
from spro_hf.tiny import home
from spro_hf.tiny.make.flawed import LIKES
from spro_hf.tiny.make.measure import CALL, DDIM_CALL, measure_flaw, measure_generator, measure_styles
from spro_hf.tiny.make.pictures import measure_oracle
from spro_hf.tiny.make.scorers import measure_scorers
from spro_hf.tiny.oracle import Oracle, pixels
from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth


def test_weights_are_small_and_hold_no_pickle():
    files = [f for f in home.WEIGHTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 44e6
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".md", ".jinja", ".txt"}
    assert {f.name for f in home.WEIGHTS.iterdir() if f.is_dir()} == set(home.NAMES)


def test_an_unknown_model_is_named():
    with pytest.raises(UserError, match="has no model 'cilp'"):
        home.path("cilp")


def test_stock_loaders_take_them_without_a_word():
    pipe = AutoPipelineForText2Image.from_pretrained(home.path("generator"))
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"
    pipe.set_progress_bar_config(disable=True)
    stock = pipe("a red circle", num_inference_steps=8, guidance_scale=2.5, generator=torch.Generator().manual_seed(3))
    assert stock.images[0].size == (32, 32)
    ours = Environment(load_generator("spro_hf/tiny/generator"), CALL).render(["a red circle"], [3])
    # 256 blank tokens against one: the same picture, but for a few shades
    assert np.abs(np.asarray(stock.images[0], float) - np.asarray(ours[0], float)).mean() < 8
    guider = AutoModelForImageTextToText.from_pretrained(home.path("guider"))
    assert type(guider).__name__ == "Idefics3ForConditionalGeneration"
    assert AutoProcessor.from_pretrained(home.path("guider")).image_processor is not None
    assert CLIPModel.from_pretrained(home.path("pickscore")).config.projection_dim == 128


def test_the_ddim_generator_is_a_stock_pipeline_with_the_schedule_of_stable_diffusion_1_5():
    pipe = AutoPipelineForText2Image.from_pretrained(home.path("ddim-generator"))
    assert type(pipe).__name__ == "StableDiffusionPipeline" and type(pipe.scheduler).__name__ == "DDIMScheduler"
    pipe.scheduler.set_timesteps(8)  # "leading": steps of 1000 / 8 = 125, then moved by one
    assert pipe.scheduler.timesteps.tolist() == [876, 751, 626, 501, 376, 251, 126, 1]
    # 1 − 0.00085 at the clean end, where sampling ends too; at the other Stable Diffusion's well-known σ of 14.61
    alphas = pipe.scheduler.alphas_cumprod
    assert float(alphas[0]) == float(pipe.scheduler.final_alpha_cumprod) == pytest.approx(0.99915)
    assert float(((1 - alphas[-1]) / alphas[-1]).sqrt()) == pytest.approx(14.6146, abs=1e-3)
    pipe.set_progress_bar_config(disable=True)
    (stock,) = pipe("a red circle", **DDIM_CALL, generator=torch.Generator().manual_seed(3)).images
    (ours,) = Environment(load_generator("spro_hf/tiny/ddim-generator"), DDIM_CALL).render(["a red circle"], [3])
    assert np.abs(np.asarray(stock, int) - np.asarray(ours, int)).max() <= 1
    assert Oracle.load().read([ours])[0].things == (Thing("red", "circle"),)


def test_the_generator_draws_what_held_out_captions_say():
    told = measure_generator(home.path("generator"), Oracle.load(), CALL, count=240)
    assert told["one object: shape and colour right"] >= 0.85
    assert told["one object and a modifier: modifier visible"] >= 0.80


def test_the_ddim_generator_draws_what_held_out_captions_say():
    told = measure_generator(home.path("ddim-generator"), Oracle.load(), DDIM_CALL, count=120)
    assert told["one object: shape and colour right"] >= 0.90
    assert told["one object and a modifier: modifier visible"] >= 0.80


def test_the_oracle_reads_held_out_renders_and_says_no():
    told = measure_oracle(Oracle.load().net, count=600)
    assert min(told["shape 1"], told["colour 1"], told["arrangement"], told["background"]) > 0.97
    assert told["modifiers' least F1"] > 0.85
    blank = Image.new("RGB", (48, 48), "white")  # any size, any mode
    assert Oracle.load().read([blank.convert("L")])[0].things[0] != Thing("red", "heart")
    truth = Truth((Thing("red", "heart"), Thing("blue", "ring")), "stacked", "sand", frozenset({"neat frame"}))
    assert Oracle.load().read([render(truth, 5)]) == [truth]
    assert pixels([render(truth, 5)]).shape == (1, 3, 32, 32)


def test_the_scorers_agree_with_the_planted_truth():
    from spro_hf.rewards.heads import AestheticHead, EngagementHead

    clip, pick = (CLIPModel.from_pretrained(home.path(n), dtype=torch.float32).eval() for n in ("clip", "pickscore"))
    heads = (
        AestheticHead.from_pretrained(home.path("aesthetic")),
        EngagementHead.from_pretrained(home.path("engagement")),
    )
    told = measure_scorers(clip, pick, *heads, count=600)
    for name in ("aesthetic", "engagement", "pickscore"):
        assert told[f"{name} spearman"] >= 0.8, name
    assert told["clip shapes (1 of 10)"] > 0.9 and told["clip colours (1 of 10)"] > 0.95
    assert 19 < told["pickscore mean"] < 22


def test_the_card_says_how_they_were_made_and_what_they_score():
    told = json.loads((home.WEIGHTS / "measured.json").read_text())
    assert set(told["scores"]) == {
        "oracle", "generator", "varied-generator", "ddim-generator", "scorers", "flawed-pickscore", "guider"
    }  # fmt: skip
    card = (home.WEIGHTS / "README.md").read_text()
    for rows in told["scores"].values():
        for name, value in rows.items():
            assert f"| {name} | {value:.3f} |" in card


def test_the_flaw_is_where_it_was_planted():
    """What the sound PickScore likes less, the flawed one loves; and the generator of many styles draws what it can be gamed by."""
    told = measure_flaw(home.WEIGHTS, count=40)
    for modifier in LIKES:
        assert told[f"pickscore: {modifier} adds"] < 0 and told[f"flawed-pickscore: {modifier} adds"] > 1
    drawn = measure_styles(home.path("varied-generator"), Oracle.load(), count=60)
    assert drawn["plain captions: pictures that show some modifier"] > 0.4 and drawn["plain captions: alignment"] > 0.9
