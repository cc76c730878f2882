"""What spro_hf costs beside the libraries that it stands on, as ratios measured side by side in one run."""

import os

# Read when transformers is imported, here and in child processes: its remarks do not belong among the rows of a table.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
