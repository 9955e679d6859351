"""The folder of a run that is not finished: OUTPUT.unfinished, with its data and its checkpoints.

Each checkpoint holds `run.json`, everything that the run depends on, so that a run goes on only as what it was.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from takehome.checkpoints import (
    CHECKPOINT,
    begin,
    blank,
    checkpoints,
    claim,
    damage,
    finish,
    foreign,
    newest_whole,
    only_one_run,
    read_marker,
    recover,
    refuse_to_replace,
    remove,
    step_of,
    sweep,
)
from takehome.errors import InputError, one_line

KIND, MODEL, DATA, RECORD, STATE = "unfinished run", "model", "data", "run.json", "trainer_state.json"
Say = Callable[[str], None]


def unfinished(output: Path) -> Path:
    """Where the run that makes `output` keeps what it needs."""
    return output.with_name(output.name + ".unfinished")


def begin_data(work: Path) -> Path:
    """An empty folder for the prepared data; that of an earlier start is removed."""
    folder = work / DATA
    if folder.is_symlink() or folder.exists():
        remove(folder)
    return claim(folder, "prepared data")


def find_start(work: Path, record: dict, overwrite: bool, say: Say) -> Path | None:
    """The newest checkpoint that is whole and belongs to this run; None to begin. Those after it are removed.

    Args:
        work: the folder of the run, locked.
        record: everything that the run depends on.
        overwrite: whether to begin anew where there is nothing to go on from.
        say: is told which checkpoints are passed over.

    Raises:
        InputError: the checkpoints are of another run, or none is whole, and `overwrite` is not set; or one was
            damaged so that it is not known as ours.
    """
    lost = None
    try:
        start = newest_whole(work, say, what_is_wrong)
    except InputError as error:
        start, lost = None, error
    later = [path for path in named_like_checkpoints(work) if start is None or step_of(path) > step_of(start)]
    if strange := [path for path in later if read_marker(path) is None and not blank(path)]:
        raise InputError(f"{strange[0]} is in the way and cannot be told to be of this program: move it away")
    if lost and not overwrite:
        raise lost
    if start and (differences := compare(read_record(start), record)):
        if not overwrite:
            raise InputError(
                f"{work} is another run ({differences}): run its own command, name another --output-dir, or add "
                "--overwrite"
            )
        start, later = None, named_like_checkpoints(work)
    for path in later:
        remove(path)
    return start


def named_like_checkpoints(work: Path) -> list[Path]:
    return sorted((path for path in work.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)), key=step_of)


def what_is_wrong(checkpoint: Path) -> str:
    """Why a run cannot go on from a checkpoint, in a few words; empty if it can. The best one so far is part of it."""
    if wrong := damage(checkpoint):
        return wrong
    best = best_of(checkpoint)
    wrong = damage(best) if best else ""
    return wrong and f"the best checkpoint until then, {best.name}, {wrong}"


def read_state(checkpoint: Path) -> dict:
    """The state of Trainer, which is part of a whole checkpoint."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def read_record(checkpoint: Path) -> dict:
    """Everything that the run of a whole checkpoint depends on."""
    return json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))


def best_of(checkpoint: Path) -> Path | None:
    """The best checkpoint when this one was written, by validation; it can be itself."""
    step = read_state(checkpoint)["best_global_step"]
    return checkpoint.with_name(f"checkpoint-{step}") if step else None


def has_ended(checkpoint: Path) -> bool:
    """Whether training was over, by its number of steps or by early stopping, when a checkpoint was written."""
    return read_state(checkpoint)["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def compare(saved: dict, record: dict) -> str:
    """What differs between two runs, in words; empty if nothing does. What is not decided yet may be anything."""
    differences = []
    for key, value in record.items():
        if saved.get(key) != value and not (key == "bf16" and value is None):
            was = f"{key} was {one_line(saved.get(key), 60)}, is {one_line(value, 60)}"
            differences.append("the data has other rows" if key == "rows_digest" else was)
    return "; ".join(differences)


def tidy(work: Path, say: Say) -> None:
    """Removes what nothing can go on from: unfinished checkpoints first, and all that is ours if no other is there."""
    for path in checkpoints(work):
        if read_marker(path).files is None:
            remove(path)
    sweep(work)
    if not named_like_checkpoints(work):
        discard(work, say)


def discard(work: Path, say: Say) -> None:
    """Removes the folder of a run, and says what stays because somebody else put it there."""
    for folder in [*checkpoints(work), work / DATA]:
        try:
            if folder.exists():
                remove(folder)
        except InputError as reason:
            say(str(reason))
    if read_marker(work) and not foreign(work):
        remove(work)
    elif read_marker(work):
        say(f"{work} stays: it holds {one_line(foreign(work)[0])}, which this program did not write")


@contextlib.contextmanager
def working_folder(work: Path, say: Say) -> Iterator[None]:
    """Makes and locks the folder of a run. It goes at the end; after a failure, what nothing can go on from goes.

    Raises:
        InputError: another run is there, or something that no program of ours made, or it cannot be written.
    """
    made, locked = missing(work), False
    try:
        try:
            claim(work, KIND)
        except OSError as cause:
            raise InputError(f"{work} cannot be written ({cause.strerror}): name another --output-dir") from cause
        with only_one_run(work):
            locked = True
            sweep(work)
            yield
        discard(work, say)
    except BaseException:
        if locked:
            with contextlib.suppress(OSError, InputError):  # what went wrong before is worth more
                tidy(work, say)
        raise
    finally:
        if not work.exists():
            unmake(made)


@contextlib.contextmanager
def whole(final: Path, kind: str) -> Iterator[Path]:
    """Yields a folder to write to, which then takes its place whole, or not at all.

    Raises:
        InputError: what is there is not ours, of another kind, or was changed or added to.
    """
    made = missing(final)
    try:
        yield begin(final, kind)
        finish(final)
    except BaseException:
        with contextlib.suppress(OSError, InputError):
            recover(final)
        unmake(made)
        raise


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def unmake(made: list[Path]) -> None:
    """Removes folders that were made in vain; what is not empty stays."""
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()


def refuse_place(output: Path, kind: str, overwrite: bool) -> None:
    """Raises InputError if a folder of this kind may not appear here. Nothing is made or changed."""
    refuse_to_replace(output, kind)
    above = next(path for path in output.parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{output} cannot be written: name another directory")
    if output.is_dir() and not blank(output) and not overwrite:
        raise InputError(f"{output} holds a finished {kind}: name another, or add --overwrite")
