"""The planted preferences of the embedded world: exact functions of what a picture truly shows.

Nobody learns from these directly. The scorers are trained to imitate them and imitate imperfectly; the distance between
a scorer and its planted truth under optimisation is reward hacking, and here it can be measured.
"""

from __future__ import annotations

from math import fsum  # exact: the order of a set of modifiers, another in every process, must not show

from spro_hf.tiny.world import Request, Truth, alignment

_AESTHETICS = {
    "soft shadow": 0.9, "gradient sky": 1.5, "warm palette": 1.1, "cool palette": 0.3, "neat frame": 0.4,
    "gentle glow": 0.8, "bold outline": -0.3, "film grain": -1.0, "heavy blur": -1.6, "busy clutter": -1.7,
    "dark vignette": 0.5, "high contrast": -0.2,
}  # fmt: skip
_ENGAGEMENT = {
    "soft shadow": -3, "gradient sky": 4, "warm palette": 9, "cool palette": -4, "neat frame": 2,
    "gentle glow": 11, "bold outline": 13, "film grain": -8, "heavy blur": -14, "busy clutter": 3,
    "dark vignette": 6, "high contrast": 16,
}  # fmt: skip
_PREFERENCE = {
    "soft shadow": 0.7, "gradient sky": 0.4, "warm palette": 0.1, "cool palette": 0.6, "neat frame": 0.6,
    "gentle glow": 0.2, "bold outline": 0.3, "film grain": -0.6, "heavy blur": -0.9, "busy clutter": -0.8,
    "dark vignette": -0.2, "high contrast": 0.1,
}  # fmt: skip
WARM = frozenset({"red", "orange", "yellow", "pink"})


def _crowd(truth: Truth) -> int:
    """How many modifiers there are beyond three: every preference dislikes a picture that does everything at once."""
    return max(0, len(truth.modifiers) - 3)


def aesthetics(truth: Truth) -> float:
    """Planted aesthetic score in [0, 10]; a plain picture lies near 3, the best of three modifiers near 7."""
    score = 3.0 + fsum(_AESTHETICS[m] for m in truth.modifiers)
    score += 0.4 * (truth.arrangement == "center") + 0.3 * (truth.background in ("navy", "sand", "mint"))
    return min(10.0, max(0.0, score - 0.9 * _crowd(truth)))


def engagement(truth: Truth) -> float:
    """Planted engagement in [0, 100]; a plain picture lies near 30, the best of three modifiers near 70."""
    score = 26.0 + fsum(_ENGAGEMENT[m] for m in truth.modifiers)
    score += 5 * any(t.colour in WARM for t in truth.things) + 4 * any(
        t.shape in ("star", "heart") for t in truth.things
    )
    score += 4 * (len(truth.things) > 1)
    return float(min(100.0, max(0.0, score - 8 * _crowd(truth))))


def preference(truth: Truth, request: Request) -> float:
    """Planted user preference of a picture for a caption, about 17 to 23 as PickScore's numbers are.

    The caption obeyed is worth up to 3 points, style up to about 1.9.
    """
    style = fsum(_PREFERENCE[m] for m in truth.modifiers) - 0.5 * _crowd(truth)
    return 17.5 + 3.0 * alignment(request, truth) + style


def planted(objective: str, truth: Truth, request: Request) -> float:
    """The planted truth of one of the three objectives: "aesthetics", "engagement" or "preference"."""
    if objective == "preference":
        return preference(truth, request)
    return {"aesthetics": aesthetics, "engagement": engagement}[objective](truth)
