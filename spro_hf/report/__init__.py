"""What a run tells people: the page, the picture grids, the terminal summary and the progress lines.

All of them read ``results.json``, which ``spro_hf.results`` writes: plain lists of rows named after what they hold.
"""

from __future__ import annotations

from spro_hf.report.page import write_report

__all__ = ["write_report"]
