"""A caption by the four systems of SPRO under the same noise, with their scores; and what may be asked for, and how often."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import looks
import sources
from PIL import Image

from spro_hf import rewards
from spro_hf.diffusion.pipeline import SPROPipeline
from spro_hf.errors import UserError
from spro_hf.models import BUILT_IN
from spro_hf.seeds import unknown_words

SYSTEMS = ("base", "SPRO-Prompt", "SPRO-Image", "SPRO-MM")
LOADED = 4  # pipelines that are held at most; the one that was used longest ago goes first
LONGEST = 300  # characters of a caption, and of each line of its context
LAST_SEED = 2**31 - 1
DRAWS, WINDOW = 20, 60.0  # a visitor's at most in so many seconds

_loaded: OrderedDict[str, tuple[SPROPipeline, rewards.Rewards, dict[str, Any]]] = OrderedDict()
_lock = threading.Lock()


def load(source: str) -> tuple[SPROPipeline, rewards.Rewards, dict[str, Any]]:
    """The pipeline, the scorers of the recipe that made it, and that recipe; each source is loaded once and kept.

    Raises:
        UserError: if the source cannot be loaded, see ``sources.pipeline``.
    """
    with _lock:
        if source not in _loaded:
            folder = sources.pipeline(source)
            _, recipe = sources.read_pipeline(folder, source)
            while len(_loaded) >= LOADED:
                _loaded.popitem(last=False)
            pipe = SPROPipeline.from_pretrained(folder)
            pipe.base.set_progress_bar_config(disable=True)
            _loaded[source] = pipe, rewards.load(recipe["scorers"], recipe["reward"]), recipe
        _loaded.move_to_end(source)
        return _loaded[source]


def check(caption: str | None, seed: float | None) -> tuple[str, int]:
    """The caption without space around it and the seed as a whole number; a UserError if they are none."""
    caption = " ".join((caption or "").split())
    if not caption:
        raise UserError("Caption: it is empty; write what the picture should show.")
    if len(caption) > LONGEST:
        raise UserError(f"Caption: it has {len(caption)} characters; write at most {LONGEST}.")
    if seed is None or not float(seed).is_integer() or not 0 <= seed <= LAST_SEED:
        raise UserError(f"Seed: give a whole number from 0 to {LAST_SEED}.")
    return caption, int(seed)


def wait(times: list[float], now: float) -> float:
    """Seconds until a visitor who drew at ``times`` may draw again: 0 if fewer than DRAWS of them lie in the last WINDOW."""
    recent = [time for time in times if now - time < WINDOW]
    return recent[-DRAWS] + WINDOW - now if len(recent) >= DRAWS else 0.0


def strange(source: str, caption: str) -> list[str]:
    """The words that a pipeline of the embedded world does not know; of other pipelines nobody can say."""
    pipe, *_ = load(source)
    if not pipe.config.base["id"].startswith(BUILT_IN):
        return []
    return [word for row in unknown_words([caption]) for word in row["words"]]


def answer(
    source: str, caption: str | None, seed: float | None, post: Mapping[str, str | None], times: list[float], now: float
) -> tuple[str, dict[str, Any] | None, list[float]]:
    """A line for the visitor ("" if there is nothing to say), the drawing, None if there is none, and when they drew."""
    try:
        caption, seed = check(caption, seed)
        if (seconds := wait(times, now)) > 0:
            raise UserError(
                f"You have drawn {DRAWS} times within {WINDOW:.0f} seconds, and others draw here too; go on in "
                f"{seconds:.0f} seconds."
            )
        times = [*times, now][-DRAWS:]
        run = draw(source, caption, seed, {name: (text or "").strip()[:LONGEST] for name, text in post.items()})
        words = strange(source, caption)
    except Exception as error:
        return looks.problem(error), None, times
    hint = f"The embedded world does not know: {', '.join(words)}. Pictures of such captions go astray."
    return looks.message(hint if words else "", "hint"), run, times


def draw(source: str, caption: str, seed: int, context: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One caption by all four systems.

    Returns: ``pipeline``, ``objective``, ``reward`` (the weights of the total), ``caption``, ``seed``, ``context``; the guider's
    ``plan``, ``prompt``, ``reply`` and, where the reply could not be read and the caption stood in, its ``problem``; and
    ``systems``: of each its ``prompt``, the picture as ``png`` (bytes), its ``scores`` by name, and their weighted ``total``.
    """
    pipe, scorers, recipe = load(source)
    context = {key: text for key, text in (context or {}).items() if text}
    told = {"objective": recipe["objective"], "seed": seed, "context": context}
    guided = pipe(caption, lora=False, **told)
    prompt = guided.prompts[0]
    # the guider has spoken: what it wrote is drawn by the trained generator as SPRO-MM does, without asking it again
    tuned = [pipe(text, guider=False, **told).images[0] for text in (caption, prompt)]
    pictures = dict(zip(SYSTEMS, (guided.base_images[0], guided.images[0], *tuned), strict=True))
    prompts = dict(zip(SYSTEMS, (caption, prompt, caption, prompt), strict=True))
    briefs = [rewards.Brief(caption, prompts[name], guided.base_images[0], context) for name in SYSTEMS]
    scored = dict(zip(SYSTEMS, scorers.score(list(pictures.values()), briefs), strict=True))
    return {
        "pipeline": source, "objective": recipe["objective"], "reward": recipe["reward"], "caption": caption,
        "seed": seed, "context": context,
        "plan": list(guided.plans[0]), "prompt": prompt, "reply": guided.replies[0], "problem": guided.problems[0],
        "systems": {
            name: {"prompt": prompts[name], "png": _png(pictures[name]), "total": scored[name].pop("total"),
                   "scores": scored[name]}
            for name in SYSTEMS
        },
    }  # fmt: skip


def _png(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def packed(run: Mapping[str, Any]) -> bytes:
    """A zip of the four pictures as PNG, and of all else that is known of them as run.json."""
    held, told = io.BytesIO(), {**run, "systems": {}}
    with zipfile.ZipFile(held, "w") as archive:
        for name, system in run["systems"].items():
            archive.writestr(f"{name}.png", system["png"])
            told["systems"][name] = {key: value for key, value in system.items() if key != "png"}
            told["systems"][name]["file"] = f"{name}.png"
        archive.writestr("run.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return held.getvalue()
