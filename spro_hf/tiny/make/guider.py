"""The tiny untrained guider: a stock Idefics3 of 0.9 M parameters, taught the grammar of plausible rewrites.

It reads the caption, follows the form of a reply and keeps what the caption names. It knows nothing of the objectives:
its examples pair every objective word, and every picture, with the same distribution of replies, so that whatever it
makes of either after self-play was learned there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from spro_hf.guider.guider import Guider, Task
from spro_hf.guider.instructions import GOALS, instruction
from spro_hf.tiny.grammar import propose
from spro_hf.tiny.make.common import Pace, every
from spro_hf.tiny.render import SIZE, render
from spro_hf.tiny.world import (
    ARRANGEMENTS,
    BACKGROUNDS,
    COLOURS,
    MODIFIERS,
    RELATIONS,
    SHAPES,
    caption,
    read,
    sample_truth,
)

END, IMAGE = "<end_of_utterance>", "<image>"
SPECIAL = ("<pad>", "<unk>", END, IMAGE, "<fake_token_around_image>", "<global-img>")
LABELS = ("User:", "Assistant:", "objective:", "caption:", "plan:", "Plan:", "Prompt:", *(f"{i}." for i in range(1, 8)))
OTHER = (*GOALS, "yes", "no", "keep", "add", "set", "place", ",", ".")
WORDS = " ".join((*SHAPES, *COLOURS, *BACKGROUNDS, *ARRANGEMENTS, *RELATIONS, *MODIFIERS, "a an at the on and")).split()
PATCH, SCALE = 8, 2
CHAT = (
    "{% for message in messages %}{{ message['role'].capitalize() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)


def guider_processor() -> Idefics3Processor:
    """Word-level tokenizer over the world's words, labels and numbers, and one 32×32 picture without splitting."""
    tokens = dict.fromkeys([*SPECIAL, *LABELS, *OTHER, *WORDS])
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d+\.|[A-Za-z]+:|\w+|[^\w\s]"), "removed", invert=True)
    words.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # words joined by spaces, none before a comma
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token=END, padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE, "<fake_token_around_image>", "<global-img>"]})
    edge = {"longest_edge": SIZE}
    return Idefics3Processor(
        Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        image_seq_len=(SIZE // PATCH // SCALE) ** 2,
        chat_template=CHAT,
    )


def new_guider(seed: int = 0) -> Guider:
    """The tiny guider with random weights; the global random state is left alone."""
    processor = guider_processor()
    tokenizer = processor.tokenizer
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 320,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256,
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": SIZE, "patch_size": PATCH,
    }  # fmt: skip
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SCALE,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    return Guider(model.eval(), processor, style="compact", reasoning=True, word_limit=22, max_new_tokens=72)


def examples(rng: np.random.Generator, count: int, split: str | None = "train") -> list[tuple[Task, bool, str]]:
    """Draw tasks with a plan wanted or not, and a random reply of the grammar to each.

    Half of the captions are plain, as seeds are; one in twenty holds a word that the world does not know.
    """
    drawn = []
    for _ in range(count):
        truth = sample_truth(rng, split)
        if rng.random() < 0.5:
            truth = replace(truth, modifiers=frozenset())
        text = caption(truth, rng)
        picture = Image.fromarray(render(truth, int(rng.integers(2**31))))
        reasoning = bool(rng.random() < 0.7)
        reply = propose(text, rng, reasoning)
        if rng.random() < 0.05:
            text = text.replace(" ", " strange ", 1)
        drawn.append((Task(picture, text, str(rng.choice(list(GOALS)))), reasoning, reply))
    return drawn


def batch(processor: Idefics3Processor, drawn: list[tuple[Task, bool, str]]) -> dict[str, torch.Tensor]:
    """Model inputs with labels on the reply and its end only, padded on the left."""
    asked = [instruction("compact", task.objective, task.caption, plan, None) for task, plan, _ in drawn]
    texts = [f"User: {IMAGE}{ask}{END}Assistant: {reply}{END}" for ask, (_, _, reply) in zip(asked, drawn, strict=True)]
    inputs = processor(text=texts, images=[[task.image] for task, _, _ in drawn], padding=True, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    start = processor.tokenizer.convert_tokens_to_ids("Assistant:")
    labels[(labels == start).cumsum(1) == 0] = -100
    labels[labels == start] = -100
    return {**inputs, "labels": labels}


def train_guider(
    minutes: float, out: Path, seed: int = 0, batch_size: int = 48, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Teach the grammar for a given wall time on scenes of the training split and save the guider in half precision.

    Returns:
        What :func:`measure_guider` finds on held-out captions.
    """
    guider, rng = new_guider(seed), np.random.default_rng(seed)
    guider.model.train()
    pace = Pace(_named(guider.model), minutes, lr=2e-3, muon_lr=4e-3)
    tell = every(20)
    while pace.progress < 1:
        loss = guider.model(**batch(guider.processor, examples(rng, batch_size))).loss
        pace.step(loss)
        if tell():
            say(f"guider: step {pace.steps}, {pace.progress:.0%}, loss {loss.item():.3f}")
    guider.model.eval().half()
    guider.save(out)
    return measure_guider(out)


def _named(model: torch.nn.Module) -> Iterable[tuple[str, torch.nn.Parameter]]:
    """Parameters by name, those of the layers marked as the optimiser's "block" matrices."""
    return [(name.replace("layers.", "block."), p) for name, p in model.named_parameters()]


def measure_guider(folder: Path, count: int = 512, seed: int = 1) -> dict[str, float]:
    """Sample replies at temperature 1 to held-out captions, a quarter of them with modifiers as later rounds have.

    Returns:
        ``parsed`` (share of replies that parse), ``subject`` (share whose prompt keeps the things and their order),
        ``all_named`` (… and position, background and modifiers), ``within`` (share of prompts the text encoders can
        hold), ``added`` (new modifiers a reply), ``spread`` (entropy of the new modifiers over a uniform
        choice's) and ``replies_per_second``.
    """
    guider = Guider.load(str(folder), style="compact", word_limit=22, max_new_tokens=72)
    drawn = examples(np.random.default_rng(seed), count, "held-out")
    tasks = [task for task, _, _ in drawn]
    start = time.perf_counter()
    replies = [candidates[0] for candidates in guider.reply(tasks, [1.0], seed)]
    seconds = time.perf_counter() - start
    kept = subject = within = 0
    added = np.zeros(len(MODIFIERS))
    for task, reply in zip(tasks, replies, strict=True):
        if reply.prompt is None:
            continue
        asked, got = read(task.caption), read(reply.prompt)
        same = asked.things == got.things and asked.relation == got.relation
        subject += same
        kept += (
            same
            and asked.position in (None, got.position)
            and asked.background in (None, got.background)
            and set(asked.modifiers) <= set(got.modifiers)
        )
        within += len(reply.prompt.replace(",", " ,").split()) <= 22
        added += [m in got.modifiers and m not in asked.modifiers for m in MODIFIERS]
    share = added / max(added.sum(), 1)
    spread = -sum(p * math.log(p) for p in share if p > 0) / math.log(len(MODIFIERS))
    return {
        "parsed": sum(r.prompt is not None for r in replies) / count,
        "subject": subject / count,
        "all_named": kept / count,
        "within": within / count,
        "added": float(added.sum() / count),
        "spread": float(spread),
        "replies_per_second": count / seconds,
    }
