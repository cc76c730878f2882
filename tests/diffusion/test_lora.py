import json

import numpy as np
import pytest
import torch
from families import builders
from safetensors import safe_open

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.lora import WEIGHTS, add_lora, has_lora, load_lora, save_lora, switched
from spro_hf.diffusion.player import Play
from spro_hf.diffusion.schedule import play_with
from spro_hf.errors import UserError

CALL = {"num_inference_steps": 2, "guidance_scale": 2.5}


def picture(pipe, **call):
    return np.asarray(Environment(pipe, CALL | call).render(["a red circle"], [3])[0])


def stir(parameters):
    """Give B something other than zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)


def test_only_the_lora_asks_for_gradients_and_the_picture_stays(sd3):
    before, state = picture(sd3), torch.random.get_rng_state()
    parameters = add_lora(sd3, rank=4, alpha=8)
    # 6 blocks × 4 projections of 128 → 128, A and B of rank 4 each: 6·4·(4·128 + 128·4)
    assert sum(p.numel() for p in parameters) == 24576
    asking = [n for n, p in sd3.transformer.named_parameters() if p.requires_grad]
    assert len(asking) == len(parameters) == 48 and all("lora_" in n for n in asking)
    assert not any(p.requires_grad for m in (sd3.vae, sd3.text_encoder, sd3.text_encoder_2) for p in m.parameters())
    assert np.array_equal(picture(sd3), before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_start_follows_the_seed(sd3_folder):
    starts = [add_lora(load_generator(str(sd3_folder)), 2, 2, seed=seed) for seed in (0, 0, 1)]
    same, other = (all(map(torch.equal, starts[0], starts[i])) for i in (1, 2))
    assert same and not other


@pytest.mark.parametrize("targets", ["to_q|proj_out", r"transformer_blocks\.\d\.attn\.to_q|proj_out"])
def test_targets_are_names_or_a_regular_expression(sd3, targets):
    add_lora(sd3, 2, 2, targets)
    layers = {n.split(".lora_A")[0] for n, _ in sd3.transformer.named_parameters() if ".lora_A" in n}
    assert layers == {"proj_out", *(f"transformer_blocks.{i}.attn.to_q" for i in range(6))}


def test_stock_loading_gives_the_same_picture(sd3, sd3_folder, tmp_path):
    plain = picture(sd3, max_sequence_length=0)
    stir(add_lora(sd3, rank=4, alpha=2))  # alpha / rank = 0.5: lost metadata would show as another picture
    save_lora(sd3, tmp_path)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        kept = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (kept["transformer.r"], kept["transformer.lora_alpha"]) == (4, 2)
    trained = picture(sd3, max_sequence_length=0)
    assert not np.array_equal(trained, plain)
    stock, ours = load_generator(str(sd3_folder)), load_generator(str(sd3_folder))
    stock.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    load_lora(ours, tmp_path)
    assert np.array_equal(picture(stock, max_sequence_length=0), trained)
    assert np.array_equal(picture(ours, max_sequence_length=0), trained)
    ours.disable_lora()
    assert np.array_equal(picture(ours, max_sequence_length=0), plain)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_unets_too(family, request, tmp_path):
    pipe = request.getfixturevalue(family)
    stir(add_lora(pipe, rank=4, alpha=2))
    save_lora(pipe, tmp_path)
    trained = picture(pipe)
    pipe.unload_lora_weights()
    plain = picture(pipe)
    pipe.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    assert not np.array_equal(plain, trained)
    assert np.array_equal(picture(pipe), trained)


def test_targets_that_fit_nothing_are_named(sd3):
    with pytest.raises(UserError, match=r"lora.targets: 'to_z' fits no layer; .*'to_q'"):
        add_lora(sd3, 2, 2, "to_z")


def test_bad_input_is_named(sd3, tmp_path):
    with pytest.raises(UserError, match="holds no pytorch_lora_weights"):
        load_lora(sd3, tmp_path)
    add_lora(sd3, 2, 2)
    with pytest.raises(UserError, match="carries a LoRA of rank 2 and alpha 2"):
        add_lora(sd3, 4, 2)


def test_a_lora_that_is_there_goes_on(sd3, tmp_path):
    first = add_lora(sd3, 2, 4)
    with torch.no_grad():
        for parameter in first:
            parameter.add_(0.1)
    save_lora(sd3, tmp_path)
    sd3.unload_lora_weights()
    load_lora(sd3, tmp_path)
    again = add_lora(sd3, 2, 4)
    assert sum(p.numel() for p in again) == sum(p.numel() for p in first)
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True)) and all(p.requires_grad for p in again)
    frozen = [p for n, p in sd3.transformer.named_parameters() if "lora_" not in n]
    assert not any(p.requires_grad for p in frozen)


PIXART = {
    "num_inference_steps": 3, "guidance_scale": 3.0, "height": 16, "width": 16, "max_sequence_length": 16,
    "use_resolution_binning": False, "clean_caption": False,
}  # fmt: skip


def pixart():
    pipe = builders.pixart()
    play_with(pipe, "ddim")
    return pipe, Environment(pipe, PIXART)


@torch.no_grad()
def log_probs(environment, played):
    seen = []
    environment.replay(played, lambda at: seen.append(at.log_prob))
    return torch.stack(seen)


@pytest.mark.parametrize("targets", [None, r".*attn1\.to_[qkv]"])
def test_pixart_through_peft(tmp_path, targets):
    """diffusers has no LoRA for it: what PEFT puts in and takes out gives the same log-probabilities after reloading."""
    pipe, environment = pixart()
    _, played = environment.record(["a red circle", "a blue square"], [3, 4], Play("ddim", 0.7, (0, 1)))
    plain = torch.stack([taken.log_prob for taken in played.taken.values()])
    parameters = add_lora(pipe, rank=4, alpha=2, targets=targets)
    assert torch.equal(log_probs(environment, played), plain)  # B begins at 0
    stir(parameters)
    trained = log_probs(environment, played)
    assert not (trained == plain).any()
    save_lora(pipe, tmp_path)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert all(key.startswith("transformer.") and "lora_" in key for key in file.keys())  # noqa: SIM118
        assert len(list(file.keys())) == len(parameters)
    fresh, other = pixart()
    assert not has_lora(fresh) and torch.equal(log_probs(other, played), plain)
    load_lora(fresh, tmp_path)
    assert has_lora(fresh) and torch.equal(log_probs(other, played), trained)
    with switched(fresh, False):
        assert torch.equal(log_probs(other, played), plain)
    again = add_lora(fresh, rank=4, alpha=2, targets=targets)  # goes on with what was loaded
    assert len(again) == len(parameters) and all(map(torch.equal, again, parameters))
    assert all(p.requires_grad for p in again)


def test_switching_off_holds_for_a_while_only(sd3):
    plain = picture(sd3)
    with switched(sd3, False):  # nothing to switch
        assert np.array_equal(picture(sd3), plain)
    stir(add_lora(sd3, 4, 4))
    trained = picture(sd3)
    with switched(sd3, True):
        assert np.array_equal(picture(sd3), trained)
    with pytest.raises(ZeroDivisionError), switched(sd3, False):
        assert np.array_equal(picture(sd3), plain)
        _ = 1 / 0
    assert np.array_equal(picture(sd3), trained) and not np.array_equal(trained, plain)
