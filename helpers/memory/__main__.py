"""`python -m helpers.memory`: the memory of a training step, on the command line."""

import sys

from helpers.memory import main

if __name__ == "__main__":
    sys.exit(main())
