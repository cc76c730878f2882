"""Schedulers that play: they stand in for a pipeline's scheduler during one call, and record, replay or probe.

What they do not say themselves (timesteps, shifts, noise levels, order) is the pipeline's own scheduler's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from spro_hf.diffusion.schedule import Rung, predicted, rung
from spro_hf.diffusion.transitions import TRANSITIONS, log_prob
from spro_hf.errors import UserError
from spro_hf.steps import derive


@dataclass(frozen=True)
class Play:
    """How a call is played: at the step numbers ``steps`` (0 is the first of the loop) the transition explores.

    Every other step is the pipeline's own. ``kind`` is a name of ``TRANSITIONS``; ``exploration`` is its a.
    """

    kind: str
    exploration: float
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Taken:
    """One explored step: latents before and after, its mean, and its log-probabilities (n,)."""

    x: Tensor
    y: Tensor
    mean: Tensor
    log_prob: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Taken:
        """The same with every tensor changed."""
        return Taken(*(change(getattr(self, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Trajectory:
    """What a recorded call went through: prompts, seeds of the noise, per-sample inputs, and its explored steps.

    ``taken`` lies on the CPU, without gradients, whatever the device; ``begin`` is where in the schedule the loop began
    (above 0 for image-to-image with a strength).
    """

    prompts: list[str]
    seeds: list[int]
    inputs: dict[str, list]
    play: Play
    taken: dict[int, Taken]
    begin: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: list[int]) -> Trajectory:
        """The samples ``rows`` alone."""
        return replace(
            self, prompts=[self.prompts[row] for row in rows], seeds=[self.seeds[row] for row in rows],
            inputs={name: [values[row] for row in rows] for name, values in self.inputs.items()},
            taken={number: taken.each(lambda tensor: tensor[rows]) for number, taken in self.taken.items()},
        )  # fmt: skip

    @staticmethod
    def join(parts: list[Trajectory]) -> Trajectory:
        """Trajectories of one play, one behind the other."""
        first = parts[0]
        taken = {
            number: Taken(*(torch.cat([getattr(p.taken[number], f.name) for p in parts]) for f in fields(Taken)))
            for number in first.taken
        }
        return replace(
            first, prompts=[prompt for p in parts for prompt in p.prompts], taken=taken,
            seeds=[seed for p in parts for seed in p.seeds],
            inputs={name: [value for p in parts for value in p.inputs[name]] for name in first.inputs},
        )  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """One explored step under today's weights: what a loss is made of. ``mean`` and ``log_prob`` (n,) have gradients.

    ``level`` and ``next_level`` are σ (ᾱ for DDIM) before and after; ``taken`` is what was recorded, on the device.
    """

    number: int
    level: float
    next_level: float
    std: float
    mean: Tensor
    log_prob: Tensor
    taken: Taken


class Player:
    """A scheduler that is another one in all but its step."""

    def __init__(self, scheduler: Any):
        self.scheduler, self.count = scheduler, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)

    def _stand_at(self, index: int) -> None:
        """Tell a scheduler that counts by itself of a step it was not asked for: inpainting blends at where it stands."""
        if hasattr(self.scheduler, "_step_index"):
            self.scheduler._step_index = index


class Recorder(Player):
    """Plays the transition at the explored steps, with noise of our own per sample, and keeps what happened."""

    def __init__(self, scheduler: Any, play: Play, prompts: list[str], seeds: list[int]):
        super().__init__(scheduler)
        self.play, self.prompts, self.seeds = play, prompts, seeds
        self.taken: dict[int, Taken] = {}
        self.begin: int | None = None

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True, **given) -> Any:
        """The next latents: the pipeline's own step, or a draw from the transition."""
        number, schedule = self.count, self.scheduler.timesteps
        if self.begin is None:
            self.begin = int((schedule == timestep.to(schedule.device)).nonzero()[0])
        self.count += 1
        if number not in self.play.steps:
            return self.scheduler.step(model_output, timestep, sample, return_dict=return_dict, **given)
        at = rung(self.scheduler, self.begin + number)
        mean, std = _move(self.play, self.scheduler, at, model_output, sample) if at.level else (sample, 0.0)
        if not std > 0:
            raise UserError(
                f"Step {number}, from noise level {at.level:.4f} to {at.next_level:.4f}, cannot be explored with "
                f"'{self.play.kind}'; leave it out of the policy's `range`."
            )
        noise = torch.stack([_noise(seed, number, mean.shape[1:]) for seed in self.seeds])
        y = (mean + std * noise.to(mean)).to(model_output.dtype)
        taken = Taken(sample, y, mean, log_prob(self.play.kind, y.to(mean.dtype), mean, std))
        require_finite(taken.log_prob, "log-probability", number, at.level, self.prompts)
        self.taken[number] = taken.each(lambda tensor: tensor.detach().cpu())
        self._stand_at(self.begin + self.count)
        return _answer(y, return_dict)


