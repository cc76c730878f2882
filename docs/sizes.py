"""Measure what ``spro-hf plan`` knows of the real models, without their weights: ``python docs/sizes.py --write [ID …]``.

Every architecture is built on torch's meta device, where tensors have shapes and no numbers: parameters are counted, and a
pass is made in no memory at all (``passes``). All of it takes some minutes; ids after ``--write`` measure those alone.
Without ``--write`` nothing is written, and the exit code tells whether ``spro_hf/plan/sizes.yaml`` is up to date.

Of each model stand there: the parameters of its ``components``, and the buffers stored with them; ``layers``, what a LoRA
takes on each by rank; ``passes``, bytes in bfloat16 of one picture of ``side`` pixels (of a chat model: of one token);
``prompt``, the numbers of a prompt's embeddings; of a chat model ``cache``, the numbers that a token and a picture leave
behind for later tokens, and ``tower``, bytes of a picture, or of a token that it becomes, in the vision tower; of a scorer
that an adversary can be ``adversary``: the parameters that learn, and bytes of one picture in a pass with their gradients,
or, where that is a head, of one token, and what is ``kept`` of a token meanwhile.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from architectures import GENERATORS, MODELS
from passes import TYPE, Alive, made, passes, weightless
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForImageTextToText, Dinov2Model, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from spro_hf.diffusion.lora import TARGETS
from spro_hf.tiny import home

FILE = Path(__file__).parents[1] / "spro_hf" / "plan" / "sizes.yaml"
HEADER = "# Written by docs/sizes.py, which measures all of it; see there what each number is. Do not edit.\n"
LANGUAGE = r".*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)  # what a LoRA can be laid on
CLOSE = 0.03  # how far from the card's number of parameters a configuration may be


def numbers(module: torch.nn.Module) -> dict[str, int]:
    """How many numbers a module's parameters hold, those that are shared once, and the buffers that are stored with them."""
    stored = module.state_dict()
    buffers = sum(buffer.numel() for name, buffer in module.named_buffers() if name in stored)
    return {"parameters": sum(p.numel() for p in module.parameters())} | ({"buffers": buffers} if buffers else {})


def layers(module: torch.nn.Module) -> dict[str, list[int]]:
    """What a LoRA on each layer takes by rank: the layer's inputs and outputs; names in braces, see ``packed``."""
    found: dict[tuple[int, int], list[str]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, LAYERS):
            outputs, *inputs = layer.weight.shape
            found.setdefault((torch.Size(inputs).numel(), outputs), []).append(name)
    return {name: list(shape) for shape, names in found.items() for name in packed(names)}


def packed(names: Iterable[str]) -> list[str]:
    """Names that differ in numbers between dots as one, "blocks.{0-3,7}.to_q"."""
    forms: dict[tuple, set[tuple[int, ...]]] = {}
    for name in names:
        parts = name.split(".")
        form = tuple(None if part.isdigit() else part for part in parts)
        forms.setdefault(form, set()).add(tuple(int(part) for part in parts if part.isdigit()))
    found = []
    for form, places in forms.items():
        for box in boxes(places):
            sides = iter(box)
            found.append(".".join(ranges(next(sides)) if part is None else part for part in form))
    return found


