"""Which candidates teach: the similarity filter, the gain filter in the paper's three wordings, best and worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from spro_hf.errors import UserError


@dataclass(frozen=True)
class Candidate:
    """One rendered reply: its row in the round's rollouts, its seed, its reward and its base picture's reward.

    ``gains`` are what single scorers give it more than its base picture.
    """

    row: int
    seed_id: str
    total: float
    base_total: float
    similarity: float
    gains: Mapping[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Reward won over the base picture."""
        return self.total - self.base_total


@dataclass(frozen=True)
class Pair:
    """Best and worst kept candidate of one seed."""

    winner: Candidate
    loser: Candidate


def above_mean_gain(pairs: Sequence[Pair]) -> list[bool]:
    """Keep winners that gain at least as much as the round's winners do on average."""
    mean = fmean(p.winner.gain for p in pairs)
    return [p.winner.gain >= mean for p in pairs]


def above_mean_reward(pairs: Sequence[Pair]) -> list[bool]:
    """Keep winners whose reward is at least the mean reward of the round's winners."""
    mean = fmean(p.winner.total for p in pairs)
    return [p.winner.total >= mean for p in pairs]


def above_base_mean(pairs: Sequence[Pair]) -> list[bool]:
    """Keep winners whose reward is above the mean reward of the base captions' pictures."""
    mean = fmean(p.winner.base_total for p in pairs)
    return [p.winner.total > mean for p in pairs]


GAIN_FILTERS: dict[str, Callable[[Sequence[Pair]], list[bool]]] = {
    "above_mean_gain": above_mean_gain,
    "above_mean_reward": above_mean_reward,
    "above_base_mean": above_base_mean,
}


def select(
    candidates: Sequence[Candidate],
    min_similarity: float,
    gain: str,
    improve: Sequence[str] = (),
    most: int | None = None,
) -> tuple[list[Pair], dict[int, str]]:
    """SPRO-Prompt steps 4 and 5: filter by similarity, pair best and worst of each seed, filter pairs by gain.

    ``improve`` names scorers; a pair is kept only if its winner is above its base picture by each of them, as the paper
    has it for two objectives at once. ``most`` is how many pairs are kept at most, those of the first seeds.

    Returns: the pairs, and for every row why it is not in one ("" for the rows of a pair). The paper applies the
    filters in no stated order; here likeness comes first, then ``improve``, and the mean gain is taken over what is left.
    """
    if gain not in GAIN_FILTERS:
        raise UserError(f"select.gain: '{gain}' is not one of {', '.join(GAIN_FILTERS)}.")
    why = {c.row: "neither best nor worst of its seed" for c in candidates}
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.similarity < min_similarity:
            why[candidate.row] = f"similarity below {min_similarity:g}"
        else:
            groups.setdefault(candidate.seed_id, []).append(candidate)
    pairs = []
    for group in groups.values():
        pair = Pair(max(group, key=lambda c: c.total), min(group, key=lambda c: c.total))
        lacking = [name for name in improve if pair.winner.gains[name] <= 0]
        if pair.winner.total <= pair.loser.total:
            why.update({c.row: "no rival of another reward" for c in group})
        elif lacking:
            why.update({c.row: f"pair dropped: {lacking[0]} is not improved" for c in (pair.winner, pair.loser)})
        else:
            pairs.append(pair)
    kept = []
    for pair, good in zip(pairs, GAIN_FILTERS[gain](pairs) if pairs else [], strict=True):
        enough = most is not None and len(kept) >= most
        reason = f"pair dropped by {gain}" if not good else f"pair dropped: {most} are enough" if enough else ""
        why.update({pair.winner.row: reason, pair.loser.row: reason})
        if not reason:
            kept.append(pair)
    return kept, why
