"""The README against the repository: its tables are generated, its commands exist. ``--write`` mends the tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from spro_hf.plan import hardware
from spro_hf.recipe import find, load
from spro_hf.strict import parse_yaml

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def recipes() -> str:
    """The recipes of the embedded world with the comment that each begins with."""
    lines = ["| recipe | what it does |", "|---|---|"]
    for file in find(ROOT / "recipes" / "tiny"):
        lines.append(f"| `{file.relative_to(ROOT)}` | {_head(file)} |")
    return "\n".join(lines)


def real() -> str:
    """Every other recipe of one stage: what it runs, on what, by which reward, what it needs, and the paper's number."""
    lines = [
        "| recipe | stage | generator | guider | data | reward | one device of | the paper's number |",
        "|---" * 8 + "|",
    ]
    for file in find(ROOT / "recipes"):
        if "tiny" in file.parts or "recipes" in parse_yaml(file.read_text()):
            continue
        (one,) = load(file)
        seeds = getattr(one, "seeds", None) or getattr(one, "prompts", None)
        data = _short(seeds.source) if seeds else "earlier rollouts"
        if one.stage == "multimodal" and not one.rounds:
            data = ""
        guider = _short(one.guider.id) if getattr(one, "guider", None) else ""
        weighed = [name if weight == 1 else f"{weight:g}·{name}" for name, weight in one.reward.items()]
        reward = " + ".join(weighed).replace("+ -", "− ")
        cells = [f"`{file.relative_to(ROOT / 'recipes').with_suffix('')}`", one.stage, _short(one.generator.id), guider, data,
                 reward, hardware(one), one.paper]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(id: str) -> str:
    return id.rpartition("/")[2]


def _head(file: Path) -> str:
    """The comment that a recipe begins with, on one line."""
    lines = file.read_text().splitlines()
    return " ".join(
        line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if not x.startswith("#"))]
    )


