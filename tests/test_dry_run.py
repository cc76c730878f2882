"""A dry run is one run: whoever runs afterwards in the same process pushes."""

from __future__ import annotations

import os
from pathlib import Path

from spro_hf import run
from spro_hf.hub import unpublished

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny" / "1_prompt.yaml"


def test_a_dry_run_ends_with_itself(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(run, "_stages", lambda path, out, recipes, hub, command: seen.append((hub, unpublished.on())))
    try:
        run.run(RECIPE, tmp_path / "dry", "http://127.0.0.1:1", dry=True)
        run.run(RECIPE, tmp_path / "real", "http://127.0.0.1:1")
    finally:
        unpublished.end()
    assert seen == [("nowhere (a dry run)", True), ("http://127.0.0.1:1", False)]
    assert os.environ.get("SPRO_HF_UNPUBLISHED") is None
