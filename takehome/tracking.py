"""Where the curves of a run go beside its own files: Weights & Biases, TensorBoard or trackio.

What these write stays on this machine, below OUTPUT.tracking, unless their own settings say otherwise: Weights & Biases
asks for an account, or WANDB_MODE=offline.
"""

import argparse
import importlib.util
import os
from pathlib import Path

from takehome.errors import InputError

TRACKERS = ("none", "wandb", "tensorboard", "trackio")


def add_report_to(parser: argparse._ActionsContainer) -> None:
    """The option --report-to."""
    parser.add_argument("--report-to", choices=TRACKERS, default="none", help="show the curves there, too")


def check_report_to(name: str) -> None:
    """Raises InputError if a tracker is not installed."""
    if name != "none" and not importlib.util.find_spec(name):
        raise InputError(f"--report-to {name}: not installed; SETUP.md says how, under optional groups")


def place_tracking(name: str, output: Path) -> None:
    """Tells a tracker where to write, and what the run is called, unless the user's environment does.

    Args:
        name: of the tracker.
        output: what the run makes; the tracker writes beside it.
    """
    folder = output.with_name(f"{output.name}.tracking")
    places = {
        "wandb": {"WANDB_DIR": folder, "WANDB_PROJECT": "every-parameter", "WANDB_SILENT": "true"},
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": folder},
        "trackio": {"TRACKIO_DIR": folder, "TRACKIO_PROJECT": "every-parameter"},
    }.get(name, {})
    for variable, value in places.items():
        os.environ.setdefault(variable, str(value))
    if name != "none":
        folder.mkdir(parents=True, exist_ok=True)
