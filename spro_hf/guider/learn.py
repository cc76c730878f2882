"""Teach the guider with TRL: preference pairs (DPO), examples (SFT) or a reward (GRPO).

``settings`` are fields of TRL's own configuration and reach it unchanged. Laid under them are only what a run inside a
run needs: no reports, no checkpoints, no progress bar, no truncation (image tokens must stay whole), the template's words
that sampling has too and, on the CPU, float32 without gradient checkpointing. On an accelerator TRL's own choice rules:
bfloat16 autocast and gradient checkpointing, with the weights in the guider's ``dtype`` and an adapter's in float32.

The reference of DPO, and of GRPO with ``beta`` above 0, is the guider as the call finds it: a frozen copy of its
adapter, or, where all weights are trained, of the model. The paper does not say which reference later rounds use.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from datasets import (
    Dataset,
    Features,
    Image,
    List,
    Value,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from peft import PeftModel
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from spro_hf import parallel
from spro_hf.errors import UserError
from spro_hf.guider import mllama
from spro_hf.guider.guider import Guider, Reply, Task, forked, renamed
from spro_hf.guider.lora import add_lora
from spro_hf.strict import nearest

CONFIGS = {"dpo": DPOConfig, "grpo": GRPOConfig, "sft": SFTConfig}
WRITTEN = 16  # rows that are held until they are written
_CHAT = List({"role": Value("string"), "content": Value("string")})


@dataclass(frozen=True)
class Pair:
    """Two replies to one task, as text; ``chosen`` scored higher than ``rejected``."""

    task: Task
    chosen: str
    rejected: str


def learn_dpo(
    guider: Guider,
    pairs: Iterable[Pair],
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    lora: dict[str, Any] | None,
) -> dict[str, float]:
    """Direct preference optimisation (arXiv 2305.18290) of the guider, in place, on pairs of replies.

    ``settings`` are DPOConfig's fields. ``lora`` is that of :func:`spro_hf.guider.lora.add_lora`; None trains all
    weights. A guider that carries an adapter already trains that one on.

    Returns:
        The last value of every metric that TRL logged, "loss" among them the mean over the run.

    Raises:
        UserError: if there are no pairs, or for a field that DPOConfig or ``lora`` does not have.
    """
    end = _closing(guider)
    rows = (_row(guider, p.task, chosen=_answer(p.chosen, end), rejected=_answer(p.rejected, end)) for p in pairs)
    with _trainable(guider, DPOConfig, settings, folder, seed, lora) as args:
        return _run(DPOTrainer(**_common(guider, args, rows, "pairs")))


def learn_sft(
    guider: Guider,
    examples: Iterable[tuple[Task, str]],
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    lora: dict[str, Any] | None,
) -> dict[str, float]:
    """Supervised fine-tuning of the guider, in place, on tasks and the replies they should get.

    The loss is taken on the reply alone. ``settings`` are SFTConfig's fields; all else as in :func:`learn_dpo`.
    """
    end = _closing(guider)
    rows = (_row(guider, task, completion=_answer(reply, end)) for task, reply in examples)
    with _trainable(guider, SFTConfig, settings, folder, seed, lora) as args:
        return _run(SFTTrainer(**_common(guider, args, rows, "examples")))


def learn_grpo(
    guider: Guider,
    tasks: Sequence[Task],
    reward: Callable[[list[Task], list[Reply]], list[float]],
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    lora: dict[str, Any] | None,
) -> dict[str, float]:
    """Group relative policy optimisation (arXiv 2402.03300) of the guider, in place, against a reward.

    ``reward`` gets all replies of a batch, those that do not parse too, each with its task, and returns one finite
    number for each; it renders and scores. ``settings`` are GRPOConfig's fields; all else as in :func:`learn_dpo`.
    """
    mllama.refuse_grpo(guider.model)
    rows = (_row(guider, task, index=i) for i, task in enumerate(tasks))
    words = {"chat_template_kwargs": guider.template_words} if guider.template_words else {}
    settings = {"max_completion_length": guider.max_new_tokens, **words, **settings}
    scored = _reward_function(guider, tasks, reward)
    with _trainable(guider, GRPOConfig, settings, folder, seed, lora) as args:
        return _run(GRPOTrainer(reward_funcs=scored, **_common(guider, args, rows, "tasks")))


def _reward_function(
    guider: Guider,
    tasks: Sequence[Task],
    reward: Callable[[list[Task], list[Reply]], list[float]],
) -> Callable[..., list[float]]:
    """A reward as TRL calls it: completions in, one number each out."""

    def spro_reward(completions: list[Any], completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
        texts = ["".join(_texts(message["content"])) for (message,) in completions]
        finished = [bool(ids) and ids[-1] in guider.ends for ids in completion_ids]
        replies = [guider.read(text.strip(), done) for text, done in zip(texts, finished, strict=True)]
        scores = reward([tasks[i] for i in index], replies)
        if len(scores) != len(replies):
            raise UserError(f"The reward returned {len(scores)} numbers for {len(replies)} replies.")
        return [float(score) for score in scores]

    return spro_reward


def _texts(content: str | list[dict[str, str]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def _row(guider: Guider, task: Task, **columns: Any) -> dict[str, Any]:
    row = {"prompt": guider.messages(task), **columns}
    if guider.sees:
        row["images"] = [task.image.convert("RGB")]
    if guider.template_words:
        row["chat_template_kwargs"] = guider.template_words
    return row


def _answer(text: str, end: str = "") -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text + end}]


def _closing(guider: Guider) -> str:
    """The token that ends a reply, where the chat template writes none (LLaVA 1.5): the end is to be learned as well."""
    reply: Any = "Prompt:"
    asked: Any = "Caption:"
    if guider.sees:
        asked, reply = [{"type": "text", "text": asked}], [{"type": "text", "text": reply}]
    chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
    text = guider.processor.apply_chat_template(chat, tokenize=False, **guider.template_words)
    ends = guider.tokenizer.convert_ids_to_tokens(guider.ends)
    return "" if any(end in text[text.rindex("Prompt:") :] for end in ends) else guider.tokenizer.eos_token


def _common(guider: Guider, args: Any, rows: Iterable[dict[str, Any]], what: str) -> dict[str, Any]:
    """What every trainer takes. Rows are written to the disk one by one: a round's pictures are more than memory holds."""
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        raise UserError(f"learn: there are no {what} to learn from; loosen the filters or give more seeds.")
    kinds = {
        "images": List(Image()),
        "index": Value("int64"),
        "chat_template_kwargs": {"enable_thinking": Value("bool")},
    }
    features = Features({name: kinds.get(name, _CHAT) for name in first})
    data = Dataset.from_generator(
        lambda: chain([first], rows), features=features, writer_batch_size=WRITTEN, fingerprint=uuid4().hex,
        cache_dir=str(_rows_of(args)),
    )  # fmt: skip
    return {"model": guider.model, "args": args, "train_dataset": data, "processing_class": guider.processor}


