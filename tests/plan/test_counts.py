"""Counts: by hand, and against what the stages' own functions do on the embedded world."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace

import pytest
import torch

from spro_hf.parts import Generator, Seeds
from spro_hf.plan import counts as counting
from spro_hf.plan.counts import Count, Counts, asked, count, picture, prompt_tokens, steps
from spro_hf.plan.sizes import Size, size
from spro_hf.schema import Recipe, ReferencesRecipe
from spro_hf.stages import showcase
from tests.plan.conftest import adversarial, tiny

GENERATOR, GUIDER = size("spro_hf/tiny/generator"), size("spro_hf/tiny/guider")
HUB = {"seeds": {"source": "a/b", "count": 50, "columns": {"caption": "c", "image": "i"}}}


def counted(recipe: Recipe, *earlier: Recipe):
    return count(recipe, GENERATOR, GUIDER, list(earlier))


def test_counts_add_and_multiply():
    assert Count(2) + Count(3, False) == Count(5, False) and Count(2) * 3 == Count(6)
    assert Count(None, False) + Count(1) == Count(None, False) == Count(3) * None
    assert Count(None, False) * 0 == Count(0) and Count(0, False) == Count(0)  # at most none is none


def test_self_play_by_hand():
    """64 seeds, 8 temperatures, 3 rounds; eight steps with guidance; six epochs of DPO."""
    found = counted(tiny("1_prompt.yaml"))
    assert found.replies == Count(64 * 8 * 3)  # 1,536
    assert found.pictures == Count(
        64 * 3 + 64 * 8 * 3, False
    )  # a base picture of each seed and round, a picture a reply
    assert found.scored == found.pictures
    assert found.drawing == Count(1728 * 8 * 2, False)
    assert found.lessons == Count(64 * 6 * 3, False)  # one pair of each seed at the most
    assert found.reply == 72 and found.written == Count(1536 * 72, False)
    assert found.tokens == Count(1536 * (72 + found.prompt), False)
    assert found.samples == found.learning == Count(0)


def test_self_play_on_a_data_set_with_pictures():
    found = counted(tiny("1_prompt.yaml", **HUB))
    assert found.replies == Count(50 * 8 * 3, False)  # the set may have fewer rows
    assert found.pictures == Count(1200, False)  # its own pictures are the base ones
    assert found.scored == Count(50 * 3 + 1200, False)


def test_max_steps_end_a_training():
    found = counted(tiny("1_prompt.yaml", learn__dpo={"max_steps": 5, "gradient_accumulation_steps": 2}))
    assert found.lessons == Count(5 * 16 * 2 * 3, False)  # batches of 16


def test_grpo_draws_its_own():
    found = counted(tiny("1_prompt.yaml", learn__method="grpo", learn__grpo={"num_train_epochs": 2}))
    assert found.replies == Count(64 * 8 * 2 * 3, False) == found.lessons  # groups of eight, two epochs, three rounds
    assert found.pictures == Count(64 * 3 + 3072, False)


def test_image_learns_without_guidance():
    found = counted(tiny("2_image.yaml"))
    assert (found.pictures, found.replies) == (Count(0), Count(0))
    assert found.updates == Count(120) and found.samples == Count(120 * 16) == found.learning


def test_epochs_are_over_the_winners_of_earlier_stages():
    recipe = tiny("2_image.yaml", finetune={"steps": None, "epochs": 3, "batch_size": 10})
    assert counted(recipe).updates == Count(None, False)
    # two rounds of 64 seeds, each winner under its caption and its prompt: 256 rows, 3 · 256 / 10 updates
    found = counted(recipe, tiny("1_prompt.yaml"))
    assert found.updates == Count(math.ceil(3 * 256 / 10), False) and found.samples == Count(770, False)


def test_image_draws_a_data_set_of_prompts():
    prompts = {"source": "a/b", "count": 30, "columns": {"caption": "c", "prompt": "p"}}
    recipe = tiny(
        "2_image.yaml", rollouts=[], prompts=prompts, finetune={"steps": None, "epochs": 1, "captions": "base"}
    )
    found = counted(recipe)
    assert found.pictures == Count(30, False) == found.scored and found.drawing == Count(30 * 16, False)
    assert found.updates == Count(2, False)  # 30 rows in batches of 16


def test_coevolution_plays_and_learns_each_round():
    found = counted(tiny("3_multimodal.yaml", rounds=2))
    assert found.replies == Count(64 * 8 * 2) and found.pictures == Count(2 * (64 + 512), False)
    assert found.lessons == Count(64 * 4 * 2, False) and found.samples == Count(2 * 40 * 16)
    nothing = counted(tiny("3_multimodal.yaml", rounds=0))
    assert {getattr(nothing, name) for name in ("pictures", "replies", "drawing", "samples", "lessons")} == {Count(0)}


def test_evaluation_by_hand():
    """48 captions with two noise seeds: 96 guests. Five systems and the base; one of them draws eight of each."""
    found = counted(tiny("4_evaluate.yaml"))
    assert found.pictures == Count(96 * (1 + 1 + 8 + 1 + 1 + 1))
    assert found.replies == Count(96 * (1 + 8 + 1 + 1))  # four are guided
    # base pictures twice, as they are drawn and as they are written; best-of-n all eight and the best again
    assert found.scored == Count(96 * (2 + 1 + (8 + 1) + 1 + 1 + 1))
    hops = {"base": {}, "again": {"guided": True, "hops": 3}}
    found = counted(replace_systems(hops))
    assert found.pictures == Count(96 * 4) and found.replies == Count(96 * 3) and found.scored == Count(96 * 3)


def replace_systems(systems):
    recipe = tiny("4_evaluate.yaml", systems={name: system for name, system in systems.items() if name != "base"})
    return replace(recipe, systems={name: recipe.systems[name] for name in systems})


@pytest.mark.parametrize(
    ("name", "learned", "kl"),
    [
        ("flow_grpo.yaml", 3, True),  # the first three of eight steps
        ("flow_grpo_fast.yaml", 2, True),  # a window of two
        ("dance_grpo.yaml", 4, True),  # six tenths of seven: 4.2
        ("ddpo.yaml", 8, False),
    ],
)
def test_policy_gradient_by_hand(name, learned, kl):
    """16 captions in groups of eight, 45 steps: 5,760 pictures of eight steps with guidance."""
    recipe = tiny(f"reinforce/{name}")
    found = count(recipe, size(recipe.generator.id), None, [])
    assert found.pictures == Count(5760) == found.scored and found.drawing == Count(5760 * 8 * 2)
    assert found.samples == Count(5760 * learned, False) and found.updates == Count(45, False)
    assert found.learning == Count(5760 * learned * 2 * (2 if kl else 1), False)


@pytest.mark.parametrize("changes", [{}, {"policy__guidance": False}, {"policy__kl": 0.0}, {"policy__window": 2}])
def test_policy_gradient_asks_the_denoiser_as_often(changes):
    """One step of four pictures, by ``record`` and ``improve`` as the stage calls them."""
    from spro_hf.diffusion.learner import Learner
    from spro_hf.diffusion.policy import improve, plan
    from spro_hf.stages.studio import open_environment

    recipe = tiny("reinforce/flow_grpo.yaml", steps=1, prompts=2, group=2, policy__batch_size=3, **changes)
    environment, policy = open_environment(recipe.generator), recipe.policy
    learner = Learner(environment, lora=vars(policy.lora), lr=policy.lr, seed=0)
    start = learner.copy() if policy.kl else {}
    play, learned = plan(policy, environment.steps, 0)
    _, trajectory = environment.record(["a red circle"] * 4, [0, 1, 2, 3], play)
    found, drawn = counted(recipe), environment.calls
    assert found.drawing == Count(drawn)
    improve(learner, start, trajectory, torch.tensor([1.0, -1.0, 1.0, -1.0]), [[0, 1, 2, 3]], policy, learned)
    assert found.learning == Count(environment.calls - drawn, False)
    assert found.samples.number == 4 * len(learned)


def test_rendering_asks_the_denoiser_as_often():
    from spro_hf.diffusion.hooks import counted as asking
    from spro_hf.stages.studio import open_environment

    for name, scale in (("4_evaluate.yaml", 2.5), ("4_evaluate.yaml", 1.0), ("reinforce/evaluate_ddpo.yaml", 2.5)):
        recipe = tiny(name, generator__call={"guidance_scale": scale})
        environment, known = open_environment(recipe.generator), size(recipe.generator.id)
        with asking(environment.denoiser) as calls:
            pictures = environment.render(["a red circle", "a blue square", "a star"], [0, 1, 2])
        assert sum(calls) == 3 * steps(recipe, known) * asked(recipe, known).number
        assert {image.size[::-1] for image in pictures} == {picture(recipe, known)}


def of(pipeline: str, scheduler: str = "FlowMatchEulerDiscreteScheduler") -> Size:
    return Size({}, {}, about={"pipeline": pipeline, "scheduler": scheduler})


def with_call(**call) -> Recipe:
    recipe = tiny("2_image.yaml")
    return replace(recipe, generator=replace(recipe.generator, call=call))


@pytest.mark.parametrize(
    ("pipeline", "call", "told"),
    [
        ("StableDiffusionXLPipeline", {}, Count(2)),
        ("StableDiffusionXLPipeline", {"guidance_scale": 1.0}, Count(1)),
        ("StableDiffusionPipeline", {"guidance_scale": 0.0}, Count(1)),
        ("StableDiffusion3Pipeline", {"skip_guidance_layers": [7]}, Count(3, False)),
        ("FluxPipeline", {"guidance_scale": 3.5}, Count(1)),  # an embedding
        ("FluxPipeline", {"true_cfg_scale": 2.0}, Count(1)),  # without a negative prompt
        ("FluxPipeline", {"true_cfg_scale": 2.0, "negative_prompt": ""}, Count(2)),
        ("QwenImagePipeline", {}, Count(1)),
        ("QwenImagePipeline", {"negative_prompt": " "}, Count(2)),
        ("ZImagePipeline", {"guidance_scale": 1.0}, Count(2)),
        ("ZImagePipeline", {"guidance_scale": 0.0}, Count(1)),
        ("ZImagePipeline", {"cfg_truncation": 0.5}, Count(2, False)),
        ("SomeOtherPipeline", {}, Count(2, False)),
    ],
)
def test_guidance_asks_twice_where_it_is_on(pipeline, call, told):
    assert asked(with_call(**call), of(pipeline)) == told


def test_steps_of_a_call():
    assert steps(with_call(num_inference_steps=9), of("SomeOtherPipeline")) == 9
    assert steps(with_call(), of("SomeOtherPipeline")) is None
    assert steps(with_call(sigmas=[1.0, 0.5]), of("FluxPipeline")) == 2
    assert steps(with_call(), of("StableDiffusionPipeline", "PNDMScheduler")) == 51
    recipe = with_call()
    recipe = replace(recipe, generator=replace(recipe.generator, scheduler="ddim"))
    assert steps(recipe, of("StableDiffusionPipeline", "PNDMScheduler")) == 50


def test_pndm_takes_a_step_more():
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(skip_prk_steps=True)  # as Stable Diffusion 1.5 has it
    scheduler.set_timesteps(10)
    assert len(scheduler.timesteps) == 11


def test_usual_arguments_are_those_of_diffusers():
    import diffusers

    for name, call in counting.CALLS.items():
        takes = inspect.signature(getattr(diffusers, name).__call__).parameters
        assert (takes["num_inference_steps"].default, takes[call.scale].default) == (call.steps, call.usual), name


def test_usual_fields_are_those_of_trl():
    from trl import DPOConfig, GRPOConfig, SFTConfig

    for kind in (DPOConfig, GRPOConfig, SFTConfig):
        usual = {f.name: f.default for f in fields(kind)}
        assert usual["num_train_epochs"] == counting.EPOCHS and usual["per_device_train_batch_size"] == counting.BATCH
        assert usual["max_steps"] <= 0 and usual["gradient_accumulation_steps"] == 1
        assert usual.get("num_generations", counting.GENERATIONS) == counting.GENERATIONS


def test_prompts_are_no_longer_than_told():
    """The embedded world's guider reads, with its own tokenizer, no more than what is estimated."""
    from PIL import Image

    from spro_hf import seeds
    from spro_hf.guider.guider import Task
    from spro_hf.stages.studio import open_guider

    recipe = tiny("1_prompt.yaml")
    guider = open_guider(recipe.guider)
    captions = [seed.caption for seed in seeds.load(recipe.seeds, recipe.seed)]
    tasks = [Task(Image.new("RGB", (32, 32)), caption, recipe.objective) for caption in captions]
    longest = guider.encode(tasks)["input_ids"].shape[1]
    assert 10 < longest <= prompt_tokens(recipe, GENERATOR, GUIDER) <= 4 * longest


