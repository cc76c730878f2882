"""How large a model is: by its own files, by what was measured of its architecture, or by the Hub's listing. Never a guess.

``sizes.yaml`` holds what ``docs/sizes.py`` measured of the models that the real recipes name; see there what each number is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from spro_hf.errors import UserError
from spro_hf.methods import Lora
from spro_hf.models import BUILT_IN, LAION, RENDERER, locate, wanted
from spro_hf.strict import parse_yaml

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
INDEX = "model_index.json"
TOP = "model"  # the component of a repository that is one model and no pipeline
LEAST = 2  # bytes of a number in the usual checkpoint, where the type is not known: a lower bound
# As in spro_hf.diffusion.lora and spro_hf.guider.lora, which load torch; a test holds them together.
GENERATOR_TARGETS = "to_q|to_k|to_v|to_out.0"
GUIDER_LAYERS = r"(.*\b(text_model|language_model)\b.*|model\.layers\..*)\."
GUIDER_PROJECTIONS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


@dataclass(frozen=True)
class Size:
    """What is known of a model.

    Attributes:
        components: how many numbers each component holds, parameters and the buffers stored with them.
        parameters: of those, what full fine-tuning trains.
        layers: what a LoRA can be laid on, by name: inputs and outputs.
        download: bytes that are fetched from the Hub; at the least, unless ``exact``.
        about: everything else in ``sizes.yaml``, or in a pipeline's own files.
    """

    components: dict[str, int]
    parameters: dict[str, int]
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    download: int = 0
    exact: bool = True
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> int:
        """Of all components that are loaded: a safety checker is fetched and left aside (see ``load_generator``)."""
        return sum(count for name, count in self.components.items() if name != "safety_checker")

    @property
    def denoiser(self) -> str:
        """The component that a generator's training changes, and a chat model as a whole."""
        return next((name for name in ("transformer", "unet") if name in self.components), TOP)

    def bytes(self, dtype: str) -> int:
        """What the weights take in memory."""
        return self.numbers * BYTES[dtype]

    def lora(self, settings: Lora) -> int:
        """Parameters of a LoRA: rank · (inputs + outputs) of each layer that its targets name, as PEFT matches them."""
        rank, targets = settings.rank, settings.targets
        if self.denoiser == TOP:  # a chat model's language part
            targets = targets or GUIDER_PROJECTIONS
            targets = f"{GUIDER_LAYERS}({targets})" if re.fullmatch(r"\w+(\|\w+)*", targets) else targets
        targets = targets or GENERATOR_TARGETS
        if re.fullmatch(r"[\w.]+(\|[\w.]+)*", targets):
            names = targets.split("|")
            fits = [s for n, s in self.layers.items() if any(n == t or n.endswith(f".{t}") for t in names)]
        else:
            fits = [shape for name, shape in self.layers.items() if re.fullmatch(targets, name)]
        return rank * sum(inputs + outputs for inputs, outputs in fits)


# The embedded world's renderer, which has no network
NOTHING = Size(
    {}, {}, about={"pipeline": "Renderer", "side": 32, "steps": 0, "passes": {"forward": 0, "decode": 0, "encode": 0}}
)


def size(id: str, revision: str | None = None, keep: str | None = None, hub: bool = False) -> Size | None:
    """What is known of a model, or None.

    Args:
        keep: a file beside the safetensors that is loaded from it.
        hub: ask the Hub about what is neither here nor in ``sizes.yaml``.
    """
    if id == RENDERER:
        return NOTHING
    if Path(id).is_dir() or id.startswith((BUILT_IN, LAION)):
        return of_folder(Path(locate(id, revision)), table().get(id, {}))
    if id in table():
        return measured(table()[id])
    return of_hub(id, revision, keep) if hub else None


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, Any]]:
    """``sizes.yaml``."""
    return parse_yaml((Path(__file__).parent / "sizes.yaml").read_text(encoding="utf-8"))


def measured(about: dict[str, Any]) -> Size:
    """A model of ``sizes.yaml``."""
    parts = about["components"]
    whole = {name: part["parameters"] + part.get("buffers", 0) for name, part in parts.items()}
    return Size(
        whole, {name: part["parameters"] for name, part in parts.items()},
        {name: tuple(shape) for packed, shape in about.get("layers", {}).items() for name in spread(packed)},
        sum(whole[name] * BYTES.get(part["stored"], LEAST) for name, part in parts.items()), False, about,
    )  # fmt: skip


