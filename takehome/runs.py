"""The folder of a run: taken for one run at a time, with checkpoints that are whole or absent, and a model at the end.

In a checkpoint, takehome/tensors.py keeps what each process holds, and state.json the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from takehome.accelerator import in_each, on_main
from takehome.checkpoints import (
    begin,
    checkpoints,
    claim,
    damage,
    draft_of,
    finish,
    newest_whole,
    only_one_run,
    refuse_to_replace,
    remove,
    remove_checkpoints,
    sweep,
    write_file,
)
from takehome.errors import InputError, explain_limits, one_line
from takehome.tensors import Training, read_tensors, unusable, write_tensors

if TYPE_CHECKING:
    import torch

STATE = "state.json"


@dataclass
class RunState:
    """Where a run is, apart from its tensors.

    Attributes:
        step: steps of the optimizer that are done.
        configuration: what must be the same when the run goes on.
        progress: of the program: anything that JSON can hold.
        scaler: of the gradients in fp16.
    """

    step: int
    configuration: dict[str, Any]
    progress: dict[str, Any]
    scaler: dict[str, float] = field(default_factory=dict)


# --- The folder of a run -------------------------------------------------------------------------


@contextlib.contextmanager
def open_run(
    folder: Path, kind: str, resume: bool, overwrite: bool, say: Callable[[str], None] = print
) -> Iterator[Path | None]:
    """Takes a folder for one run, until the block ends, and puts right what a kill left; the main process does it.

    Args:
        folder: becomes the run's, if it is new, empty, or was already.
        kind: of run, in two words.
        resume: insist on a checkpoint to go on from.
        overwrite: remove what an earlier run made.
        say: is told what is passed over.

    Yields:
        The checkpoint to go on from, if there is one; only in the main process.

    Raises:
        InputError: another run is there, something that is not ours is in the way, or no checkpoint is whole.
    """
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    with contextlib.ExitStack() as held:
        try:
            claim(folder, kind)
            held.enter_context(only_one_run(folder))
            sweep(folder)
            refuse_to_replace(folder / "model", "model")
            if overwrite:
                for path in [*checkpoints(folder), folder / "model"]:
                    if path.exists():
                        remove(path)
            start = None if overwrite else newest_whole(folder, say)
        except OSError as cause:
            reason = cause.strerror or one_line(cause)
            raise InputError(f"--output-dir {folder} cannot be used ({reason}): name another directory") from cause
        except InputError as reason:
            raise InputError(f"--output-dir {folder}: {reason}") from reason
        if resume and start is None:
            raise InputError(f"--resume: {folder} holds no checkpoint to go on from: leave --resume away to begin")
        yield start


def go_on(training: Training, start: Path | None, configuration: dict[str, Any]) -> RunState | None:
    """Loads the checkpoint that the main process found; None if there is none.

    Raises:
        InputError: in every process, if it belongs to another configuration or does not fit.
    """

    def find() -> tuple[Path, RunState] | None:
        if start is None:
            return None
        state = read_state(start)
        check_configuration(start, state, configuration)
        return start, state

    if (found := on_main(training.accelerator, find)) is None:
        return None
    load_checkpoint(training, *found)
    return found[1]


# --- Writing -------------------------------------------------------------------------------------


def save_checkpoint(
    training: Training, folder: Path, state: RunState, keep: int, say: Callable[[str], None] = print
) -> None:
    """Writes `folder`/checkpoint-STEP, and removes older checkpoints of ours but the newest `keep`.

    Raises:
        InputError: in every process, if it could not be written; what was there is untouched.
    """
    accelerator, final = training.accelerator, folder / f"checkpoint-{state.step}"
    if accelerator.scaler is not None:
        state.scaler = accelerator.scaler.state_dict()

    def prepare() -> str:
        try:
            if final.is_dir() and damage(final):  # passed over, and made anew
                remove(final)
            refuse_to_replace(final, "checkpoint")
        except InputError as reason:
            return f"nothing saved at step {state.step}: {reason}"
        begin(final, "checkpoint")
        return ""

    def complete() -> None:
        write_file(draft_of(final) / STATE, json.dumps(asdict(state)))
        finish(final)
        remove_checkpoints(folder, keep, say, reached=state.step)

    try:
        if in_the_way := on_main(accelerator, prepare):
            if accelerator.is_main_process:
                say(in_the_way)
            return
        in_each(accelerator, write_tensors, training, draft_of(final))
        on_main(accelerator, complete)
    except InputError as cause:
        reason = explain_limits(cause, final) or str(cause)  # while what is free is what was free
        if accelerator.is_main_process and draft_of(final).exists():
            with contextlib.suppress(InputError, OSError):
                remove(draft_of(final))
        raise InputError(f"{final} could not be written, what was there is untouched: {reason}") from cause


def save_model(training: Training, final: Path, write: Callable[[Path, dict[str, torch.Tensor]], None]) -> None:
    """Makes the folder `final` of the whole weights, wherever they are kept: `write(folder, weights)` fills it.

    Raises:
        InputError: in every process, if it could not be written.
    """
    weights = training.accelerator.get_state_dict(training.model)

    def whole() -> None:
        write(begin(final, "model"), weights)
        finish(final)

    try:
        on_main(training.accelerator, whole)
    except InputError as cause:
        reason = explain_limits(cause, final) or str(cause)
        raise InputError(f"{final} could not be written, what was there is untouched: {reason}") from cause


# --- Reading -------------------------------------------------------------------------------------


def read_state(checkpoint: Path) -> RunState:
    """Reads where a run was.

    Raises:
        InputError: it is not a state that these programs write.
    """
    path = checkpoint / STATE
    try:
        state = RunState(**json.loads(path.read_text(encoding="utf-8")))
        if not (isinstance(state.step, int) and isinstance(state.configuration, dict)):
            raise TypeError("step or configuration has another type")
        return state
    except (OSError, ValueError, TypeError) as cause:
        raise unusable(path, cause) from cause


def check_configuration(checkpoint: Path, state: RunState, configuration: dict[str, Any]) -> None:
    """Raises InputError if a run cannot go on as the same run; says what differs."""
    saved = state.configuration
    differ = [f"{key} was {saved.get(key)}, is {now}" for key, now in configuration.items() if saved.get(key) != now]
    if differ:
        raise InputError(
            f"{checkpoint} belongs to another configuration ({one_line('; '.join(differ))}): take its own, or another "
            "--output-dir, or begin again with --overwrite"
        )


def load_checkpoint(training: Training, checkpoint: Path, state: RunState) -> None:
    """Puts weights, optimizers, random numbers and scaler back, to the last bit.

    Raises:
        InputError: in every process, if a file of one of them does not fit.
    """
    in_each(training.accelerator, read_tensors, training, checkpoint)
    if training.accelerator.scaler is not None and state.scaler:
        training.accelerator.scaler.load_state_dict(state.scaler)