def test_a_prompt_has_room_for_its_context_and_for_the_guiders_own_prompt():
    recipe = tiny("1_prompt.yaml", guider__style="full", objective="engagement", reward={"engagement": 1.0})
    plain = prompt_tokens(recipe, GENERATOR, GUIDER)
    columns = {"caption": "c", "tweet": "t", "company": "n"}
    told = replace(recipe, seeds=Seeds("a/b", 10, columns=columns))
    # a caption of 300 letters takes more than twice the word limit's 22 words; each piece of the post takes 300 letters more
    assert prompt_tokens(told, GENERATOR, GUIDER) > plain + 2 * 100
    longer = replace(recipe, guider=replace(recipe.guider, word_limit=40))
    assert prompt_tokens(longer, GENERATOR, GUIDER) > plain


def test_references_are_drawn_and_not_scored():
    recipe = ReferencesRecipe(
        stage="references", generator=tiny("2_image.yaml").generator, push={"references": "a/b"}, seeds=Seeds(count=10),
        per_caption=3,
    )  # fmt: skip
    found = count(recipe, GENERATOR, None, [])
    # eight steps with guidance
    assert found == Counts(pictures=Count(30), drawing=Count(30 * 8 * 2))
    renderer = size("spro_hf/tiny/renderer")
    recipe = replace(recipe, generator=Generator("spro_hf/tiny/renderer"))
    assert count(recipe, renderer, None, []) == Counts(pictures=Count(30))  # which asks no denoiser
    assert picture(recipe, renderer) == (32, 32)


