"""Results of a model in the Hub's own form, ``.eval_results/spro.yaml``: its page and a data set's leaderboard read them.

The card tells the same numbers as ``model-index``, the older form, which also holds what was not measured on a data set of
the Hub.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from spro_hf.errors import UserError

FILE = ".eval_results/spro.yaml"


def entries(
    results: list[dict[str, Any]], dataset: str | None, revision: str | None, notes: str, source: str
) -> list[EvalResultEntry]:
    """Results as the Hub's entries, one a measure, which is its ``task_id``; none without a data set of the Hub.

    Args:
        results: rows of ``name``, ``value`` and, or None, ``se`` (the standard error), ``base`` (the same mean for the
            untrained system) and ``n`` (pictures).
        dataset: the repository that holds the captions; ``revision`` is its commit.
        notes: what was measured on, in words; error, base and number are added to it, as the form has no field for them.
        source: the address of the artifact.

    Raises:
        UserError: if a value is no finite number.
    """
    return [
        EvalResultEntry(
            dataset_id=dataset, task_id=row["name"], value=_number(row), dataset_revision=revision,
            notes=_notes(row, notes), source_url=source, source_name="spro_hf",
        )
        for row in (results if dataset else [])
    ]  # fmt: skip


def write(folder: Path, found: list[EvalResultEntry]) -> Path | None:
    """Write entries to an artifact's folder; gives the file, or None where there is nothing to write."""
    if not found:
        return None
    file = Path(folder) / FILE
    file.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(found), sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")
    return file


def _number(row: dict[str, Any]) -> float:
    value = float(row["value"])
    if not math.isfinite(value):
        raise UserError(f"results: '{row['name']}' is {value}, which is no number; measure it again, or leave it out.")
    return value


def _notes(row: dict[str, Any], notes: str) -> str:
    told = (("standard error", row["se"]), ("before training", row["base"]), ("n", row["n"]))
    return "; ".join([notes, *(f"{name} {value:.4g}" for name, value in told if value is not None)])
