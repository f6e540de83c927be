"""``python -m gpudecon``."""

import sys

from gpudecon.cli import main

sys.exit(main())
