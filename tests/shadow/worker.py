"""Runs recipes one after the other in one process, since the libraries take longer to import than a tiny recipe to run.

Each line of its input is a job, ``{"recipe", "out", "changes"}``; each line of its output tells how one went: ``error``,
empty where all went well, ``seconds`` of the run, its ``results`` and what it ``left`` on the Hub (see ``looks``). The
environment must name the Hub before it starts: the Hub's clients read it when they are imported.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spro_hf.hub.server import Server, client_environment
from tests.shadow.limits import Job

ROOT = Path(__file__).parents[2]


class Worker:
    """A process of this module, as its parent sees it: one job at a time."""

    def __init__(self, server: Server, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= client_environment(server, folder / "home") | {"PYTHONPATH": str(ROOT)}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.shadow.worker"], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip

    def do(self, job: Job) -> dict[str, Any]:
        """Run a recipe; what the worker told of it."""
        out = self.folder / "-".join(job.file.with_suffix("").parts[-3:])
        try:
            line = json.dumps({"recipe": str(job.file), "out": str(out), "changes": job.changes})
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            return nothing(job.file, f"the worker died, see {self.folder}/log")

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._log.close()


def nothing(recipe: Path, error: str) -> dict[str, Any]:
    """What is told of a recipe that did not come to its end."""
    return {"recipe": str(recipe), "error": error, "seconds": 0.0, "results": {}, "left": []}


def run_all(
    workers: list[Worker], jobs: dict[Path, Job], after: dict[Path, set[Path]], known: dict[Path, dict[str, Any]]
) -> dict[Path, dict[str, Any]]:
    """Run the recipes of ``after`` side by side on workers, each after those that it names; what was told of each.

    A recipe behind one that failed is not run, and neither is one of which something is ``known`` already.
    """
    told, running, changed = dict(known), set(), threading.Condition()
    waiting = [file for file in after if file not in told]

    def take() -> Path | None:
        """The next recipe whose turn it is; None when none is left."""
        with changed:
            while waiting:
                for file in list(waiting):
                    if failed := [f for f in after[file] if f in told and told[f]["error"]]:
                        told[file] = nothing(file, f"not run, since {failed[0]} failed")
                        waiting.remove(file)
                ready = [file for file in waiting if after[file] <= set(told)]
                if ready:
                    waiting.remove(ready[0])
                    running.add(ready[0])
                    return ready[0]
                if running:
                    changed.wait(1.0)
                else:
                    told.update({file: nothing(file, "it waits for one that waits for it") for file in waiting})
                    waiting.clear()
        return None

    def work(worker: Worker) -> None:
        while file := take():
            answer = worker.do(jobs[file])
            with changed:
                told[file] = answer
                running.discard(file)
                changed.notify_all()

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, workers))
    return told


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the runs print goes to the log
    import torch

    from spro_hf.errors import UserError
    from spro_hf.run import run
    from tests.shadow.looks import look

    torch.set_num_threads(1)
    for line in sys.stdin:
        job, began = json.loads(line), time.monotonic()
        told = nothing(job["recipe"], "")
        print(f"\n=== {job['recipe']}", flush=True)
        try:
            file, changes = Path(job["recipe"]), job["changes"]
            out = run(file, Path(job["out"]), hub=os.environ["HF_ENDPOINT"], changes=changes)
            told["seconds"] = round(time.monotonic() - began, 2)
            told["results"] = json.loads((out / "results.json").read_text())
            told["left"] = look(file, changes)
        except UserError as error:
            told["error"] = str(error)
        except Exception:
            told["error"] = traceback.format_exc()
        answers.write(json.dumps(told) + "\n")
        answers.flush()
        if not gc.get_freeze_count():  # the libraries are imported: no collection need look through them again
            gc.collect()
            gc.freeze()


if __name__ == "__main__":
    main()
