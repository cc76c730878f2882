"""SPRO: self-play reward optimisation of text-to-image models, as Hub-native recipes.

Nothing is imported until it is asked for: the Hub's clients read their address when they are imported, and the command
line sets it first.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Guider", "SPROPipeline", "Task", "load_rows"]


def __getattr__(name: str) -> Any:
    if name == "SPROPipeline":
        from spro_hf.diffusion.pipeline import SPROPipeline

        return SPROPipeline
    if name in ("Guider", "Task"):
        from spro_hf.guider import guider

        return getattr(guider, name)
    if name == "load_rows":
        from spro_hf.hub.load import load_rows

        return load_rows
    raise AttributeError(f"module 'spro_hf' has no attribute '{name}'")