def measured() -> str:
    """What SPRO reached on the embedded world, from docs/measured.json."""
    told = json.loads((ROOT / "docs" / "measured.json").read_text())
    lines = []
    for objective, systems in told["objectives"].items():
        lines += ["", f"**{objective}**", "", "| | reward | gain | planted truth | gain | alignment | judge |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for system, cells in systems.items():
            gains = [f"{100 * cells[k]['mean']:+.0f} %" if k in cells else "" for k in ("proxy gain", "planted gain")]
            value = {k: f"{c['mean']:.2f} ± {c['se']:.2f}" for k, c in cells.items()}
            lines.append(
                f"| {system} | {value['total']} | {gains[0]} | {value['planted']} | {gains[1]} | "
                f"{100 * cells['alignment']['mean']:.1f} % | {value['judge']} |"
            )
    seeds = ", ".join(map(str, told["seeds"]))
    lines.append("")
    lines.append(
        f"Mean ± standard error over {told['runs']} runs (seeds {seeds}) of {told['captions']} held-out captions per"
    )
    lines.append("cell, each drawn with two noise seeds.")
    return "\n".join(lines).strip()


def world() -> str:
    """What the embedded world's models score, from the card's numbers."""
    scores = json.loads((ROOT / "spro_hf" / "tiny" / "weights" / "measured.json").read_text())["scores"]
    told = scores["generator"] | {k: v for k, v in scores["scorers"].items() if "spearman" in k or "shapes" in k}
    return "\n".join(["| on held-out scenes | |", "|---|---|", *(f"| {k} | {v:.3f} |" for k, v in told.items())])


def policy() -> str:
    """What policy gradient reached on the embedded world, and what it took, from docs/policy.json."""
    told = json.loads((ROOT / "docs" / "policy.json").read_text())
    columns = ("objective", "method", "reward", "gain", "planted truth", "alignment, points", "denoiser calls", "CPU min",
               "gain per 100k calls", "per CPU min")  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in told:
        minutes, gain = row["cpu_seconds"] / 60, 100 * row["proxy"]
        lines.append(
            f"| {row['objective']} | {row['method']} | {row['base']:.2f} → {row['reward']:.2f} "
            f"| {gain:+.1f} ± {100 * row['proxy_se']:.1f} % | {100 * row['planted']:+.1f} ± {100 * row['planted_se']:.1f} % "
            f"| {100 * row['alignment']:+.1f} ± {100 * row['alignment_se']:.1f} | {row['calls'] / 1000:,.0f}k | {minutes:.1f} "
            f"| {gain / row['calls'] * 1e5:+.1f} % | {gain / minutes:+.2f} % |"
        )
    seeds = sorted({row["seed"] for row in told})
    lines += [
        "",
        f"One run each (seed {', '.join(map(str, seeds))}), {told[0]['captions']} held-out captions, each drawn with two",
    ]
    lines.append("noise seeds; errors are over captions, not over runs.")
    return "\n".join(lines)


def adversarial() -> str:
    """What rewards that learn reached on the embedded world beside fixed ones, from docs/adversarial.json."""
    lines = []
    for name, told in json.loads((ROOT / "docs" / "adversarial.json").read_text()).items():
        rivals = list(dict.fromkeys(key.rpartition(" over ")[2] for s in told["systems"].values() for key in s["wins"]))
        columns = ["reward", "planted truth", "judge", "captions obeyed", "style", "diversity"]
        columns += [f"{who} prefers it to {rival}" for rival in rivals for who in ("oracle", "judge")]
        lines += [
            "",
            f"`recipes/tiny/adversarial/{name}.yaml`",
            "",
            f"| | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for system, cells in told["systems"].items():
            line = [_with_error(cells[metric], 2) for metric in ("total", "planted", "judge")]
            line += [
                _with_error(cells[metric], 1, 100) + " %" if metric in cells else ""
                for metric in ("alignment", "style")
            ]
            line.append(_with_error(cells["diversity"], 1))
            wins = [cells["wins"].get(f"{metric} over {rival}") for rival in rivals for metric in ("planted", "judge")]
            line += [_with_error(rate, 1, 100) + " %" if rate else "" for rate in wins]
            lines.append(f"| {system} | {' | '.join(line)} |")
        seeds = ", ".join(map(str, told["seeds"]))
        runs = len(told["seeds"])
        what = f"Mean ± standard error over {runs} runs (seeds {seeds})" if runs > 1 else f"One run (seed {seeds})"
        lines += [
            "",
            f"{what} of {told['captions']} held-out captions, each drawn with two noise seeds; a tie counts half.",
        ]
    return "\n".join(lines).strip()


def _with_error(cell: dict, digits: int, times: float = 1) -> str:
    error = f" ± {times * cell['se']:.{digits}f}" if cell["n"] > 1 else ""
    return f"{times * cell['mean']:.{digits}f}{error}"


TABLES = {
    "recipes": recipes,
    "real": real,
    "measured": measured,
    "policy": policy,
    "adversarial": adversarial,
    "world": world,
}


def filled(text: str) -> str:
    """The text with every table between its markers written anew."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if not re.search(pattern, text, re.S):
            sys.exit(
                f"README.md: the markers of the table '{name}' are missing; write <!-- {name} --> and <!-- /{name} -->"
            )
        text = re.sub(pattern, lambda m, make=make: m[1] + make() + "\n" + m[2], text, flags=re.S)
    return text


def commands(text: str) -> list[str]:
    """Commands of the README that do not exist: make targets, spro-hf subcommands and options, files."""
    wrong = []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"\bmake ([a-z]+)\b", text):
        if target not in targets:
            wrong.append(f"make {target}")
    for line in re.findall(r"^(?:\$ )?(?:\S+ .* -m )?spro[-_]hf (.+?)(?: +#.*)?$", text, re.M):
        words = line.split()
        depth = 2 if words[0] in ("hub", "space") else 1
        shown = subprocess.run(
            [sys.executable, "-m", "spro_hf", *words[:depth], "--help"], capture_output=True, text=True
        )
        options = [w for w in words if w.startswith("--")]
        if shown.returncode or any(option not in shown.stdout for option in options):
            wrong.append(f"spro-hf {line}")
    folders = "recipes|spro_hf|docs|model_cards|datasets_cards|spaces|metrics|tests|benchmarks"
    for name in re.findall(rf"`((?:{folders})/[\w/.]*)`", text):
        if not (ROOT / name).exists():
            wrong.append(name)
    return wrong


def main() -> None:
    """Exit 1 and say what is wrong, unless ``--write`` mends it."""
    text = README.read_text()
    new = filled(text)
    if "--write" in sys.argv:
        README.write_text(new)
    elif new != text:
        sys.exit("README.md: a generated table is out of date; run python docs/check.py --write")
    if wrong := commands(new):
        sys.exit(f"README.md names what does not exist: {', '.join(wrong)}")
    print(f"README.md: {len(TABLES)} tables and all commands are as the repository has them")


if __name__ == "__main__":
    main()
