"""What a recipe may say: one frozen object per stage, checked as it is made.

Nothing heavy is imported here, so that a mistake is told at once and before any client of the Hub is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spro_hf.methods import Finetune, Learn, Lora, Policy
from spro_hf.parts import (
    DTYPES,
    MODEL_FIELDS,
    OBJECTIVES,
    SCORERS,
    Generator,
    Guider,
    Repo,
    Seeds,
    Select,
    System,
    need,
)
from spro_hf.strict import nearest


@dataclass(frozen=True)
class Recipe:
    """What every stage has. ``name`` is what the recipe's artifacts are called by, ``{name}`` in the names of repositories.

    ``paper`` is what a paper reports of such a run; it is shown as the paper's, never as a measurement. ``scorers`` are of
    the kind that they are called, or of their ``kind``. ``license`` is that of what is pushed, by the Hub's identifiers,
    but for the artifacts that ``licenses`` has; ``private`` makes new repositories private. ``oracle`` adds the embedded
    world's truth.
    """

    stage: str
    generator: Generator
    scorers: dict[str, dict[str, Any]]
    reward: dict[str, float]
    push: dict[str, str]
    objective: str = "aesthetics"
    name: str = "tiny"
    paper: str = ""
    namespace: str = "spro"
    license: str = "apache-2.0"
    licenses: dict[str, str] = field(default_factory=dict)
    private: bool = False
    seed: int = 0
    oracle: bool = False

    def __post_init__(self) -> None:
        need(self.objective in OBJECTIVES, f"'objective' is '{self.objective}'; {nearest(self.objective, OBJECTIVES)}")
        need(bool(self.reward), "'reward' is empty; name at least one scorer and its weight.")
        for name, spec in self.scorers.items():
            _check_scorer(name, spec)
        for name in self.reward:
            need(name in self.scorers, f"reward: unknown reward '{name}'; {nearest(name, self.scorers)}")
        for name in self.licenses:
            known = ("rollouts", "pairs", "guider", "generator", "pipeline", "results")
            need(name in known, f"licenses: unknown artifact '{name}'; {nearest(name, known)}")
        unknown = set(self.push) - set(self.pushes)
        need(not unknown, f"push: unknown artifact '{min(unknown, default='')}'; known: {', '.join(self.pushes)}.")
        lacking = [name for name in self.pushes if name not in self.push]
        need(not lacking, f"push: the field '{(lacking or [''])[0]}' is missing; name the repository it goes to.")

    @property
    def models(self) -> list[tuple[str, str, str | None]]:
        """Every model that the recipe names: the field that names it, id and revision."""
        found = [("generator.id", self.generator.id, self.generator.revision)]
        for name, spec in self.scorers.items():
            for key, revision in MODEL_FIELDS.items():
                if key in spec:
                    found.append((f"scorers.{name}.{key}", spec[key], spec.get(revision)))
        return found

    @property
    def pushes(self) -> tuple[str, ...]:
        """The artifacts that this stage leaves, by the names used in ``push``."""
        return ()

    @property
    def seed_sets(self) -> dict[str, Seeds]:
        """The seeds that the recipe names, by field."""
        found = {name: getattr(self, name, None) for name in ("seeds", "prompts")}  # of reinforce, prompts are a number
        return {name: seeds for name, seeds in found.items() if isinstance(seeds, Seeds)}

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        """Artifacts and data sets read from the Hub: what → (repo, kind, revision)."""
        found = {"generator LoRA": _model(self.generator.lora)} if self.generator.lora else {}
        found |= {name: (s.source, "dataset", s.revision or "main") for name, s in self.seed_sets.items() if s.hub}
        return found


def _check_scorer(name: str, spec: dict[str, Any]) -> None:
    kind = spec.get("kind", name)
    need(kind in SCORERS, f"scorers: unknown reward '{kind}'; {nearest(str(kind), SCORERS)}")
    for key in spec:
        need(
            key == "kind" or key in SCORERS[kind],
            f"scorers.{name}: unknown field '{key}'; {nearest(key, SCORERS[kind])}",
        )
    dtype = spec.get("dtype", DTYPES[0])
    need(dtype in DTYPES, f"scorers.{name}: 'dtype' is '{dtype}'; {nearest(str(dtype), DTYPES)}")
    for key, needed in SCORERS[kind].items():
        need(key in spec or not needed, f"scorers.{name}: the field '{key}' is missing; add it.")


def _model(repo: Repo) -> tuple[str, str, str]:
    return repo.repo, "model", repo.revision


def _trainable(generator: Generator, lora: Lora | None, block: str) -> None:
    """What cannot be trained as it stands: numbers too coarse for the updates, or a LoRA together with what it sits on."""
    need(
        generator.dtype != "float16",
        "generator: 'dtype' is float16, in which gradients vanish; train in bfloat16 or float32.",
    )
    if lora is None:
        need(
            generator.dtype == "float32",
            f"{block}: 'lora' is null and the generator's 'dtype' {generator.dtype}, too coarse for small updates; use float32.",
        )
        need(
            generator.lora is None, f"{block}: 'lora' is null, but the generator carries a LoRA; leave out one of them."
        )


def _temperatures(values: tuple[float, ...]) -> None:
    need(len(values) > 1, "'temperatures' needs at least two: best and worst must differ.")
    for value in values:
        need(value > 0, f"'temperatures' holds {value:g}; sampling needs a temperature above 0, e.g. 0.7.")


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
        _temperatures(self.temperatures)
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
        return super().inputs | ({"guider adapter": _model(self.guider.adapter)} if self.guider.adapter else {})


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
        _trainable(self.generator, self.finetune.lora, "finetune")

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
        _trainable(self.generator, self.finetune.lora, "finetune")

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("rollouts", "pairs", "guider", "generator", "pipeline")

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        found = super().inputs
        if not self.rounds:  # nothing is played, and no seed is read
            found.pop("seeds", None)
        return found


@dataclass(frozen=True, kw_only=True)
class ReinforceRecipe(Recipe):
    """Policy gradient: of each of ``prompts`` captions a group of ``group`` pictures, scored; ``steps`` times over.

    ``method`` is what the recipe's settings are known as; it stands in the card and in the report.
    """

    policy: Policy
    method: str = "policy gradient"
    seeds: Seeds = field(default_factory=Seeds)
    prompts: int = 16
    group: int = 8
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompts", "group", "steps"):
            need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        _trainable(self.generator, self.policy.lora, "policy")
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

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("generator",)


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe(Recipe):
    """Held-out seeds, several noise seeds, every system under every scorer. ``judges`` are scorers nobody trains on."""

    systems: dict[str, System]
    guider: Guider | None = None
    rollouts: tuple[Repo, ...] = ()
    seeds: Seeds = field(default_factory=lambda: Seeds(split="held-out", count=48))
    noise_seeds: int = 2
    temperature: float = 0.7
    judges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        need(
            self.systems.get("base") == System(), "systems: 'base' must be there and be empty: gains are taken over it."
        )
        for name, system in self.systems.items():
            need("/" not in name, f"systems: '{name}' holds a '/'; it becomes a file's name, leave that out.")
            need(self.guider is not None or not system.guided, f"'guider' is missing; the system '{name}' is guided.")
        need(self.noise_seeds > 0, f"'noise_seeds' is {self.noise_seeds}; give at least 1.")
        need(self.temperature > 0, f"'temperature' is {self.temperature:g}; sampling needs one above 0, e.g. 0.7.")
        for judge in self.judges:
            need(judge in self.scorers, f"judges: '{judge}' is no scorer; {nearest(judge, self.scorers)}")
            need(judge not in self.reward, f"judges: '{judge}' is also the reward; a judge is never trained on.")

    @property
    def models(self) -> list[tuple[str, str, str | None]]:
        guider = [("guider.id", self.guider.id, self.guider.revision)] if self.guider else []
        return super().models + guider

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("results",)

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        found = super().inputs | {f"rollouts {r.revision}": (r.repo, "dataset", r.revision) for r in self.rollouts}
        for name, system in self.systems.items():
            found |= {f"{name} adapter": _model(system.adapter)} if system.adapter else {}
            found |= {f"{name} LoRA": _model(system.lora)} if system.lora else {}
        return found


STAGES: dict[str, type[Recipe]] = {
    "prompt": PromptRecipe,
    "image": ImageRecipe,
    "multimodal": MultimodalRecipe,
    "reinforce": ReinforceRecipe,
    "evaluate": EvaluateRecipe,
}
# What all processes of a run do between them; a stage that is not here is the first's, and the others wait.
TOGETHER = ("prompt", "image", "multimodal", "reinforce")
