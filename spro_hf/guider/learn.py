"""Teach the guider with TRL: preference pairs (DPO), examples (SFT) or a reward (GRPO).

``settings`` are fields of TRL's own configuration and reach it unchanged. Laid under them are only what a run inside a
run needs: no reports, no checkpoints, no progress bar, no truncation (image tokens must stay whole) and, on the CPU,
float32 without gradient checkpointing.

The reference of DPO, and of GRPO with ``beta`` above 0, is the guider as the call finds it: a frozen copy of its
adapter, or, where all weights are trained, of the model. The paper does not say which reference later rounds use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from spro_hf.errors import UserError
from spro_hf.guider.guider import Guider, Reply, Task, renamed
from spro_hf.strict import nearest

# The language part of Idefics3, Mllama, Llava, Gemma 3 and the Qwen-VLs; vision towers and connectors stay as they are.
LANGUAGE_PART = r".*(text_model|language_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
CONFIGS = {"dpo": DPOConfig, "grpo": GRPOConfig, "sft": SFTConfig}
LORA_FIELDS = ("rank", "alpha", "targets")
_CHAT = List({"role": Value("string"), "content": Value("string")})


@dataclass(frozen=True)
class Pair:
    """Two replies to one task, as text; ``chosen`` scored higher than ``rejected``."""

    task: Task
    chosen: str
    rejected: str


def learn_dpo(
    guider: Guider,
    pairs: Sequence[Pair],
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    lora: dict[str, Any] | None,
) -> dict[str, float]:
    """Direct preference optimisation (arXiv 2305.18290) of the guider, in place, on pairs of replies.

    ``settings`` are DPOConfig's fields. ``lora`` has rank, alpha and targets (a regular expression over module names,
    None for the language part); None trains all weights. A guider that carries an adapter already trains that one on.

    Returns:
        The last value of every metric that TRL logged, "loss" among them the mean over the run.

    Raises:
        UserError: if there are no pairs, or for a field that DPOConfig or ``lora`` does not have.
    """
    rows = [_row(guider, p.task, chosen=_answer(p.chosen), rejected=_answer(p.rejected)) for p in pairs]
    with _trainable(guider, DPOConfig, settings, folder, seed, lora) as args:
        return _run(DPOTrainer(**_common(guider, args, rows, "pairs")))


def learn_sft(
    guider: Guider,
    examples: Sequence[tuple[Task, str]],
    settings: dict[str, Any],
    folder: Path,
    seed: int,
    lora: dict[str, Any] | None,
) -> dict[str, float]:
    """Supervised fine-tuning of the guider, in place, on tasks and the replies they should get.

    The loss is taken on the reply alone. ``settings`` are SFTConfig's fields; all else as in :func:`learn_dpo`.
    """
    rows = [_row(guider, task, completion=_answer(reply)) for task, reply in examples]
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
    rows = [_row(guider, task, index=i) for i, task in enumerate(tasks)]
    settings = {"max_completion_length": guider.max_new_tokens, **settings}
    scored = _reward_function(guider, tasks, reward)
    with _trainable(guider, GRPOConfig, settings, folder, seed, lora) as args:
        return _run(GRPOTrainer(reward_funcs=scored, **_common(guider, args, rows, "tasks")))


def _reward_function(
    guider: Guider,
    tasks: Sequence[Task],
    reward: Callable[[list[Task], list[Reply]], list[float]],
) -> Callable[..., list[float]]:
    """A reward as TRL calls it: completions in, one number each out."""
    end = guider.model.generation_config.eos_token_id
    ends = {*(end if isinstance(end, list) else [end]), guider.processor.tokenizer.eos_token_id}

    def spro_reward(completions: list[Any], completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
        texts = ["".join(_texts(message["content"])) for (message,) in completions]
        finished = [bool(ids) and ids[-1] in ends for ids in completion_ids]
        replies = [guider.read(text.strip(), done) for text, done in zip(texts, finished, strict=True)]
        scores = reward([tasks[i] for i in index], replies)
        if len(scores) != len(replies):
            raise UserError(f"The reward returned {len(scores)} numbers for {len(replies)} replies.")
        return [float(score) for score in scores]

    return spro_reward


def _texts(content: str | list[dict[str, str]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def _row(guider: Guider, task: Task, **columns: Any) -> dict[str, Any]:
    return {"prompt": guider.messages(task), "images": [task.image.convert("RGB")], **columns}


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _common(guider: Guider, args: Any, rows: list[dict[str, Any]], what: str) -> dict[str, Any]:
    if not rows:
        raise UserError(f"learn: there are no {what} to learn from; loosen the filters or give more seeds.")
    kinds = {"images": List(Image()), "index": Value("int64")}
    features = Features({name: kinds.get(name, _CHAT) for name in rows[0]})
    data = Dataset.from_list(rows, features=features)
    return {"model": guider.model, "args": args, "train_dataset": data, "processing_class": guider.processor}


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
        return kind(**{"output_dir": str(folder), **defaults, **settings})
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"learn.{_method(kind)}: {kind.__name__} does not take these settings ({error}).") from error


@contextmanager
def _trainable(
    guider: Guider, kind: type[Any], settings: dict[str, Any], folder: Path, seed: int, lora: dict[str, Any] | None
) -> Iterator[Any]:
    """TRL's arguments, with the guider ready for its trainer; ready for sampling again afterwards.

    TRL gives the model's forward another head, adds a frozen adapter "ref", and seeds the global random state: all of
    it is undone. Where all weights are trained it loads the reference from the path in the model's configuration,
    which is not where the weights of a later round come from, so the weights of now are put there for the while.
    """
    args = _arguments(kind, settings, guider, folder, seed)
    _add_lora(guider, lora, seed)
    adapted = isinstance(guider.model, PeftModel)
    base = guider.model.get_base_model() if adapted else guider.model
    forward, name, cache = vars(base).get("forward"), base.config._name_or_path, base.config.use_cache
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as reference, renamed():
        if not adapted and getattr(args, "beta", 0.0) != 0.0:
            base.save_pretrained(reference)
            base.config._name_or_path = reference
        try:
            guider.model.train()
            yield args
        finally:
            base.config._name_or_path = name
            vars(base).pop("forward", None)
            if forward is not None:
                base.forward = forward
            if adapted and "ref" in guider.model.peft_config:
                guider.model.delete_adapter("ref")
                guider.model.set_adapter("default")
            if args.gradient_checkpointing:
                base.gradient_checkpointing_disable()
            base.config.use_cache = cache
            guider.model.zero_grad(set_to_none=True)
            guider.model.eval()


def _add_lora(guider: Guider, lora: dict[str, Any] | None, seed: int) -> None:
    """Give the guider an adapter, or check that the one it carries is the one asked for."""
    if lora is None:
        return
    for name in lora:
        if name not in LORA_FIELDS:
            raise UserError(f"learn.lora: unknown field '{name}'; {nearest(name, LORA_FIELDS)}")
    rank, alpha = lora.get("rank", 8), lora.get("alpha", 16)
    targets = lora.get("targets") or LANGUAGE_PART
    if isinstance(guider.model, PeftModel):
        has = guider.model.peft_config["default"]
        if (has.r, has.lora_alpha) != (rank, alpha) or lora.get("targets") not in (None, has.target_modules):
            raise UserError(
                f"learn.lora: the guider carries an adapter of rank {has.r}, alpha {has.lora_alpha} and targets"
                f" '{has.target_modules}', and training goes on with it; give the same here."
            )
        return
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng(), renamed():
        torch.manual_seed(seed)
        try:
            guider.model = get_peft_model(guider.model, config)
        except ValueError as error:
            raise UserError(f"learn.lora.targets: '{targets}' matches no module of the guider ({error}).") from error


def _run(trainer: Any) -> dict[str, float]:
    """Train, and gather the last value of every metric; "first_loss" is the loss of the first step."""
    trainer.remove_callback(PrinterCallback)
    result = trainer.train()
    metrics: dict[str, float] = {}
    for entry in trainer.state.log_history:
        metrics |= {key: float(value) for key, value in entry.items() if isinstance(value, int | float)}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {**metrics, "first_loss": float(losses[0]), "loss": float(result.training_loss)}
