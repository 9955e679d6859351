"""Prints what the course needs, without versions: for a run with the newest of everything.

python -m pip install $(python tools/newest.py) -e .

--except torch     leaves packages out, such as one that is installed already
"""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "full-finetuning"


def names(leave_out: list[str]) -> list[str]:
    """The packages of the group; those for another system than this one are pip's to leave out, so they stay."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"][GROUP]
    found = [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in group]
    return [name for name in found if name not in leave_out]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--except", dest="leave_out", nargs="*", default=[], metavar="NAME")
    print(" ".join(names(parser.parse_args(arguments).leave_out)))


if __name__ == "__main__":
    main()
