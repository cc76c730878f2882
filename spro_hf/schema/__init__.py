"""What a recipe may say: one frozen object per stage, checked as it is made.

Nothing heavy is imported here, so that a mistake is told at once and before any client of the Hub is loaded.
"""

from __future__ import annotations

from spro_hf.schema.base import Recipe
from spro_hf.schema.evaluation import EvaluateRecipe
from spro_hf.schema.policy import ReferencesRecipe, ReinforceRecipe
from spro_hf.schema.selfplay import ImageRecipe, MultimodalRecipe, PromptRecipe

STAGES: dict[str, type[Recipe]] = {
    "prompt": PromptRecipe,
    "image": ImageRecipe,
    "multimodal": MultimodalRecipe,
    "references": ReferencesRecipe,
    "reinforce": ReinforceRecipe,
    "evaluate": EvaluateRecipe,
}
# What all processes of a run do between them; a stage that is not here is the first's, and the others wait.
TOGETHER = ("prompt", "image", "multimodal", "references", "reinforce")

__all__ = [
    "STAGES",
    "TOGETHER",
    "EvaluateRecipe",
    "ImageRecipe",
    "MultimodalRecipe",
    "PromptRecipe",
    "Recipe",
    "ReferencesRecipe",
    "ReinforceRecipe",
]
