"""The processes of a run, started by ``torchrun`` or ``accelerate launch``; one, where neither was used.

Every process draws the same plan from the same seeds and takes its share of it, so that between them only rewards and
gradients travel, and the result does not depend on their number but for the order of sums. Torch is imported where it
is needed, since a recipe's mistake is told before.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def start() -> None:
    """Join the other processes, if there are any. Waiting has a day: one may wait while the first evaluates."""
    if world() == 1:
        return
    import torch

    if not _dist().is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        _dist().init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=1))


def stop() -> None:
    """Part from the other processes."""
    if world() == 1:
        return
    if _dist().is_initialized():
        _dist().destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def first() -> bool:
    """Whether this is the process that writes, prints and publishes."""
    return rank() == 0


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    """Wait for all."""
    if world() > 1:
        _dist().barrier()


def share(value: Any) -> Any:
    """The first process's ``value``, in every process."""
    if world() == 1:
        return value
    box = [value]
    _dist().broadcast_object_list(box, src=0)
    return box[0]


def gather(values: list) -> list:
    """Every process's values, one process's behind the other's, in every process."""
    if world() == 1:
        return values
    found: list[Any] = [None] * world()
    _dist().all_gather_object(found, values)
    return [value for part in found for value in part]


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Add up the parameters' gradients over all processes, in one message.

    A gradient that one process lacks is zero there; one that all lack is still missing, as with one process.
    """
    if world() == 1:
        return
    import torch

    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = torch.tensor([float(p.grad is not None) for p in parameters]).to(grads[0])
    flat = torch.cat([grad.flatten() for grad in grads] + [there])
    _dist().all_reduce(flat)
    *sums, there = flat.split([grad.numel() for grad in grads] + [len(there)])
    for parameter, part, count in zip(parameters, sums, there.tolist(), strict=True):
        parameter.grad = part.view_as(parameter).clone() if count else None


def share_of(count: int) -> range:
    """This process's rows of ``count``: runs of one length, or of two that differ by one."""
    return range(rank() * count // world(), (rank() + 1) * count // world())


def generator_states() -> list[dict[str, Tensor]]:
    """The state of torch's own random generators of every process, by process."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return gather([state])


def restore_generators(states: list[dict[str, Tensor]]) -> None:
    """Give this process's generators their state again, if there is one of its number."""
    import torch

    if rank() < len(states):
        torch.set_rng_state(states[rank()]["cpu"])
        if "cuda" in states[rank()] and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[rank()]["cuda"])


def _dist() -> Any:
    from torch import distributed

    return distributed
