"""Recipes of self-play: SPRO-Prompt, SPRO-Image and SPRO-MM."""

from __future__ import annotations

from dataclasses import dataclass, field

from spro_hf.methods import Finetune, Learn
from spro_hf.parts import Guider, Repo, Seeds, Select, need
from spro_hf.schema.base import Recipe, model, temperatures, trainable
from spro_hf.strict import nearest


@dataclass(frozen=True, kw_only=True)
class PromptRecipe(Recipe):
    """SPRO-Prompt: the guider learns from its own wins and losses. One candidate per temperature and seed.

    ``carry`` is the share of seeds that show the last round's prompt and picture in the next round; the rest begin each
    round from the base caption. The paper carries all (1.0) and its guider is used on base captions all the same.
    ``part`` is how many seeds are played at once: their pictures are in memory, and what is played is kept.
    """

    guider: Guider
    select: Select
    learn: Learn = field(default_factory=Learn)
    seeds: Seeds = field(default_factory=Seeds)
    rounds: int = 3
    temperatures: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    carry: float = 1.0
    part: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.rounds > 0, f"'rounds' is {self.rounds}; give at least 1.")
        self._check_players()

    def _check_players(self) -> None:
        temperatures(self.temperatures)
        need(0 <= self.carry <= 1, f"'carry' is {self.carry}; it is a share in [0, 1].")
        need(self.part > 0, f"'part' is {self.part}; give at least 1.")
        for name in self.select.improve:
            need(name in self.scorers, f"select: 'improve' names '{name}'; {nearest(name, self.scorers)}")
        dtype = self.guider.dtype
        need(
            self.learn.lora is not None or dtype == "float32",
            f"learn: 'lora' is null and the guider's 'dtype' {dtype}, too coarse for small updates; use float32.",
        )

    @property
    def models(self) -> list[tuple[str, str, str | None]]:
        return [
            *super().models,
            ("guider.id", self.guider.id, self.guider.revision),
            ("select.similarity", self.select.similarity, self.select.similarity_revision),
        ]

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("rollouts", "pairs", "guider")

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        return super().inputs | ({"guider adapter": model(self.guider.adapter)} if self.guider.adapter else {})


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """SPRO-Image: the generator learns the winners' pictures under the base captions.

    The winners stand in ``rollouts`` of earlier rounds, or are drawn from ``prompts``, a data set of captions and the
    prompts that they were rewritten to.
    """

    rollouts: tuple[Repo, ...] = ()
    prompts: Seeds | None = None
    finetune: Finetune = field(default_factory=lambda: Finetune(steps=150))

    def __post_init__(self) -> None:
        super().__post_init__()
        need(
            bool(self.rollouts) != (self.prompts is not None),
            "give either 'rollouts', what earlier rounds played, or 'prompts', a data set of rewritten captions.",
        )
        need(
            self.prompts is None or "prompt" in self.prompts.columns,
            "prompts.columns: the field 'prompt' is missing; name the column of the rewritten captions.",
        )
        trainable(self.generator, self.finetune.lora, "finetune")

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("generator",)

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        return super().inputs | {f"rollouts {r.revision}": (r.repo, "dataset", r.revision) for r in self.rollouts}


@dataclass(frozen=True, kw_only=True)
class MultimodalRecipe(PromptRecipe):
    """SPRO-MM: trained guider and trained generator; ``rounds`` of co-evolution follow, 0 is the paper's."""

    finetune: Finetune = field(default_factory=lambda: Finetune(steps=150))
    rounds: int = 0
    first_round: int = 4

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        self._check_players()
        need(self.rounds >= 0, f"'rounds' is {self.rounds}; give 0 for no co-evolution.")
        need(self.guider.adapter is not None, "guider: the field 'adapter' is missing; name the trained guider.")
        need(
            self.finetune.lora is not None, "finetune: 'lora' is null; co-evolution goes on with a LoRA, give its rank."
        )
        need(self.generator.lora is not None, "generator: the field 'lora' is missing; name the trained generator.")
        trainable(self.generator, self.finetune.lora, "finetune")

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("rollouts", "pairs", "guider", "generator", "pipeline")

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        found = super().inputs
        if not self.rounds:  # nothing is played, and no seed is read
            found.pop("seeds", None)
        return found
