"""Recipes of policy gradient, and of the references that a reward may learn from beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from spro_hf.methods import Adversary, Policy
from spro_hf.parts import LEARNING, References, Seeds, need
from spro_hf.schema.base import Recipe, trainable
from spro_hf.strict import nearest


@dataclass(frozen=True, kw_only=True)
class ReinforceRecipe(Recipe):
    """Policy gradient: of each of ``prompts`` captions a group of ``group`` pictures, scored; ``steps`` times over.

    ``method`` is what the recipe's settings are known as; it stands in the card and in the report. With an ``adversary`` one
    of the scorers learns as well, to tell the pictures from ``references``.
    """

    policy: Policy
    method: str = "policy gradient"
    seeds: Seeds = field(default_factory=Seeds)
    references: References | None = None
    adversary: Adversary | None = None
    prompts: int = 16
    group: int = 8
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompts", "group", "steps"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        trainable(self.generator, self.policy.lora, "policy")
        alone = self.group == 1 and self.policy.advantage != "batch"
        need(
            not alone,
            "'group' is 1: a picture alone is neither better nor worse; give 2 or more, or `advantage: batch`.",
        )
        size = self.prompts * self.group
        need(size > 1, "'prompts' and 'group' are 1: a picture alone is neither better nor worse; give more.")
        updates = self.policy.updates
        need(updates <= size, f"policy: 'updates' is {updates}, but a step has {size} pictures; give at most as many.")
        if isinstance(total := self.generator.call.get("num_inference_steps"), int):
            try:
                self.policy.explored(total)
            except ValueError as error:
                raise ValueError(f"policy: {error}") from error
        self._check_adversary()

    def _check_adversary(self) -> None:
        if self.adversary is None:
            need(self.references is None, "'references' is given, but nothing learns from them; add an 'adversary'.")
            return
        name, size = self.adversary.reward, self.prompts * self.group
        need(name in self.scorers, f"adversary: 'reward' is '{name}'; {nearest(name, self.scorers)}")
        kind = self.scorers[name].get("kind", name)
        need(
            kind in LEARNING, f"adversary: the scorer '{name}' cannot learn; of these kinds can: {', '.join(LEARNING)}."
        )
        need(
            self.reward.get(name, 0) > 0,
            f"adversary: '{name}' learns, but has no weight above 0 in 'reward'; give it one there.",
        )
        spec = self.scorers[name]
        folder = next((spec[key] for key in ("backbone", "id") if key in spec and Path(spec[key]).is_dir()), None)
        need(
            folder is None or kind == "trained",
            f"scorers.{name}: '{folder}' is a folder of this machine, and the reward that is pushed would name it; push the model "
            "and name its repository.",
        )
        need(
            self.references is not None, "the field 'references' is missing; name what the adversary learns to prefer."
        )
        need(
            self.adversary.batch_size <= size * self.adversary.generator_steps,
            f"adversary: 'batch_size' is {self.adversary.batch_size}, but a turn has {size * self.adversary.generator_steps} "
            "pictures; give at most as many.",
        )
        every = self.policy.checkpoint_every
        need(
            every % self.adversary.generator_steps == 0,
            f"policy: 'checkpoint_every' is {every}, which ends within a turn; give a multiple of adversary.generator_steps, "
            f"{self.adversary.generator_steps}.",
        )
        self._check_heads(name)

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("generator", "reward") if self.adversary else ("generator",)


@dataclass(frozen=True, kw_only=True)
class ReferencesRecipe(Recipe):
    """Reference pictures: ``per_caption`` of each seed's caption, drawn by a generator that others are to look up to.

    ``prompt`` is what is drawn of a caption: "{caption}" stands for it, so that "{caption}, as a watercolour" gives a set of
    references of that style. ``part`` is how many captions are drawn at once and kept, whatever happens later.
    """

    seeds: Seeds = field(default_factory=Seeds)
    per_caption: int = 1
    prompt: str = "{caption}"
    part: int = 256
    unscored: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("per_caption", "part"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        need("{caption}" in self.prompt, f"'prompt' is '{self.prompt}'; it must hold {{caption}}.")
        need(not self.scorers, "'scorers' is given, but references are not scored; leave it out.")

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("references",)