@pytest.mark.parametrize(
    ("steps", "every", "when", "met", "turns"),
    [
        (6, 1, "always", 6, Count(6)),  # a turn is a step
        (6, 3, "always", 6, Count(3)),  # at steps 1, 3 and 6
        (2, 3, "always", 1, Count(1)),  # at the first alone
        (6, 1, "references_lower", 6, Count(6, False)),
    ],
)
def test_an_adversary_meets_what_is_drawn(steps, every, when, met, turns):
    """Two captions in groups of four; five updates on batches of eight pairs."""
    recipe = adversarial(steps=steps, generator_steps=every, when=when)
    found = count(recipe, GENERATOR, None, [])
    assert found.pictures == Count(8 * steps) == found.scored and found.references == Count(8 * met)
    assert found.pairs == turns * (5 * 8)


def test_a_first_turn_may_have_fewer_than_a_batch():
    recipe = adversarial(steps=6, generator_steps=3, batch_size=9)
    assert count(recipe, GENERATOR, None, []).pairs == Count(3 * 5 * 9, False)


def test_an_adversary_learns_as_often():
    """By the stage's own ``Opponent``, whose reward only notes what it is given."""
    from PIL import Image

    from spro_hf.rewards import Brief
    from spro_hf.seeds import Seed
    from spro_hf.stages.opponent import Opponent

    class Clerk:
        def __init__(self):
            self.met = []

        def learn_by(self, spec, seed):
            pass

        def update(self, generated, references, briefs, places):
            assert len(generated) == len(references) == len(briefs) == len(set(places))
            self.met.append(len(references))
            return {}

    for total, every in ((6, 1), (6, 3), (2, 3), (5, 2)):
        recipe, clerk = adversarial(steps=total, generator_steps=every), Clerk()
        found = [Seed(str(i), "a", image=lambda: Image.new("RGB", (8, 8))) for i in range(8)]
        opponent = Opponent(clerk, recipe.adversary, recipe.references, found, ["a"], 0)
        for step in range(total):
            opponent.meet(step, [Image.new("RGB", (8, 8))] * 8, [Brief("a", "a")] * 8, range(8))
        told = count(recipe, GENERATOR, None, [])
        assert told.references == Count(sum(clerk.met)) and told.pairs == Count(len(clerk.met) * 5 * 8)


def test_pictures_for_cards_are_counted_apart():
    shown = {name: counted(tiny(name)).shown.number for name in ("1_prompt.yaml", "2_image.yaml", "4_evaluate.yaml")}
    # eight captions: before, and after each of three rounds; before and after; an evaluation has its own pictures
    assert shown == {"1_prompt.yaml": 8 * 4, "2_image.yaml": 8 * 2, "4_evaluate.yaml": 0}
    # one round leaves a guider and a generator, and both go into the pipeline
    assert counted(tiny("3_multimodal.yaml", rounds=1)).shown.number == 8 * 4
    assert counting.SHOWN == showcase.SHOWN
