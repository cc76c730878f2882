"""The generators that are measured, each with its call, ready to be trained by policy gradient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.utils import logging as of_diffusers
from transformers.utils import logging as of_transformers

from spro_hf import parallel
from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.player import Play
from spro_hf.methods import Lora, Policy
from spro_hf.tiny.make.generator import CHANNELS, build


@dataclass(frozen=True)
class Case:
    """One generator, and how it is measured.

    ``size`` is the height and width of the latents of a transformer made anew with random weights, of ``layers`` blocks of
    ``width``; without it the generator is the embedded world's own. Times are of ``batch`` pictures, ``pairs`` of them;
    memory is of ``rollouts`` pictures and of four times as many, in batches of ``batch``.
    """

    name: str
    steps: int
    batch: int
    rollouts: int
    pairs: int
    size: int | None = None
    layers: int = 6
    width: int = 512

    @property
    def explored(self) -> tuple[int, ...]:
        """All steps but the last."""
        return tuple(range(self.steps - 1))

    @property
    def play(self) -> Play:
        """How it is recorded."""
        return Play("flow_sde", 0.7, self.explored)

    @cached_property
    def policy(self) -> Policy:
        """How it is trained: Flow-GRPO without its KL, so that a step needs one pass forward and one backward."""
        return Policy(lr=1e-5, batch_size=self.batch, lora=Lora(16, 32))

    @property
    def prompts(self) -> list[str]:
        """A batch of them, all distinct, so that the memo saves nothing within it."""
        return [f"a red circle number {i}" for i in range(self.batch)]

    def open(self) -> Learner:
        """The generator with a LoRA on it."""
        pipe = load_generator("spro_hf/tiny/generator") if self.size is None else self._random(self.size)
        call = {"num_inference_steps": self.steps, "guidance_scale": 2.5, "max_sequence_length": 1}
        environment = Environment(pipe.to(parallel.device()), call, self.batch)
        policy = self.policy
        return Learner(environment, vars(policy.lora), policy.lr, seed=0)

    def _random(self, size: int) -> DiffusionPipeline:
        parts = build().components
        torch.manual_seed(1)
        parts["transformer"] = SD3Transformer2DModel(
            sample_size=size, patch_size=2, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=self.layers,
            attention_head_dim=64, num_attention_heads=self.width // 64, joint_attention_dim=128,
            caption_projection_dim=self.width, pooled_projection_dim=128, pos_embed_max_size=size, qk_norm="rms_norm",
        ).eval()  # fmt: skip
        return StableDiffusion3Pipeline(**parts)


CASES = (
    Case("embedded, 3.4 M", steps=8, batch=16, rollouts=32, pairs=10),
    Case("random, 55 M", steps=3, batch=4, rollouts=8, pairs=7, size=16),
)
QUICK = (Case("quick", steps=3, batch=2, rollouts=2, pairs=2),)


def case(name: str) -> Case:
    """The case of that name."""
    return next(c for c in CASES + QUICK if c.name == name)


def quiet() -> None:
    """Keep the libraries' bars and notices out of the tables."""
    of_diffusers.set_verbosity_error()
    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning, module="diffusers|peft|transformers|torch")
