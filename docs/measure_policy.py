"""Gather what the README prints of policy gradient: what each method reached on held-out captions, and what it took.

spro-hf run recipes/tiny/reinforce/rewards.yaml --out runs/rewards
spro-hf run recipes/tiny/reinforce/methods.yaml --out runs/methods
spro-hf run recipes/tiny/reinforce/ddpo_all.yaml --out runs/ddpo
python docs/measure_policy.py runs/rewards runs/methods runs/ddpo     # writes docs/policy.json
python docs/check.py --write                                          # writes it into the README
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def gather(folders: list[Path]) -> list[dict]:
    """The cost rows of finished runs, each with its run's seed and the number of captions; the same training once."""
    found: dict[tuple, dict] = {}
    for folder in folders:
        run = json.loads((folder / "results.json").read_text())
        for row in run["costs"]:
            about = {"seed": run["made"]["seed"], "captions": run["table"][0]["n"]}
            found.setdefault((row["objective"], row["method"]), row | about)
    return list(found.values())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the folders of finished runs, e.g. runs/rewards runs/methods runs/ddpo")
    told = gather([Path(name) for name in sys.argv[1:]])
    Path(__file__).with_name("policy.json").write_text(json.dumps(told, indent=1) + "\n")
