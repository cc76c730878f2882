"""How a guider and a generator learn, each method's fields checked as they are made; a ValueError names the field and the fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spro_hf.parts import need
from spro_hf.strict import nearest

LEARN = ("dpo", "grpo", "sft")
CAPTIONS = ("base", "both")
TRANSITIONS = ("flow_sde", "cps", "dance", "ddim")
ADVANTAGES = ("group", "batch_std", "batch")
WHEN = ("always", "references_lower")
KL_VARIANCES = ("true", "without_step", "none")


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter; ``targets`` are names of layers joined by "|", or a regular expression over whole module names."""

    rank: int
    alpha: int
    targets: str | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")


@dataclass(frozen=True)
class Learn:
    """How the guider learns: ``method`` picks TRL's trainer, and the block of that name holds its fields unchanged."""

    method: str = "dpo"
    dpo: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    lora: Lora | None = field(default_factory=lambda: Lora(8, 16))
    unparsed_reward: float | None = None

    def __post_init__(self) -> None:
        need(self.method in LEARN, f"'method' is '{self.method}'; {nearest(self.method, LEARN)}")
        need(
            self.method != "grpo" or self.unparsed_reward is not None,
            "the field 'unparsed_reward' is missing; GRPO needs a reward for replies that do not parse, e.g. 0.0.",
        )

    @property
    def trainer(self) -> dict[str, Any]:
        """The fields of the trainer that is used."""
        return getattr(self, self.method)


@dataclass(frozen=True)
class Finetune:
    """SPRO-Image: reconstruction of winner pictures; full fine-tuning where lora is null.

    ``captions`` "base" is the paper's: winners under their base captions. "both" shows each winner under the prompt that
    made it as well, so that a generator that decorates plain captions does not decorate the guider's prompts twice.
    ``batch_size`` is the pictures of an update, which are learned from in ``accumulation`` parts, one after the other.
    ``size`` is the height and width, in pixels, at which it learns; null is the call's.
    """

    captions: str = "base"
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    accumulation: int = 1
    size: tuple[int, ...] | None = None
    lr: float = 1e-3
    warmup: int = 10
    caption_dropout: float = 0.1
    lora: Lora | None = field(default_factory=lambda: Lora(8, 16))
    checkpoint_every: int = 200
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch_size", "accumulation", "checkpoint_every"):
            value = getattr(self, name)
            need(value is None or value > 0, f"'{name}' is {value}; give at least 1.")
        need(
            self.steps is not None or self.epochs is not None,
            "give 'epochs', passes over the winners, or 'steps', which wins over it.",
        )
        need(
            self.accumulation <= self.batch_size,
            f"'accumulation' is {self.accumulation}, but a batch has {self.batch_size} pictures; give at most as many.",
        )
        need(
            self.size is None or (len(self.size) == 2 and min(self.size) > 0),
            f"'size' is {list(self.size or ())}; give a height and a width in pixels, e.g. [512, 512].",
        )
        need(self.captions in CAPTIONS, f"'captions' is '{self.captions}'; {nearest(self.captions, CAPTIONS)}")


