"""Gather what the README prints of Adv-GRPO: rewards that learn against fixed ones, on the embedded world, over several runs.

for seed in 0 1 2; do for what in compare compare_100 compare_style compare_task; do
  spro-hf run recipes/tiny/adversarial/$what.yaml --seed $seed --out runs/adversarial/$what-$seed
done; done
python docs/measure_adversarial.py runs/adversarial/*      # writes docs/adversarial.json
python docs/check.py --write                               # writes it into the README
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spro_hf.statistics import mean_se

METRICS = ("total", "planted", "judge", "alignment", "style", "diversity", "saturation")


def gather(folders: list[Path]) -> dict[str, Any]:
    """By comparison and system: mean and standard error over runs of each measure, and of how often each other is beaten."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        told = json.loads((folder / "results.json").read_text())
        runs.setdefault(folder.name.rpartition("-")[0], []).append(told)
    found = {}
    for name, some in runs.items():
        systems: dict[str, Any] = {}
        for system in some[0]["systems"]:
            cells = [{r["metric"]: r["mean"] for r in told["table"] if r["system"] == system} for told in some]
            measures = {metric: mean_se([cell[metric] for cell in cells]) for metric in METRICS if metric in cells[0]}
            wins: dict[str, Any] = {}
            for told in some:
                for row in told["win_rates"]:
                    if row["system"] == system and row["metric"] in ("planted", "judge"):
                        wins.setdefault(f"{row['metric']} over {row['against']}", []).append(row["rate"])
            systems[system] = measures | {"wins": {key: mean_se(rates) for key, rates in wins.items()}}
        found[name] = {
            "seeds": sorted(told["made"]["seed"] for told in some), "captions": some[0]["table"][0]["n"], "systems": systems,
        }  # fmt: skip
    return found


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the folders of finished runs, e.g. runs/adversarial/*")
    told = gather([Path(name) for name in sys.argv[1:]])
    Path(__file__).with_name("adversarial.json").write_text(json.dumps(told, indent=1) + "\n")
