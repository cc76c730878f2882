"""Hand-made runs with numbers that can be checked by eye, and drawn pictures.

One of SPRO, with three objectives and six systems; one of policy gradient, with an objective and five methods.
"""

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
POLICY = {  # proxy and planted gain, difference in alignment, then training's calls, seconds and processes
    "Flow-GRPO": (0.45, 0.38, -0.004, 300_000, 600.0, 1),
    "Flow-GRPO-Fast": (0.40, 0.34, -0.002, 160_000, 300.0, 1),
    "CPS": (0.42, 0.36, 0.003, 320_000, 630.0, 1),
    "DanceGRPO": (0.52, -0.12, -0.062, 290_000, 585.0, 1),
    "GRPO-Guard": (0.32, 0.30, 0.0, 300_000, 480.0, 2),
}
STEPS = [13, 26, 39, 52, 64, 76, 88, 100]
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


def table(
    objective: str, systems: list[str], gains: list[tuple[float, float]], alignment: list[float]
) -> list[dict[str, Any]]:
    own, base = OBJECTIVES[objective]
    rows = []
    for i, system in enumerate(systems):
        proxy, planted = gains[i - 1] if i else (0.0, 0.0)
        means = {
            name: (mean, mean / 80) for name, mean in [("aesthetic", 4.1), ("engagement", 37.0), ("pickscore", 20.1)]
        }
        means |= {
            own: (base * (1 + proxy), base / 80),
            "total": (base * (1 + proxy), base / 80),
            "judge": (0.5 + planted / 2, 0.012),
        }
        means |= {"alignment": (alignment[i], 0.008), "planted": (base * (1 + planted), base / 90)}
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


def draw(folder: Path, objective: str, size: int | None, all_systems: list[str]) -> list[dict[str, Any]]:
    """Pictures of every system; those of policy gradient are prompted with the caption itself."""
    samples = []
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for s, (colour, shape, background) in enumerate(SCENES):
        caption, systems = f"a {colour} {shape} on {background}", {}
        for i, system in enumerate(all_systems):
            style = frozenset(MODIFIERS[(s + i) % 4]) if i not in (0, 4) else frozenset()
            image = Image.fromarray(render(Truth((Thing(colour, shape),), "center", background, style), s))
            name = f"samples/{objective}-{s}-{i}.png"
            (image.resize((size, size)) if size else image).save(folder / name)
            own, base = OBJECTIVES[objective]
            systems[system] = {
                "prompt": caption if system in POLICY else ", ".join([caption, *sorted(style)]),
                "plan": [] if system in POLICY else sorted(style), "image": name,
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
        "table": [row for o in objectives for row in table(o, SYSTEMS, GAINS[o], ALIGNMENT)],
        "gains": gains,
        "curves": [row for o in objectives for row in curves(o)],
        "win_rates": wins,
        "strategies": strategies,
        "samples": [row for o in objectives for row in draw(folder, o, size, SYSTEMS)],
        "prompts": prompts,
        "replies": replies,
        "artifacts": artifacts,
        "unknown_words": [{"caption": "a red unicorn", "words": ["unicorn"]}],
        "notes": ["The engagement scorer is a stand-in: EngageNet's weights are not released."],
    }  # fmt: skip


def policy_curves(objective: str) -> list[dict[str, Any]]:
    """Of every method eight points; "total" ends at the gain that the evaluation found."""
    base = OBJECTIVES[objective][1]
    rows = []
    for method, (proxy, planted, alignment, *_) in POLICY.items():
        for at, step in enumerate(STEPS, 1):
            way = 1 - (1 - at / 8) ** 2
            values = {
                "total": (base * (1 + proxy * way), base / 90),
                "planted": (base * (1 + planted * way), base / 90),
                "alignment": (0.9 + alignment * way, 0.006),
                "subject": (0.85 + 1.5 * alignment * way, 0.009),
            }
            where = {"objective": objective, "stage": method, "unit": "step", "round": step}
            rows += [where | {"name": k, "mean": mean, "se": se, "n": 12} for k, (mean, se) in values.items()]
    return rows


def policy_of(folder: Path, objective: str = "aesthetics") -> dict[str, Any]:
    """The contents of results.json after five methods of policy gradient, as ``spro_hf.results`` writes them."""
    systems, base = ["base", *POLICY], OBJECTIVES[objective][1]
    gains = [
        {"objective": objective, "system": s, "proxy": p, "proxy_se": 0.03, "planted": t, "planted_se": 0.025, "n": 96}
        for s, (p, t, *_) in POLICY.items()
    ]
    costs = [
        {"objective": objective, "system": s, "method": s, "steps": 100, "pictures": 12_800, "calls": calls,
         "seconds": seconds, "processes": processes, "reward": base * (1 + p), "base": base, "proxy": p,
         "proxy_se": 0.03, "planted": t, "planted_se": 0.025, "alignment": a, "alignment_se": 0.005}
        for s, (p, t, a, calls, seconds, processes) in POLICY.items()
    ]  # fmt: skip
    wins = [
        {"objective": objective, "metric": m, "system": s, "against": "base", "rate": 0.7 + 0.04 * i, "se": 0.04, "n": 96}
        for i, s in enumerate(POLICY) for m in ("total", "judge", "planted")
    ]  # fmt: skip
    samples = draw(folder, objective, None, systems)
    artifacts = [
        {"repo": f"spro/tiny-{objective}-{s.lower()}", "type": "model", "tag": "v1", "revision": "0123456789abcdef0123",
         "what": "generator", "load": f'pipe.load_lora_weights("spro/tiny-{objective}-{s.lower()}", revision="v1")'}
        for s in POLICY
    ]  # fmt: skip
    return results_of(folder, []) | {
        "title": "Policy gradient on the embedded world",
        "subtitle": "Five methods, one reward: the generator learns from groups of its own pictures.",
        "objectives": [objective],
        "systems": systems,
        "table": table(objective, systems, [g[:2] for g in POLICY.values()], [0.9, *(0.9 + g[2] for g in POLICY.values())]),
        "gains": gains,
        "costs": costs,
        "win_rates": wins,
        "curves": policy_curves(objective),
        "samples": samples,
        "prompts": [
            {"objective": objective, "caption": s["caption"], "before": s["caption"], "after": s["caption"], "plan": []}
            for s in samples
        ],
        "artifacts": artifacts,
        "unknown_words": [],
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder: ``make_run(objectives, size=None, **fields that replace the made ones)``."""

    def make(objectives: list[str] | None = None, size: int | None = None, **fields: Any) -> Path:
        results = results_of(tmp_path, list(OBJECTIVES) if objectives is None else objectives, size) | fields
        (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return make


@pytest.fixture
def make_policy_run(tmp_path: Path) -> Callable[..., Path]:
    """Write the folder of a run of policy gradient: ``make_policy_run(**fields that replace the made ones)``."""

    def make(**fields: Any) -> Path:
        (tmp_path / "results.json").write_text(json.dumps(policy_of(tmp_path) | fields))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of(tmp_path_factory.mktemp("run"), list(OBJECTIVES))


@pytest.fixture
def results(made_once: dict[str, Any]) -> dict[str, Any]:
    """The contents of results.json for all three objectives, to be changed at will."""
    return copy.deepcopy(made_once)


@pytest.fixture(scope="session")
def policy_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return policy_of(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def policy(policy_once: dict[str, Any]) -> dict[str, Any]:
    """The contents of results.json after five methods of policy gradient, to be changed at will."""
    return copy.deepcopy(policy_once)
