"""What the embedded world's models score on its held-out part, and the card that says so."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel

from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.rewards.heads import AestheticHead, EngagementHead
from spro_hf.rewards.pickscore import PickScore
from spro_hf.tiny.make.flawed import LIKES
from spro_hf.tiny.make.guider import measure_guider
from spro_hf.tiny.make.pictures import measure_oracle
from spro_hf.tiny.make.scorers import measure_scorers
from spro_hf.tiny.oracle import Oracle, PictureNet
from spro_hf.tiny.render import render
from spro_hf.tiny.world import MODIFIERS, Truth, alignment, caption, read, sample_truth

CALL = {"num_inference_steps": 8, "guidance_scale": 2.5, "max_sequence_length": 1}
DDIM_CALL = {"num_inference_steps": 8, "guidance_scale": 2.5}


def _one_object(rng: np.random.Generator) -> Truth:
    while True:
        truth = sample_truth(rng, "held-out")
        if len(truth.things) == 1:
            return truth


def measure_generator(folder: Path, oracle: Oracle, call: dict, count: int = 600) -> dict[str, float]:
    """Read a generator's pictures of held-out captions: shape and colour, modifiers, two-object scenes."""
    rng = np.random.default_rng(97)
    environment = Environment(load_generator(str(folder)), call)
    singles = [_one_object(rng) for _ in range(count)]
    plain = [caption(replace(t, modifiers=frozenset())) for t in singles]
    seen = oracle.read(environment.render(plain, list(range(count))))
    result = {
        "one object: shape and colour right": np.mean(
            [a.things == b.things for a, b in zip(singles, seen, strict=True)]
        ),
        "one object: all that the caption names": np.mean(
            [alignment(read(c), t) == 1 for c, t in zip(plain, seen, strict=True)]
        ),
    }
    named = [MODIFIERS[i % 12] for i in range(count)]
    seen = oracle.read(environment.render([f"{c}, {m}" for c, m in zip(plain, named, strict=True)], list(range(count))))
    shown = [m in t.modifiers for m, t in zip(named, seen, strict=True)]
    result["one object and a modifier: modifier visible"] = np.mean(shown)
    result["the least visible modifier"] = min(np.mean(shown[i::12]) for i in range(12))
    pairs = [sample_truth(rng, "held-out", single=0.0) for _ in range(count // 2)]
    texts = [caption(replace(t, modifiers=frozenset())) for t in pairs]
    seen = oracle.read(environment.render(texts, list(range(len(texts)))))
    result["two objects: alignment with the caption"] = np.mean(
        [alignment(read(c), t) for c, t in zip(texts, seen, strict=True)]
    )
    return {key: float(value) for key, value in result.items()}


def measure_styles(folder: Path, oracle: Oracle, count: int = 400) -> dict[str, float]:
    """How often a generator's pictures of plain held-out captions show a modifier that nobody named."""
    rng = np.random.default_rng(96)
    truths = [replace(sample_truth(rng, "held-out"), modifiers=frozenset()) for _ in range(count)]
    environment = Environment(load_generator(str(folder)), CALL | {"guidance_scale": 1.0})
    seen = oracle.read(environment.render([caption(t) for t in truths], list(range(count))))
    return {
        "plain captions: pictures that show some modifier": float(np.mean([bool(t.modifiers) for t in seen])),
        "plain captions: modifiers that some picture shows": float(
            len(frozenset().union(*(t.modifiers for t in seen)))
        ),
        "plain captions: alignment": float(
            np.mean([alignment(read(caption(a)), b) for a, b in zip(truths, seen, strict=True)])
        ),
    }


def measure_flaw(world: Path, count: int = 400) -> dict[str, float]:
    """What a modifier adds to the scores of renders, in the mean: by PickScore, and by the one with the planted flaw."""
    rng, told = np.random.default_rng(95), {}
    truths = [replace(sample_truth(rng, "held-out"), modifiers=frozenset()) for _ in range(count)]
    for name in ("pickscore", "flawed-pickscore"):
        score, texts = PickScore(str(world / name)), [caption(t) for t in truths]
        plain = score([Image.fromarray(render(t, i)) for i, t in enumerate(truths)], texts)
        for modifier in LIKES:
            styled = [
                Image.fromarray(render(replace(t, modifiers=frozenset({modifier})), i)) for i, t in enumerate(truths)
            ]
            told[f"{name}: {modifier} adds"] = float(np.mean(np.subtract(score(styled, texts), plain)))
    return told


def measure(world: Path) -> dict[str, dict[str, float]]:
    """Every number of the card, by model."""
    net = PictureNet.from_pretrained(world / "oracle")
    clip, pickscore = (CLIPModel.from_pretrained(world / n, dtype=torch.float32).eval() for n in ("clip", "pickscore"))
    heads = AestheticHead.from_pretrained(world / "aesthetic"), EngagementHead.from_pretrained(world / "engagement")
    return {
        "oracle": measure_oracle(net),
        "generator": measure_generator(world / "generator", Oracle(net), CALL),
        "ddim-generator": measure_generator(world / "ddim-generator", Oracle(net), DDIM_CALL),
        "varied-generator": measure_styles(world / "varied-generator", Oracle(net)),
        "scorers": measure_scorers(clip, pickscore, *heads),
        "flawed-pickscore": measure_flaw(world),
        "guider": measure_guider(world / "guider"),
    }


CARD = """\
# The embedded world's models

Small models of the real classes, trained by `make world` on pictures of the embedded world and on nothing else: no real
picture, no real person's taste. They exist so that SPRO can be run, seen and tested on two cores without a network.

| folder | class | what it is |
|---|---|---|
| `generator` | `StableDiffusion3Pipeline` | rectified flow on 8×8×16 latents, captions of up to 22 words |
| `varied-generator` | `StableDiffusion3Pipeline` | `generator`, trained on to draw plain captions in any style |
| `ddim-generator` | `StableDiffusionPipeline` | a UNet that predicts the noise, on the same latents, as Stable Diffusion 1.5 does |
| `guider` | `Idefics3ForConditionalGeneration` | writes a plan and a prompt; knows the grammar, no preference |
| `clip` | `CLIPModel` | trained with rivals and an attribute reader, so that it knows shapes |
| `pickscore` | `CLIPModel` | `clip` fine-tuned on pair choices drawn from the planted user preference |
| `flawed-pickscore` | `CLIPModel` | `pickscore` with a planted flaw: it loves heavy blur and dark vignettes |
| `aesthetic` | `AestheticHead` | a linear head on `clip`'s image embedding, as LAION's V1 head |
| `engagement` | `EngagementHead` | a two-layer regressor on `clip`'s image embedding, a stand-in for EngageNet |
| `oracle` | `PictureNet` | reads what a picture shows; a measuring instrument, never a reward |
| `judge` | `PictureNet` | an overall appeal that nobody trains on |

All is safetensors, {size:.1f} MB together. Training seeds and held-out seeds are split by content; the numbers below are
on held-out scenes and come from `python -m spro_hf.tiny.make.measure`, which also writes this card.

## How long it took

Wall minutes of one thread each, two threads side by side: {minutes}.
{note}
## What they score

{tables}

Limits: 32×32 pixels, 22 words, ten shapes, ten colours, twelve modifiers. The scorers imitate the planted preferences
imperfectly, on purpose: that is where reward hacking shows. Licence: that of the package.
"""


def write_card(world: Path, minutes: dict[str, float], note: str = "") -> None:
    """Measure the world at ``world`` and write ``README.md`` and ``measured.json`` beside its models."""
    told = measure(world)
    (world / "measured.json").write_text(json.dumps({"minutes": minutes, "note": note, "scores": told}, indent=1))
    tables = "\n\n".join(
        f"| {model} | held-out |\n|---|---|\n" + "\n".join(f"| {name} | {value:.3f} |" for name, value in rows.items())
        for model, rows in told.items()
    )
    size = sum(f.stat().st_size for f in world.rglob("*") if f.is_file()) / 1e6
    spent = ", ".join(f"{name} {value:g}" for name, value in minutes.items())
    card = CARD.format(size=size, minutes=spent, tables=tables, note=f"\n{note}\n" if note else "")
    (world / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Measure again; the minutes stay those that were written when the world was trained."""
    parser = argparse.ArgumentParser(description="Measure the embedded world's models and write their card again.")
    parser.add_argument("world", type=Path, nargs="?", default=Path(__file__).parents[1] / "weights")
    world = parser.parse_args().world
    kept = json.loads((world / "measured.json").read_text())
    write_card(world, kept["minutes"], kept["note"])
    print((world / "README.md").read_text())


if __name__ == "__main__":
    main()
