"""What a result may depend on beside its recipe: the machine, its libraries, and how many threads add up its numbers."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from spro_hf import parallel
from spro_hf.hub.artifacts import software


def told() -> dict[str, Any]:
    """The machine as plain data. ``instructions`` are the processor's that torch chooses its kernels by: on another kind the
    last digits of a sum differ, as they do with another number of ``threads``."""
    device = parallel.device()
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": parallel.world(),
        "device": torch.cuda.get_device_name() if str(device).startswith("cuda") else str(device),
        **software(),
    }


def write(folder: Path) -> None:
    """``told()`` as ``environment.json`` in an artifact's folder."""
    (Path(folder) / "environment.json").write_text(json.dumps(told(), indent=2, sort_keys=True) + "\n")