def spread(packed: str) -> Iterator[str]:
    """The names that "blocks.{0-2,5}.to_q" stands for."""
    parts = re.split(r"\{([\d,-]+)\}", packed)
    choices = [_numbers(part) if i % 2 else [part] for i, part in enumerate(parts)]
    return map("".join, product(*choices))


def _numbers(ranges: str) -> list[str]:
    runs = [run.partition("-") for run in ranges.split(",")]
    return [str(number) for first, _, last in runs for number in range(int(first), int(last or first) + 1)]


def of_folder(folder: Path, about: dict[str, Any]) -> Size | None:
    """A model on this machine, by the headers of its safetensors; None if it has none."""
    from safetensors import safe_open

    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    tensors: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in wanted(files):
        if name.endswith(".safetensors"):
            with safe_open(folder / name, "numpy") as opened:
                shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            tensors.setdefault(_component(name), {}).update(shapes)
    return _of_tensors(tensors, 0, _told(folder) | about) if tensors else None


def _component(file: str) -> str:
    return file.partition("/")[0] if "/" in file else TOP


def _of_tensors(tensors: dict[str, dict[str, tuple[int, ...]]], download: int, about: dict[str, Any]) -> Size:
    whole = {part: sum(map(math.prod, shapes.values())) for part, shapes in tensors.items()}
    found = Size(whole, whole, {}, download, True, about)
    layers = {
        name.removesuffix(".weight"): (math.prod(shape[1:]), shape[0])
        for name, shape in tensors[found.denoiser if found.denoiser in tensors else next(iter(tensors))].items()
        if name.endswith(".weight") and len(shape) > 1
    }
    return Size(whole, whole, layers, download, True, about)


def _told(folder: Path) -> dict[str, Any]:
    """The class, scheduler and side of a pipeline's pictures, by its configurations."""
    if not (folder / INDEX).is_file():
        return {}
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    found = {"pipeline": index["_class_name"], "scheduler": index.get("scheduler", [None, None])[1]}
    parts = [folder / name / "config.json" for name in ("transformer", "unet", "vae")]
    *denoiser, vae = [json.loads(file.read_text(encoding="utf-8")) for file in parts if file.is_file()]
    sides = [config["sample_size"] for config in denoiser if isinstance(config.get("sample_size"), int)]
    if sides and "block_out_channels" in vae:
        found["side"] = sides[0] * 2 ** (len(vae["block_out_channels"]) - 1)
    return found


def of_hub(id: str, revision: str | None, keep: str | None) -> Size | None:
    """A model of the Hub, by the listing of its files and the headers of its safetensors; None if they are not to be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    from spro_hf.hub.artifacts import resolve

    api, tensors = HfApi(), {}
    try:
        commit = resolve(id, "model", revision or "main")
        tree = api.list_repo_tree(id, revision=commit, recursive=True)
        sizes = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
        names = wanted(list(sizes), keep=keep)
        for name in names:
            if name.endswith(".safetensors"):
                header = api.parse_safetensors_file_metadata(id, name, revision=commit).tensors
                shapes = {key: tuple(told.shape) for key, told in header.items()}
                tensors.setdefault(_component(name), {}).update(shapes)
    except (UserError, HfHubHTTPError):  # not there, not allowed, or no network
        return None
    return _of_tensors(tensors, sum(sizes[name] for name in names), {}) if tensors else None


def picture_tokens(rule: dict[str, int], height: int, width: int) -> int:
    """How many tokens a picture becomes, at the most: a number of its own, one for each ``patch``, or those of its tiles.

    A picture is enlarged to ``longest`` pixels and cut into tiles; each and the whole, made small, becomes ``each`` tokens,
    with up to 12 around them that say where the tile stood.
    """
    if "tokens" in rule:
        return rule["tokens"]
    if "patch" in rule:
        return math.ceil(height / rule["patch"]) * math.ceil(width / rule["patch"])
    scale = rule["longest"] / max(height, width)
    rows, columns = (math.ceil(math.ceil(side * scale) / rule["tile"]) for side in (height, width))
    return (rows * columns + 1) * (rule["each"] + 12)
