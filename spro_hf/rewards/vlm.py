"""A vision-language model as judge: asked about a picture, its answer read from the probabilities of its first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, ProcessorMixin

from spro_hf.errors import UserError
from spro_hf.guider.processor import load_processor
from spro_hf.models import load_model, locate
from spro_hf.rewards.base import Brief, captions_of
from spro_hf.strict import nearest

FIELD = "scorers.vlm"
# Of each mode: what is asked, how it is to be answered, and the answers, as single tokens write them
MODES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "yes": ('Does this figure show "{caption}"?', "Please answer yes or no.", ("yes", "no")),
    "rubric": (
        'How good is this picture as an illustration of "{caption}"? 5: it shows all of that, beautifully; 4: it shows '
        "all of that; 3: it shows most of it; 2: it shows little of it, or is badly made; 1: it shows something else.",
        "Please answer with a single digit from 1 to 5.",
        ("1", "2", "3", "4", "5"),
    ),
    "pairwise": (
        'Which of these two pictures is better as an illustration of "{caption}", the first or the second?',
        "Please answer first or second.",
        ("first", "second"),
    ),
}


class VLMJudge:
    """The answer of a chat model that sees pictures, ``AutoModelForImageTextToText``, to one question about each of them.

    Modes:
        yes: P(yes) / (P(yes) + P(no)), in [0, 1]. Lin et al. 2024 (VQAScore, arXiv 2404.01291) ask this question and take
            P(yes) alone, which also falls where a model would answer something else.
        rubric: the expectation of a grade, Σ k · p(k), in [1, 5].
        pairwise: P(first) / (P(first) + P(second)) of the picture against ``brief.base``, averaged over both orders, since
            models favour a place; in [0, 1], and 1/2 for the base picture itself.

    Each probability is the sum over all tokens that read so but for case and blanks ("yes", "Yes", " yes" ...), at the
    first token of the answer. ``question`` takes the place of the mode's question, and "{caption}" in it that of the
    caption; how to answer is told after it in any case.
    """

    differentiable = False

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        mode: str = "yes",
        question: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
    ):
        if mode not in MODES:
            raise UserError(f"{FIELD}.mode: there is no mode '{mode}'; {nearest(mode, MODES)}")
        asked, manner, self.answers = MODES[mode]
        self.mode, self.question, self.batch_size = mode, f"{question or asked} {manner}", batch_size
        self.processor = seeing_processor(id, revision)
        self.tokens = [readings(self.processor.tokenizer, answer) for answer in self.answers]
        for answer, tokens in zip(self.answers, self.tokens, strict=True):
            if not tokens:
                raise UserError(
                    f"{FIELD}.mode: no token of '{id}' reads '{answer}', which '{mode}' needs; choose another mode or model."
                )
        self.lead = lead(self.processor.tokenizer, self.answers)
        self.model = load_model(AutoModelForImageTextToText, id, revision, f"{FIELD}.id", device, dtype)

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        captions = captions_of(briefs)
        if self.mode == "pairwise":
            bases = [brief.base if isinstance(brief, Brief) else None for brief in briefs]
            for caption, base in zip(captions, bases, strict=True):
                if base is None:
                    raise UserError(
                        f"{FIELD}.mode: 'pairwise' judges a picture against its base picture, and that of {caption!r} is "
                        "not given; choose 'yes' or 'rubric' where there is none."
                    )
            before = self.probabilities(list(zip(images, bases, strict=True)), captions)[:, 0]
            after = self.probabilities(list(zip(bases, images, strict=True)), captions)[:, 1]
            return ((before + after) / 2).tolist()
        found = self.probabilities([(image,) for image in images], captions)
        return (found @ torch.arange(1.0, 6.0) if self.mode == "rubric" else found[:, 0]).tolist()

    def probabilities(self, pictures: Sequence[tuple[Image.Image, ...]], captions: Sequence[str]) -> Tensor:
        """Probabilities of the answers among themselves, (n, answers), on the CPU; one tuple of pictures per caption."""
        rows = [torch.empty(0, len(self.answers))]
        for start in range(0, len(pictures), self.batch_size):
            part = slice(start, start + self.batch_size)
            logits = self._first_logits(pictures[part], captions[part]).float().cpu()
            rows.append(torch.stack([logits[:, tokens].logsumexp(1) for tokens in self.tokens], 1).softmax(1))
        return torch.cat(rows)

    @torch.no_grad()
    def _first_logits(self, pictures: Sequence[tuple[Image.Image, ...]], captions: Sequence[str]) -> Tensor:
        """Logits of the answer's first token, (n, vocabulary)."""
        inputs = self._inputs(pictures, captions)
        # `generate` and not a plain call: it numbers the positions of rows that are padded on the left for every model
        return self.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        ).logits[0]  # fmt: skip

    def _inputs(self, pictures: Sequence[tuple[Image.Image, ...]], captions: Sequence[str]) -> Any:
        questions = [self.question.replace("{caption}", caption) for caption in captions]
        return asked(self.processor, self.model, pictures, questions, self.lead)


def seeing_processor(id: str, revision: str | None, field: str = f"{FIELD}.id") -> Any:
    """The processor of a chat model that sees pictures, whose tokenizer can pad; ``field`` is the recipe's, for messages."""
    processor = load_processor(locate(id, revision, weights=False), id, field)
    if not isinstance(processor, ProcessorMixin):
        raise UserError(f"{field}: '{id}' sees no pictures; name a chat model that does.")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def asked(
    processor: Any,
    model: Any,
    pictures: Sequence[tuple[Image.Image, ...]],
    questions: Sequence[str],
    lead: str = "",
) -> Any:
    """Inputs of a chat model that is asked one question about each tuple of pictures, padded on the left, where it lies.

    ``lead`` is what a prompt ends in, if no blank ends it already.
    """
    texts = []
    for row, question in zip(pictures, questions, strict=True):
        content = [*({"type": "image"} for _ in row), {"type": "text", "text": question}]
        chat = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        texts.append(prompt if prompt[-1:].isspace() else prompt + lead)
    # the template has written every special token already
    return processor(
        text=texts, images=[list(row) for row in pictures], padding=True, padding_side="left",
        add_special_tokens=False, return_tensors="pt",
    ).to(model.device, model.dtype)  # fmt: skip


def readings(tokenizer: Any, answer: str) -> list[int]:
    """The tokens that read ``answer``, but for case and blanks around it."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if text.strip().lower() == answer]


def lead(tokenizer: Any, answers: Sequence[str]) -> str:
    """What the prompt must end in for the answer to be the next token: a blank, if the tokenizer writes one as a token of
    its own before it, as LLaMA's do before digits, and nothing for others."""
    first = tokenizer(answers[0], add_special_tokens=False).input_ids[:1]
    return " " if first and not tokenizer.decode(first).strip() else ""
