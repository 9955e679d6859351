"""Installs what a lesson needs on a machine that has its own Python and packages, such as Colab's or Kaggle's.

    python tools/hosted_setup.py             # run by the first cell of the notebooks in hosted/
    python tools/hosted_setup.py --show      # only says what it would install

It leaves PyTorch as it is, and every package that is there and new enough. What is missing comes in the version that
pip chooses. A GPU without bf16 (Colab's T4) trains in fp16: the lessons ask for what the machine has.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of the group full-finetuning: what brings a notebook up or tests it, which such a machine does not need from us.
NOT_THERE = {"jupyterlab", "ipykernel", "nbclient", "nbconvert", "nbformat", "pytest", "pytest-xdist", "nbval", "ruff"}
# The oldest versions that the lessons were run with; of all others any version will do.
OLDEST = {"transformers": "5.23", "datasets": "5.0", "accelerate": "1.14", "peft": "0.20"}
TORCH = "2.9"  # the oldest; never installed or changed here


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 11) of "2.11.0rc1+cu130" and of "2.11"."""
    found = tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))
    return found[:2]


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(group: list[str], found=installed) -> list[str]:
    """What pip is to install: each package that is not there, or older than the lessons were run with.

    Args:
        group: requirements of pyproject.toml, such as "peft==0.21.2; sys_platform != 'darwin'".
        found: gives the installed version of a package, or None.
    """
    wanted = []
    for line in group:
        name = re.match(r"[A-Za-z0-9._-]+", line)[0]
        if name == "torch" or name in NOT_THERE:
            continue
        version, oldest = found(name), OLDEST.get(name)
        if version is None or (oldest and numbers(version) < numbers(oldest)):
            wanted.append(f"{name}>={oldest}" if oldest else name)
    return wanted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true")
    show = parser.parse_args(arguments).show
    torch = installed("torch")
    if torch is None or numbers(torch) < numbers(TORCH):
        there = f"has PyTorch {torch}" if torch else "has no PyTorch"
        print(f"hosted_setup.py: this machine {there}; the lessons need {TORCH} or newer", file=sys.stderr)
        return 1
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["full-finetuning"]
    if wanted := missing(group):
        print("installing", ", ".join(wanted), flush=True)
        if not show:  # torch is named, so that pip cannot put another one in its place
            command = [sys.executable, "-m", "pip", "install", "--quiet", f"torch=={torch}", *wanted]
            return subprocess.run(command).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
