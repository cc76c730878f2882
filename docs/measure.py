"""Gather the numbers that the README prints: the mean over several runs of the whole of SPRO, with standard errors.

for s in 0 1 2; do make demo SEED=$s OUT=runs/seed-$s; done
python docs/measure.py runs/seed-0 runs/seed-1 runs/seed-2     # writes docs/measured.json
python docs/check.py --write                                   # writes them into the README
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from spro_hf.statistics import mean_se

TOLD = ("total", "planted", "alignment", "subject", "judge", "diversity")


def gather(folders: list[Path]) -> dict:
    """Means over runs of every system's gains and scores, by objective."""
    runs = [json.loads((folder / "results.json").read_text()) for folder in folders]
    first = runs[0]
    found: dict = {
        "runs": len(runs),
        "seeds": [run["made"]["seed"] for run in runs],
        "captions": first["table"][0]["n"],
        "objectives": {},
    }
    for objective in first["objectives"]:
        systems = {}
        for system in first["systems"]:
            cells = {}
            for key in ("proxy", "planted"):
                gains = [
                    gain[key]
                    for run in runs
                    for gain in run["gains"]
                    if (gain["objective"], gain["system"]) == (objective, system)
                ]
                if gains:
                    cells[f"{key} gain"] = mean_se(gains)
            for metric in TOLD:
                cells[metric] = mean_se(
                    [
                        row["mean"]
                        for run in runs
                        for row in run["table"]
                        if (row["objective"], row["system"], row["metric"]) == (objective, system, metric)
                    ]
                )
            systems[system] = cells
        found["objectives"][objective] = systems
    return found


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the folders of finished runs, e.g. runs/seed-0 runs/seed-1 runs/seed-2")
    told = gather([Path(name) for name in sys.argv[1:]])
    Path(__file__).with_name("measured.json").write_text(json.dumps(told, indent=1) + "\n")
