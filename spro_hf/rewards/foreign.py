"""Checkpoints of other libraries: read as tensors alone, renamed, and laid whole into transformers' own modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spro_hf import parallel
from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.rewards.weights import State, tensors


def read(id: str, revision: str | None, file: str, field: str) -> tuple[Path, State]:
    """The folder of ``id`` and the tensors in its ``file``, by name; those under "state_dict", if it has that key.

    Nothing but tensors is unpickled (see ``weights.tensors``). ``field`` is the recipe's, for the message.

    Raises:
        UserError: if there is no such file, or it holds anything else.
    """
    folder = Path(locate(id, revision, weights=False, keep=file))
    if not (folder / file).is_file():
        raise UserError(f"{field}: '{id}' has no file '{file}'; name the file of its weights.")
    try:
        return folder, tensors(folder / file)
    except ValueError as error:
        raise wrong(field, id, file, "file of tensors", error) from error


def wrong(field: str, id: str, file: str, what: str, why: object) -> UserError:
    """``file`` of ``id`` is not what ``field`` asks for; ``why`` may be the error, of which a KeyError names what lacks."""
    said = " ".join((f"it has no {why}" if isinstance(why, KeyError) else str(why)).split())[:160]
    return UserError(f"{field}: '{file}' of '{id}' is no {what} ({said}); name one that is.")


def rename(key: str, names: Mapping[str, str], inner: Mapping[str, str]) -> str:
    """``key`` with the beginning that stands in ``names`` replaced, and what follows a layer's number by ``inner``; what
    stands in neither stays, for ``build`` to refuse."""
    outer, layers, rest = _begun(key, names).partition(".layers.")
    number, dot, rest = rest.partition(".")
    return outer + layers + number + dot + _begun(rest, inner)


def _begun(key: str, names: Mapping[str, str]) -> str:
    old = next((name for name in names if key.startswith(name)), "")
    return names.get(old, "") + key.removeprefix(old)


def depth(state: State, layers: str) -> int:
    """How many layers there are under ``layers``, as in ``layers`` + "0.weight"."""
    return len({key.removeprefix(layers).split(".")[0] for key in state if key.startswith(layers)})


def build(
    kind: type, config: Any, state: State, field: str, id: str, file: str, device: str | None, dtype: str, **more: Any
) -> Any:
    """A transformers model of ``config`` with exactly the weights of ``state``, in evaluation mode, without gradients.

    Raises:
        UserError: if a weight is missing, is left over or has another shape: half a scorer would score all the same.
    """
    model, told = kind.from_pretrained(
        None, config=config, state_dict=state, dtype=getattr(torch, dtype), output_loading_info=True,
        ignore_mismatched_sizes=True, **more,
    )  # fmt: skip
    reports = {
        "lacks": set(told["missing_keys"]),
        "has the unknown": set(told["unexpected_keys"]),
        "has in another shape": {name for name, *_ in told["mismatched_keys"]},
    }
    for verb, names in reports.items():
        if names:
            raise wrong(field, id, file, f"whole {kind.__name__}", f"it {verb} {min(names)}, and {len(names) - 1} more")
    return model.to(device or parallel.device()).eval().requires_grad_(False)
