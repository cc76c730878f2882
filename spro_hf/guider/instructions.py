"""What the guider is asked and how its reply is read: the instructions of both styles and the form of a reply.

A reply reads, on any number of lines::

    Plan:
    1. first step
    2. second step
    Prompt: the final prompt

Labels are found whatever their case; markdown emphasis, headings, code fences and quotes around the prompt are taken
off. Everything else is strict: what does not follow the form has no prompt, and :attr:`Reply.problem` says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from spro_hf.errors import UserError
from spro_hf.strict import nearest

MAX_STEPS = 6
STYLES = ("full", "compact")
GOALS = {
    "aesthetics": "as beautiful as possible: composition, light, colour and mood that a lover of art would praise",
    "engagement": "as engaging as possible: a picture that makes people stop, like and share it on social media",
    "preference": "the one that most people would prefer among pictures drawn for this caption",
}
CONTEXT = {"tweet": "The tweet it is posted with: {}", "company": "The account that posts it: {}"}
COMPACT = "objective: {objective} caption: {caption} plan: {plan}"
# The full instruction, line by line; a line that is empty is left out. {shown} tells of the picture, if it is seen.
FULL = (
    "You improve prompts for a text-to-image model. {shown}",
    "Caption: {caption}",
    "{context}",
    "Rewrite the caption so that {result} is {goal}.",
    "Keep every subject, count, position, colour and other detail that the caption names; use your own words for what you"
    " add, and do not describe anything that contradicts the caption.",
    "{task}",
    "Answer in exactly this form and write nothing after it:",
    "{form}",
)
SHOWN = {
    True: "The image shown was drawn from this caption:",
    False: "This is the caption to improve:",
}
RESULT = {True: "the new image", False: "the image drawn from it"}
TASK = {
    True: f"First think in one to {MAX_STEPS} short numbered steps, then write one final prompt{{limit}}.",
    False: "Write one final prompt{limit}. Do not explain it.",
}
FORM = {
    True: "Plan:\n1. <first step>\n2. <second step>\nPrompt: <the final prompt>",
    False: "Prompt: <the final prompt>",
}
LIMIT = " of at most {} words"


@dataclass(frozen=True)
class Reply:
    """A guider's reply as read. ``prompt`` is None exactly where ``problem`` tells why the reply cannot be used."""

    text: str
    plan: tuple[str, ...] = ()
    prompt: str | None = None
    problem: str | None = None


def instruction(
    style: str,
    objective: str,
    caption: str,
    reasoning: bool,
    word_limit: int | None,
    context: Mapping[str, str] | None = None,
    sees: bool = True,
) -> str:
    """What the guider is told beside the image, or in its place where it ``sees`` none (SPRO, stage 1, step 1).

    ``style`` "full" is for chat models; "compact" is for the embedded world's guider, whose vocabulary has no words for
    a context and which has learned its word limit from its examples. Of ``context`` the guider is told "tweet" and
    "company", where the objective is "engagement"; all else in it is for the rewards.

    Raises:
        UserError: for an unknown style or objective, or an empty caption.
    """
    if style not in STYLES:
        raise UserError(f"guider.style: unknown style '{style}'; {nearest(style, STYLES)}")
    if objective not in GOALS:
        raise UserError(f"objective: unknown objective '{objective}'; {nearest(objective, GOALS)}")
    if not caption.strip():
        raise UserError("caption: it is empty; give the guider a caption to rewrite.")
    if style == "compact":
        plan = "yes" if reasoning else "no"
        return COMPACT.format(objective=objective, caption=caption.strip().lower(), plan=plan)
    known = context or {} if objective == "engagement" else {}
    told = [line.format(str(known[key]).strip()) for key, line in CONTEXT.items() if known.get(key)]
    words = {
        "shown": SHOWN[sees],
        "caption": caption.strip(),
        "context": "\n".join(told),
        "result": RESULT[sees],
        "goal": GOALS[objective],
        "task": TASK[reasoning].format(limit="" if word_limit is None else LIMIT.format(word_limit)),
        "form": FORM[reasoning],
    }
    return "\n".join(filter(None, (line.format(**words) for line in FULL)))


