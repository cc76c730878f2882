"""Recipes of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from spro_hf.parts import Guider, Repo, Seeds, System, need
from spro_hf.schema.base import Recipe, model
from spro_hf.strict import nearest


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe(Recipe):
    """Held-out seeds, several noise seeds, every system under every scorer. ``judges`` are scorers nobody trains on.

    Every system is compared pair by pair with the base, and with the ``rivals`` among the systems.
    """

    systems: dict[str, System]
    guider: Guider | None = None
    rollouts: tuple[Repo, ...] = ()
    seeds: Seeds = field(default_factory=lambda: Seeds(split="held-out", count=48))
    noise_seeds: int = 2
    temperature: float = 0.7
    judges: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ("best-of-n",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.rivals:
            need(
                name in self.systems or name == "best-of-n",
                f"rivals: '{name}' is no system; {nearest(name, self.systems)}",
            )
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
            found |= {f"{name} adapter": model(system.adapter)} if system.adapter else {}
            found |= {f"{name} LoRA": model(system.lora)} if system.lora else {}
        return found
