"""Tensors of a file, by name. A pickled file becomes safetensors once, and is not unpickled again."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]
PICKLED = (".pth", ".pt", ".bin")


def tensors(file: Path) -> State:
    """The tensors in ``file``; those under "state_dict", where that is what a pickled file holds.

    A pickled file is read by ``torch.load(weights_only=True)``, which builds tensors and runs nothing, and is written to
    HF_HOME/spro_hf as safetensors under its checksum, which is what is read from then on.

    Raises:
        ValueError: if it holds anything but tensors by name, or cannot be read.
    """
    try:
        return load_file(file if file.suffix == ".safetensors" else _converted(file))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(" ".join(str(error).split())[:160]) from error


def _converted(file: Path) -> Path:
    with file.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    made = Path(constants.HF_HOME) / "spro_hf" / f"{checksum}.safetensors"
    if not made.is_file():
        state = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(state, Mapping):
            state = state.get("state_dict", state)
        if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
            raise ValueError(f"it holds more than tensors by name: a {type(state).__name__}")
        made.parent.mkdir(parents=True, exist_ok=True)
        partial = made.with_suffix(f".{os.getpid()}")
        save_file({name: value.clone().contiguous() for name, value in state.items()}, partial)
        os.replace(partial, made)  # whole or not at all, whoever else converts it
    return made