def _rows_of(args: Any) -> Path:
    """Where this process writes what it learns from, while it learns."""
    return Path(args.output_dir) / f"rows-{parallel.rank()}"


def check(method: str, settings: dict[str, Any]) -> None:
    """Raise a ``UserError`` for a field that the configuration of "dpo", "grpo" or "sft" does not have."""
    _known(CONFIGS[method], settings)


def _known(kind: type[Any], settings: dict[str, Any]) -> set[str]:
    known = {f.name for f in fields(kind) if f.init}
    for name in settings:
        if name not in known:
            raise UserError(f"learn.{_method(kind)}: {kind.__name__} has no field '{name}'; {nearest(name, known)}")
        usual = next(f.default for f in fields(kind) if f.name == name)
        given = settings[name]
        if isinstance(usual, int | float) and given is not None and not isinstance(given, int | float):
            raise UserError(f"learn.{_method(kind)}.{name}: expected a number like {usual}, not {given!r}.")
    return known


def _method(kind: type[Any]) -> str:
    return next(name for name, config in CONFIGS.items() if config is kind)


def _arguments(kind: type[Any], settings: dict[str, Any], guider: Guider, folder: Path, seed: int) -> Any:
    """TRL's configuration: our defaults under the caller's settings."""
    known = _known(kind, settings)
    cpu = guider.device.type == "cpu"
    defaults = {
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "seed": seed,
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "max_length": None,
    }
    if cpu:
        defaults["bf16"] = False
        if "gradient_checkpointing" not in settings:  # the old name, which the new one would overrule
            defaults["activation_checkpointing"] = False
    defaults = {name: value for name, value in defaults.items() if name in known}
    try:
        args = kind(**{"output_dir": str(folder), **defaults, **settings})
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"learn.{_method(kind)}: {kind.__name__} does not take these settings ({error}).") from error
    if (
        args.n_gpu > 1
    ):  # one process is one device: torchrun starts the others, and DataParallel would tear pictures apart
        args._n_gpu = 1
    return args


