"""The ladder of noise levels that a pipeline's scheduler goes down, and which schedulers can be played."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from spro_hf.errors import UserError

# The schedulers whose steps are one evaluation each, do not look back, and have a transition: they can be entered anywhere.
PLAYED = {"flow": FlowMatchEulerDiscreteScheduler, "ddim": DDIMScheduler}
# What a scheduler may be configured to that would change a step behind the transition's back.
SPOILERS = {
    "flow": ("stochastic_sampling", "invert_sigmas"),
    "ddim": ("clip_sample", "thresholding"),
}


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. Levels are σ for flow matching and ᾱ for DDIM; ``second`` is the ladder's second σ."""

    index: int
    level: float
    next_level: float
    second: float


def family(scheduler: Any) -> str:
    """ "flow" or "ddim".

    Raises:
        UserError: if the scheduler cannot be played.
    """
    for name, kind in PLAYED.items():
        if isinstance(scheduler, kind):
            spoiler = next((s for s in SPOILERS[name] if scheduler.config.get(s)), None)
            if spoiler:
                raise UserError(
                    f"generator: {kind.__name__} with {spoiler} cannot be played; set `scheduler: {name}`, which leaves it off."
                )
            return name
    raise UserError(
        f"generator: {type(scheduler).__name__} cannot be played: only flow-matching Euler and DDIM can; "
        "set `scheduler: flow` for a flow-matching model or `scheduler: ddim` for any other."
    )


def rung(scheduler: Any, index: int) -> Rung:
    """The rung at ``index`` of a schedule that is set."""
    if family(scheduler) == "flow":
        sigmas = scheduler.sigmas
        return Rung(index, float(sigmas[index]), float(sigmas[index + 1]), float(sigmas[1]))
    timestep = int(scheduler.timesteps[index])
    before = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alphas = scheduler.alphas_cumprod
    after = alphas[before] if before >= 0 else scheduler.final_alpha_cumprod
    return Rung(index, float(alphas[timestep]), float(after), float("nan"))


def noisy(scheduler: Any, steps: int, index: int) -> bool:
    """Whether a DDIM scheduler's step ``index`` of ``steps`` has a density to explore with."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    at = rung(scheduler, index)
    return 0 < at.level < at.next_level < 1


def predicted(scheduler: Any, at: Rung, output: Tensor, x: Tensor) -> Tensor:
    """What the transition takes: the velocity v ≈ ε − x0, or for DDIM the noise ε, from any kind of prediction."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if kind in ("flow_prediction", "epsilon"):
        return output
    root, rest = at.level**0.5, (1 - at.level) ** 0.5
    return root * output + rest * x if kind == "v_prediction" else (x - root * output) / rest


def play_with(pipe: DiffusionPipeline, name: str) -> None:
    """Give a pipeline a scheduler that can be played, made from the configuration of its own.

    Args:
        name: "flow" or "ddim"; the model must have been trained so.
    """
    config = dict(pipe.scheduler.config)
    flow = config.get("prediction_type", "flow_prediction") == "flow_prediction"
    if flow != (name == "flow"):
        raise UserError(
            f"generator: 'scheduler' is '{name}', but {type(pipe.scheduler).__name__} predicts "
            f"'{config.get('prediction_type', 'flow_prediction')}'; set {'flow' if flow else 'ddim'}, or leave it out."
        )
    if flow and "flow_shift" in config:  # the name that multistep schedulers have for it
        config["shift"] = config["flow_shift"]
    if not flow and config.get("timestep_spacing") == "linspace":
        # DDIM steps by whole strides from the last timestep; linspace has others
        config["timestep_spacing"] = "trailing"
    takes = inspect.signature(PLAYED[name].__init__).parameters
    # not from_config: it leaves out what its own scheduler had by default, and the defaults of this one are others
    known = {key: value for key, value in config.items() if key in takes}
    pipe.scheduler = PLAYED[name](**known | dict.fromkeys(SPOILERS[name], False))