class Replayer(Player):
    """Runs explored steps alone: shows each under today's weights, and hands on the latents that were recorded.

    ``visit`` is called within ``step`` and does its backward pass there, so that one step's graph lives at a time.
    """

    def __init__(self, scheduler: Any, trajectory: Trajectory, steps: tuple[int, ...], visit: Callable[[Visit], None]):
        super().__init__(scheduler)
        self.trajectory, self.steps, self.visit = trajectory, steps, visit

    @property
    def timesteps(self) -> Tensor:
        """Those of the steps that run, behind as many as an image-to-image pipeline is going to skip."""
        whole, begin = self.scheduler.timesteps, self.trajectory.begin
        running = whole[[begin + number for number in self.steps]]
        if not begin:
            return running
        kept = torch.cat([whole[:begin], running]).as_subclass(Kept)
        kept.of = len(whole)
        return kept

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True, **given) -> Any:
        """The latents with which the next of the steps began."""
        number, played = self.steps[self.count], self.trajectory
        self.count += 1
        taken = played.taken[number].each(lambda tensor: tensor.to(model_output.device))
        if not torch.equal(sample, taken.x):
            raise RuntimeError(
                f"At step {number} the pipeline came with other latents than were recorded: something between its steps "
                "depends on more than prompts, seeds and inputs, so that its rollouts cannot be replayed."
            )
        at = rung(self.scheduler, played.begin + number)
        mean, std = _move(played.play, self.scheduler, at, model_output, taken.x)
        chance = log_prob(played.play.kind, taken.y.to(mean.dtype), mean, std)
        require_finite(chance, "log-probability", number, at.level, played.prompts)
        self.visit(Visit(number, at.level, at.next_level, std, mean, chance, taken))
        if self.count == len(self.steps):
            return _answer(taken.y, return_dict)
        following = self.steps[self.count]
        self._stand_at(played.begin + following)
        return _answer(played.taken[following].x.to(model_output.device), return_dict)


class Kept(Tensor):
    """Some timesteps of a schedule that, to ``len``, are as many as it has: pipelines take their strength from that."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # what is made of it is a plain tensor
    of: int

    def __len__(self) -> int:
        return self.of


class Levels(Tensor):
    """Timesteps of shape (1, n): one step, in which each sample has a level of its own.

    Image-to-image pipelines repeat the first timestep for every sample; here the levels are theirs already.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # what is made of it is a plain tensor

    def __getitem__(self, key: Any) -> Tensor:
        found = super().__getitem__(key)
        return found.as_subclass(Levels) if isinstance(key, slice) else found

    def repeat(self, *sizes: int) -> Tensor:
        """The level of each sample."""
        return super().__getitem__(0)


class Probe(Player):
    """A scheduler of one step at chosen noise levels that keeps the prediction and leaves the latents alone.

    Args:
        timesteps: one for each sample, (n,).
    """

    order = 1

    def __init__(self, scheduler: Any, timesteps: Tensor):
        super().__init__(scheduler)
        self.timesteps = timesteps[None].as_subclass(Levels)
        self.sigmas = timesteps[:1] / scheduler.config.num_train_timesteps  # for those who ask; they do not go by it
        self.prediction: Tensor | None = None

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None, sigmas=None, mu=None) -> None:
        """Nothing: the levels were chosen already. The arguments are those that pipelines look for."""

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing: there is one step."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The sample as it is: ``Environment.noised`` gives it the variance that the denoiser was trained on."""
        return sample

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """The sample as it is: what image-to-image begins with is put aside for the latents that were chosen."""
        return sample

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True, **given) -> Any:
        """Keep ``model_output``."""
        self.prediction = model_output
        return _answer(sample, return_dict)


def require_finite(values: Tensor, what: str, number: int, level: float, prompts: list[str]) -> None:
    """Stop the run at the first value that is not finite, by step, noise level and prompt."""
    if not torch.isfinite(values).all():
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise UserError(
            f"The {what} is {values[row].item()} at step {number} (noise level {level:.4f}) of the prompt {prompts[row]!r}; "
            "lower `lr`, or give the generator `dtype: float32`."
        )


def _move(play: Play, scheduler: Any, at: Rung, output: Tensor, x: Tensor) -> tuple[Tensor, float]:
    """Mean (n, ...) in float32 and standard deviation of the transition."""
    output, x = output.float(), x.float()
    move = TRANSITIONS[play.kind]
    return move(x, predicted(scheduler, at, output, x), at.level, at.next_level, play.exploration, at.second)


def _noise(seed: int, number: int, shape: torch.Size) -> Tensor:
    """The noise of one sample at one step, drawn on the CPU, so that neither batch nor device matters."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive("step noise", seed, number)))


def _answer(latents: Tensor, return_dict: bool) -> Any:
    # the second is what a scheduler of one step calls its x0; PixArt's pipeline takes that one where there is one step
    return SimpleNamespace(prev_sample=latents) if return_dict else (latents, latents)
