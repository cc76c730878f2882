"""What a pass through a model takes in memory, measured without memory: on torch's meta device tensors have no numbers.

Of a pass the bytes of all tensors that are alive at once are taken, the weights' own apart: what an allocator would have to
hold at the least. Attention is counted as kernels that never hold the matrix of all pairs do it, which keep queries, keys,
values, the result and a number for each row. Not counted: workspace of kernels and holes between tensors.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TYPE = torch.bfloat16
RANK = 8  # of the LoRA that learns; what it takes itself is small beside what is kept for it


class Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as they are alive; ``peak`` is their maximum."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.now = self.peak = 0
        self.kept = [t.untyped_storage() for t in itertools.chain(module.parameters(), module.buffers())]
        self.known = {storage._cdata for storage in self.kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class Attention(torch.autograd.Function):
    """The memory of fused attention."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, out.new_empty(out.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """In the place of ``scaled_dot_product_attention``."""
    return Attention.apply(query, key, value)


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Tensors are made on the meta device, and attention is fused."""
    with torch.device("meta"), mock.patch("torch.nn.functional.scaled_dot_product_attention", attend):
        yield


def made(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with weightless():
        return make().to(TYPE).eval().requires_grad_(False)


def passes(
    make: Callable[[], torch.nn.Module], call: Callable[[torch.nn.Module], Any], targets: list[str] | str
) -> dict[str, int]:
    """Bytes at the peak of a pass: "forward" without gradients, "train" with those of a LoRA, "checkpointed" likewise."""
    found = {}
    for name in ("forward", "train", "checkpointed"):
        module, learns = made(make), name != "forward"
        with weightless():
            if learns:
                inject_adapter_in_model(LoraConfig(r=RANK, target_modules=targets), module)
                cast_training_params(module, torch.float32)
            if name == "checkpointed" and not checkpointing(module):
                continue
            alive = Alive(module)
            with alive, torch.set_grad_enabled(learns):
                out = call(module)
                if learns:
                    torch.stack([part.float().pow(2).mean() for part in tree_leaves(out)]).sum().backward()
        found[name] = alive.peak
    return found


def checkpointing(module: torch.nn.Module) -> bool:
    """Switch on that activations are made again in the backward pass; False where a module cannot."""
    if hasattr(module, "gradient_checkpointing_enable"):
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif module._supports_gradient_checkpointing:
        module.enable_gradient_checkpointing()
    else:
        return False
    module.train()
    return True
