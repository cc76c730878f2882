"""Where the embedded world's weights lie: inside the package, as safetensors."""

from __future__ import annotations

from pathlib import Path

from spro_hf.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("generator", "ddim-generator", "guider", "clip", "pickscore", "aesthetic", "engagement", "oracle", "judge")


def path(name: str) -> Path:
    """Folder of one model of the embedded world, e.g. "generator" or "clip"."""
    if name not in NAMES:
        raise UserError(f"The embedded world has no model '{name}'; it has {', '.join(NAMES)}.")
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise UserError(f"The embedded world's '{name}' is missing from {WEIGHTS.name}/; run `make world` to train it.")
    return folder
