"""EngageNet: how many likes a picture would get in a post, 0 to 100 (Khurana et al., ICLR 2025)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList

from spro_hf.errors import UserError
from spro_hf.guider.processor import ends
from spro_hf.models import load_model, locate
from spro_hf.rewards.base import Brief, captions_of
from spro_hf.rewards.heads import read_weights

FIELD = "scorers.engagenet.id"
# Up to which hue, in degrees, a colour has its name; the last part is red again.
HUES = ((15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (260, "blue"), (300, "purple"),
        (345, "pink"), (361, "red"))  # fmt: skip
TONES = {"warm": ("red", "orange", "yellow", "pink"), "cool": ("green", "cyan", "blue", "purple"),
         "neutral": ("black", "grey", "white")}  # fmt: skip
LEAST = 0.05  # of the picture: a colour that covers less is not told
CONTEXT = {"company": "Company", "tweet": "Tweet", "date": "Date"}
NEW_TOKENS = 6  # a blank, three digits, and the end


class EngageNet:
    """A vision-language model that is asked for the likes of a picture in its post, on a scale of 0 to 100.

    EngageNet is a LLaVA-1.5-13B tuned to answer with that number, with two layers on its last hidden state (loss
    CE + 0.1 · MSE). **Its weights are not public.** What stands here is its interface, and any general model put in its
    place, such as ``llava-hf/llava-1.5-13b-hf``, is a stand-in: its numbers are not EngageNet's.

    Stated by the papers: the model, what it is told (company, date, resolution, colours and tones with coverage, intended
    description, tags), the scale, the two layers. Chosen here, since they are not stated: the wording, how colours are
    named, that the layers read the last token of the prompt, have a ReLU between them and give the number as it is.

    Args:
        id: a model of transformers that takes pictures and text, with its processor.
        head: a safetensors file in ``id`` with the keys ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias``: the score is then
            what these two layers say. Without it the score is the number that the model writes.

    The number is whole, and many pictures get the same one from a model that was not tuned for it.
    """

    differentiable = False

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        head: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
    ):
        self.model = load_model(AutoModelForImageTextToText, id, revision, FIELD, device, dtype)
        self.batch_size = batch_size
        folder = locate(id, revision, keep=head)
        self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        self.head = self.numbers = None
        if head:
            width = self.model.config.get_text_config().hidden_size
            self.head = two_layers(Path(folder), head, width).to(self.model.device)
        else:
            tokenizer = self.processor.tokenizer
            self.numbers = Numbers(tokenizer, ends(self.model, tokenizer))

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            score = self._write if self.head is None else self._read
            scores += score(images[part], briefs[part])
        return scores

    def encode(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str], side: str) -> dict[str, Tensor]:
        """Model inputs, ``input_ids`` of shape (n, longest) padded on ``side``, "left" or "right".

        The question goes through the processor's chat template; where there is none, in LLaVA-1.5's plain form.
        """
        asked = [question(image, brief) for image, brief in zip(images, briefs, strict=True)]
        options = {"padding": True, "padding_side": side}
        if self.processor.chat_template is None:
            mark = getattr(self.processor, "image_token", "<image>")
            texts = [f"USER: {mark}\n{text} ASSISTANT:" for text in asked]
            inputs = self.processor(text=texts, images=[[image] for image in images], return_tensors="pt", **options)
        else:
            chats = [
                [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
                for image, text in zip(images, asked, strict=True)
            ]
            inputs = self.processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                processor_kwargs=options,
            )  # fmt: skip
        return inputs.to(self.model.device, self.model.dtype)

    def _read(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        """The head's numbers. Padding stands on the right, where no token of the prompt can see it."""
        inputs = self.encode(images, briefs, "right")
        hidden = self.model.base_model(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(-1) - 1
        return self.head(hidden[torch.arange(len(last), device=last.device), last].float())[:, 0].tolist()

    def _write(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        """The numbers that the model writes, its most probable token each time among those that go on to a number."""
        inputs = self.encode(images, briefs, "left")
        start = inputs["input_ids"].shape[1]
        tokens = self.model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=self.processor.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([partial(self.numbers, start)]),
        )[:, start:]  # fmt: skip
        return [float(text) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


class Numbers:
    """Leaves of each step's tokens those with which what stands behind the prompt can be a whole number of 0 to 100.

    A model that was not tuned for it would else answer in sentences, in ranges, or not at all.
    """

    def __init__(self, tokenizer: Any, ends: list[int]):
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self.digits = {i: text.strip() for i, text in enumerate(texts) if re.fullmatch(r"\s*[0-9]{1,3}\s*", text)}
        if not self.digits:
            raise UserError(
                f"{FIELD}: the model's tokenizer has no digits to answer with; name a model of words, or 'head'."
            )
        # LLaMA-1's tokenizer writes a blank of its own before the first digit
        self.blank = [i for i in tokenizer.convert_tokens_to_ids(["\u2581"]) if i not in (None, tokenizer.unk_token_id)]
        self.ends = ends

    def __call__(self, start: int, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` of shape (rows, vocabulary); the prompt ends before the place ``start``."""
        left = torch.full_like(scores, -torch.inf)
        for row, said in enumerate(input_ids[:, start:].tolist()):
            number = "".join(self.digits.get(token, "") for token in said)
            fit = [i for i, text in self.digits.items() if number != "0" and int(number + text) <= 100]
            fit += self.ends if number else [] if said else self.blank
            left[row, fit] = scores[row, fit]
        return left


def question(image: Image.Image, brief: Brief | str) -> str:
    """What EngageNet is asked of a picture, as lines of text; what the brief does not say is left out."""
    context = {} if isinstance(brief, str) else brief.context
    colours, tones = coverage(image)
    lines = [f"{label}: {context[name]}" for name, label in CONTEXT.items() if context.get(name)]
    lines += [
        f"Resolution: {image.width} x {image.height}",
        "Colours: " + ", ".join(f"{name} {share:.0%}" for name, share in colours.items()),
        "Tones: " + ", ".join(f"{name} {share:.0%}" for name, share in tones.items()),
        f"Intended description: {captions_of([brief])[0]}",
    ]
    if context.get("tags"):
        lines.append(f"Tags: {context['tags']}")
    return "\n".join(
        [
            "This picture is to be posted on social media. How many likes will it get, from 0 (fewest) to 100 (most)?",
            *lines,
            "Answer with the number alone.",
        ]
    )


def coverage(image: Image.Image) -> tuple[dict[str, float], dict[str, float]]:
    """Which part of a picture each named colour and each tone covers, in [0, 1], the largest first.

    By hue, saturation and value in [0, 1]: black below a value of 0.2; else, below a saturation of 0.15, white above a value
    of 0.8 and grey below; else the hue's name. Parts below 5 % are left out.
    """
    hue, saturation, value = (np.asarray(band, dtype=np.float64) / 255 for band in image.convert("HSV").split())
    names = np.array([name for _, name in HUES])[np.digitize(hue * 360, [edge for edge, _ in HUES])]
    names = np.where(saturation < 0.15, np.where(value > 0.8, "white", "grey"), names)
    names = np.where(value < 0.2, "black", names)
    found, counts = np.unique(names, return_counts=True)
    shares = dict(zip(found.tolist(), (counts / names.size).tolist(), strict=True))
    tones = {tone: sum(shares.get(name, 0.0) for name in group) for tone, group in TONES.items()}
    return _largest(shares), _largest(tones)


def _largest(shares: dict[str, float]) -> dict[str, float]:
    kept = {name: share for name, share in shares.items() if share >= LEAST}
    return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0])))


def two_layers(folder: Path, file: str, width: int) -> nn.Sequential:
    """Linear, ReLU, Linear to one number, from a safetensors file, for hidden states of ``width`` numbers."""
    state = read_weights(folder, file, FIELD, ".head")
    first = state.get("0.weight")
    inner = first.shape[0] if first is not None else 1
    head = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, 1))
    if {n: p.shape for n, p in head.state_dict().items()} != {n: p.shape for n, p in state.items()}:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:4])
        raise UserError(
            f"scorers.engagenet.head: '{file}' holds {shapes}, not two layers on {width} numbers (0.weight, 0.bias, 2.weight, "
            "2.bias); name the file that was trained with this model."
        )
    head.load_state_dict(state)
    return head.eval().requires_grad_(False)