# A label at the start of a line may be dressed as markdown and be called "final". Inside a line it must not be a noun
# of a sentence ("the prompt: …"), and so must not follow a determiner or adjective.
_DRESS = r"[\s*_#>`]*"
_LINE_LABEL = re.compile(rf"^{_DRESS}(?:final\s+)?prompt{_DRESS}:[*_`]*", re.IGNORECASE | re.MULTILINE)
_INNER_LABEL = re.compile(r"(?<![\w-])[*_`]*prompt[*_`]*\s*:[*_`]*", re.IGNORECASE)
_NOUN_BEFORE = re.compile(
    r"\b(?:an?|the|this|that|my|your|our|its|new|final|original|base|better|rewritten|improved|following|text|image)\W*$",
    re.IGNORECASE,
)
_PLAN_LABEL = re.compile(rf"(?<![\w-])(?:(?:^|(?<=\s)){_DRESS})plan{_DRESS}:[*_`]*", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$|```", re.MULTILINE)
_OTHER_LABEL = re.compile(r"^[\W_]*(?:[A-Z][\w-]*)(?: [\w-]+){0,2}[*_]*:", re.MULTILINE)
_REFUSAL = re.compile(
    r"^(?:i(?:['’]?m| am) (?:sorry|unable|not able)|sorry\b|i (?:can['’]?t|cannot|can not|won['’]?t)\b|as an ai\b)",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"^[<\[{(].*[>\]})]$")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}


def parse(text: str, reasoning: bool, word_limit: int | None, finished: bool = True) -> Reply:
    """Read a reply. ``finished`` is False where generation stopped at its token limit.

    A plan is required with ``reasoning`` and read, if there is one, without it. The prompt is the paragraph after its
    label; a remark in a paragraph of its own after it is not part of it. Words are runs of characters between spaces.

    Returns:
        A Reply whose ``prompt`` is one line of text, or None together with a ``problem``.
    """
    clean = _FENCE.sub("", text)
    labels = list(_LINE_LABEL.finditer(clean))
    inner = [m for m in _INNER_LABEL.finditer(clean) if not _NOUN_BEFORE.search(clean[: m.start()])]
    # labels at the start of a line are surer than a word inside one; a label inside a line needs a plan before it
    labels = labels or [m for m in inner if _PLAN_LABEL.search(clean[: m.start()])]
    plan = _steps(clean[: labels[0].start()] if labels else clean)
    problem = None if finished else "cut off"
    if not labels:
        return Reply(text, plan, problem=problem or "no 'Prompt:' line")
    prompt = _prompt(clean[labels[0].end() :])
    problem = (
        problem
        or ("two prompts" if len(labels) > 1 else None)
        or _prompt_problem(prompt, word_limit)
        or _plan_problem(plan, reasoning, clean[: labels[0].start()])
    )
    return Reply(text, plan, None if problem else prompt, problem)


def _steps(text: str) -> tuple[str, ...]:
    """Steps numbered 1, 2, 3 … after the plan's label; other numbers belong to the step they stand in."""
    label = _PLAN_LABEL.search(text)
    if label is None:
        return ()
    rest, steps = text[label.end() :], []
    start = _number(1).search(rest)
    while start is not None:
        rest = rest[start.end() :]
        start = _number(len(steps) + 2).search(rest)
        step = _plain(rest[: start.start()] if start else rest)
        if not re.search(r"\w", step):
            return ()
        steps.append(step)
    return tuple(steps)


def _number(n: int) -> re.Pattern[str]:
    return re.compile(rf"(?:^|(?<=\s))[*_]*{n}[.)][*_]*\s")


def _prompt(rest: str) -> str:
    """The paragraph after the label, on one line, without emphasis and quotes around it."""
    paragraph = re.split(r"\n\s*\n", rest.strip(), maxsplit=1)[0]
    first, *others = paragraph.split("\n", 1)
    tail = others[0] if others else ""
    label = _OTHER_LABEL.search(tail)
    line = _plain(first + "\n" + (tail[: label.start()] if label else tail))
    if len(line) > 1 and _QUOTES.get(line[0]) == line[-1] and line[0] not in line[1:-1]:
        line = line[1:-1].strip()
    return line


def _plain(text: str) -> str:
    """One line without markdown emphasis."""
    return re.sub(r"\s+", " ", re.sub(r"\*+|(?<!\w)_+|_+(?!\w)|`", "", text)).strip()


def _prompt_problem(prompt: str, word_limit: int | None) -> str | None:
    if not re.search(r"\w", prompt):
        return "empty prompt"
    if _PLACEHOLDER.match(prompt):
        return "a placeholder, no prompt"
    if _REFUSAL.match(prompt):
        return "a refusal, no prompt"
    if _PLAN_LABEL.search(prompt):
        return "plan after the prompt"
    if word_limit is not None and len(prompt.split()) > word_limit:
        return f"more than {word_limit} words"
    return None


def _plan_problem(plan: tuple[str, ...], reasoning: bool, before: str) -> str | None:
    if len(plan) > MAX_STEPS:
        return f"more than {MAX_STEPS} plan steps"
    if not reasoning or plan:
        return None
    return "no numbered steps in the plan" if _PLAN_LABEL.search(before) else "plan missing"
