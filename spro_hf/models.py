"""Where a model comes from: the package, a folder, or the Hub at a pinned commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from spro_hf.errors import UserError
from spro_hf.tiny import home

BUILT_IN = "spro_hf/tiny/"
RENDERER = BUILT_IN + home.RENDERER  # has no folder
LAION = "spro_hf/laion/"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".onnx_data", ".gguf", ".pb")
_COPIES = re.compile(r"\.(fp16|fp32|bf16|non_ema|fp8\w*)\b|(^|/)(consolidated|flax_|openvino_|ema_)[^/]*$")
_ASIDE = ("original", "onnx", "openvino", "flax", "gguf", "metal", "figures", "assets")  # folders of other runtimes
_MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".pdf")


def wanted(files: Sequence[str], weights: bool = True, keep: str | None = None) -> list[str]:
    """Of a model repository's files those that are loaded from it: a repository often holds its weights several times.

    Safetensors in the usual precision, or where a folder has none its .bin files, of which only tensors are read; and all
    that is neither weights nor pictures. Of a pipeline the weights of its components. ``weights`` False leaves out all
    weights, as for a processor; ``keep`` names a file that is taken in any case.
    """
    pipeline, found = "model_index.json" in files, []
    safe = {PurePosixPath(name).parent for name in files if name.endswith(".safetensors") and not _COPIES.search(name)}
    for name in files:
        path = PurePosixPath(name)
        if path.suffix in _WEIGHTS:
            # of a pipeline only components, which have a config.json; a component may be of before safetensors
            component = not pipeline or (len(path.parts) > 1 and str(path.with_name("config.json")) in files)
            kind = path.suffix == ".safetensors" or (path.suffix == ".bin" and path.parent not in safe)
            good = weights and component and kind and not _COPIES.search(name)
        else:
            good = path.suffix.lower() not in _MEDIA
        if name == keep or (good and path.parts[0] not in _ASIDE):
            found.append(name)
    return found


def locate(
    id: str, revision: str | None = None, kind: str = "model", weights: bool = True, keep: str | None = None
) -> str:
    """A local folder that holds ``id``: ``spro_hf/tiny/<name>`` and ``spro_hf/laion/<name>`` ship with the package, a folder
    is taken as it is, all else is a repository of the Hub, of which the ``wanted`` files are downloaded at the commit that
    ``revision`` names."""
    if Path(id).is_dir():
        return id
    if id.startswith(BUILT_IN):
        return str(home.path(id.removeprefix(BUILT_IN)))
    if id.startswith(LAION):
        return str(_laion(id.removeprefix(LAION)))
    from spro_hf.hub.artifacts import pull

    return str(pull(id, kind, revision or "main", lambda files: wanted(files, weights, keep)))


def _laion(name: str) -> Path:
    """Folder of one of LAION's heads that ship with the package."""
    heads = Path(__file__).parent / "rewards" / "laion"
    names = sorted(folder.name for folder in heads.iterdir() if folder.is_dir())
    if name not in names:
        raise UserError(f"The package ships no head '{LAION}{name}'; it has {', '.join(LAION + n for n in names)}.")
    return heads / name


def load_model(
    kind: type,
    id: str,
    revision: str | None,
    field: str,
    device: str | None = None,
    dtype: str = "float32",
    **more: Any,
) -> Any:
    """``kind.from_pretrained`` of a transformers class, in evaluation mode and without gradients.

    ``field`` is the recipe's, for the message; ``device`` is an accelerator where there is one, else the CPU.

    Raises:
        UserError: if ``id`` is no whole checkpoint of that class. Transformers itself would fill what is missing with
            random numbers, and the run would go on with them.
    """
    import torch

    from spro_hf import parallel

    folder = locate(id, revision)
    try:
        model, told = kind.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, trust_remote_code=False,
            **more,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{field}: '{id}' is no checkpoint of {kind.__name__} ({said}); name one that is.") from error
    if told["missing_keys"]:
        lacking = sorted(told["missing_keys"])
        raise UserError(
            f"{field}: '{id}' is no checkpoint of {kind.__name__}: it lacks {len(lacking)} of its weights, {lacking[0]} among "
            "them; name one that is."
        )
    return model.to(device or parallel.device()).eval().requires_grad_(False)


@lru_cache(maxsize=64)
def _checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def on_hub(id: str) -> bool:
    """Whether ``id`` is a repository of the Hub, neither a folder nor part of the package."""
    return not id.startswith((BUILT_IN, LAION)) and not Path(id).is_dir()


def commit(id: str, revision: str | None = None, kind: str = "model") -> str:
    """The commit behind ``id`` at ``revision``; for a built-in or local model the sha256 of its files."""
    if id == RENDERER:
        return home.renderer_digest()
    if not on_hub(id):
        return _checksum(Path(locate(id)))
    from spro_hf.hub.artifacts import resolve

    return resolve(id, kind, revision or "main")


def forget_paths(folder: str | Path) -> None:
    """Take the folder that a diffusers model was loaded from out of its configurations, before it is shipped."""
    for file in [*Path(folder).rglob("config.json"), *Path(folder).rglob("model_index.json")]:
        config = json.loads(file.read_text())
        if config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n")


def pinned(id: str, revision: str | None = None, kind: str = "model") -> str:
    """``id@commit``, the commit cut to twelve digits: how a row of a rollout names what made it."""
    return f"{id}@{commit(id, revision, kind)[:12]}"
