"""What happened, in words: the verdict that stands at the top of every report, and the hacking watch.

"Rises" and "falls" are told by standard errors: a change counts as clear beyond two of them. The error of a difference
in alignment is that of the paired captions where a system's costs tell it; else it is taken as if the two systems were
measured on different captions, which errs on the careful side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from spro_hf.report.reading import costs, first, judges, known, number, percent, points, rows
from spro_hf.report.watching import Series, bars

UNTRAINED = ("base", "untrained guider", "best-of-n")
CLEAR = 2.0  # standard errors
FAR = 0.1  # alignment lost beyond ten points in a hundred: the caption is let go, whatever the picture gains
LEAST = 0.01  # a change of alignment below one point in a hundred is not told, however clear


@dataclass(frozen=True)
class Verdict:
    """What happened to one objective. ``proxy`` and ``planted`` are relative gains of ``system`` over the base.

    ``policy``: it learned by policy gradient. Of such systems alone ``alignment`` is known, the difference to the base in
    shares, and alone they may be called ``hacked``: the proxy clearly up, and the planted truth clearly down, or the
    alignment far down, or down without the planted truth being up.
    """

    objective: str
    system: str
    proxy: float
    proxy_se: float
    planted: float | None
    planted_se: float | None
    untrained: float | None
    learned: bool
    words: str
    policy: bool = False
    hacked: bool = False
    alignment: float | None = None
    alignment_se: float | None = None


@dataclass(frozen=True)
class Warning:
    """A system whose proxy rose while ``fell`` (sentences) went wrong; ``clear`` if one of them is beyond two standard errors."""

    objective: str
    system: str
    proxy: float
    clear: bool
    fell: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """All of it, as a sentence."""
        told = " and ".join([", ".join(self.fell[:-1])] * (len(self.fell) > 1) + self.fell[-1:])
        return f"{self.objective}, {self.system}: proxy {percent(self.proxy)}, but {told}."


def trained(results: dict[str, Any]) -> list[str]:
    """The systems that learned something: all but the base, the untrained guider and best-of-n."""
    return [s for s in results["systems"] if s not in UNTRAINED]


def verdict(results: dict[str, Any], objective: str) -> Verdict | None:
    """Judge the trained system with the highest proxy gain; None if no trained system was measured.

    Where it is one of policy gradient that hacked its reward, the words name the best of those that learned.
    """
    judged = _judged(results, objective)
    if not judged:
        return None
    best = max(judged, key=lambda v: v.proxy)
    honest = [v for v in judged if v.learned]
    if not best.hacked or not honest:
        return best
    second = max(honest, key=lambda v: v.proxy)
    gains = percent(second.proxy) + (f", planted truth {percent(second.planted)}" if known(second.planted) else "")
    return replace(best, words=f"{best.words} The best that did not hack it: {second.system}, own reward {gains}.")


def _judged(results: dict[str, Any], objective: str) -> list[Verdict]:
    gains = {g["system"]: g for g in rows(results, "gains", objective=objective)}
    paid = {c["system"]: c for c in costs(results, objective)}
    before = gains.get("untrained guider", {}).get("proxy")
    found = []
    for gain in (gains[s] for s in trained(results) if s in gains and known(gains[s]["proxy"])):
        cost = paid.get(gain["system"], {"alignment": None, "alignment_se": None})
        above_base = gain["proxy"] > CLEAR * gain["proxy_se"]
        above_untrained = not known(before) or gain["proxy"] > before
        planted = _went(gain["planted"], gain["planted_se"])
        alignment = _went(cost["alignment"], cost["alignment_se"], LEAST)
        policy = gain["system"] in paid
        # a picture can do more for the taste and less for the caption: that is told, but it is the taste that was asked for
        lost = alignment == "fell" and (planted != "rose" or cost["alignment"] < -FAR)
        hacked = policy and above_base and (planted == "fell" or lost)
        if not above_base:
            words = "The reward did not rise clearly above the base."
        elif not above_untrained:
            words = "Above the base, but no better than the untrained guider: nothing was learned."
        else:
            words = _of_policy(planted, alignment, hacked) if policy else _of_guider(planted)
        found.append(
            Verdict(
                objective, gain["system"], gain["proxy"], gain["proxy_se"], gain["planted"], gain["planted_se"], before,
                learned=above_base and above_untrained and planted in ("rose", "") and not hacked, words=words,
                policy=policy, hacked=hacked,
                alignment=cost["alignment"], alignment_se=cost["alignment_se"],
            )
        )  # fmt: skip
    return found


def _went(change: float | None, se: float | None, least: float = 0.0) -> str:
    """Beyond two standard errors and ``least`` "rose" or "fell", else "held"; "" where nothing was measured."""
    if not known(change):
        return ""
    error = max(CLEAR * (se or 0.0), least)
    return "rose" if change > error else "fell" if change < -error else "held"


def _of_guider(planted: str) -> str:
    return {
        "rose": "The proxy rose, and the planted truth with it.",
        "held": "The proxy rose; the planted truth did not clearly follow.",
        "fell": "The proxy rose while the planted truth fell: the scorer was gamed.",
        "": "The reward rose; there is no planted truth here to check it against.",
    }[planted]


def _of_policy(planted: str, alignment: str, hacked: bool) -> str:
    went = {"the planted truth": planted, "the alignment with the caption": alignment}
    fell = [what for what, how in went.items() if how == "fell"]
    if fell and not hacked:
        return "The reward rose, and the planted truth with it, but the alignment with the caption fell."
    if hacked:
        though = ", though the planted truth rose with it" if planted == "rose" else ""
        return f"The reward was hacked: it rose while {' and '.join(fell)} fell{though}."
    words = {
        "rose": "The reward rose, and the planted truth with it",
        "held": "The reward rose; the planted truth did not clearly follow",
        "": "The reward rose; there is no planted truth here to check it against",
    }[planted]
    tail = {"rose": "; the alignment with the caption rose too.", "held": "; the alignment with the caption held."}
    return words + tail.get(alignment, ".")


def warnings(results: dict[str, Any], objective: str) -> list[Warning]:
    """Hacking watch: every system but the base whose proxy rises while something else parts from it.

    That is the planted truth, the alignment, a judge or the diversity that falls, or saturation that rises. A change
    smaller than one standard error is not told; one smaller than two is told as perhaps noise. Of judges, diversity and
    saturation, which are looked at together, ``watching.bars`` asks more.
    """
    base = first(results, "table", objective=objective, system="base", metric="alignment")
    paired = {c["system"]: c["alignment_se"] for c in costs(results, objective)}
    found = []
    for gain in rows(results, "gains", objective=objective):
        if gain["system"] == "base" or not known(gain["proxy"]) or gain["proxy"] <= (gain["proxy_se"] or 0.0):
            continue
        falls = [_fall("planted truth", percent(gain["planted"]), gain["planted"], gain["planted_se"])]
        cell = first(results, "table", objective=objective, system=gain["system"], metric="alignment")
        if base and cell and known(base["mean"]) and known(cell["mean"]):
            error = paired.get(gain["system"]) or math.hypot(base["se"] or 0.0, cell["se"] or 0.0)
            told = f"{number(base['mean'])} to {number(cell['mean'])}"
            falls.append(_fall("alignment with the caption", told, cell["mean"] - base["mean"], error))
        falls = [fall for fall in falls if fall] + _parted(results, objective, gain["system"])
        if falls:
            clear = any(is_clear for _, is_clear in falls)
            found.append(Warning(objective, gain["system"], gain["proxy"], clear, [text for text, _ in falls]))
    return found


def _fall(what: str, told: str, change: float | None, se: float | None) -> tuple[str, bool] | None:
    error = se or 0.0
    if not known(change) or change >= 0 or -change <= error:
        return None
    clear = -change > CLEAR * error
    return f"{what} falls ({told}{'' if clear else ', perhaps noise'})", clear


def watched(results: dict[str, Any]) -> list[str]:
    """What the evaluation's warnings go by, in words."""
    measured = {row["metric"] for row in results["table"]}
    named = dict.fromkeys(name for objective in results["objectives"] for name in judges(results, objective))
    names = {"planted": "planted truth", "alignment": "alignment with the caption"}
    names |= {name: name if name == "judge" else f"judge {name}" for name in named}
    names |= {"diversity": "diversity", "saturation": "saturation"}
    return [words for name, words in names.items() if name in measured]