def boxes(places: set[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Tuples of numbers as products of sets."""
    if places == {()}:
        return [()]
    rests: dict[int, set] = {}
    for first, *rest in sorted(places):
        rests.setdefault(first, set()).add(tuple(rest))
    alike: dict[frozenset, list[int]] = {}
    for first, rest in rests.items():
        alike.setdefault(frozenset(rest), []).append(first)
    return [(tuple(firsts), *box) for rest, firsts in alike.items() for box in boxes(set(rest))]


def ranges(values: tuple[int, ...]) -> str:
    if len(values) == 1:
        return str(values[0])
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return "{" + ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) + "}"


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=TYPE)


def denoise(module: torch.nn.Module, side: int) -> Any:
    """A pass of a denoiser for one picture whose latents have ``side`` rows and columns, with the longest prompt."""
    at, config, tokens = torch.ones(1), module.config, (side // 2) ** 2
    match type(module).__name__:
        case "UNet2DConditionModel":
            more = {}
            if config.addition_embed_type:
                more = {"added_cond_kwargs": {"text_embeds": empty(1, 1280), "time_ids": empty(1, 6)}}
            prompt = empty(1, 77, config.cross_attention_dim)
            return module(empty(1, config.in_channels, side, side), at, prompt, **more).sample
        case "SD3Transformer2DModel":
            prompt, pooled = empty(1, 333, config.joint_attention_dim), empty(1, config.pooled_projection_dim)
            return module(empty(1, config.in_channels, side, side), prompt, pooled, at).sample
        case "FluxTransformer2DModel":
            places = {"img_ids": torch.zeros(tokens, 3), "txt_ids": torch.zeros(512, 3), "guidance": at}
            return module(empty(1, tokens, 64), empty(1, 512, 4096), empty(1, 768), at, **places).sample
        case "QwenImageTransformer2DModel":
            shapes = [[(1, side // 2, side // 2)]]
            return module(empty(1, tokens, 64), empty(1, 512, 3584), timestep=at, img_shapes=shapes).sample
        case "ZImageTransformer2DModel":
            return module([empty(16, 1, side, side)], at, [empty(512, 2560)]).sample
        case other:
            raise NotImplementedError(f"{other}: say here how it is called")


def coded(make: Callable[[], torch.nn.Module], side: int, scale: int) -> dict[str, int]:
    """Bytes at the peak of decoding and of encoding one picture of ``side`` pixels."""
    vae, deep = made(make), ()
    channels = getattr(vae.config, "latent_channels", None) or vae.config.z_dim
    if "QwenImage" in type(vae).__name__:
        deep = (1,)
    found = {}
    with weightless():
        for name, shape in (
            ("decode", (1, channels, *deep, side // scale, side // scale)),
            ("encode", (1, 3, *deep, side, side)),
        ):
            alive, given = Alive(vae), empty(*shape)
            with alive, torch.no_grad():
                getattr(vae, name)(given)
            found[name] = alive.peak
    return found


def spoken(make: Callable[[], torch.nn.Module], seen: int = 0) -> dict[str, Any]:
    """Bytes that a token takes in passes of a chat model's language part; those of a picture that all tokens look at."""

    def language() -> torch.nn.Module:
        inner = make().model
        return getattr(inner, "language_model", None) or getattr(inner, "text_model", None) or inner

    def told(count: int, seen: int = 0) -> dict[str, int]:
        def call(module: torch.nn.Module) -> torch.Tensor:
            given = empty(1, count, module.config.hidden_size).requires_grad_(torch.is_grad_enabled())
            mask = torch.ones(1, 1, count, count, dtype=torch.bool)
            more = {"cross_attention_states": empty(1, seen, module.config.hidden_size)} if seen else {}
            out = module(inputs_embeds=given, attention_mask=mask, use_cache=False, **more)
            return out.last_hidden_state

        return passes(language, call, LANGUAGE)

    def slope(seen: int = 0) -> dict[str, int]:
        few, many = told(512, seen), told(1024, seen)
        return {name: round((many[name] - few[name]) / 512) for name in few}

    found: dict[str, Any] = slope()
    if seen:  # layers that look at the picture are passed over where there is none
        whole, looking = told(1024, seen), slope(seen)
        found = {name: max(found[name], looking[name]) for name in found}
        found["picture"] = {name: max(0, whole[name] - 1024 * found[name]) for name in whole}
    return found


def cache(config: Any, seen: int) -> dict[str, int]:
    """Numbers that a token, and a picture that all tokens look at, leave behind for the tokens after them."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_key_value_heads * width
    looking = len(getattr(config, "cross_attention_layers", ()))
    return {"token": each * (config.num_hidden_layers - looking), "picture": each * looking * seen}


def looked(width: int, inner: int, patches: int) -> int:
    """Bytes of ``patches`` in a vision tower without gradients; a plain one of the same width stands in for all."""
    config = SiglipVisionConfig(hidden_size=width, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=16)
    config._attn_implementation = "sdpa"
    tower = made(lambda: SiglipEncoder(config))
    with weightless():
        alive, given = Alive(tower), empty(1, 1024, width)
        with alive, torch.no_grad():
            tower(inputs_embeds=given)
    return round(alive.peak / 1024 * patches)


def scored(make: Callable[[], torch.nn.Module], side: int) -> int:
    """Bytes of one picture of ``side`` pixels in a scorer without gradients; 0 of a head on embeddings."""
    scorer = made(make)
    with weightless():
        alive, given = Alive(scorer), empty(1, 3, side, side)
        with alive, torch.no_grad():
            if hasattr(scorer, "get_image_features"):
                scorer.get_image_features(pixel_values=given)
            elif isinstance(scorer, torch.nn.ModuleDict):
                scorer["vision"](given)
            elif isinstance(scorer, Dinov2Model):
                scorer(given)
    return alive.peak


def adversary(
    make: Callable[[], torch.nn.Module], learns: Callable[[torch.nn.Module], torch.nn.Module]
) -> dict[str, int]:
    """What learns in a scorer, and what it takes: a part of the scorer for each picture, or a head for each token."""

    def peak(count: int) -> int:
        alive = Alive(scorer if inside else part)
        with weightless(), alive, torch.enable_grad():
            if inside:
                out = scorer.get_image_features(pixel_values=empty(count, 3, 224, 224))
            else:
                out = part(empty(count, scorer.config.hidden_size))
            found = [leaf.float().pow(2).mean() for leaf in tree_leaves(out) if leaf.requires_grad]
            torch.stack(found).sum().backward()
        part.zero_grad(set_to_none=True)
        return alive.peak

    scorer = made(make)
    with weightless():
        part = learns(scorer).to(TYPE).requires_grad_(True)
    inside = any(part is module for module in scorer.modules())
    few = 1 if inside else 512  # gradients themselves are as large for many as for few
    found = {"parameters": numbers(part)["parameters"], "train": round((peak(2 * few) - peak(few)) / few)}
    return found if inside else found | {"kept": scorer.config.hidden_size * TYPE.itemsize}


def checked(id: str, card: float, counted: int) -> None:
    if abs(counted / 1e9 / card - 1) > CLOSE:
        sys.exit(f"{id}: its card says {card} billion parameters, and its configuration has {counted / 1e9:.3f}")


def generator(id: str, about: dict[str, Any]) -> dict[str, Any]:
    """All that is told of a generator."""
    parts, side = about["components"], about["side"]
    denoiser = "unet" if "unet" in parts else "transformer"
    found = {name: numbers(made(make)) | {"stored": stored} for name, (make, stored) in parts.items()}
    checked(id, about["card"], found[denoiser]["parameters"] + found[denoiser].get("buffers", 0))
    make = parts[denoiser][0]
    told = {key: about[key] for key in ("pipeline", "scheduler", "side", "prompt")}
    cost = passes(make, lambda module: denoise(module, side // 8), TARGETS.split("|"))
    return told | {
        "components": found, "denoiser": denoiser, "layers": layers(made(make)),
        "passes": cost | coded(parts["vae"][0], side, 8),
    }  # fmt: skip


def model(id: str, about: dict[str, Any]) -> dict[str, Any]:
    """All that is told of a chat model or of a scorer."""
    make, whole = about["make"], made(about["make"])
    found = numbers(whole) | {"stored": about["stored"]}
    checked(id, about["card"], found["parameters"])
    if "picture" not in about:
        told = {"components": {"model": found}, "passes": {"forward": scored(make, about.get("side", 224))}}
        return told | ({"adversary": adversary(make, about["learns"])} if "learns" in about else {})
    return {"components": {"model": found}, "layers": layers(whole)} | chat(make, about)


def chat(make: Callable[[], torch.nn.Module], about: dict[str, Any]) -> dict[str, Any]:
    config, seen = made(make).config.get_text_config(), about.get("seen", 0)
    return {
        "vocabulary": config.vocab_size, "picture": about["picture"], "cache": cache(config, seen),
        "passes": spoken(make, seen), "tower": looked(*about["tower"]) if "tower" in about else 0,
    }  # fmt: skip


def tiny() -> dict[str, Any]:
    """Passes of the embedded world's generators and guider; their sizes are read from their files."""
    found = {}
    flow = "SD3Transformer2DModel"
    for name, kind in (("generator", flow), ("varied-generator", flow), ("ddim-generator", "UNet2DConditionModel")):
        denoiser = home.path(name) / ("unet" if "UNet" in kind else "transformer")
        parts = {
            "vae": (diffusers.AutoencoderTiny, home.path(name) / "vae"),
            "denoiser": (getattr(diffusers, kind), denoiser),
        }
        make = {
            part: lambda cls=cls, folder=folder: cls.from_config(cls.load_config(folder))
            for part, (cls, folder) in parts.items()
        }
        cost = passes(make["denoiser"], lambda module: denoise(module, 8), TARGETS.split("|")) | coded(
            make["vae"], 32, 4
        )
        found[f"spro_hf/tiny/{name}"] = {"side": 32, "passes": cost}
    folder = home.path("guider")
    config = AutoConfig.from_pretrained(folder)
    about = {"picture": {"tokens": 4}, "tower": (64, 128, 17)}
    found["spro_hf/tiny/guider"] = chat(lambda: AutoModelForImageTextToText.from_config(config), about)
    return found


def measured(ids: Iterable[str]) -> dict[str, Any]:
    """What is told of each id."""
    own = tiny()
    kinds = [(GENERATORS, generator), (MODELS, model), (own, lambda id, about: about)]
    return {id: tell(id, table[id]) for table, tell in kinds for id in table if id in ids}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    before = yaml.safe_load(FILE.read_text()) if FILE.exists() else {}
    asked = [word for word in sys.argv[1:] if word != "--write"]
    found = before | measured(asked) if asked else measured([*GENERATORS, *MODELS, *tiny()])
    text = HEADER + yaml.safe_dump(found, sort_keys=False, width=160, default_flow_style=None)
    if "--write" in sys.argv:
        FILE.write_text(text)
    elif found != before:
        sys.exit("spro_hf/plan/sizes.yaml is out of date; run python docs/sizes.py --write")
