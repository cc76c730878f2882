"""The pipeline is the environment: any diffusers pipeline, used through its own ``__call__``.

Three small hooks make that enough. A scheduler that plays takes the place of ``pipe.scheduler`` for one call: it records
a rollout, replays it with gradients, or probes the denoiser at chosen noise levels, so that guidance, embeddings,
packing and masks are the pipeline's own in training too. ``prepare_latents`` is told where to start. A memo over
``encode_prompt`` encodes a prompt once, however often it is drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor

from spro_hf.diffusion.families import UNGUIDED
from spro_hf.diffusion.hooks import counted, played_by, starting_from
from spro_hf.diffusion.latents import encode
from spro_hf.diffusion.memo import remembered_prompts
from spro_hf.diffusion.player import Play, Probe, Recorder, Replayer, Trajectory, Visit
from spro_hf.diffusion.schedule import play_with
from spro_hf.errors import UserError
from spro_hf.models import RENDERER, locate
from spro_hf.strict import nearest
from spro_hf.tiny.renderer import Renderer

INDEX = "model_index.json"
# The environment itself decides these; a recipe's `call` may not.
RESERVED = (
    "prompt",
    "generator",
    "latents",
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "output_type",
    "return_dict",
    "eta",
)
# Arguments whose effect goes by the number of a step in the loop: in a replay, which runs few steps, it would be another.
BY_STEP_NUMBER = ("cfg_trunc_ratio", "skip_guidance_layers", "callback_on_step_end", "callback", "control_guidance_start",
                  "control_guidance_end", "adapter_conditioning_factor")  # fmt: skip


def load_generator(
    id: str,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    scheduler: str | None = None,
) -> DiffusionPipeline:
    """The pipeline behind ``id``: a built-in name, a folder, or a repository of the Hub at ``revision``.

    ``scheduler`` "flow" or "ddim" gives it one that can be played (see ``schedule.play_with``).
    """
    if id == RENDERER:
        return Renderer()
    folder = locate(id, revision)
    if not (Path(folder) / INDEX).is_file():
        raise UserError(f"generator.id: '{id}' is no diffusers pipeline, it has no {INDEX}; name one that is.")
    index = DiffusionPipeline.load_config(folder)
    # SD3 without its T5: diffusers loads a component that was saved as null only if it is told so
    absent: dict[str, Any] = {n: None for n, value in index.items() if isinstance(value, list) and value[0] is None}
    if "safety_checker" in index:  # what it takes for unsafe it paints black, and black pictures would be scored
        absent |= {"safety_checker": None, "requires_safety_checker": False}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), **absent)
    if scheduler:
        play_with(pipe, scheduler)
    return pipe.to(device)


class Environment:
    """A text-to-image pipeline and the arguments of its call.

    Args:
        pipe: any diffusers text-to-image pipeline that has ``encode_prompt``.
        call: keyword arguments handed to the pipeline's ``__call__`` unchanged. An unknown one is a UserError, before
            anything runs.
        batch_size: pictures rendered, or encoded, at once.

    Attributes:
        calls: how many latents the denoiser has been asked about by ``record`` and ``replay``, each sample of a batch
            counted; guidance asks twice.
    """

    def __init__(self, pipe: DiffusionPipeline, call: dict[str, Any], batch_size: int = 64):
        known = set(inspect.signature(type(pipe).__call__).parameters) - {"self", "args", "kwargs", *RESERVED}
        for name in call:
            if name in RESERVED:
                raise UserError(f"call: '{name}' is set by spro_hf itself; leave it out.")
            if name not in known:
                raise UserError(f"call: {type(pipe).__name__} has no argument '{name}'; {nearest(name, known)}")
        self.pipe, self.call, self.batch_size, self.known = pipe, dict(call), batch_size, known
        self.calls = 0
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
                given = self._given(prompts[part], seeds[part], {})
                pictures += _pictures(self.pipe(**given, **self.call))
                if advance:
                    advance(len(given["prompt"]))
        return pictures

    def encode(self, images: list[Image.Image]) -> Tensor:
        """Latents x0 of pictures in the space that the denoiser sees, at the call's size; see ``latents.encode``."""
        width, height = self.call.get("width"), self.call.get("height")
        return encode(self.pipe, images, self.batch_size, (width, height) if width and height else None)

    @torch.no_grad()
    def record(
        self,
        prompts: list[str],
        seeds: list[int],
        play: Play,
        inputs: dict[str, list] | None = None,
        step_seeds: list[int] | None = None,
    ) -> tuple[list[Any], Trajectory]:
        """One batch through the pipeline, played: its pictures (or videos) and what it went through.

        Initial noise and step noise of a sample belong to its seeds alone, so a picture does not depend on its batch.
        Without explored steps, or with exploration 0, every step is the pipeline's own and so are the pictures.

        Args:
            prompts, seeds: equally many, at most what fits at once.
            inputs: per-sample arguments of the call, as {"image": [...]} for an editing pipeline.
            step_seeds: of the explored steps' noise; ``seeds`` if absent.
        """
        if not play.exploration:
            play = replace(play, steps=())
        _require_steps(play, self.steps)
        recorder = Recorder(self.pipe.scheduler, play, prompts, seeds if step_seeds is None else step_seeds)
        given = self._given(prompts, seeds, inputs or {})
        with played_by(self.pipe, recorder), remembered_prompts(self.pipe), counted(self.denoiser) as asked:
            out = self.pipe(**given, **self.call)
        self.calls += sum(asked)
        _require_steps(play, recorder.count)  # image-to-image has fewer than the call says
        return _pictures(out), Trajectory(
            list(prompts), list(seeds), inputs or {}, play, recorder.taken, recorder.begin or 0
        )

    def replay(
        self,
        trajectory: Trajectory,
        visit: Callable[[Visit], None],
        steps: Iterable[int] | None = None,
        guidance: bool = True,
    ) -> None:
        """Show the explored steps of a trajectory, or ``steps`` of them, under today's weights, with gradients.

        A step that is not shown costs no call of the denoiser. Under the weights, batch and guidance of the recording,
        log-probabilities come out as they were recorded.

        Args:
            visit: is called at each step, and does its backward pass there and then.
            guidance: False leaves classifier-free guidance out of the call.
        """
        steps = tuple(sorted(trajectory.taken if steps is None else steps))
        if not steps:
            raise UserError("No step of this rollout was explored: set an exploration above 0 and at least one step.")
        self.require_replayable()
        given = self._given(trajectory.prompts, trajectory.seeds, trajectory.inputs) | {"output_type": "latent"}
        call = self.call if guidance else self.call | self.unguided
        player = Replayer(self.pipe.scheduler, trajectory, steps, visit)
        start = trajectory.taken[steps[0]].x
        with (
            played_by(self.pipe, player),
            starting_from(self.pipe, start),
            remembered_prompts(self.pipe),
            counted(self.denoiser) as asked,
        ):
            inspect.unwrap(type(self.pipe).__call__)(self.pipe, **given, **call)
        self.calls += sum(asked)

    def probe(
        self, prompts: list[str], latents: Tensor, levels: Tensor, inputs: dict[str, list] | None = None
    ) -> Tensor:
        """What the denoiser says about ``latents`` (n, ...) under ``prompts`` at ``levels`` (n,), with gradients.

        One call of the pipeline without guidance, through its undecorated ``__call__``. Levels are σ in [0, 1] for
        flow matching and whole timesteps for DDPM's relatives; latents are laid out as the pipeline's loop has them
        (packed, where it packs), as ``noised`` makes them.
        """
        scheduler = self.pipe.scheduler
        steps = scheduler.config.num_train_timesteps
        probe = Probe(scheduler, (levels * steps if self.kind == "flow" else levels).to(self.pipe.device))
        whole = {"strength": 1.0} if "strength" in self.known else {}  # a part of one step would be none
        call = self.call | self.unguided | whole | {"num_inference_steps": 1}
        given = self._given(prompts, [0] * len(prompts), inputs or {}) | {"output_type": "latent"}
        with played_by(self.pipe, probe), starting_from(self.pipe, latents), remembered_prompts(self.pipe):
            inspect.unwrap(type(self.pipe).__call__)(self.pipe, **given, **call)
        return probe.prediction

    def require_replayable(self) -> None:
        """Raise a UserError if an argument of the call would act otherwise in a replay than in the recording."""
        parameters = inspect.signature(type(self.pipe).__call__).parameters
        for name in BY_STEP_NUMBER:
            if name in self.call and self.call[name] != parameters[name].default:
                raise UserError(
                    f"call: '{name}' goes by the step's number, which a replay does not keep; leave it out."
                )

    @property
    def unguided(self) -> dict[str, float]:
        """Arguments of the call without classifier-free guidance. A scale that is an embedding stays as it is."""
        embedded = self.denoiser.config.get("guidance_embeds")
        off = {"true_cfg_scale": 1.0} | ({} if embedded else {"guidance_scale": 1.0})
        return {n: v for n, v in (off | UNGUIDED.get(type(self.pipe).__name__, {})).items() if n in self.known}

    @property
    def steps(self) -> int:
        """How many steps the call has, by its arguments."""
        for name in ("timesteps", "sigmas"):
            if self.call.get(name) is not None:
                return len(self.call[name])
        default = inspect.signature(type(self.pipe).__call__).parameters["num_inference_steps"].default
        return self.call.get("num_inference_steps", default)

    def _given(self, prompts: list[str], seeds: list[int], inputs: dict[str, list]) -> dict[str, Any]:
        """Arguments that differ from sample to sample. Fresh lists and generators: some pipelines change them."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        given = {"prompt": list(prompts), "generator": generators, "output_type": "pil"}
        return given | {name: list(values) for name, values in inputs.items()}

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


def _require_steps(play: Play, count: int) -> None:
    if play.steps and max(play.steps) >= count:
        raise UserError(
            f"Step {max(play.steps)} is to be explored, but the call has {count} steps (0 to {count - 1}); "
            "choose steps among them."
        )


def _pictures(out: Any) -> list:
    """Pictures of a pipeline's output, or videos as lists of frames."""
    return list(out.frames if hasattr(out, "frames") else out.images)


def denoiser_name(pipe: DiffusionPipeline) -> str:
    """ "transformer" or "unet": the pipeline's component that denoises."""
    for name in ("transformer", "unet"):
        if isinstance(getattr(pipe, name, None), torch.nn.Module):
            return name
    raise UserError(f"{type(pipe).__name__} has neither a transformer nor a unet; choose a diffusion pipeline.")