@contextmanager
def _trainable(
    guider: Guider, kind: type[Any], settings: dict[str, Any], folder: Path, seed: int, lora: dict[str, Any] | None
) -> Iterator[Any]:
    """TRL's arguments, with the guider ready for its trainer; ready for sampling again afterwards.

    TRL gives the model's forward another head, and autocast another still; it adds a frozen adapter "ref", writes the
    tokenizer's special tokens into the configurations, and seeds the global random state: all of it is undone. Where
    all weights are trained it loads the reference from the path in the model's configuration, which is not where the
    weights of a later round come from, so the weights of now are put there for the while.
    """
    args = _arguments(kind, settings, guider, folder, seed)
    add_lora(guider, lora, seed)
    adapted = isinstance(guider.model, PeftModel)
    base = guider.model.get_base_model() if adapted else guider.model
    forward = vars(base).get("forward")
    configs = [(c, dict(vars(c))) for c in (base.config, base.config.get_text_config(), base.generation_config)]
    if not adapted:
        guider.folder = None
        base.requires_grad_(True)
    with (
        forked(guider.device),
        tempfile.TemporaryDirectory() as reference,
        renamed(),
        quiet_datasets(),
    ):
        if not adapted and getattr(args, "beta", 0.0) != 0.0:
            base.save_pretrained(reference)
            base.config._name_or_path = reference
        try:
            guider.model.train()
            yield args
        finally:
            shutil.rmtree(_rows_of(args), ignore_errors=True)
            for config, kept in configs:
                vars(config).clear()
                vars(config).update(kept)
            for module in {base, guider.model}:
                vars(module).pop("forward", None)
                vars(module).pop("_original_forward", None)
            if forward is not None:
                base.forward = forward
            if adapted and "ref" in guider.model.peft_config:
                guider.model.delete_adapter("ref")
                guider.model.set_adapter("default")
            if args.gradient_checkpointing:
                base.gradient_checkpointing_disable()
            guider.model.zero_grad(set_to_none=True)
            guider.model.eval()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars of `datasets`, by which TRL tokenizes what holds no pictures."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _run(trainer: Any) -> dict[str, float]:
    """Train, and gather the last value of every metric; "first_loss" is the loss of the first step."""
    trainer.remove_callback(PrinterCallback)
    trainer.data_collator = mllama.with_whole_mask(trainer.data_collator, trainer.model)
    result = trainer.train()
    metrics: dict[str, float] = {}
    for entry in trainer.state.log_history:
        metrics |= {key: float(value) for key, value in entry.items() if isinstance(value, int | float)}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {**metrics, "first_loss": float(losses[0]), "loss": float(result.training_loss)}
