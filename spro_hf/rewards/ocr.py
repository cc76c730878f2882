"""Text in pictures: whether a picture shows the words that its caption puts in quotes, as a chat model reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from spro_hf.errors import UserError
from spro_hf.guider.processor import ends
from spro_hf.models import load_model
from spro_hf.rewards.base import Brief, captions_of
from spro_hf.rewards.vlm import asked, seeing_processor

FIELD = "scorers.ocr"
NOTHING = "-"  # what is to be answered where there is no text; a sentence about it would be taken for text
QUESTION = (
    "Transcribe all text in this picture exactly as it is written there, errors included, in reading order. Answer with the "
    f"transcription alone, or with {NOTHING} if there is no text."
)
NEW_TOKENS = 128
MARKS = '"“”„«»'
QUOTED = re.compile(f"[{MARKS}]([^{MARKS}]*)[{MARKS}]")


class OCR:
    """``1 − min(d, n) / n``: in [0, 1], 1 where the wanted text stands in the picture.

    ``n`` is the length of the wanted text, the first one that the caption puts in double quotes, and ``d`` its Levenshtein
    distance to all text that is read in the picture, both in lower case and without blanks. As in their public code ``d`` is
    0 where the wanted text is a part of what was read. The reward of text rendering in Flow-GRPO (arXiv 2505.05470), which
    Adv-GRPO (2511.20256) takes up.

    Departures: they read with PaddleOCR; here a chat model that sees pictures, ``AutoModelForImageTextToText``, is asked for
    a transcription, the most probable token each time, up to 128 tokens. A language model knows how words are spelled, and
    may read a misspelled one as it should be. They know straight quotes only, here typographic ones count too.

    Raises:
        UserError: when a caption quotes no text; it is named.
    """

    differentiable = False

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
    ):
        self.processor, self.batch_size = seeing_processor(id, revision, f"{FIELD}.id"), batch_size
        self.model = load_model(AutoModelForImageTextToText, id, revision, f"{FIELD}.id", device, dtype)

    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        texts = [wanted(caption) for caption in captions_of(briefs)]  # all of them, before anything is read
        return [closeness(text, read) for text, read in zip(texts, self.read(images), strict=True)]

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The text in each picture, "" if there is none."""
        texts, tokenizer = [], self.processor.tokenizer
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            inputs = asked(self.processor, self.model, [(image,) for image in part], [QUESTION] * len(part))
            # a checkpoint's penalty for repeating itself would misread what repeats in the picture
            tokens = self.model.generate(
                **inputs, do_sample=False, repetition_penalty=1.0, max_new_tokens=NEW_TOKENS,
                eos_token_id=ends(self.model, tokenizer), pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
            texts += [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return ["" if text == NOTHING else text for text in texts]


def wanted(caption: str) -> str:
    """The first text that a caption puts in double quotes, straight or typographic ones."""
    found = (text.strip() for text in QUOTED.findall(caption))
    text = next(filter(None, found), None)
    if text is None:
        raise UserError(
            f'{FIELD}: the caption {caption!r} quotes no text for the picture to show; write it in quotes, as in: a sign "OPEN".'
        )
    return text


def closeness(text: str, read: str) -> float:
    """``1 − min(d, n) / n`` of a wanted text and what was read."""
    text, read = ("".join(words.lower().split()) for words in (text, read))
    distance = 0 if text in read else min(levenshtein(text, read), len(text))
    return 1 - distance / len(text)


def levenshtein(one: str, other: str) -> int:
    """The least number of letters to put in, take out or replace to make one text of the other."""
    row = list(range(len(other) + 1))  # from nothing to each beginning of the other
    for i, letter in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != against))
    return row[-1]
