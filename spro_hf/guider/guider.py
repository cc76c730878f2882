"""Load a chat model as guider, one that sees pictures or a text-only one, and sample replies from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL.Image import Image
from transformers import LogitsProcessor, LogitsProcessorList, ProcessorMixin

from spro_hf.errors import UserError
from spro_hf.guider import vllm
from spro_hf.guider.instructions import STYLES, Reply, instruction, parse
from spro_hf.guider.processor import chat_class, ends, load_processor, template_of, tokenizer_of
from spro_hf.models import load_model, locate
from spro_hf.parts import BACKENDS
from spro_hf.strict import nearest

__all__ = ["Guider", "Reply", "Task"]


@dataclass(frozen=True)
class Task:
    """What the guider is to rewrite: a caption, the image drawn from it, and the objective.

    ``context`` is what else is known of the seed. The guider is told "tweet" and "company" where the objective is
    "engagement"; the rest is for the rewards.
    """

    image: Image
    caption: str
    objective: str
    context: Mapping[str, str] = field(default_factory=dict)


ADAPTER = "adapter_config.json"


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Leave the global random state as it was, the CPU's and that of ``device``; other accelerators are not woken."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


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
    """A model, its processor and the way it is asked (see :func:`spro_hf.guider.instructions.instruction`).

    ``processor`` is a processor where the model ``sees`` the picture of its task, and a tokenizer where it is told the
    caption alone. ``backend`` "vllm" samples with vLLM (:mod:`spro_hf.guider.vllm`), "transformers" with ``model``.

    Attributes:
        ends: ids of the tokens that end a reply.
        template_words: what the chat template is told beside the conversation.
        folder: where the weights of ``model`` lie together with the processor, an adapter's apart; None if nowhere.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Any,
        style: str = "full",
        reasoning: bool = True,
        word_limit: int | None = 60,
        max_new_tokens: int = 512,
        batch_size: int = 128,
        backend: str = "transformers",
    ):
        if style not in STYLES:
            raise UserError(f"guider.style: unknown style '{style}'; {nearest(style, STYLES)}")
        if backend not in BACKENDS:
            raise UserError(f"guider.backend: unknown backend '{backend}'; {nearest(backend, BACKENDS)}")
        if backend == "vllm":
            vllm.check()
        self.model, self.processor, self.tokenizer = model, processor, tokenizer_of(processor)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.style, self.reasoning, self.word_limit = style, reasoning, word_limit
        self.max_new_tokens, self.batch_size, self.backend = max_new_tokens, batch_size, backend
        self.sees = isinstance(processor, ProcessorMixin)
        # A model that thinks before it answers would spend its tokens there: the plan of a reply takes that place.
        self.template_words = {"enable_thinking": False} if "enable_thinking" in (template_of(processor) or "") else {}
        self.ends = ends(model, self.tokenizer)
        self.folder: str | None = None

    @classmethod
    def load(
        cls,
        id: str,
        revision: str | None = None,
        adapter: str | None = None,
        adapter_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        **manner: Any,
    ) -> Guider:
        """Load from the package ("spro_hf/tiny/guider"), a folder or the Hub.

        What is loaded, a model that sees pictures or a text-only one, is read from its configuration. ``adapter`` is a
        PEFT adapter, which is laid on top, or a guider all of whose weights were trained, which takes its place, with
        the processor of ``id`` where it brings none. ``device`` None is the accelerator, if there is one; ``dtype`` is
        the name of a torch type; ``manner`` goes to the constructor (style, reasoning, word_limit, max_new_tokens,
        batch_size, backend). Code from a repository is never run.

        Raises:
            UserError: if ``id`` or ``adapter`` cannot be found or is no such model, ``id`` has no chat template, or
                ``dtype`` is no floating-point type of torch.
        """
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            raise UserError(f"guider.dtype: '{dtype}' is no type to compute in; use float32, bfloat16 or float16.")
        trained = Path(locate(adapter, adapter_revision)) if adapter is not None else None
        whole = trained is not None and not (trained / ADAPTER).is_file() and (trained / "config.json").is_file()
        own = whole and (trained / "tokenizer_config.json").is_file()
        folder = str(trained) if own else locate(id, revision, weights=not whole)
        where = (adapter, adapter_revision, "guider.adapter") if whole else (id, revision, "guider.id")
        processor = load_processor(folder, adapter if own else id, "guider.adapter" if own else "guider.id")
        model = load_model(chat_class(str(trained) if whole else folder, where[0], where[2]), *where, device, dtype)
        if trained is not None and not whole:
            model = _adapted(model, trained, adapter)
        guider = cls(model, processor, **manner)
        guider.folder = folder if own or not whole else None
        return guider

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
        text = instruction(
            self.style, task.objective, task.caption, self.reasoning, self.word_limit, task.context, self.sees
        )
        return [{"role": "user", "content": text}]

    def read(self, text: str, finished: bool = True) -> Reply:
        """Parse a reply under this guider's reasoning and word limit."""
        return parse(text, self.reasoning, self.word_limit, finished)

    def written(self, task: Task) -> str:
        """The text that a task's reply continues: its conversation by the chat template, special tokens and all."""
        (message,) = self.messages(task)
        if self.sees:
            content = [{"type": "image"}, {"type": "text", "text": message["content"]}]
            message = {**message, "content": content}
        return self.processor.apply_chat_template(
            [message], add_generation_prompt=True, tokenize=False, **self.template_words
        )

    def lacks_start(self, text: str) -> bool:
        """Whether a chat template has left the token that begins a text to the tokenizer, as LLaVA-1.5's does."""
        start = self.tokenizer.bos_token
        return start is not None and not text.startswith(start)

    def encode(self, tasks: Sequence[Task]) -> Mapping[str, torch.Tensor]:
        """Model inputs of tasks, on the model's device; ``input_ids`` of shape (n, longest), padded on the left."""
        pictures = {"images": [[task.image.convert("RGB")] for task in tasks]} if self.sees else {}
        texts = [self.written(task) for task in tasks]
        inputs = self.processor(
            text=texts,
            **pictures,
            padding=True,
            padding_side="left",
            add_special_tokens=self.lacks_start(texts[0]),
            return_tensors="pt",
        )
        if not self.sees:  # a tokenizer may know of segments, of which a text-only chat model has one
            return {name: inputs[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return inputs.to(self.device, self.model.dtype)

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
        own distribution at that temperature: a checkpoint's default top-k, top-p and repetition penalty are not applied.

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
        if self.backend == "vllm":
            replies = [self.read(text.strip(), done) for text, done in vllm.sample(self, rows, seed)]
            if advance is not None:
                advance(len(rows))
        else:
            replies = self._replies(rows, seed, advance)
        width = len(temperatures)
        return [replies[i * width : (i + 1) * width] for i in range(len(tasks))]

    def _replies(self, rows: list[tuple[Task, float]], seed: int, advance: Callable[[int], None] | None) -> list[Reply]:
        replies: list[Reply] = []
        with forked(self.device), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, len(rows), self.batch_size):
                chunk = rows[start : start + self.batch_size]
                replies += self._sample([task for task, _ in chunk], [value for _, value in chunk])
                if advance is not None:
                    advance(len(chunk))
        return replies

    def _sample(self, tasks: list[Task], temperatures: list[float]) -> list[Reply]:
        inputs = self.encode(tasks)
        tokens = self.model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=self.max_new_tokens,
            logits_processor=LogitsProcessorList(
                [RowTemperatures(torch.tensor(temperatures, dtype=torch.float32, device=self.device))]
            ),
            eos_token_id=self.ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        finished = torch.isin(tokens, torch.tensor(self.ends, device=tokens.device)).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [self.read(text.strip(), done) for text, done in zip(texts, finished, strict=True)]


def _adapted(model: torch.nn.Module, folder: Path, adapter: str) -> PeftModel:
    """``model`` under a PEFT adapter that can be trained on, as a later round may; `eval` and `no_grad` rule sampling."""
    try:
        with renamed():
            # PEFT warns of weights that an adapter lacks, and leaves them as for a new one
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, folder, is_trainable=True, torch_device=str(model.device)).eval()
    except (ValueError, RuntimeError, OSError, UserWarning) as error:  # another model's, or no adapter at all
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"guider.adapter: '{adapter}' is no adapter of this guider ({said}); name one that is."
        ) from error
