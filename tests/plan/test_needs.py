"""Memory and disk: by hand on models small enough to add up, and the tables they go by against the code they stand for."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
from PIL import Image

from spro_hf.methods import Lora
from spro_hf.parts import Seeds
from spro_hf.plan import disk, memory, passes
from spro_hf.plan.counts import Count, Counts, count
from spro_hf.plan.sizes import Size
from spro_hf.schema import ReferencesRecipe
from tests.plan.conftest import adversarial, tiny

# A generator of 10 numbers in its transformer and 5 in its autoencoder, a guider of 100, a scorer of 7. One layer takes a
# LoRA of 2 + 3 numbers a rank, one of the guider's of 4 + 4.
GENERATOR = Size(
    {"transformer": 10, "vae": 5}, {"transformer": 10, "vae": 5}, {"block.to_q": (2, 3)},
    about={"pipeline": "StableDiffusion3Pipeline", "side": 32, "prompt": 0,
           "passes": {"forward": 100, "train": 1000, "checkpointed": 400, "decode": 150, "encode": 50}},
)  # fmt: skip
GUIDER = Size(
    {"model": 100}, {"model": 100}, {"model.text_model.layers.0.q_proj": (4, 4)},
    about={"vocabulary": 3, "picture": {"tokens": 4}, "cache": {"token": 2, "picture": 0}, "tower": 11,
           "passes": {"forward": 6, "train": 60, "checkpointed": 30}},
)  # fmt: skip
SCORER = Size({"model": 7}, {"model": 7}, about={"passes": {"forward": 5}})
ALL = {"generator.id": GENERATOR, "guider.id": GUIDER, "select.similarity": SCORER, "scorers.clip.id": SCORER,
       "scorers.aesthetic.id": SCORER, "scorers.aesthetic.backbone": SCORER}  # fmt: skip
SCORERS = {"clip": {"id": "spro_hf/tiny/clip"},
           "aesthetic": {"id": "spro_hf/tiny/aesthetic", "backbone": "spro_hf/tiny/clip"}}  # fmt: skip
HELD = 2 * 7 * 4  # the head and one tower, which aesthetic, clip and similarity share


def small(name: str, **changes):
    """A recipe with two scorers of one CLIP."""
    recipe = tiny(name, **changes)
    return replace(recipe, scorers=SCORERS)


def peaks(recipe, **changes):
    found = count(recipe, GENERATOR, GUIDER, [])
    return memory.phases(recipe, ALL | changes, found), found


def test_policy_gradient_by_hand():
    recipe = small("reinforce/flow_grpo.yaml", policy__lora={"rank": 2, "alpha": 2}, policy__batch_size=3)
    (draw, score, learn), _ = peaks(recipe)
    # float32 doubles what was measured; 64 pictures, of which the denoiser needs 2 · 100 each and the decoder 150
    assert draw.on("GPU") == {"weights": 15 * 4 + HELD, "training": 4 * 10 * (1 + 2 + 1 + 1), "passes": 64 * 200 * 2}
    assert score.on("GPU")["passes"] == 128 * 5 * 2
    # a LoRA of 2 · (2 + 3) numbers: values, two moments, an average, the start that the KL holds on to, and gradients
    assert learn.on("GPU") == {
        "weights": 15 * 4 + HELD, "training": 4 * 10 * (1 + 2 + 1 + 1 + 1), "passes": 3 * 2 * 1000 * 2
    }  # fmt: skip
    unguided = replace(
        recipe, policy=replace(recipe.policy, guidance=False, kl=0.0, ema=None, gradient_checkpointing=True)
    )
    learn = peaks(unguided)[0][-1]
    assert learn.on("GPU")["training"] == 4 * 10 * 4 and learn.on("GPU")["passes"] == 3 * 400 * 2
    full = replace(unguided, policy=replace(unguided.policy, lora=None))
    assert peaks(full)[0][-1].on("GPU")["training"] == 4 * 10 * 3  # moments and gradients; values are weights


def test_smaller_pictures_need_less():
    recipe = small("reinforce/flow_grpo.yaml", generator__call={"height": 16, "width": 32})
    assert peaks(recipe)[0][0].on("GPU")["passes"] == 64 * 200 * 2 // 2


def test_self_play_by_hand():
    recipe = small("1_prompt.yaml", guider__dtype="bfloat16", guider__batch_size=5, guider__device="cuda:1")
    found, counts = peaks(recipe)
    draw, _, reply, learn = found
    assert [phase.name for phase in found] == ["draw", "score", "reply", "learn"]
    everything = {"GPU": 15 * 4 + HELD, "cuda:1": 100 * 2}
    for phase in found:
        assert {device: phase.on(device)["weights"] for device in everything} == everything
    # five rows: two numbers of two bytes a token, six bytes a token of the prompt (the tower has less), 16 bytes for each word
    tokens = counts.prompt + 72
    assert reply.on("cuda:1")["passes"] == 5 * (tokens * 2 * 2 + counts.prompt * 6 + 16 * 3)
    # a LoRA of 16 · 8 numbers: value, gradient, two moments and the frozen copy of DPO, all float32
    assert learn.on("cuda:1")["training"] == 128 * 20 and reply.on("cuda:1")["training"] == 128 * 4
    assert learn.on("cuda:1")["passes"] == 16 * 2 * tokens * 30  # 16 pairs; activations are saved unless told otherwise
    # 64 seeds: eight candidates, the base picture and the one that is shown, four bytes a pixel
    assert draw.on("cpu")["passes"] == 64 * 10 * 4 * 32 * 32


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        ({"learn__lora": None}, 4 + 8 + 4),  # of a float32: gradient, moments, reference
        ({"learn__lora": None, "learn__dpo": {"optim": "adamw_bnb_8bit"}}, 4 + 2 + 4),
        ({"learn__lora": None, "learn__method": "sft"}, 4 + 8),
    ],
)
def test_all_of_a_guider_learns(changes, bytes_each):
    recipe = small("1_prompt.yaml", **changes)
    (learn,) = (phase for phase in peaks(recipe)[0] if phase.name == "learn")
    assert learn.on("GPU")["training"] == 100 * bytes_each


def test_grpo_draws_batches_of_the_trainers_size():
    recipe = small("1_prompt.yaml", learn__method="grpo", learn__grpo={"per_device_train_batch_size": 8, "beta": 0.0})
    found, counts = peaks(recipe)
    reply, learn = found[2], found[3]
    assert reply.on("GPU")["passes"] == 8 * ((counts.prompt + 72) * 2 * 4 + counts.prompt * 12 + 48)
    assert learn.on("GPU")["training"] == 128 * 16  # without a reference
    # all replies of a round, eight of each seed for the usual three epochs, and two pictures a seed
    assert found[0].on("cpu")["passes"] == 64 * (8 * 3 + 2) * 4 * 32 * 32


def test_fine_tuning_holds_no_scorer_but_where_it_draws():
    recipe = small("2_image.yaml", finetune={"batch_size": 10, "accumulation": 4, "lora": {"rank": 1, "alpha": 1}})
    show, score, encode, tune = peaks(recipe)[0]
    assert (show.on("GPU")["weights"], score.on("GPU")["weights"]) == (
        60,
        HELD,
    )  # the card's pictures, one after the other
    assert encode.on("GPU") == {"weights": 60, "training": 4 * 5 * 3, "passes": 64 * 50 * 2}
    assert tune.on("GPU") == {"weights": 60, "training": 4 * 5 * 4, "passes": 3 * 1000 * 2}  # parts of 3 and 2
    prompts = {"source": "a/b", "count": 30, "columns": {"caption": "c", "prompt": "p"}}
    drawing = small("2_image.yaml", rollouts=[], prompts=prompts)
    assert [phase.name for phase in peaks(drawing)[0]] == ["draw", "score", "encode", "fine-tune"]
    assert {phase.on("GPU")["weights"] for phase in peaks(drawing)[0]} == {60 + HELD}
    assert peaks(drawing)[0][0].on("cpu")["passes"] == 30 * 4 * 32 * 32


def test_an_evaluation_holds_one_generator_and_a_guider_while_it_replies():
    recipe = small("4_evaluate.yaml", judges=[])
    draw, score, reply = peaks(recipe)[0]
    assert draw.on("GPU")["weights"] == score.on("GPU")["weights"] == 60 + HELD
    assert reply.on("GPU")["weights"] == 60 + HELD + 400
    alone = replace(recipe, systems={"base": recipe.systems["base"]}, guider=None)
    assert [phase.on("GPU")["weights"] for phase in peaks(alone)[0]] == [60 + HELD] * 2


def test_without_rounds_the_pipeline_is_put_together_and_shown():
    found = {phase.name: phase.on("GPU")["weights"] for phase in peaks(small("3_multimodal.yaml", rounds=0))[0]}
    assert found == {"show": 60 + 400, "score": HELD, "publish": 60 + 400}
    names = [phase.name for phase in peaks(small("3_multimodal.yaml"))[0]]
    assert names == ["draw", "score", "reply", "learn", "encode", "fine-tune", "publish"]


def test_towers_are_shared_where_device_and_type_are_one():
    recipe = replace(tiny("1_prompt.yaml"), scorers=SCORERS | {"clip": SCORERS["clip"] | {"dtype": "bfloat16"}})
    assert sum(held.bytes for held in memory.scoring(recipe, ALL)) == 7 * 4 + 7 * 4 + 7 * 2
    recipe = replace(recipe, scorers=SCORERS | {"clip": SCORERS["clip"] | {"device": "cuda:1"}})
    assert {held.device: held.bytes for held in memory.scoring(recipe, ALL)}["cuda:1"] == 28


def test_peaks_name_the_phase_and_what_is_not_known():
    recipe = small("1_prompt.yaml")
    found = memory.peaks(recipe, ALL, count(recipe, GENERATOR, GUIDER, []))
    # 16 pairs of two replies at 60 bytes a token are more than 128 replies at 12 and 64 pictures at 400
    assert found["GPU"]["phase"] == "learn" and found["GPU"]["known"]
    assert found["GPU"]["total"] == sum(found["GPU"][kind] for kind in ("weights", "training", "passes"))
    lacking = memory.peaks(recipe, ALL | {"scorers.clip.id": None}, count(recipe, GENERATOR, GUIDER, []))
    assert not lacking["GPU"]["known"] and lacking["GPU"]["total"] < found["GPU"]["total"]
    bare = replace(GENERATOR, about={"side": 32})
    assert not memory.peaks(recipe, ALL | {"generator.id": bare}, count(recipe, bare, GUIDER, []))["GPU"]["known"]
    nothing = dict.fromkeys(ALL)
    found = memory.peaks(recipe, nothing, count(recipe, None, None, []))
    assert found["GPU"] == {
        "phase": "draw", "weights": 0, "training": 0, "passes": 0, "total": 0, "known": False
    }  # fmt: skip


def test_cards_have_a_tenth_to_spare():
    # 12 GiB are 12.885e9 bytes, a tenth more than 11.713e9
    assert memory.card(11_710_000_000) == 12 and memory.card(11_720_000_000) == 16
    # 139 GiB are 149.250e9, a tenth more than 135.682e9
    assert memory.card(72 * 10**9) == 80 and memory.card(135 * 10**9) == 141 and memory.card(136 * 10**9) is None


def test_remembered_prompts_are_bounded():
    worded = replace(GENERATOR, about=GENERATOR.about | {"prompt": 1000})
    recipe = small("reinforce/flow_grpo.yaml", generator__dtype="bfloat16")
    assert passes.memo(recipe, worded, 10) == 10 * 2 * 1000 * 2  # with guidance's empty prompt
    assert passes.memo(recipe, worded, 10**9) == passes.MEMO == passes.memo(recipe, worded, None)
    plain = replace(recipe, generator=replace(recipe.generator, call={"guidance_scale": 1.0}))
    assert passes.memo(plain, worded, 10) == 10 * 1000 * 2
    assert passes.remembered(recipe, Counts()) == 256  # of 16 · 20 captions of a block, no more than there are
    assert passes.remembered(small("1_prompt.yaml", part=10), Counts()) == 10 * 8
    assert passes.remembered(small("4_evaluate.yaml", judges=[]), Counts()) == 96 * 8
    assert passes.remembered(small("1_prompt.yaml", learn__method="grpo"), Counts(pictures=Count(5, False))) == 5


def test_judges_read_their_question():
    recipe = tiny("reinforce/flow_grpo.yaml")
    recipe = replace(recipe, scorers={"vlm": {"id": "a/b", "dtype": "bfloat16", "batch_size": 3}}, reward={"vlm": 1.0})
    chat = {"generator.id": GENERATOR, "scorers.vlm.id": GUIDER}
    prompt = passes.QUESTION + 4
    assert passes.seeing(recipe, chat) == {"GPU": 3 * (prompt * 4 + prompt * 6 + 48)}


def test_usual_batches_are_those_of_the_rewards():
    from spro_hf.rewards import REWARDS

    found = {kind: inspect.signature(cls).parameters.get("batch_size") for kind, cls in REWARDS.items()}
    for kind, parameter in found.items():
        if parameter is not None:
            assert parameter.default == passes.BATCHES.get(kind, passes.USUAL_BATCH), kind
    assert set(passes.BATCHES) <= set(found)


def test_what_stands_in_the_code_elsewhere():
    from spro_hf import rollouts
    from spro_hf.diffusion import memo
    from spro_hf.rewards import REWARDS, ocr
    from spro_hf.schema import TOGETHER
    from spro_hf.stages import STAGES, evaluate, image

    assert passes.GROUP == rollouts.GROUP and passes.WRITES == {"ocr": ocr.NEW_TOKENS}
    assert inspect.signature(REWARDS["adversarial"]).parameters["patches"].default == passes.PATCHES
    assert passes.MEMO == memo.KEPT and passes.PART == image.PART and set(STAGES) - set(TOGETHER) == {"evaluate"}
    assert disk.SAMPLES == evaluate.SAMPLES


def test_noise_is_no_larger_than_its_bound(tmp_path):
    import numpy as np

    for height, width in ((32, 32), (100, 300)):
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")
        size = (tmp_path / "noise.png").stat().st_size
        assert 3 * height * width < size <= disk.png(height, width) + disk.TEXT // 16


def test_disk_by_hand():
    recipe = small("1_prompt.yaml")
    found = disk.written(recipe, ALL, count(recipe, GENERATOR, GUIDER, []))
    each, text = disk.png(32, 32), disk.TEXT
    # a round has 512 rows of a picture, two pictures more of each of 64 seeds, and at most 64 pairs of three
    played, pairs = 512 * (each + text) + 64 * (2 * each + text), 64 * (3 * each + text)
    # three rounds, the newest laid out again, and a round's rows in parts
    assert found == {"rows": Count(4 * (played + pairs) + played, False), "weights": Count(4 * 128 * 4, False)}
    recipe = small("reinforce/flow_grpo.yaml", policy__checkpoint_every=20)
    found = disk.written(recipe, ALL, count(recipe, GENERATOR, GUIDER, []))
    lora = 4 * 32 * 5  # of rank 32
    # the newest two blocks and the last laid out; in two of them values, two moments and an average to go on with
    assert found == {"rows": Count(0), "weights": Count(3 * lora + 2 * 4 * lora, False)}
    pushed = replace(recipe, policy=replace(recipe.policy, push_checkpoints=True))  # all three blocks are kept
    assert disk.written(pushed, ALL, count(recipe, GENERATOR, GUIDER, []))["weights"].number == 4 * lora + 2 * 4 * lora
    full = replace(recipe, policy=replace(recipe.policy, lora=None, ema=None))
    found = disk.written(full, ALL, count(full, GENERATOR, GUIDER, []))
    assert found["weights"] == Count(3 * 15 * 4 + 2 * 3 * 40, False)
    recipe = small("4_evaluate.yaml", judges=[])
    rows = disk.written(recipe, ALL, count(recipe, GENERATOR, GUIDER, []))["rows"]
    assert rows == Count((96 * 6 + 2 * 6 * 6) * (disk.png(32, 32) + disk.TEXT), False)


def test_downloads_are_told_once_a_model():
    known = replace(SCORER, download=10)
    assert disk.fetched({("a/b", None): known, ("a/b", "v1"): known}) == {"bytes": 20, "exact": True}
    assert disk.fetched({("a/b", None): replace(known, exact=False)}) == {"bytes": 10, "exact": False}
    assert disk.fetched({("a/b", None): None, ("c/d", None): known}) == {"bytes": 10, "exact": False}


def test_a_lora_fits_by_name_or_by_expression():
    assert GENERATOR.lora(Lora(3, 1)) == 15 and GENERATOR.lora(Lora(3, 1, "to_k")) == 0
    assert GUIDER.lora(Lora(3, 1)) == 24 == GUIDER.lora(Lora(3, 1, r".*q_proj"))


def test_learning_at_half_the_size_needs_a_quarter():
    call = {"height": 32, "width": 32}
    whole = peaks(small("2_image.yaml", generator__call=call))[0][-1].on("GPU")
    half = peaks(small("2_image.yaml", generator__call=call, finetune__size=[16, 16]))[0][-1].on("GPU")
    assert whole["passes"] == 4 * half["passes"] > 0 and whole["training"] == half["training"]


def test_references_hold_no_scorer_and_few_pictures():
    recipe = ReferencesRecipe(
        stage="references", generator=tiny("2_image.yaml").generator, push={"references": "a/b"}, per_caption=3,
        seeds=Seeds(count=10), part=4,
    )  # fmt: skip
    (draw,), counts = peaks(recipe)
    assert draw.on("GPU") == {"weights": 60, "training": 0, "passes": 64 * 200 * 2}
    assert draw.on("cpu")["passes"] == 64 * 4 * 32 * 32 and passes.remembered(recipe, counts) == 4
    # thirty rows of a picture as they were drawn, and as they were laid out
    found = disk.written(recipe, ALL, counts)
    assert found == {"rows": Count(2 * 30 * (disk.png(32, 32) + disk.TEXT), False), "weights": Count(0)}


def test_an_adversary_by_hand():
    """A head of 3 numbers on a backbone of 7; it keeps 6 bytes a token and takes 10 more of a batch."""
    backbone = replace(SCORER, about=SCORER.about | {"adversary": {"parameters": 3, "train": 10, "kept": 6}})
    recipe = adversarial(steps=24, generator_steps=3)
    recipe = replace(recipe, policy=replace(recipe.policy, lora=Lora(2, 2), batch_size=4))
    sizes = ALL | {"scorers.d.backbone": backbone}
    counts = count(recipe, GENERATOR, None, [])
    draw, learns, score, learn = found = memory.phases(recipe, sizes, counts)
    assert [phase.name for phase in found] == ["draw", "adversary", "score", "learn"]
    assert {phase.on("GPU")["weights"] for phase in found} == {15 * 4 + 7 * 4}
    # a LoRA of 10: values, two moments, an average and the KL's start; of the head values, two moments and, as it learns, gradients
    assert draw.on("GPU")["training"] == score.on("GPU")["training"] == 4 * 10 * 5 + 4 * 3 * 3
    assert learns.on("GPU")["training"] == 4 * 10 * 5 + 4 * 3 * 4
    assert learn.on("GPU")["training"] == 4 * 10 * 6 + 4 * 3 * 3
    # a turn of three steps of eight pictures, and a batch of eight, each with a reference, 65 tokens of each
    assert passes.opposing(recipe, sizes) == learns.on("GPU")["passes"] == 2 * 65 * (8 * 10 + 24 * 6) * 2
    assert draw.on("cpu")["passes"] == 2 * 24 * 4 * 32 * 32
    # 24 steps in blocks of twelve: a head of three float32 in both and laid out, with its values and moments in both
    bare = replace(recipe, adversary=None, references=None, scorers={"clip": SCORERS["clip"]}, reward={"clip": 1.0},
                   push={"generator": "me/it"})  # fmt: skip
    more = disk.written(recipe, sizes, counts)["weights"].number - disk.written(bare, sizes, counts)["weights"].number
    assert more == 4 * 3 * (2 + 1 + 3 * 2)


def test_an_adversary_that_is_part_of_a_scorer_holds_its_weights_once():
    layer = replace(SCORER, about=SCORER.about | {"adversary": {"parameters": 3, "train": 10}})
    recipe = adversarial(steps=24)
    spec = {"kind": "adversarial_pickscore", "id": "spro_hf/tiny/pickscore"}
    recipe = replace(recipe, scorers={"d": spec, "pickscore": {"id": "spro_hf/tiny/pickscore"}})
    sizes = ALL | {"scorers.d.id": layer, "scorers.pickscore.id": SCORER}
    learns = memory.phases(recipe, sizes, count(recipe, GENERATOR, None, []))[1]
    assert learns.on("GPU")["weights"] == 15 * 4 + 2 * 7 * 4  # it is a copy, which no other shares
    alone = memory.learner(GENERATOR, recipe.policy, True)[1]
    assert learns.on("GPU")["training"] == alone + 4 * 3 * 3  # moments and gradients
    assert passes.opposing(recipe, sizes) == 2 * 8 * 10 * 2
    assert learns.on("GPU")["passes"] == 128 * 5 * 2  # its usual batch, as it compares, is more
