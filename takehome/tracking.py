"""Where the curves of a run go beside its own files: Weights & Biases, TensorBoard or trackio.

What these write stays on this machine, below OUTPUT.tracking, unless their own settings say otherwise: Weights & Biases
asks for an account, or WANDB_MODE=offline.
"""

import argparse
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from takehome.errors import InputError, one_line

if TYPE_CHECKING:
    from accelerate import Accelerator

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

    Raises:
        InputError: the tracker asks for an account, and there is none.
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
    check_account(name)


def check_account(name: str) -> None:
    """Raises InputError if a tracker asks for an account, and there is none; at a terminal it asks for it first."""
    if name != "wandb":
        return
    import wandb

    try:
        if wandb.setup().settings.mode == "online":
            wandb.login()
    except Exception as cause:  # it has errors of its own
        here = "WANDB_MODE=offline keeps the curves on this machine"
        raise InputError(f"--report-to wandb: {one_line(cause).rstrip('.')}. Or {here}") from cause


def finish_tracking(name: str) -> None:
    """Has a tracker write what it still holds; Trainer leaves that to the end of the process."""
    if name == "wandb":
        import wandb

        wandb.finish()


def accelerate_settings(name: str, output: Path) -> dict:
    """What an Accelerator is told of a tracker; its files go into OUTPUT/tracking."""
    from accelerate.utils import ProjectConfiguration

    places = ProjectConfiguration(str(output), logging_dir=str(output / "tracking"))
    return {"log_with": None if name == "none" else name, "project_config": places}


def start_trackers(accelerator: "Accelerator", project: str, output: Path, configuration: dict, step: int) -> None:
    """Opens the tracker that `accelerate_settings` named, for a run that has taken so many steps.

    Raises:
        InputError: the tracker asks for an account, and there is none.
    """
    continued = {"tensorboard": {"purge_step": step + 1}, "trackio": {"name": output.name, "resume": "allow"}}
    continued["wandb"] = {"name": output.name, "dir": str(output)}
    # TensorBoard takes no other values.
    known = {
        name: value if isinstance(value, (int, float, str)) else str(value) for name, value in configuration.items()
    }
    if accelerator.is_main_process and accelerator.log_with:
        check_account(accelerator.log_with[0].value)
    accelerator.init_trackers(project, config=known, init_kwargs=continued)


def finish_trackers(accelerator: "Accelerator") -> None:
    for tracker in accelerator.trackers:
        tracker.finish()
