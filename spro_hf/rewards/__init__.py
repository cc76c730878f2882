"""Rewards: one file each, one plain dictionary of names."""

from __future__ import annotations

from spro_hf.rewards.aesthetic import Aesthetic
from spro_hf.rewards.base import Reward, Rewards
from spro_hf.rewards.clip import ClipScore, Similarity
from spro_hf.rewards.engagement import Engagement
from spro_hf.rewards.judge import Judge
from spro_hf.rewards.pickscore import PickScore

REWARDS: dict[str, type] = {
    "aesthetic": Aesthetic,
    "engagement": Engagement,
    "pickscore": PickScore,
    "clip": ClipScore,
    "judge": Judge,
}


def load(scorers: dict[str, dict], weights: dict[str, float]) -> Rewards:
    """Load every scorer of a recipe; ``weights`` says which of them the total is made of."""
    return Rewards({name: REWARDS[name](**spec) for name, spec in scorers.items()}, weights)


__all__ = ["REWARDS", "Reward", "Rewards", "Similarity", "load"]
