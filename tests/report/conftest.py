"""A hand-made run: three objectives and six systems with numbers that can be checked by eye, and drawn pictures."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spro_hf.tiny.render import render
from spro_hf.tiny.world import Thing, Truth

SYSTEMS = ["base", "untrained guider", "best-of-n", "SPRO-Prompt", "SPRO-Image", "SPRO-MM"]
OBJECTIVES = {"aesthetics": ("aesthetic", 4.0), "engagement": ("engagement", 36.0), "preference": ("pickscore", 20.0)}
GAINS = {  # proxy and planted gain of every system but the base, the same arithmetic for the table's means
    "aesthetics": [(0.08, 0.07), (0.21, 0.18), (0.31, 0.24), (0.16, 0.13), (0.34, 0.26)],
    "engagement": [(0.12, 0.06), (0.30, 0.14), (0.52, 0.31), (0.22, 0.15), (0.61, -0.08)],
    "preference": [(0.004, 0.003), (0.014, 0.010), (0.021, 0.015), (0.006, -0.002), (0.023, 0.016)],
}
ALIGNMENT = [0.90, 0.89, 0.90, 0.91, 0.88, 0.90]
METRICS = [
    ("total", "reward", "reward", "the objective's own reward"),
    ("aesthetic", "reward", "0 to 10", "LAION-style head on the tiny CLIP, trained on the planted aesthetics"),
    ("engagement", "reward", "0 to 100", "stand-in for EngageNet: the tiny CLIP's image embedding, a two-layer head"),
    ("pickscore", "reward", "logit", "scaled cosine of picture and base caption, as PickScore"),
    ("judge", "judge", "0 to 1", "a network of another kind that nothing was trained on"),
    ("alignment", "oracle", "share", "share of what the caption names that the picture shows"),
    ("planted", "planted", "as the reward", "the planted truth of the objective, read off by the oracle"),
]
MODIFIERS = [["soft shadow", "warm palette"], ["gradient sky", "gentle glow"], ["high contrast"], ["bold outline"]]
SCENES = [
    ("red", "circle", "navy"),
    ("yellow", "star", "forest"),
    ("pink", "heart", "sand"),
    ("cyan", "moon", "maroon"),
]


def table(objective: str) -> list[dict[str, Any]]:
    own, base = OBJECTIVES[objective]
    rows = []
    for i, system in enumerate(SYSTEMS):
        proxy, planted = GAINS[objective][i - 1] if i else (0.0, 0.0)
        means = {
            name: (mean, mean / 80) for name, mean in [("aesthetic", 4.1), ("engagement", 37.0), ("pickscore", 20.1)]
        }
        means |= {
            own: (base * (1 + proxy), base / 80),
            "total": (base * (1 + proxy), base / 80),
            "judge": (0.5 + planted / 2, 0.012),
        }
        means |= {"alignment": (ALIGNMENT[i], 0.008), "planted": (base * (1 + planted), base / 90)}
        rows += [
            {"objective": objective, "system": system, "metric": metric, "mean": mean, "se": se, "n": 96}
            for metric, (mean, se) in means.items()
        ]
    return rows


def curves(objective: str) -> list[dict[str, Any]]:
    base, gain = OBJECTIVES[objective][1], GAINS[objective][2][0]
    rows = []
    for at, (stage, step) in enumerate([("prompt", i) for i in range(4)] + [("multimodal", 4)]):
        values = {
            "total": (base * (1 + gain * at / 4), base / 60),
            "planted": (base * (1 + 0.6 * gain * at / 4 - 0.02 * at * at), base / 60),
            "alignment": (0.9 - 0.004 * at, 0.006),
        }
        rows += [
            {"objective": objective, "stage": stage, "round": step, "name": name, "mean": mean, "se": se, "n": 512}
            for name, (mean, se) in values.items()
        ]
    return rows


def draw(folder: Path, objective: str, size: int | None) -> list[dict[str, Any]]:
    samples = []
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for s, (colour, shape, background) in enumerate(SCENES):
        caption, systems = f"a {colour} {shape} on {background}", {}
        for i, system in enumerate(SYSTEMS):
            style = frozenset(MODIFIERS[(s + i) % 4]) if i not in (0, 4) else frozenset()
            image = Image.fromarray(render(Truth((Thing(colour, shape),), "center", background, style), s))
            name = f"samples/{objective}-{s}-{i}.png"
            (image.resize((size, size)) if size else image).save(folder / name)
            own, base = OBJECTIVES[objective]
            systems[system] = {
                "prompt": ", ".join([caption, *sorted(style)]), "plan": sorted(style), "image": name,
                "scores": {own: base * (1 + 0.05 * i), "planted": base * (1 + 0.04 * i), "judge": 0.5},
            }  # fmt: skip
        samples.append(
            {"objective": objective, "seed_id": f"s{s}", "caption": caption, "image_seed": s, "systems": systems}
        )
    return samples


def results_of(folder: Path, objectives: list[str], size: int | None = None) -> dict[str, Any]:
    """The contents of a whole results.json, with its pictures drawn under ``folder``."""
    gains = [
        {"objective": o, "system": s, "proxy": p, "planted": t, "proxy_se": abs(p) / 15 + 0.001,
         "planted_se": abs(t) / 10 + 0.001, "n": 96}
        for o in objectives for s, (p, t) in zip(SYSTEMS[1:], GAINS[o], strict=True)
    ]  # fmt: skip
    wins = [
        {"objective": o, "metric": m, "system": s, "against": "base", "rate": 0.5 + 0.08 * i, "se": 0.04, "n": 96}
        for o in objectives for i, s in enumerate(SYSTEMS) if i for m in ("total", "judge")
    ]  # fmt: skip
    effects = [("gradient sky", 0.62), ("warm palette", 0.41), ("soft shadow", 0.22), ("heavy blur", -0.55)]
    strategies = [
        {"objective": o, "phrase": phrase, "kind": "modifier" if i % 2 else "plan", "effect": effect, "se": 0.07,
         "n": 40 + i, "wins": 30 - 7 * i, "losses": 3 + 8 * i}
        for o in objectives for i, (phrase, effect) in enumerate(effects)
    ]  # fmt: skip
    prompts = [
        {"objective": o, "caption": "a red circle on navy", "before": "a red circle on navy, heavy blur",
         "after": "a red circle on navy, gradient sky, warm palette",
         "plan": ["keep the red circle", "light the sky", "warm the palette"]}
        for o in objectives
    ]  # fmt: skip
    replies = [
        {"objective": o, "stage": "prompt", "round": i, "replies": 512, "unparsed": 40 // i, "too_similar_or_far": 61,
         "kept_pairs": 48 + i}
        for o in objectives for i in (1, 2, 3)
    ]  # fmt: skip
    artifacts = [
        {"repo": f"spro/tiny-{o}-guider", "type": "model", "tag": "round-3", "revision": "0123456789abcdef0123",
         "what": f"guider adapter, {o}", "load": f'Guider.load("tiny/guider", adapter="spro/tiny-{o}-guider")'}
        for o in objectives
    ]  # fmt: skip
    return {
        "title": "SPRO on the embedded world",
        "subtitle": f"{len(objectives)} objectives, 6 systems, 48 held-out captions under 2 image seeds",
        "made": {"date": "2026-01-02", "seconds": 754.0, "seed": 7, "versions": {"torch": "2.13"},
                 "command": "spro-hf run recipes/tiny/spro.yaml"},
        "objectives": objectives,
        "systems": SYSTEMS,
        "metrics": [{"name": n, "kind": k, "unit": u, "higher_is_better": True, "what": w} for n, k, u, w in METRICS],
        "table": [row for o in objectives for row in table(o)],
        "gains": gains,
        "curves": [row for o in objectives for row in curves(o)],
        "win_rates": wins,
        "strategies": strategies,
        "samples": [row for o in objectives for row in draw(folder, o, size)],
        "prompts": prompts,
        "replies": replies,
        "artifacts": artifacts,
        "unknown_words": [{"caption": "a red unicorn", "words": ["unicorn"]}],
        "notes": ["The engagement scorer is a stand-in: EngageNet's weights are not released."],
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder: ``make_run(objectives, size=None, **fields that replace the made ones)``."""

    def make(objectives: list[str] | None = None, size: int | None = None, **fields: Any) -> Path:
        results = results_of(tmp_path, list(OBJECTIVES) if objectives is None else objectives, size) | fields
        (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of(tmp_path_factory.mktemp("run"), list(OBJECTIVES))


@pytest.fixture
def results(made_once: dict[str, Any]) -> dict[str, Any]:
    """The contents of results.json for all three objectives, to be changed at will."""
    return copy.deepcopy(made_once)
