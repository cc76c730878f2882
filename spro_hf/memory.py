"""Not enough memory, told in one sentence that names the field to lower."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from spro_hf.errors import UserError


@contextmanager
def needing(field: str, value: object = None) -> Iterator[None]:
    """What runs in here needs memory in proportion to a field of the recipe; a UserError names it where there is too little.

    Torch tells of too little memory on an accelerator by a class of its own, on the CPU by a plain RuntimeError.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _told(field, value, error) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _told(field, value, error) from error


def _told(field: str, value: object, error: BaseException) -> UserError:
    now = "" if value is None else f" (now {value})"
    said = str(error).strip().splitlines()[0][:120] if str(error).strip() else "the process is out of memory"
    return UserError(
        f"{field}: there is not enough memory; lower it{now}, or see `spro-hf plan` for what the recipe needs ({said})."
    )


def free() -> None:
    """Give back what nothing names any more: trainers leave rings of references behind, which hold whole models."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
