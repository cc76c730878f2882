"""Load a vision-language model as guider and sample replies from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessor, LogitsProcessorList

from spro_hf.errors import UserError
from spro_hf.guider.instructions import STYLES, Reply, instruction, parse
from spro_hf.models import locate
from spro_hf.strict import nearest

__all__ = ["Guider", "Reply", "Task"]


@dataclass(frozen=True)
class Task:
    """What the guider is to rewrite: a caption, the image drawn from it, and the objective.

    ``context`` may hold "tweet" and "company" where the objective is "engagement".
    """

    image: Image
    caption: str
    objective: str
    context: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def renamed() -> Iterator[None]:
    """Keep quiet that PEFT and TRL still call activation checkpointing by its old name, gradient checkpointing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield


class RowTemperatures(LogitsProcessor):
    """Divide each row's logits by its own temperature; where that is 0, leave only the most probable token."""

    def __init__(self, temperatures: torch.Tensor):
        self.temperatures = temperatures[:, None]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` of shape (rows, vocabulary)."""
        greedy = self.temperatures == 0
        scaled = scores.float() / self.temperatures.masked_fill(greedy, 1.0)
        best = torch.zeros_like(scaled, dtype=torch.bool).scatter_(1, scores.argmax(1, keepdim=True), True)
        return scaled.masked_fill(greedy & ~best, -torch.inf)


class Guider:
    """A model, its processor and the way it is asked (see :func:`spro_hf.guider.instructions.instruction`)."""

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Any,
        style: str = "full",
        reasoning: bool = True,
        word_limit: int | None = 60,
        max_new_tokens: int = 512,
        batch_size: int = 128,
    ):
        if style not in STYLES:
            raise UserError(f"guider.style: unknown style '{style}'; {nearest(style, STYLES)}")
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self.model, self.processor = model, processor
        self.style, self.reasoning, self.word_limit = style, reasoning, word_limit
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size

    @classmethod
    def load(
        cls,
        id: str,
        revision: str | None = None,
        adapter: str | None = None,
        adapter_revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        **manner: Any,
    ) -> Guider:
        """Load from the package ("spro_hf/tiny/guider"), a folder or the Hub, and lay a PEFT adapter on top if asked.

        ``dtype`` is the name of a torch type; ``manner`` goes to the constructor (style, reasoning, word_limit,
        max_new_tokens, batch_size). Code from a repository is never run.

        Raises:
            UserError: if ``id`` or ``adapter`` cannot be found, or ``dtype`` is no floating-point type of torch.
        """
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            raise UserError(f"guider.dtype: '{dtype}' is no type to compute in; use float32, bfloat16 or float16.")
        folder = locate(id, revision)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=kind, trust_remote_code=False).to(device)
        if adapter is not None:
            # trainable, so that a later round can continue it; `eval` and `no_grad` rule while sampling
            with renamed():
                model = PeftModel.from_pretrained(
                    model, locate(adapter, adapter_revision), is_trainable=True, torch_device=device
                )
        return cls(model.eval(), processor, **manner)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    def save(self, folder: Path | str) -> None:
        """Save the adapter if there is one, else model and processor; safetensors in either case."""
        self.model.save_pretrained(folder)
        if not isinstance(self.model, PeftModel):
            self.processor.save_pretrained(folder)

    def messages(self, task: Task) -> list[dict[str, str]]:
        """The conversation of a task without its image: one user message of plain text."""
        text = instruction(self.style, task.objective, task.caption, self.reasoning, self.word_limit, task.context)
        return [{"role": "user", "content": text}]

    def read(self, text: str, finished: bool = True) -> Reply:
        """Parse a reply under this guider's reasoning and word limit."""
        return parse(text, self.reasoning, self.word_limit, finished)

    def encode(self, tasks: Sequence[Task]) -> dict[str, torch.Tensor]:
        """Model inputs of tasks, on the model's device; ``input_ids`` of shape (n, longest), padded on the left."""
        texts = []
        for task in tasks:
            content = [{"type": "image"}, {"type": "text", "text": self.messages(task)[0]["content"]}]
            chat = [{"role": "user", "content": content}]
            texts.append(self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        # the template has written every special token already
        return self.processor(
            text=texts,
            images=[[task.image.convert("RGB")] for task in tasks],
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self.device, self.model.dtype)

    def reply(
        self,
        tasks: Sequence[Task],
        temperatures: Sequence[float | None],
        seed: int,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        """Sample one reply per task and temperature.

        The same tasks, temperatures, seed and batch size give the same replies, whatever the global random state, which
        is left as it was. A temperature of None takes the most probable token each time. Samples come from the model's
        own distribution at that temperature: a checkpoint's default top-k and top-p are not applied.

        Args:
            tasks: what to rewrite.
            temperatures: one per candidate, above 0, or None.
            seed: any integer.
            advance: called with the number of replies that a batch has brought.

        Returns:
            For each task, its candidates in the order of ``temperatures``.

        Raises:
            UserError: for a temperature that is not above 0.
        """
        for value in temperatures:
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"temperatures: {value:g} cannot be sampled at; give one above 0, or none for greedy.")
        rows = [(task, 0.0 if value is None else value) for task in tasks for value in temperatures]
        replies: list[Reply] = []
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, len(rows), self.batch_size):
                chunk = rows[start : start + self.batch_size]
                replies += self._sample([task for task, _ in chunk], [value for _, value in chunk])
                if advance is not None:
                    advance(len(chunk))
        width = len(temperatures)
        return [replies[i * width : (i + 1) * width] for i in range(len(tasks))]

    def _sample(self, tasks: list[Task], temperatures: list[float]) -> list[Reply]:
        inputs = self.encode(tasks)
        tokens = self.model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.max_new_tokens,
            logits_processor=LogitsProcessorList(
                [RowTemperatures(torch.tensor(temperatures, dtype=torch.float32, device=self.device))]
            ),
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=tokens.device)
        finished = torch.isin(tokens, ends).any(dim=1).tolist()
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [self.read(text.strip(), done) for text, done in zip(texts, finished, strict=True)]
