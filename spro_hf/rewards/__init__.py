"""Rewards: one file each, one plain dictionary of names."""

from __future__ import annotations

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
from spro_hf.rewards.pickscore import PickScore
from spro_hf.rewards.vlm import VLMJudge

REWARDS: dict[str, type] = {
    "aesthetic": Aesthetic,
    "blur": Blur,
    "clip": ClipScore,
    "clip_iqa": ClipIQA,
    "engagement": Engagement,
    "engagenet": EngageNet,
    "hpsv2": HPSv2,
    "imagereward": ImageReward,
    "judge": Judge,
    "pickscore": PickScore,
    "similarity": ImageSimilarity,
    "vlm": VLMJudge,
}


def load(scorers: dict[str, dict], weights: dict[str, float]) -> Rewards:
    """Load every scorer of a recipe, by its ``kind`` or its name; ``weights`` says which of them the total is made of."""
    loaded = {}
    for name, spec in scorers.items():
        fields = {key: value for key, value in spec.items() if key != "kind"}
        loaded[name] = REWARDS[spec.get("kind", name)](**fields)
    return Rewards(loaded, weights)


__all__ = ["REWARDS", "Brief", "Reward", "Rewards", "Similarity", "load"]
