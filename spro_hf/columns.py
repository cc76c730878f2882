"""The columns of the data sets that are published: of each its type, and what it holds, in the words of the cards.

Types are features of ``datasets``. They go into the parquet files, so that whoever opens these with ``datasets`` or in the
Hub's viewer has pictures, lists and messages without a word of his own.
"""

from __future__ import annotations

from datasets import Image, List, Value

_TEXT, _REAL, _WHOLE, _YES = Value("string"), Value("float64"), Value("int32"), Value("bool")
_CHAT = List({"role": _TEXT, "content": _TEXT})

_ROLLOUT = {
    "seed_id": (_TEXT, "which caption; all candidates of a seed share it"),
    "objective": (_TEXT, "what was aimed at"),
    "round": (_WHOLE, "which round of self-play, from 1"),
    "candidate": (_WHOLE, "which try at this seed, from 0"),
    "base_caption": (_TEXT, "the caption at the start"),
    "context": (_TEXT, "JSON: what else is known of the post that the picture is for: the tweet, the account …"),
    "caption_in": (_TEXT, "what the guider was shown: the caption or, in later rounds, the best prompt of the round before"),
    "image_in": (Image(), "the picture that it was shown; only in the row of a seed's candidate 0"),
    "reply": (_TEXT, "the guider's words as they came"),
    "plan": (List(_TEXT), "the steps of its plan, as read from the reply"),
    "parsed": (_YES, "whether the reply could be read"),
    "problem": (_TEXT, "if not, why"),
    "prompt": (_TEXT, "the prompt that the reply ends in; empty if it could not be read"),
    "image": (Image(), "the picture of the prompt; none if there is no prompt"),
    "image_base": (Image(), "the base caption's picture; only in the row of a seed's candidate 0"),
    "image_seed": (Value("int64"), "the seed of the noise, the same for all pictures of a seed in a round"),
    "rewards": (_TEXT, "JSON: each reward of the picture by name"),
    "total": (_REAL, "their weighted sum; none if there is no picture"),
    "base_rewards": (_TEXT, "JSON: the same of the base picture"),
    "base_total": (_REAL, "their weighted sum"),
    "similarity": (_REAL, "cosine of the CLIP embeddings of the picture and the base picture, in [-1, 1]"),
    "measures": (_TEXT, "JSON: the picture's saturation, its distance to the seed's other candidates and, where there is an "
                        "exact oracle, what this one sees in it"),
    "kept": (_YES, "whether it is the winner or the loser of a pair"),
    "why": (_TEXT, "if not, why"),
    "guider": (_TEXT, "what wrote the reply, as repository@commit"),
    "generator": (_TEXT, "what drew the pictures, as repository@commit"),
    "scorers": (_TEXT, "JSON: what gave each reward, as repository@commit"),
}  # fmt: skip
_PAIR = {
    "seed_id": (_TEXT, "which caption"),
    "objective": (_TEXT, "what was aimed at"),
    "prompt": (_CHAT, "the request to the guider: one message of the user"),
    "images": (List(Image()), "the picture that goes with the request, in a list of one"),
    "chosen": (_CHAT, "the winning reply: one message of the assistant, plan and prompt"),
    "rejected": (_CHAT, "the losing reply"),
    "image_chosen": (Image(), "the picture of the winning reply's prompt"),
    "image_rejected": (Image(), "the picture of the losing reply's prompt"),
    "score_chosen": (_REAL, "the winning picture's reward"),
    "score_rejected": (_REAL, "the losing picture's reward, which is lower"),
    "base_caption": (_TEXT, "the caption at the start, against which both were scored"),
    "image_seed": (Value("int64"), "the seed of the noise of both pictures"),
}
_PROMPT = {
    "filename": (_TEXT, "the seed's name as that of a file, `<seed_id>.png`"),
    "caption": (_TEXT, "the base caption"),
    "improved_prompt_new": (_TEXT, "the winner's prompt"),
    "score": (_REAL, "its picture's reward, the weighted sum"),
    "image_path": (Image(), "its picture; the path within is `rollouts/train/<row>`, its row in the config `rollouts`"),
    "objective": (_TEXT, "what was aimed at"),
}
_REFERENCE = {
    "seed_id": (_TEXT, "which caption"),
    "caption": (_TEXT, "the caption"),
    "prompt": (_TEXT, "what was drawn: the caption, and what was added to it"),
    "image": (Image(), "the picture"),
    "image_seed": (Value("int64"), "the seed of its noise"),
    "generator": (_TEXT, "what drew it, as repository@commit"),
}

ABOUT = {"rollouts": _ROLLOUT, "preferences": _PAIR, "prompts": _PROMPT, "references": _REFERENCE}
ROLLOUT, PAIR, PROMPT, REFERENCE = ({name: kind for name, (kind, _) in about.items()} for about in ABOUT.values())


def told(name: str) -> list[dict[str, str]]:
    """Name, type in a word and meaning of each column of "rollouts", "preferences", "prompts" or "references"."""
    return [{"name": column, "type": _word(kind), "about": text} for column, (kind, text) in ABOUT[name].items()]


def _word(kind: object) -> str:
    """A type as a card names it."""
    if kind is _CHAT:
        return "messages"
    if isinstance(kind, List):
        return f"list of {_word(kind.feature)}"
    return "image" if isinstance(kind, Image) else kind.dtype
