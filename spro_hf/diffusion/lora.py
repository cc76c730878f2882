"""A low-rank adapter on a pipeline's denoiser, in the form that stock ``pipe.load_lora_weights`` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata, cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import Module, Parameter

from spro_hf.diffusion.environment import denoiser_name
from spro_hf.errors import UserError
from spro_hf.models import locate

WEIGHTS = "pytorch_lora_weights.safetensors"
ABOUT = "lora"  # rank, alpha and targets in the file's header, where diffusers does not write its own
TARGETS = "to_q|to_k|to_v|to_out.0"  # attention, as diffusers names it; FLUX.2 has most of its in to_qkv_mlp_proj


def freeze(pipe: DiffusionPipeline) -> None:
    """Take the gradients off every component."""
    for component in pipe.components.values():
        if isinstance(component, Module):
            component.requires_grad_(False)


def has_lora(pipe: DiffusionPipeline) -> bool:
    """Whether the denoiser carries a LoRA, be it switched on or off."""
    return bool(getattr(getattr(pipe, denoiser_name(pipe)), "peft_config", None))


@contextmanager
def switched(pipe: DiffusionPipeline, on: bool) -> Iterator[None]:
    """The pipeline with its LoRA, if it has one, or for a while without."""
    denoiser = getattr(pipe, denoiser_name(pipe))
    layers = [] if on else [m for m in denoiser.modules() if isinstance(m, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def add_lora(
    pipe: DiffusionPipeline, rank: int, alpha: float, targets: str | None = None, seed: int = 0
) -> list[Parameter]:
    """Put a LoRA (arXiv 2106.09685) on the denoiser and freeze all else. Returns its parameters, in float32.

    A denoiser that carries one already goes on with it, as co-evolution does; rank and alpha must then be the same.

    Args:
        rank, alpha: the update is ``alpha / rank · B A``; B starts at zero, so the pipeline's pictures do not change.
        targets: names of linear layers joined by "|", or a regular expression that matches whole module names;
            the attention's projections if absent.
        seed: of A's start. The global generators are left as they were.
    """
    freeze(pipe)
    denoiser = getattr(pipe, denoiser_name(pipe))
    if has_lora(pipe):
        has = denoiser.peft_config["default"]
        if (has.r, has.lora_alpha) != (rank, alpha):
            raise UserError(
                f"lora: the generator carries a LoRA of rank {has.r} and alpha {has.lora_alpha:g}, and training goes on"
                " with it; give the same here."
            )
        for name, parameter in denoiser.named_parameters():
            parameter.requires_grad_("lora_" in name)
        cast_training_params(denoiser, torch.float32)
        return [p for p in denoiser.parameters() if p.requires_grad]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, init_lora_weights="gaussian",
        target_modules=TARGETS.split("|") if targets is None else _targets(denoiser, targets),
    )  # fmt: skip
    device = denoiser.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # other accelerators are not woken
        torch.manual_seed(seed)
        if hasattr(denoiser, "add_adapter"):
            denoiser.add_adapter(config)
        else:  # PixArt: diffusers has no LoRA for it, PEFT has
            inject_adapter_in_model(config, denoiser, "default")
    cast_training_params(denoiser, torch.float32)
    return [p for p in denoiser.parameters() if p.requires_grad]


def _targets(denoiser: Module, targets: str) -> list[str] | str:
    """Names of layers as a list, or a regular expression as it is; a UserError if one of them fits no layer."""
    names = [name for name, _ in denoiser.named_modules()]
    kinds = sorted({n.rpartition(".")[2] for n, m in denoiser.named_modules() if isinstance(m, torch.nn.Linear)})
    if re.fullmatch(r"[\w.]+(\|[\w.]+)*", targets):
        wrong = [t for t in targets.split("|") if not any(n == t or n.endswith(f".{t}") for n in names)]
        if wrong:
            raise UserError(f"lora.targets: '{wrong[0]}' fits no layer; linear layers: {kinds}.")
        return targets.split("|")
    try:
        fits = any(re.fullmatch(targets, name) for name in names)
    except re.error as error:
        raise UserError(f"lora.targets: '{targets}' is not a regular expression ({error}); mend it.") from error
    if not fits:
        raise UserError(f"lora.targets: '{targets}' fits no layer; linear layers: {kinds}.")
    return targets


def save_lora(pipe: DiffusionPipeline, folder: str | Path) -> None:
    """Write the denoiser's LoRA with its rank and alpha to ``folder``/pytorch_lora_weights.safetensors."""
    name = denoiser_name(pipe)
    denoiser = getattr(pipe, name)
    state = get_peft_model_state_dict(denoiser, adapter_name="default")
    if not hasattr(pipe, "save_lora_weights"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        config = denoiser.peft_config["default"]
        about = {"rank": config.r, "alpha": config.lora_alpha, "targets": config.target_modules}
        about["targets"] = sorted(about["targets"]) if isinstance(about["targets"], set) else about["targets"]
        save_file(
            {f"{name}.{k}": v.contiguous() for k, v in state.items()},
            Path(folder) / WEIGHTS,
            {ABOUT: json.dumps(about)},
        )
        return
    if name == "unet":
        state = convert_state_dict_to_diffusers(state)
    layers = {f"{name}_lora_layers": {k: v.contiguous() for k, v in state.items()}}
    about = _collate_lora_metadata({name: denoiser})
    for (
        config
    ) in about.values():  # a set has another order in every process, and the same training is to give the same file
        config |= {key: sorted(value) for key, value in config.items() if isinstance(value, set)}
    pipe.save_lora_weights(folder, weight_name=WEIGHTS, **layers, **about)


def load_lora(pipe: DiffusionPipeline, id: str | Path, revision: str | None = None) -> None:
    """Load a LoRA from a folder or a repository of the Hub."""
    folder = Path(locate(str(id), revision))
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"'{id}' holds no {WEIGHTS}; name a LoRA that `save_lora` or diffusers' scripts wrote.")
    if not hasattr(pipe, "load_lora_weights"):
        _load_by_peft(pipe, folder / WEIGHTS)
        return
    pipe.load_lora_weights(str(folder), weight_name=WEIGHTS, adapter_name="default", use_safetensors=True)


def is_stock(folder: str | Path) -> bool:
    """Whether diffusers itself reads the LoRA of a folder."""
    with safe_open(Path(folder) / WEIGHTS, "pt") as opened:
        return ABOUT not in (opened.metadata() or {})


def _load_by_peft(pipe: DiffusionPipeline, file: Path) -> None:
    """Load what ``save_lora`` wrote for a pipeline to which diffusers gives no LoRA."""
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()[ABOUT])
    name = denoiser_name(pipe)
    denoiser = getattr(pipe, name)
    config = LoraConfig(r=about["rank"], lora_alpha=about["alpha"], target_modules=about["targets"])
    inject_adapter_in_model(config, denoiser, "default")
    state = {key.removeprefix(f"{name}."): value for key, value in load_file(file).items()}
    set_peft_model_state_dict(denoiser, state, adapter_name="default")
