"""`python -m importance_sampling` is the command `importance-sampling`."""

import sys

from importance_sampling.cli import main

if __name__ == "__main__":
    sys.exit(main())
