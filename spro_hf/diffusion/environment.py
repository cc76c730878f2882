"""The pipeline is the environment: any diffusers text-to-image pipeline, used through its own ``__call__``.

Two small hooks make that enough. A scheduler that probes takes the place of ``pipe.scheduler`` for one call and keeps
what the denoiser says, so that embeddings, packing and conditioning are the pipeline's own in training too. A memo
over ``encode_prompt`` encodes a prompt once, however often it is drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor

from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.strict import nearest

# The environment itself decides these; a recipe's `call` may not.
RESERVED = ("prompt", "generator", "latents", "num_images_per_prompt", "output_type", "return_dict")
GUIDANCE = ("guidance_scale", "true_cfg_scale")


def load_generator(
    id: str, revision: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> DiffusionPipeline:
    """The pipeline behind ``id``: a built-in name, a folder, or a repository of the Hub at ``revision``."""
    folder = locate(id, revision)
    if not (Path(folder) / "model_index.json").is_file():
        raise UserError(f"generator: '{id}' has no model_index.json; name a diffusers pipeline.")
    index = DiffusionPipeline.load_config(folder)
    # SD3 without its T5: diffusers loads a component that was saved as null only if it is told so
    absent = {name: None for name, value in index.items() if isinstance(value, list) and value[0] is None}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True, **absent)
    return pipe.to(device)


class Probe:
    """A scheduler of one step at chosen noise levels that keeps the prediction and leaves the latents alone.

    ``timesteps`` has the shape (1, n), so that the ``t`` of the pipeline's loop carries one level per sample.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, scheduler: Any, timesteps: Tensor):
        self.config = scheduler.config
        self.timesteps = timesteps[None]
        self.sigmas = self.timesteps / scheduler.config.num_train_timesteps
        self.prediction: Tensor | None = None

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None, mu=None) -> None:
        """Nothing: the levels were chosen already. The arguments are those that pipelines look for."""

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing: there is one step."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The sample as it is: ``Environment.noised`` gives it the variance that the denoiser was trained on."""
        return sample

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True) -> tuple | Any:
        """Keep ``model_output``."""
        self.prediction = model_output
        return SimpleNamespace(prev_sample=sample) if return_dict else (sample,)


