"""What the Space shows, as HTML. Every text that is not its own is escaped: captions, replies and data sets are others'."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from spro_hf.errors import UserError

log = logging.getLogger("spro")
AGAIN = "Something went wrong here, not with you; it stands in the Space's log. Try again, or try another artifact."

MANNERS = {
    "base": "plain caption, plain generator",
    "SPRO-Prompt": "guider’s prompt, plain generator",
    "SPRO-Image": "plain caption, trained generator",
    "SPRO-MM": "guider’s prompt, trained generator",
}
SMALL = 256  # pixels; up to here a picture is shown by its pixels, and beyond as WebP to spare the visitor's network


def picture(png: bytes | Image.Image, alt: str) -> str:
    """An image element that holds its picture, so that nothing is fetched."""
    image = png if isinstance(png, Image.Image) else Image.open(io.BytesIO(png))
    small, held = max(image.size) <= SMALL, io.BytesIO()
    image.save(held, "PNG" if small else "WEBP", quality=90)
    data = base64.b64encode(held.getvalue()).decode()
    kind = "small" if small else "large"
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:image/{"png" if small else "webp"};base64,{data}">'


def problem(error: Exception) -> str:
    """An error as a line for the visitor. Of what nobody foresaw the words stay in the log: they may name paths."""
    if isinstance(error, UserError):
        return message(str(error))
    log.exception("not foreseen", exc_info=error)
    return message(AGAIN)


def message(text: str, kind: str = "error") -> str:
    """A line for the visitor, which screen readers say at once; "" is none."""
    return (
        f'<p class="message {kind}" role="{"alert" if kind == "error" else "status"}">{escape(text)}</p>'
        if text
        else ""
    )


def four(run: Mapping[str, Any]) -> str:
    """The four pictures side by side, each with its total and its scores."""
    best = max(system["total"] for system in run["systems"].values())
    base = run["systems"]["base"]["total"]
    cards = []
    for name, system in run["systems"].items():
        top = system["total"] == best
        change = "" if name == "base" else f'<span class="change">{system["total"] - base:+.2f}</span>'
        cards.append(
            f'<figure class="card{" top" if top else ""}" data-system="{name}"><figcaption><strong>{_name(name)}</strong>'
            f"<small>{MANNERS[name]}</small></figcaption>"
            + picture(system["png"], f"{_name(name)}: {system['prompt']}")
            + f'<p class="total"><b>{system["total"]:.2f}</b>{change}</p>{_scores(system["scores"])}</figure>'
        )
    made = " + ".join(f"{weight:g} × {name}" for name, weight in run["reward"].items())
    source = (
        f"Large: the reward that {run['pipeline']} was trained for, {made}; beside it, how far it is above the base."
    )
    return (
        f'<section class="four" aria-label="The four pictures of {escape(run["caption"])}">{"".join(cards)}</section>'
        f'<p class="source">{escape(source)}</p>'
    )


def _name(system: str) -> str:
    return "Base" if system == "base" else system


def _scores(scores: Mapping[str, float]) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value:.2f}</dd></div>" for name, value in scores.items())
    return f'<dl class="scores">{rows}</dl>'


def plan(run: Mapping[str, Any]) -> str:
    """What the guider thought and wrote."""
    if run["problem"]:
        told = f"<p>Its reply could not be read ({escape(run['problem'])}), so the caption itself was drawn:</p>"
        return f'<section class="plan"><h3>The guider’s reply</h3>{told}<blockquote>{escape(run["reply"])}</blockquote></section>'
    steps = "".join(f"<li>{escape(step)}</li>" for step in run["plan"])
    steps = f"<ol>{steps}</ol>" if steps else "<p>It was taught to answer without a plan.</p>"
    prompt = f"<h3>Its prompt</h3><blockquote>{escape(run['prompt'])}</blockquote>"
    return f'<section class="plan"><div><h3>The guider’s plan</h3>{steps}</div><div>{prompt}</div></section>'


def seed(found: Mapping[str, Any], why: str | None = None) -> str:
    """A seed's base picture, best and worst, then every candidate; those of the reason ``why`` are marked."""
    best, worst = found["best"], found["worst"]
    kinds = ("Best kept", "Worst kept") if found["paired"] else ("Best drawn, none kept", "Worst drawn, none kept")
    cards = [
        _card("Base", found["base"], found["caption"], found["base_total"], found["base_scores"], "the plain caption")
    ]
    for kind, place, mark in zip(kinds, (best, worst), ("best", "worst"), strict=True):
        if place is not None:
            c = found["candidates"][place]
            cards.append(_card(kind, c["image"], c["prompt"], c["total"], c["scores"], c["why"], mark))
    rows = "".join(_row(i, c, i in (best, worst), why) for i, c in enumerate(found["candidates"]))
    return (
        f'<h3 class="caption">{escape(found["caption"])} <small>{escape(found["seed_id"])}</small></h3>'
        f'<section class="three">{"".join(cards)}</section><ol class="candidates">{rows}</ol>'
    )


def _card(
    name: str, image: Any, prompt: str, total: float | None, scores: Mapping[str, float], why: str, mark: str = "base"
) -> str:
    drawn = '<p class="nothing">its picture is in another part</p>'
    if image is not None:
        drawn = picture(image, f"{name}: {prompt}")
    number = "–" if total is None else f"{total:.2f}"
    head = f"<figcaption><strong>{name}</strong><small>{escape(why)}</small></figcaption>"
    return (
        f'<figure class="card {mark}" data-mark="{mark}">{head}{drawn}<p class="total"><b>{number}</b></p>'
        f'{_scores(scores)}<p class="prompt">{escape(prompt)}</p></figure>'
    )


def _row(number: int, candidate: Mapping[str, Any], ends: bool, why: str | None) -> str:
    drawn = candidate["image"] is not None
    image = picture(candidate["image"], f"Candidate {number}") if drawn else '<p class="nothing">no picture</p>'
    steps = "".join(f"<li>{escape(step)}</li>" for step in candidate["plan"] or ())
    total = "–" if candidate["total"] is None else f"{candidate['total']:.2f}"
    likeness = "" if candidate["similarity"] is None else f" · similarity {candidate['similarity']:.2f}"
    scores = " · ".join(f"{escape(name)} {value:.2f}" for name, value in candidate["scores"].items())
    kind = "kept" if candidate["why"].startswith("kept") else "dropped"
    marked = " marked" if why is not None and candidate["why"] == why else ""
    return (
        f'<li class="{kind}{marked}" value="{number}">{image}<div>'
        + f'<p class="prompt">{escape(candidate["prompt"] or candidate["reply"])}</p>'
        + (f"<details><summary>plan</summary><ol>{steps}</ol></details>" if steps else "")
        + f'<p><b>{total}</b> <small>{scores}{likeness}</small></p><p class="why">{escape(candidate["why"])}</p></div></li>'
    )


def opened(png: bytes) -> Image.Image:
    """The picture of PNG bytes."""
    return Image.open(io.BytesIO(png))


def empty() -> str:
    """What stands in the place of the pictures at the start."""
    cards = "".join(
        f'<figure class="card empty" aria-hidden="true"><figcaption><strong>{_name(name)}</strong><small>{manner}</small>'
        '</figcaption><div class="blank"></div></figure>'
        for name, manner in MANNERS.items()
    )
    return f'<section class="four">{cards}</section>'
