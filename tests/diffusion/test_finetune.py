import pytest
import torch

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.finetune import finetune
from spro_hf.errors import UserError

CAPTIONS = [f"a {c} {s}" for c in ("red", "blue", "green", "white") for s in ("circle", "square")]
LORA = {"rank": 8, "alpha": 16, "targets": "to_q|to_k|to_v|to_out.0|proj_out|ff.net.2"}
SHORT = {"steps": 3, "batch_size": 4, "lr": 1e-3, "seed": 0}


def everything(pipe):
    """All parameters of all components, copied, under names without PEFT's own level."""
    modules = [(n, m) for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)]
    return {
        f"{part}.{name.replace('.base_layer', '')}": p.detach().clone()
        for part, module in modules
        for name, p in module.named_parameters()
    }


def test_loss_falls_and_only_the_lora_moves(sd3, pictures):
    before, seen = everything(sd3), []
    environment = Environment(sd3, {"num_inference_steps": 2, "max_sequence_length": 0})
    result = finetune(
        environment, CAPTIONS, pictures, steps=40, batch_size=8, lr=3e-3, seed=0, lora=LORA, warmup=5,
        caption_dropout=0.1, advance=seen.append,
    )  # fmt: skip
    after = everything(sd3)
    added = after.keys() - before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert added and all("lora_" in name for name in added)
    assert all(after[name].abs().max() > 0 for name in added if "lora_B" in name)
    assert result["loss_last"] < 0.7 * result["loss_first"]
    assert result["samples"] == sum(seen) == 320
    assert result["parameters"] == sum(after[name].numel() for name in added)
    assert not any(p.requires_grad for p in sd3.transformer.parameters())


def test_full_fine_tuning_moves_the_denoiser_and_nothing_else(sd3, pictures):
    before = everything(sd3)
    finetune(Environment(sd3, {"max_sequence_length": 0}), CAPTIONS, pictures, lora=None, **SHORT)
    moved = {name for name, p in everything(sd3).items() if not torch.equal(p, before[name])}
    rest = {name.split(".")[0] for name in before.keys() - moved}
    assert {name.split(".")[0] for name in moved} == {"transformer"}
    assert rest >= {"vae", "text_encoder", "text_encoder_2"}


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_seed_decides_everything(ema, sd3_folder, pictures):
    results, weights = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed * 7 + len(results))  # the global generator must not matter
        pipe = load_generator(str(sd3_folder))
        environment = Environment(pipe, {"max_sequence_length": 0})
        options = SHORT | {"seed": seed, "ema": ema, "caption_dropout": 0.5, "lora": LORA}
        results.append(finetune(environment, CAPTIONS, pictures, **options))
        weights.append(everything(pipe))
    assert results[0] == results[1] != results[2]
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_the_average_stays_behind(sd3_folder, pictures):
    ends = []
    for ema in (None, 0.999):
        pipe = load_generator(str(sd3_folder))
        environment = Environment(pipe, {"max_sequence_length": 0})
        finetune(environment, CAPTIONS, pictures, lora=LORA, ema=ema, **SHORT)
        ends.append(torch.cat([p.flatten() for n, p in everything(pipe).items() if "lora_B" in n]).abs().mean())
    assert 0 < ends[1] < ends[0]  # B starts at zero; its average has not come as far


def test_epsilon_prediction_learns_too(sd15, pictures):
    environment = Environment(sd15, {})
    small = [p.resize((16, 16)) for p in pictures]
    result = finetune(environment, CAPTIONS, small, steps=20, batch_size=8, lr=3e-3, seed=0, lora=None)
    assert result["loss_last"] < 0.9 * result["loss_first"]


def test_bad_input_is_named(sd3, pictures):
    environment = Environment(sd3, {"max_sequence_length": 0})
    with pytest.raises(UserError, match="7 captions and 8 pictures"):
        finetune(environment, CAPTIONS[:7], pictures, lora=None, **SHORT)
    with pytest.raises(UserError, match="lower `lr`"):
        finetune(environment, CAPTIONS, pictures, lora=None, **SHORT | {"lr": 1e30})