class Environment:
    """A text-to-image pipeline and the arguments of its call.

    Args:
        pipe: any diffusers text-to-image pipeline that has ``encode_prompt``.
        call: keyword arguments handed to the pipeline's ``__call__`` unchanged. An unknown one is a UserError, before
            anything runs.
        batch_size: pictures rendered, or encoded, at once.
    """

    def __init__(self, pipe: DiffusionPipeline, call: dict[str, Any], batch_size: int = 64):
        known = set(inspect.signature(type(pipe).__call__).parameters) - {"self", "args", "kwargs", *RESERVED}
        for name in call:
            if name in RESERVED:
                raise UserError(f"call: '{name}' is set by spro_hf itself; leave it out.")
            if name not in known:
                raise UserError(f"call: {type(pipe).__name__} has no argument '{name}'; {nearest(name, known)}")
        self.pipe, self.call, self.batch_size, self.known = pipe, dict(call), batch_size, known
        pipe.set_progress_bar_config(disable=True)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that denoises: the pipeline's transformer or its UNet."""
        return getattr(self.pipe, denoiser_name(self.pipe))

    @torch.no_grad()
    def render(
        self, prompts: list[str], seeds: list[int], advance: Callable[[int], None] | None = None
    ) -> list[Image.Image]:
        """One picture per prompt. Picture i starts from noise drawn on the CPU by a generator seeded with ``seeds[i]``.

        So the noise, and any noise of the schedule that the pipeline draws from its generators, does not depend on the
        batch. The arithmetic may: matrix products of another size round differently. Measured on CPU in float32 with
        the embedded world's generator, 64 pictures in batches of 1, 3, 16 and 64: no pixel differed. The tests allow a
        difference of 1/255 between batch sizes, and none between two runs of the same size.

        Args:
            prompts, seeds: equally many.
            advance: is called after each batch with the number of pictures it brought.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: there must be one seed per prompt")
        pictures: list[Image.Image] = []
        with remembered_prompts(self.pipe):
            for start in range(0, len(prompts), self.batch_size):
                part = slice(start, start + self.batch_size)
                generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
                pictures += self.pipe(prompt=list(prompts[part]), generator=generators, **self.call).images
                if advance:
                    advance(len(generators))
        return pictures

    @torch.no_grad()
    def encode(self, images: list[Image.Image]) -> Tensor:
        """Latents x0, float32 of shape (n, channels, height, width), in the space that the denoiser sees.

        The mean of the autoencoder's posterior, shifted and scaled as the pipeline's decoding undoes it.
        """
        if hasattr(self.pipe, "_pack_latents"):
            raise UserError(f"{type(self.pipe).__name__} packs its latents; fine-tuning it is not supported.")
        parts = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        with _safe_dtype(self.pipe.vae) as vae:
            x0 = torch.cat([self._posterior(vae, part) for part in parts])
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and std is not None:
            mean, std = (x0.new_tensor(v).view(1, -1, 1, 1) for v in (mean, std))
        else:
            mean, std = vae.config.get("shift_factor") or 0.0, 1.0
        return ((x0 - mean) / std * vae.config.scaling_factor).float()

    def _posterior(self, vae: torch.nn.Module, images: list[Image.Image]) -> Tensor:
        pixels = self.pipe.image_processor.preprocess([image.convert("RGB") for image in images])
        encoded = vae.encode(pixels.to(vae.device, vae.dtype))
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()

    def probe(self, prompts: list[str], latents: Tensor, levels: Tensor) -> Tensor:
        """What the denoiser says about ``latents`` (n, ...) under ``prompts`` at ``levels`` (n,), with gradients.

        One call of the pipeline without guidance, through its undecorated ``__call__``. Levels are σ in [0, 1] for
        flow matching and whole timesteps for DDPM's relatives; the latents are those of ``noised``.
        """
        scheduler = self.pipe.scheduler
        steps = scheduler.config.num_train_timesteps
        probe = Probe(scheduler, (levels * steps if self.kind == "flow" else levels).to(self.pipe.device))
        alone = {name: 1.0 for name in GUIDANCE if name in self.known}
        try:
            object.__setattr__(self.pipe, "scheduler", probe)  # the pipeline's own setter would rewrite its config
            inspect.unwrap(type(self.pipe).__call__)(
                self.pipe, prompt=list(prompts), latents=latents, output_type="latent",
                **(self.call | alone | {"num_inference_steps": 1}),
            )  # fmt: skip
        finally:
            object.__setattr__(self.pipe, "scheduler", scheduler)
        return probe.prediction

    @property
    def kind(self) -> str:
        """What the denoiser predicts: "flow" (ε − x0), "epsilon" or "v_prediction"."""
        config = self.pipe.scheduler.config
        kind = config.get("prediction_type", "flow_prediction")
        if kind == "flow_prediction":
            return "flow"
        if kind not in ("epsilon", "v_prediction") or "beta_schedule" not in config:
            name = type(self.pipe.scheduler).__name__
            raise UserError(
                f"{name} with prediction_type '{kind}' cannot be trained: use flow, epsilon or v_prediction."
            )
        return kind

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels for training, (count,): logit-normal σ (arXiv 2403.03206, eq. 19), or uniform timesteps."""
        if self.kind == "flow":
            return torch.sigmoid(torch.randn(count, generator=generator))
        return torch.randint(self.pipe.scheduler.config.num_train_timesteps, (count,), generator=generator)

    def noised(self, x0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Latents at ``levels``: (1 − σ)·x0 + σ·ε, or √ᾱ·x0 + √(1 − ᾱ)·ε."""
        if self.kind == "flow":
            sigma = levels.to(x0).view(-1, *[1] * (x0.ndim - 1))
            return (1 - sigma) * x0 + sigma * noise
        return self._ddpm().add_noise(x0, noise, levels)

    def target(self, x0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the denoiser should say: ε − x0, ε, or √ᾱ·ε − √(1 − ᾱ)·x0."""
        if self.kind == "flow":
            return noise - x0
        return noise if self.kind == "epsilon" else self._ddpm().get_velocity(x0, noise, levels)

    def _ddpm(self) -> DDPMScheduler:
        # Samplers of one family (DDIM, Euler, DPM++ ...) scale their latents each in its own way; the denoiser behind
        # them was trained on DDPM's.
        return DDPMScheduler.from_config(self.pipe.scheduler.config)


def denoiser_name(pipe: DiffusionPipeline) -> str:
    """ "transformer" or "unet": the pipeline's component that denoises."""
    for name in ("transformer", "unet"):
        if isinstance(getattr(pipe, name, None), torch.nn.Module):
            return name
    raise UserError(f"{type(pipe).__name__} has neither a transformer nor a unet; choose a diffusion pipeline.")


@contextmanager
def _safe_dtype(vae: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The autoencoder in float32 for a while if it says that float16 is too narrow for it, as SDXL's does."""
    dtype = vae.dtype
    narrow = dtype == torch.float16 and vae.config.get("force_upcast")
    try:
        yield vae.to(torch.float32) if narrow else vae
    finally:
        vae.to(dtype)
