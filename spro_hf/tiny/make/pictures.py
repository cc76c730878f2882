"""Training of the two readers of pictures: the oracle (what is there) and the judge (how well it would be liked)."""

from __future__ import annotations

import logging

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from spro_hf.tiny.make.common import Average, Pace, every, scenes
from spro_hf.tiny.oracle import SIZES, Oracle, PictureNet, labels, reading_loss
from spro_hf.tiny.planted import aesthetics, engagement, preference
from spro_hf.tiny.world import Request, Truth

log = logging.getLogger(__name__)


def smudge(pictures: Tensor, vae: AutoencoderTiny, rng: np.random.Generator) -> Tensor:
    """Make half of the renders look generated: through the autoencoder, with noise on latents and pixels."""
    half = len(pictures) // 2
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        latents = vae.encode(pictures[:half]).latents
        spread = 0.08 * float(rng.random())
        seen = vae.decode(latents + torch.randn(latents.shape, generator=noise) * spread).sample.clamp(-1, 1)
    other = pictures[half:] + 0.03 * float(rng.random()) * torch.randn(pictures[half:].shape, generator=noise)
    return torch.cat([seen, other.clamp(-1, 1)])


def train_oracle(vae: AutoencoderTiny, minutes: float, seed: int = 2, batch: int = 64) -> PictureNet:
    """Supervised reading of renders of the training split."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), PictureNet(sum(SIZES))
    return _fit(net, minutes, rng, batch, vae, lambda out, truths: reading_loss(out, *labels(truths)))


def appeal(truth: Truth) -> float:
    """What the judge learns: the three planted tastes in equal parts, a caption aside; plain is about 0, good about 2."""
    style = preference(truth, Request()) - 20.5
    return (aesthetics(truth) - 3.2) / 1.6 + (engagement(truth) - 32) / 15 + style / 0.8


def train_judge(vae: AutoencoderTiny, minutes: float, seed: int = 3, batch: int = 64) -> PictureNet:
    """A narrower net of its own seed that regresses :func:`appeal`; no recipe trains on it."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), PictureNet(1, width=16)

    def loss(out: Tensor, truths: list[Truth]) -> Tensor:
        return (out[:, 0] - torch.tensor([appeal(t) for t in truths])).pow(2).mean()

    return _fit(net, minutes, rng, batch, vae, loss)


def _fit(net: PictureNet, minutes: float, rng, batch: int, vae: AutoencoderTiny, objective) -> PictureNet:
    pace, average, due = Pace(net.named_parameters(), minutes, lr=2e-3), Average([net]), every(60)
    while pace.progress < 1:
        truths, pictures = scenes(rng, batch)
        loss = objective(net.train()(smudge(pictures, vae, rng)), truths)
        pace.step(loss)
        average.update()
        if due():
            log.info("reader %.0f%% step %d loss %.4f", 100 * pace.progress, pace.steps, loss.item())
    average.swap()
    return net.eval()


def measure_oracle(net: PictureNet, count: int = 2000) -> dict[str, float]:
    """Accuracy of each head and F1 of each modifier on held-out renders."""
    truths, pictures = scenes(np.random.default_rng(99), count, "held-out")
    *heads, last = Oracle(net).outputs(pictures)
    classes, modifiers = labels(truths)
    scores = {}
    for name, head, target in zip(("arrangement", "shape 1", "colour 1", "shape 2", "colour 2", "background"),
                                  heads, classes.T, strict=True):  # fmt: skip
        on = target >= 0
        scores[name] = (head.argmax(-1)[on] == target[on]).float().mean().item()
    said = (last > 0).float()
    f1 = 2 * (said * modifiers).sum(0) / (said.sum(0) + modifiers.sum(0))
    return scores | {f"modifiers' mean F1 ({len(f1)})": f1.mean().item(), "modifiers' least F1": f1.min().item()}
