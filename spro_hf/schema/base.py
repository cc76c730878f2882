"""What the recipe of every stage may say, and what several of them check."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from spro_hf.methods import Lora
from spro_hf.parts import DTYPES, MODEL_FIELDS, OBJECTIVES, SCORERS, Generator, Repo, Seeds, need
from spro_hf.strict import nearest


@dataclass(frozen=True)
class Recipe:
    """What every stage has. ``name`` is what the recipe's artifacts are called by, ``{name}`` in the names of repositories.

    ``paper`` is what a paper reports of such a run; it is shown as the paper's, never as a measurement. ``scorers`` are of
    the kind that they are called, or of their ``kind``. ``license`` is that of what is pushed, by the Hub's identifiers,
    but for the artifacts that ``licenses`` has; ``private`` makes new repositories private. ``oracle`` adds the embedded
    world's truth, and of ``style``, some of its modifiers, whether a picture shows all of them.
    """

    stage: str
    generator: Generator
    push: dict[str, str]
    scorers: dict[str, dict[str, Any]] = field(default_factory=dict)
    reward: dict[str, float] = field(default_factory=dict)
    objective: str = "aesthetics"
    name: str = "tiny"
    paper: str = ""
    namespace: str = "spro"
    license: str = "apache-2.0"
    licenses: dict[str, str] = field(default_factory=dict)
    private: bool = False
    seed: int = 0
    oracle: bool = False
    style: tuple[str, ...] = ()
    unscored: ClassVar[bool] = False  # whether the stage does without a reward

    def __post_init__(self) -> None:
        need(self.objective in OBJECTIVES, f"'objective' is '{self.objective}'; {nearest(self.objective, OBJECTIVES)}")
        need(bool(self.reward) or self.unscored, "'reward' is empty; name at least one scorer and its weight.")
        for name, spec in self.scorers.items():
            _check_scorer(name, spec)
        if getattr(self, "adversary", None) is None:
            self._check_heads()
        for name in self.reward:
            need(name in self.scorers, f"reward: unknown reward '{name}'; {nearest(name, self.scorers)}")
        need(self.oracle or not self.style, "'style' is for the embedded world; it needs `oracle: true`.")
        for name in self.licenses:
            known = ("rollouts", "pairs", "guider", "generator", "reward", "pipeline", "results", "references")
            need(name in known, f"licenses: unknown artifact '{name}'; {nearest(name, known)}")
        unknown = set(self.push) - set(self.pushes)
        need(not unknown, f"push: unknown artifact '{min(unknown, default='')}'; known: {', '.join(self.pushes)}.")
        lacking = [name for name in self.pushes if name not in self.push]
        need(not lacking, f"push: the field '{(lacking or [''])[0]}' is missing; name the repository it goes to.")

    def _check_heads(self, learning: str | None = None) -> None:
        """No head of chance may judge: every scorer of kind adversarial must be the one that learns."""
        for name, spec in self.scorers.items():
            need(
                spec.get("kind", name) != "adversarial" or name == learning,
                f"scorers.{name}: its head is new and knows nothing; let it learn in a stage `reinforce` (`adversary: {{reward: "
                f"{name}}}`), or name one that has learned (`kind: trained`).",
            )

    @property
    def models(self) -> list[tuple[str, str, str | None]]:
        """Every model that the recipe names: the field that names it, id and revision."""
        found = [("generator.id", self.generator.id, self.generator.revision)]
        for name, spec in self.scorers.items():
            for key, revision in MODEL_FIELDS.items():
                # one that has learned is an artifact, see ``inputs``, unless it lies in a folder
                if key in spec and (spec.get("kind", name) != "trained" or Path(spec[key]).is_dir()):
                    found.append((f"scorers.{name}.{key}", spec[key], spec.get(revision)))
        return found

    @property
    def pushes(self) -> tuple[str, ...]:
        """The artifacts that this stage leaves, by the names used in ``push``."""
        return ()

    @property
    def seed_sets(self) -> dict[str, Seeds]:
        """The seeds that the recipe names, by field."""
        found = {name: getattr(self, name, None) for name in ("seeds", "prompts", "references")}
        # of policy gradient, prompts are a number
        return {name: seeds for name, seeds in found.items() if isinstance(seeds, Seeds)}

    @property
    def inputs(self) -> dict[str, tuple[str, str, str]]:
        """Artifacts and data sets read from the Hub: what → (repo, kind, revision)."""
        found = {"generator LoRA": model(self.generator.lora)} if self.generator.lora else {}
        found |= {name: (s.source, "dataset", s.revision or "main") for name, s in self.seed_sets.items() if s.hub}
        for name, spec in self.scorers.items():
            if spec.get("kind", name) == "trained" and not Path(spec["id"]).is_dir():
                found[f"scorers.{name}.id"] = (spec["id"], "model", spec.get("revision") or "main")
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


def model(repo: Repo) -> tuple[str, str, str]:
    return repo.repo, "model", repo.revision


def trainable(generator: Generator, lora: Lora | None, block: str) -> None:
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


def temperatures(values: tuple[float, ...]) -> None:
    need(len(values) > 1, "'temperatures' needs at least two: best and worst must differ.")
    for value in values:
        need(value > 0, f"'temperatures' holds {value:g}; sampling needs a temperature above 0, e.g. 0.7.")
