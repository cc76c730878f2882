"""Parameters and what Adam remembers of them, as tensors by name: how a training that was interrupted goes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam and AdamW remember of each parameter


def state_of(named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The values of parameters by name, and their moments, where an update was made."""
    state = {f"parameter.{name}": parameter.detach() for name, parameter in named.items()}
    for name, parameter in named.items():
        for moment in MOMENTS:
            if parameter in optimizer.state:
                state[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    return state


@torch.no_grad()
def restore(named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give parameters and optimiser what ``state_of`` told."""
    for name, parameter in named.items():
        parameter.copy_(state[f"parameter.{name}"])
        if f"{MOMENTS[0]}.{name}" in state:
            moments = {moment: state[f"{moment}.{name}"] for moment in MOMENTS}
            # the count of steps is a number, which stays on the CPU
            optimizer.state[parameter] = {m: v.to(parameter.device) if v.ndim else v for m, v in moments.items()}