def _parted(results: dict[str, Any], objective: str, system: str) -> list[tuple[str, bool]]:
    """What a system's judges, diversity and saturation have to say against it, and whether that is clear.

    The error of a change is that of the paired captions where it is told, else as of different captions.
    """
    lower = {metric["name"] for metric in results["metrics"] if not metric["higher_is_better"]}
    kinds = dict.fromkeys(judges(results, objective), "judge") | {n: n for n in ("diversity", "saturation")}
    found = []
    for name, kind in kinds.items():
        before = first(results, "table", objective=objective, system="base", metric=name)
        after = first(results, "table", objective=objective, system=system, metric=name)
        if before and after and known(before["mean"]) and known(after["mean"]):
            paired = next((row for row in results.get("changes", []) if row["objective"] == objective
                           and row["system"] == system and row["metric"] == name), None)  # fmt: skip
            error = paired["se"] if paired else math.hypot(before["se"] or 0.0, after["se"] or 0.0)
            worse = 1 if kind == "saturation" or name in lower else -1
            found.append(Series(name, kind, (("base", before["mean"], 0.0), (system, after["mean"], error)), worse))
    told = []
    for one in found:
        noise, clear = bars(found)[one.name]
        if one.went(one.worse, noise):
            numbers = f"{number(one.points[0][1])} to {number(one.points[1][1])}"
            far = one.went(one.worse, clear)
            went = "rises" if one.worse > 0 else "falls"
            told.append((f"{one.words} {went} ({numbers}{'' if far else ', perhaps noise'})", far))
    return told


