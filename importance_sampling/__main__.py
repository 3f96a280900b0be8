"""Run the command `importance-sampling` with `python -m importance_sampling`."""

import sys

from importance_sampling.cli import main

if __name__ == "__main__":
    sys.exit(main())
