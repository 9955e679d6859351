"""See `helpers.memory.command_line`."""

import sys

from helpers.memory import main

if __name__ == "__main__":
    sys.exit(main())
