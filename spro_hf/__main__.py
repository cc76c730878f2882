"""``python -m spro_hf``, for ``accelerate launch -m spro_hf``."""

import sys

from spro_hf.cli import main

sys.exit(main())