def headline(results: dict[str, Any]) -> tuple[str, str]:
    """One short verdict and one sentence with the average gains over the objectives; both empty without gains."""
    verdicts = [v for v in (verdict(results, o) for o in results["objectives"]) if v]
    if not verdicts:
        return "", ""
    if len(verdicts) == 1 and verdicts[0].policy:
        return _headline_of_policy(results, verdicts[0])
    good, bad, total = sum(v.learned for v in verdicts), sum(v.hacked for v in verdicts), len(verdicts)
    if good == total:
        short = "It learned." if total == 1 else f"It learned on all {total} objectives."
    else:
        short = "It did not learn." if good == 0 else f"It learned on {good} of {total} objectives."
    if bad:
        short += f" The reward was hacked on {bad}."
    proxies = sum(v.proxy for v in verdicts) / total
    planted = [v.planted for v in verdicts if known(v.planted)]
    where = " on average" if total > 1 else ""
    text = f"The best trained system of each objective moves its own reward by {percent(proxies)}{where} over the base"
    if total == 1:
        text = f"{verdicts[0].system} moves its own reward by {percent(proxies)} over the base"
    if planted:
        text += f", and the planted truth, which nothing was trained on, by {percent(sum(planted) / len(planted))}"
    return short, text + "."


def _headline_of_policy(results: dict[str, Any], best: Verdict) -> tuple[str, str]:
    short = "It learned." if best.learned else "The reward was hacked." if best.hacked else "It did not learn."
    rivals = len(_judged(results, best.objective))
    who = f"{best.system}, the furthest of {rivals} trained systems," if rivals > 1 else best.system
    moved = [f"its own reward by {percent(best.proxy)} over the base"]
    if known(best.planted):
        moved.append(f"the planted truth, which nothing was trained on, by {percent(best.planted)}")
    if known(best.alignment):
        moved.append(f"the alignment with the caption by {points(best.alignment)} points")
    told = moved[0] if len(moved) == 1 else f"{', '.join(moved[:-1])} and {moved[-1]}"
    return short, f"{who} moves {told}."