@dataclass(frozen=True)
class Policy:
    """Policy gradient on the denoising chain: where it explores, what it learns from, how far it goes at once.

    ``range`` is the half-open range of steps that may explore, null for all but the last. ``window`` draws a run of so
    many of them anew at every training step, which alone explore and learn; ``fraction`` lets all of them explore and a
    share of them, drawn anew, learn. ``guidance: false`` learns without classifier-free guidance from guided rollouts.
    """

    transition: str = "flow_sde"
    exploration: float = 0.7
    range: tuple[int, ...] | None = None
    window: int | None = None
    fraction: float | None = None
    shared_noise: bool = False
    advantage: str = "group"
    advantage_clip: float = 5.0
    clip: float = 1e-4
    guarded: bool = False
    kl: float = 0.0
    kl_variance: str = "true"
    guidance: bool = True
    lr: float = 3e-4
    warmup: int = 0
    updates: int = 1
    batch_size: int = 16
    ema: float | None = None
    ema_every: int = 1
    lora: Lora | None = field(default_factory=lambda: Lora(32, 64))
    gradient_checkpointing: bool = False
    checkpoint_every: int = 20
    push_checkpoints: bool = False

    def __post_init__(self) -> None:
        for name, known in (("transition", TRANSITIONS), ("advantage", ADVANTAGES), ("kl_variance", KL_VARIANCES)):
            value = getattr(self, name)
            need(value in known, f"'{name}' is '{value}'; {nearest(value, known)}")
        for name in ("advantage_clip", "clip", "lr"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name):g}; give a number above 0.")
        for name in ("updates", "batch_size", "checkpoint_every", "ema_every"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        need(
            self.exploration > 0,
            f"'exploration' is {self.exploration:g}: a step without noise has no probability to learn from; give e.g. 0.7.",
        )
        for name in ("cps", "ddim"):
            need(
                self.transition != name or self.exploration <= 1,
                f"'exploration' is {self.exploration:g}; with '{name}' it is at most 1.",
            )
        need(self.kl >= 0, f"'kl' is {self.kl:g}; give 0 or more.")
        need(self.ema is None or 0 < self.ema < 1, f"'ema' is {self.ema}; give a decay between 0 and 1, e.g. 0.9.")
        need(self.window is None or self.fraction is None, "'window' and 'fraction' exclude each other; give one.")
        need(
            self.fraction is None or 0 < self.fraction <= 1, f"'fraction' is {self.fraction}; it is a share in (0, 1]."
        )
        need(
            self.range is None or (len(self.range) == 2 and 0 <= self.range[0] < self.range[1]),
            f"'range' is {list(self.range or ())}; give its first step and the step behind its last, e.g. [0, 5].",
        )
        need(
            not self.guarded or self.transition in ("flow_sde", "dance"),
            f"'guarded' needs the density of flow matching; it goes with flow_sde and dance, not with '{self.transition}'.",
        )
        need(
            self.kl_variance != "without_step" or self.transition in ("flow_sde", "dance"),
            f"'kl_variance' is 'without_step'; '{self.transition}' has no Δσ in its variance, give true or none.",
        )

    def explored(self, total: int) -> tuple[int, int]:
        """First explored step and the one behind the last, of a call of ``total`` steps; ValueError if outside it."""
        first, last = self.range or (0, total - 1)
        need(
            last <= total,
            f"'range' is [{first}, {last}], but the call has {total} steps (0 to {total - 1}); choose among them.",
        )
        need(first < last, f"the call has {total} step; exploring all but the last needs at least 2.")
        need(
            self.transition != "cps" or last < total,
            f"'range' ends at {last}: with 'cps' the last step, {total - 1}, goes to σ = 0 without noise; leave it out.",
        )
        if self.window is not None:
            need(
                0 < self.window <= last - first,
                f"'window' is {self.window}, but steps {first} to {last - 1} may explore; give 1 to {last - first}.",
            )
        return first, last


@dataclass(frozen=True)
class Adversary:
    """A reward that learns to tell the generator's pictures from references, in turns with it (Adv-GRPO, arXiv 2511.20256).

    ``reward`` names the scorer that learns. A turn is ``generator_steps`` training steps of the generator; at the last of
    them, and at the very first of all, the reward makes ``head_steps`` updates, each on ``batch_size`` pairs of a picture of
    the turn and a reference, and only then scores that step's pictures: every picture serves both. ``when``
    "references_lower" lets it learn only while references score below the pictures that they are compared with.
    """

    reward: str
    head_steps: int = 10
    generator_steps: int = 1
    when: str = "always"
    lr: float = 1e-4
    betas: tuple[float, ...] = (0.5, 0.999)
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("head_steps", "generator_steps", "batch_size"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        need(self.lr > 0, f"'lr' is {self.lr:g}; give a number above 0.")
        need(self.when in WHEN, f"'when' is '{self.when}'; {nearest(self.when, WHEN)}")
        need(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"'betas' is {list(self.betas)}; give Adam's two, each in [0, 1), e.g. [0.5, 0.999].",
        )
