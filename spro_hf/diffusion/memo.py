"""A prompt is encoded once, however often it is drawn: a memo over a pipeline's ``encode_prompt``."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline

KEPT = 1 << 30  # bytes of embeddings, on the device: of SDXL some 800 prompts, of SD3 with its T5 some 200


@contextmanager
def remembered_prompts(pipe: DiffusionPipeline) -> Iterator[None]:
    """Within the context ``pipe.encode_prompt`` remembers, without gradients. On leaving, everything is forgotten.

    A context within another one uses that one's memory.

    So do not train a text encoder within: its embeddings would be stale. Any pipeline's ``encode_prompt`` will do; a
    call with more than prompts and plain values (embeddings, a negative prompt for each) goes through unremembered.
    """
    before = pipe.__dict__.get("encode_prompt")
    if getattr(before, "remembers", False):
        yield
        return
    pipe.encode_prompt = _remembering(pipe.encode_prompt, inspect.signature(type(pipe).encode_prompt))
    try:
        yield
    finally:
        del pipe.encode_prompt
        if before is not None:
            pipe.encode_prompt = before


def _remembering(encode: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """``encode`` with a memory of its last prompts."""
    memory: OrderedDict[tuple, tuple] = OrderedDict()

    @torch.no_grad()
    def encode_prompt(*args, **kwargs) -> Any:
        rest = signature.bind(None, *args, **kwargs).arguments  # None stands for self
        rest.pop("self")
        rest |= rest.pop("kwargs", {})
        prompts = rest.pop("prompt", None)
        prompts = [prompts] if isinstance(prompts, str) else prompts  # FLUX's negative prompt comes alone
        plain = all(_plain(v) or ("prompt" not in name and _row(v)) for name, v in rest.items())
        several = any(rest.get(f"num_{what}_per_prompt", 1) != 1 for what in ("images", "videos"))
        if not isinstance(prompts, list) or not plain or several:
            return encode(*args, **kwargs)
        key = tuple(sorted((name, str(value)) for name, value in rest.items()))
        missing = [p for p in dict.fromkeys(prompts) if (p, key) not in memory]
        if missing:
            # some pipelines take a negative prompt only in the form that the prompt has
            lists = {n: [v] * len(missing) for n, v in rest.items() if "negative" in n and isinstance(v, str)}
            parts = encode(prompt=list(missing), **(rest | lists))
            if any(_square(part, len(missing)) for part in parts):
                return encode(*args, **kwargs)  # positions of so many tokens cannot be told from a batch of so many
            for i, prompt in enumerate(missing):
                memory[prompt, key] = tuple(_one(part, i, len(missing)) for part in parts)
        for prompt in prompts:
            memory.move_to_end((prompt, key))
        found = list(zip(*(memory[prompt, key] for prompt in prompts), strict=True))
        while sum(map(_bytes, memory.values())) > KEPT and len(memory) > 1:
            memory.popitem(last=False)
        if any(len(set(map(_shape, pieces))) > 1 for pieces in found):
            return encode(*args, **kwargs)  # padded to the longest of its batch: pieces of two batches do not join
        return tuple(map(_join, found))

    encode_prompt.remembers = True
    return encode_prompt


def _bytes(parts: tuple) -> int:
    """What the embeddings of one prompt take."""
    return sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device)


def _row(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_plain, value))


def _shape(piece: Any) -> Any:
    """What pieces of one part must have in common to be joined: a mask, say, may be missing where nothing is padded."""
    return piece.shape if isinstance(piece, torch.Tensor) else type(piece)


def _square(part: Any, count: int) -> bool:
    """Whether a part has as many tokens as there are prompts."""
    return isinstance(part, torch.Tensor) and part.shape[:2] == (count, count)


def _one(part: Any, index: int, count: int) -> Any:
    """Sample ``index`` of a batch; what has no batch of ``count`` (None, FLUX's token positions) is shared by all."""
    if isinstance(part, list | torch.Tensor) and len(part) == count:
        return part[index : index + 1].clone() if isinstance(part, torch.Tensor) else part[index : index + 1]
    return Shared(part)


class Shared:
    """A part of the result that belongs to no single sample."""

    def __init__(self, value: Any):
        self.value = value


def _join(pieces: tuple) -> Any:
    first = pieces[0]
    if isinstance(first, Shared):
        return first.value
    return torch.cat(pieces) if isinstance(first, torch.Tensor) else [item for piece in pieces for item in piece]
