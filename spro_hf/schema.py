"""What a recipe may say: one frozen object per stage, checked as it is made.

Nothing heavy is imported here, so that a mistake is told at once and before any client of the Hub is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spro_hf.strict import nearest

OBJECTIVES = ("aesthetics", "engagement", "preference")
GAINS = ("above_mean_gain", "above_mean_reward", "above_base_mean")
LEARN = ("dpo", "grpo", "sft")
CAPTIONS = ("base", "both")
# The fields of every reward's constructor, and whether each must be given (a test holds this against the classes).
SCORERS: dict[str, dict[str, bool]] = {
    "aesthetic": {"id": True, "backbone": True, "revision": False, "backbone_revision": False},
    "engagement": {"id": True, "backbone": True, "revision": False, "backbone_revision": False},
    "pickscore": {"id": True, "revision": False, "processor": False},
    "clip": {"id": True, "revision": False},
    "judge": {"id": True, "revision": False},
}


def _need(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


@dataclass(frozen=True)
class Repo:
    """A repository and the revision of it that is read: a tag, a branch or a commit."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True)
class Seeds:
    """Where base captions come from: "world" (the embedded world's own) or a text file, one caption a line."""

    source: str = "world"
    count: int = 64
    split: str = "train"

    def __post_init__(self) -> None:
        _need(self.count > 0, f"'count' is {self.count}: an empty seed set teaches nothing; give at least 1.")
        _need(self.split in ("train", "held-out"), f"'split' is '{self.split}'; it is 'train' or 'held-out'.")


@dataclass(frozen=True)
class Guider:
    """The vision-language model that rewrites prompts, how it is asked, and the adapter it carries."""

    id: str
    revision: str | None = None
    adapter: Repo | None = None
    style: str = "full"
    reasoning: bool = True
    word_limit: int | None = 60
    max_new_tokens: int = 512
    batch_size: int = 128

    def __post_init__(self) -> None:
        _need(self.batch_size > 0, f"'batch_size' is {self.batch_size}; give at least 1.")
        _need(self.style in ("full", "compact"), f"'style' is '{self.style}'; it is 'full' or 'compact'.")


@dataclass(frozen=True)
class Generator:
    """A diffusers pipeline, the arguments of its call, and the LoRA it carries."""

    id: str
    revision: str | None = None
    lora: Repo | None = None
    call: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64

    def __post_init__(self) -> None:
        _need(self.batch_size > 0, f"'batch_size' is {self.batch_size}; give at least 1.")


