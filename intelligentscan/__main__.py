"""`python -m intelligentscan` is the command `intelligentscan`."""

import sys

from intelligentscan.cli import main

if __name__ == "__main__":
    sys.exit(main())
