import pytest
import torch

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.finetune import Draws, finetune
from spro_hf.diffusion.learner import Learner
from spro_hf.errors import UserError

CAPTIONS = [f"a {c} {s}" for c in ("red", "blue", "green", "white") for s in ("circle", "square")]
LORA = {"rank": 8, "alpha": 16, "targets": "to_q|to_k|to_v|to_out.0|proj_out|ff.net.2"}
CALL = {"num_inference_steps": 2, "max_sequence_length": 0}
SHORT = {"steps": range(3), "batch_size": 4, "seed": 0}


def tune(learner, captions, x0, steps, batch_size, seed, caption_dropout=0.0, advance=None):
    """Fine-tuning with draws of its own."""
    draws = Draws(x0, learner.environment, batch_size, seed, caption_dropout)
    return finetune(learner, captions, x0, draws, steps, advance=advance)


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
    learner = Learner(Environment(sd3, CALL), LORA, lr=3e-3, seed=0, warmup=5)
    losses = tune(
        learner, CAPTIONS, learner.environment.encode(pictures), steps=range(40), batch_size=8, seed=0,
        caption_dropout=0.1, advance=seen.append,
    )  # fmt: skip
    after = everything(sd3)
    added = after.keys() - before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert added and all("lora_" in name for name in added)
    assert all(after[name].abs().max() > 0 for name in added if "lora_B" in name)
    assert len(losses) == 40 and sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert sum(seen) == 320
    asking = {name for name, p in sd3.transformer.named_parameters() if p.requires_grad}
    assert asking == {name for name, _ in sd3.transformer.named_parameters() if "lora_" in name}


def test_full_fine_tuning_moves_the_denoiser_and_nothing_else(sd3, pictures):
    before = everything(sd3)
    learner = Learner(Environment(sd3, CALL), None, lr=1e-3, seed=0)
    tune(learner, CAPTIONS, learner.environment.encode(pictures), **SHORT)
    moved = {name for name, p in everything(sd3).items() if not torch.equal(p, before[name])}
    rest = {name.split(".")[0] for name in before.keys() - moved}
    assert {name.split(".")[0] for name in moved} == {"transformer"}
    assert rest >= {"vae", "text_encoder", "text_encoder_2"}


def test_the_seed_decides_everything(sd3_folder, pictures):
    results, weights = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed * 7 + len(results))  # the global generator must not matter
        pipe = load_generator(str(sd3_folder))
        learner = Learner(Environment(pipe, CALL), LORA, lr=1e-3, seed=seed)
        x0 = learner.environment.encode(pictures)
        results.append(tune(learner, CAPTIONS, x0, **SHORT | {"seed": seed}, caption_dropout=0.5))
        weights.append(everything(pipe))
    assert results[0] == results[1] != results[2]
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_a_training_that_is_continued_sees_what_it_would_have_seen(sd3_folder, pictures):
    """In two goes of one learner, and in one: the same draws, so the same losses and weights."""
    told, weights = [], []
    for goes in ([range(4)], [range(1), range(1, 4)]):
        pipe = load_generator(str(sd3_folder))
        learner = Learner(Environment(pipe, CALL), LORA, lr=1e-3, seed=0)
        x0 = learner.environment.encode(pictures)
        told.append([loss for go in goes for loss in tune(learner, CAPTIONS, x0, **SHORT | {"steps": go})])
        weights.append(everything(pipe))
    assert told[0] == pytest.approx(told[1], abs=1e-6)  # prompts are encoded in other company
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=1e-6) for n in weights[0])


def test_epsilon_prediction_learns_too(sd15, pictures):
    learner = Learner(Environment(sd15, {}), None, lr=3e-3, seed=0)
    small = [p.resize((16, 16)) for p in pictures]
    x0 = learner.environment.encode(small)
    losses = tune(learner, CAPTIONS, x0, steps=range(20), batch_size=8, seed=0)
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


def test_bad_input_is_named(sd3, pictures):
    learner = Learner(Environment(sd3, CALL), None, lr=1e30, seed=0)
    x0 = learner.environment.encode(pictures)
    with pytest.raises(UserError, match="7 captions and 8 pictures"):
        tune(learner, CAPTIONS[:7], x0, **SHORT)
    with pytest.raises(UserError, match="lower `lr`"):
        tune(learner, CAPTIONS, x0, **SHORT)