@dataclass(frozen=True)
class Select:
    """Filters of a round: the model and floor of image–image similarity, and the wording of the gain filter."""

    similarity: str
    similarity_revision: str | None = None
    min_similarity: float = 0.75
    gain: str = "above_mean_gain"

    def __post_init__(self) -> None:
        _need(self.gain in GAINS, f"'gain' is '{self.gain}'; {nearest(self.gain, GAINS)}")
        _need(-1 <= self.min_similarity <= 1, f"'min_similarity' is {self.min_similarity}; a cosine lies in [-1, 1].")


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter; ``targets`` is a regular expression over whole module names, null for the usual layers."""

    rank: int = 8
    alpha: int = 16
    targets: str | None = None


@dataclass(frozen=True)
class Learn:
    """How the guider learns: ``method`` picks TRL's trainer, and the block of that name holds its fields unchanged."""

    method: str = "dpo"
    dpo: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    lora: Lora | None = field(default_factory=Lora)
    unparsed_reward: float | None = None

    def __post_init__(self) -> None:
        _need(self.method in LEARN, f"'method' is '{self.method}'; {nearest(self.method, LEARN)}")
        _need(
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
    """

    captions: str = "base"
    steps: int = 150
    batch_size: int = 16
    lr: float = 1e-3
    warmup: int = 10
    caption_dropout: float = 0.1
    lora: Lora | None = field(default_factory=Lora)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            _need(getattr(self, name) > 0, f"'{name}' is {getattr(self, name)}; give at least 1.")
        _need(self.captions in CAPTIONS, f"'captions' is '{self.captions}'; {nearest(self.captions, CAPTIONS)}")


@dataclass(frozen=True)
class Recipe:
    """What every stage has. Seeds, revisions and weights of everything; ``oracle`` adds the embedded world's truth."""

    stage: str
    generator: Generator
    scorers: dict[str, dict[str, Any]]
    reward: dict[str, float]
    push: dict[str, str]
    objective: str = "aesthetics"
    namespace: str = "spro"
    seed: int = 0
    oracle: bool = False

    def __post_init__(self) -> None:
        _need(self.objective in OBJECTIVES, f"'objective' is '{self.objective}'; {nearest(self.objective, OBJECTIVES)}")
        _need(bool(self.reward), "'reward' is empty; name at least one scorer and its weight.")
        for name in self.scorers:
            _need(name in SCORERS, f"scorers: unknown reward '{name}'; {nearest(name, SCORERS)}")
        for name in self.reward:
            _need(name in self.scorers, f"reward: unknown reward '{name}'; {nearest(name, self.scorers)}")
        for name, spec in self.scorers.items():
            for key in spec:
                _need(key in SCORERS[name], f"scorers.{name}: unknown field '{key}'; {nearest(key, SCORERS[name])}")
            for key, needed in SCORERS[name].items():
                _need(key in spec or not needed, f"scorers.{name}: the field '{key}' is missing; add it.")
        unknown = set(self.push) - set(self.pushes)
        _need(not unknown, f"push: unknown artifact '{min(unknown, default='')}'; known: {', '.join(self.pushes)}.")
        lacking = [name for name in self.pushes if name not in self.push]
        _need(not lacking, f"push: the field '{(lacking or [''])[0]}' is missing; name the repository it goes to.")

    @property
    def pushes(self) -> tuple[str, ...]:
        """The artifacts that this stage leaves, by the names used in ``push``."""
        return ()

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        """Artifacts read from the Hub: what → (repo, kind, revision)."""
        return {"generator LoRA": _model(self.generator.lora)} if self.generator.lora else {}


def _model(repo: Repo) -> tuple[str, str, str]:
    return repo.repo, "model", repo.revision


def _temperatures(values: tuple[float, ...]) -> None:
    _need(len(values) > 1, "'temperatures' needs at least two: best and worst must differ.")
    for value in values:
        _need(value > 0, f"'temperatures' holds {value:g}; sampling needs a temperature above 0, e.g. 0.7.")


@dataclass(frozen=True, kw_only=True)
class PromptRecipe(Recipe):
    """SPRO-Prompt: the guider learns from its own wins and losses. One candidate per temperature and seed.

    ``carry`` is the share of seeds that show the last round's prompt and picture in the next round; the rest begin each
    round from the base caption. The paper carries all (1.0) and its guider is used on base captions all the same.
    """

    guider: Guider
    select: Select
    learn: Learn = field(default_factory=Learn)
    seeds: Seeds = field(default_factory=Seeds)
    rounds: int = 3
    temperatures: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    carry: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _temperatures(self.temperatures)
        _need(0 <= self.carry <= 1, f"'carry' is {self.carry}; it is a share in [0, 1].")
        _need(self.rounds > 0, f"'rounds' is {self.rounds}; give at least 1.")
        _need(
            self.learn.lora is not None,
            "learn: 'lora' is null; the guider learns by an adapter, give a rank and an alpha.",
        )

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("rollouts", "pairs", "guider")

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        return super().inputs | ({"guider adapter": _model(self.guider.adapter)} if self.guider.adapter else {})


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """SPRO-Image: the generator learns the winners' pictures under the base captions."""

    rollouts: tuple[Repo, ...]
    finetune: Finetune = field(default_factory=Finetune)

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("generator",)

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        return super().inputs | {f"rollouts {r.revision}": (r.repo, "dataset", r.revision) for r in self.rollouts}


@dataclass(frozen=True, kw_only=True)
class MultimodalRecipe(PromptRecipe):
    """SPRO-MM: trained guider and trained generator; ``rounds`` of co-evolution follow, 0 is the paper's."""

    finetune: Finetune = field(default_factory=Finetune)
    rounds: int = 0
    first_round: int = 4

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        _temperatures(self.temperatures)
        _need(self.rounds >= 0, f"'rounds' is {self.rounds}; give 0 for no co-evolution.")
        _need(self.guider.adapter is not None, "guider: the field 'adapter' is missing; name the trained guider.")
        _need(
            self.learn.lora is not None,
            "learn: 'lora' is null; the guider learns by an adapter, give a rank and an alpha.",
        )
        _need(
            self.finetune.lora is not None, "finetune: 'lora' is null; co-evolution goes on with a LoRA, give its rank."
        )
        _need(self.generator.lora is not None, "generator: the field 'lora' is missing; name the trained generator.")

    @property
    def pushes(self) -> tuple[str, ...]:
        return ("rollouts", "pairs", "guider", "generator", "pipeline")


@dataclass(frozen=True)
class System:
    """One thing to compare: a guider (or none) with an adapter (or none), and a generator LoRA (or none)."""

    guided: bool = False
    adapter: Repo | None = None
    lora: Repo | None = None
    best_of: int = 1

    def __post_init__(self) -> None:
        _need(self.best_of > 0, f"'best_of' is {self.best_of}; give at least 1.")
        _need(self.guided or (self.best_of == 1 and not self.adapter), "'best_of' and 'adapter' need `guided: true`.")


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe(Recipe):
    """Held-out seeds, several noise seeds, every system under every scorer. ``judges`` are scorers nobody trains on."""

    guider: Guider
    systems: dict[str, System]
    rollouts: tuple[Repo, ...] = ()
    seeds: Seeds = field(default_factory=lambda: Seeds(split="held-out", count=48))
    noise_seeds: int = 2
    temperature: float = 0.7
    judges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _need(
            self.systems.get("base") == System(), "systems: 'base' must be there and be empty: gains are taken over it."
        )
        for name in self.systems:
            _need("/" not in name, f"systems: '{name}' holds a '/'; it becomes a file's name, leave that out.")
        _need(self.noise_seeds > 0, f"'noise_seeds' is {self.noise_seeds}; give at least 1.")
        _need(self.temperature > 0, f"'temperature' is {self.temperature:g}; sampling needs one above 0, e.g. 0.7.")
        for judge in self.judges:
            _need(judge in self.scorers, f"judges: '{judge}' is no scorer; {nearest(judge, self.scorers)}")
            _need(judge not in self.reward, f"judges: '{judge}' is also the reward; a judge is never trained on.")

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
    "evaluate": EvaluateRecipe,
}
