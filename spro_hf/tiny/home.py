"""Where the embedded world's weights lie: inside the package, as safetensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spro_hf.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"
RENDERER = "renderer"  # a pipeline without weights, see spro_hf.tiny.renderer
NAMES = (
    "generator", "varied-generator", "ddim-generator", "guider", "clip", "pickscore", "flawed-pickscore", "aesthetic",
    "engagement", "oracle", "judge",
)  # fmt: skip


def path(name: str) -> Path:
    """Folder of one model of the embedded world, e.g. "generator" or "clip"."""
    if name not in NAMES:
        raise UserError(f"The embedded world has no model '{name}'; it has {', '.join(NAMES)}.")
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise UserError(f"The embedded world's '{name}' is missing from {WEIGHTS.name}/; run `make world` to train it.")
    return folder


def renderer_digest() -> str:
    """The sha256 of the renderer's source, which has no weights: what stands for its commit in a lineage."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for name in ("render.py", "renderer.py", "world.py"):
        digest.update(name.encode() + b"\0" + (here / name).read_bytes())
    return digest.hexdigest()
