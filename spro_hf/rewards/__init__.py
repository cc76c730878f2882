"""Rewards: one file each, one plain dictionary of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.rewards.adversarial import Adversarial
from spro_hf.rewards.adversarial_pickscore import AdversarialPickScore
from spro_hf.rewards.aesthetic import Aesthetic
from spro_hf.rewards.base import Brief, Reward, Rewards
from spro_hf.rewards.blur import Blur
from spro_hf.rewards.clip import ClipScore, ImageSimilarity, Similarity
from spro_hf.rewards.clip_iqa import ClipIQA
from spro_hf.rewards.engagement import Engagement
from spro_hf.rewards.engagenet import EngageNet
from spro_hf.rewards.hpsv2 import HPSv2
from spro_hf.rewards.imagereward import ImageReward
from spro_hf.rewards.judge import Judge
from spro_hf.rewards.learning import read_reward
from spro_hf.rewards.ocr import OCR
from spro_hf.rewards.pickscore import PickScore
from spro_hf.rewards.vlm import VLMJudge


def trained(
    id: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    batch_size: int = 64,
) -> Reward:
    """A reward that has learned beside a generator, from the repository or folder that it was left in.

    Raises:
        UserError: if ``id`` holds none.
    """
    kind, fields, tensors = read_reward(Path(locate(id, revision)), id, "scorers.trained.id")
    try:
        reward = REWARDS[kind](**fields, device=device, dtype=dtype, batch_size=batch_size)
        reward.load(tensors)
    except (TypeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        said = " ".join(str(error).split())[:120]
        raise UserError(
            f"scorers.trained.id: '{id}' does not fit this version of spro_hf ({said}); name another repository or revision."
        ) from error
    return reward


REWARDS: dict[str, Callable[..., Reward]] = {
    "adversarial": Adversarial,
    "adversarial_pickscore": AdversarialPickScore,
    "aesthetic": Aesthetic,
    "blur": Blur,
    "clip": ClipScore,
    "clip_iqa": ClipIQA,
    "engagement": Engagement,
    "engagenet": EngageNet,
    "hpsv2": HPSv2,
    "imagereward": ImageReward,
    "judge": Judge,
    "ocr": OCR,
    "pickscore": PickScore,
    "similarity": ImageSimilarity,
    "trained": trained,
    "vlm": VLMJudge,
}


def load(scorers: dict[str, dict], weights: dict[str, float]) -> Rewards:
    """Load every scorer of a recipe, by its ``kind`` or its name; ``weights`` says which of them the total is made of."""
    loaded = {}
    for name, spec in scorers.items():
        fields = {key: value for key, value in spec.items() if key != "kind"}
        loaded[name] = REWARDS[spec.get("kind", name)](**fields)
    return Rewards(loaded, weights)


__all__ = ["REWARDS", "Brief", "Reward", "Rewards", "Similarity", "load", "trained"]
