"""Folders and files that are there whole or not at all, and are removed by nobody but the program that made them.

Every folder that a program makes holds a marker, `.every-parameter.json`. While it is written, the marker says only
what it is for. When it is complete, `seal` adds the length and the SHA-256 of each file. So a folder is

- **ours** if it has a marker, and may then be removed; without one, nothing in it is touched;
- **whole** if each file is as the marker says; else `damage` says what is wrong with it.

What is made beside its place, or waits to be removed, has a name that nobody else uses: `.NAME.every-parameter-draft`
and `.NAME.every-parameter-old`.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from takehome.errors import InputError

MARKER, LOCK = ".every-parameter.json", ".every-parameter.lock"
DRAFT, OLD = ".every-parameter-draft", ".every-parameter-old"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Marker:
    """What a folder of ours is: `kind` in a word or two, and once it is whole its files {path: [bytes, SHA-256]}."""

    kind: str
    files: dict[str, tuple[int, str]] | None = None


# --- What is ours, and what is whole -------------------------------------------------------------


def read_marker(folder: Path) -> Marker | None:
    """The marker of a folder; None if there is none that can be read, or the folder is a link to another."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if found.keys() != {"kind", "files"}:
            return None
        files = found["files"]
        if files is not None:
            files = {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()}
        return Marker(str(found["kind"]), files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def blank(folder: Path) -> bool:
    """Whether a folder holds nothing but a marker that a kill left half-written."""
    return not folder.is_symlink() and folder.is_dir() and all(map(half_written, folder.iterdir()))


def half_written(path: Path) -> bool:
    """Whether it has the name that `write_file` gives to a file before it is complete."""
    return path.name.startswith(".") and path.name.endswith(DRAFT)


def claim(folder: Path, kind: str) -> Path:
    """Makes a folder and marks it as ours; a folder that is ours already, or empty, is taken as it is.

    Raises:
        InputError: something is in the way that no program of ours made.
    """
    marker = read_marker(folder)
    if marker and marker.kind == kind:
        return folder
    if marker:
        raise InputError(f"{folder} is in the way: it holds a {marker.kind}, not a {kind}; move it, or name another")
    if folder.is_symlink() or (folder.exists() and not blank(folder)):
        raise InputError(f"{folder} is in the way, and was not made by this program: move it, or name another place")
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / MARKER, json.dumps(asdict(Marker(kind))))
    return folder


def seal(folder: Path) -> None:
    """Declares a folder of ours complete: digests of all its files go into its marker, and all reaches the disk."""
    marker = read_marker(folder)
    if marker is None:
        raise InputError(f"{folder} is not a folder of this program: its {MARKER} is missing or cannot be read")
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MARKER and path.name != LOCK:
            files[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest(path))
        sync(path)
    write_file(folder / MARKER, json.dumps(asdict(Marker(marker.kind, files)), indent=1))
    sync(folder)


def damage(folder: Path) -> str:
    """What is wrong with a folder that was sealed, in a few words; an empty string if it is whole."""
    marker = read_marker(folder)
    if marker is None:
        return f"{MARKER} is missing or cannot be read"
    if marker.files is None:
        return "was not written to its end"
    for name, (size, expected) in marker.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        try:
            if digest(path) != expected:
                return f"{name} was changed or damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def foreign(folder: Path) -> list[str]:
    """Files below a sealed folder of ours that were not in it when it was sealed."""
    marker = read_marker(folder)
    known = {MARKER, LOCK, *((marker and marker.files) or ())}
    found = (path for path in folder.rglob("*") if path.is_symlink() or not (path.is_dir() or half_written(path)))
    return sorted({path.relative_to(folder).as_posix() for path in found} - known)


def remove(folder: Path) -> None:
    """Removes a folder of ours. The marker goes last, so that a kill leaves a folder that is still known as ours.

    Raises:
        InputError: it is not ours, or somebody put a file into it after it was sealed.
    """
    marker = read_marker(folder)
    if marker is None and not blank(folder):
        raise InputError(f"{folder} was not made by this program and is left alone: move it, or name another place")
    if marker and marker.files is not None and (others := foreign(folder)):
        raise InputError(f"{folder} holds {others[0]}, which this program did not write: move it away first")
    doomed = folder if hidden(folder) else old_of(folder)
    if doomed != folder:  # under its own name there is never half of it
        if doomed.is_symlink() or doomed.exists():
            remove(doomed)
        folder.rename(doomed)
    if marker and marker.files is not None:
        write_file(doomed / MARKER, json.dumps(asdict(Marker(marker.kind))))
    for path in doomed.iterdir():
        if path.name != MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (doomed / MARKER).unlink(missing_ok=True)
    doomed.rmdir()


def hidden(folder: Path) -> bool:
    """Whether it has a name of the kind that only these programs give."""
    return folder.name.startswith(".") and folder.name.endswith((OLD, DRAFT))


# --- Whole or not at all -------------------------------------------------------------------------


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file, or a directory's list of files, has reached the disk."""
    if path.is_dir():
        if os.name == "nt":
            return  # Windows has no such thing
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)  # Windows syncs no file that is open for reading only
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no sync of a directory
            raise
    finally:
        os.close(descriptor)


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    draft = draft_of(path)
    data = content.encode() if isinstance(content, str) else content
    draft.unlink(missing_ok=True)  # of a kill; and what is written goes through no link
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def draft_of(final: Path) -> Path:
    """Where a folder or file is made before it takes its place."""
    return final.with_name(f".{final.name}{DRAFT}")


def old_of(final: Path) -> Path:
    """Where a folder waits to be removed."""
    return final.with_name(f".{final.name}{OLD}")


def begin(final: Path, kind: str) -> Path:
    """Makes an empty draft of the folder `final`; what a kill left of an earlier one is removed."""
    recover(final)
    return claim(draft_of(final), kind)


def finish(final: Path) -> None:
    """Seals the draft of `final` and puts it into its place; a folder of ours that is there is replaced.

    Raises:
        InputError: what is there is not ours, of another kind, or was changed or added to.
    """
    draft, old = draft_of(final), old_of(final)
    seal(draft)
    if final.is_symlink() or final.exists():
        refuse_to_replace(final, read_marker(draft).kind)
        if blank(final):
            remove(final)
        else:
            final.rename(old)
    draft.rename(final)
    sync(final.parent)
    if old.exists():
        remove(old)


def refuse_to_replace(final: Path, kind: str) -> None:
    """Raises InputError if a folder of this kind could not take this place without loss of what is not ours."""
    if final.is_symlink() or (final.exists() and not final.is_dir()) or os.path.ismount(final):
        there = "a link" if final.is_symlink() else "a mount point" if final.is_dir() else "a file"
        raise InputError(f"{final} is {there}: name a new directory")
    if not final.is_dir() or blank(final):
        return
    if (marker := read_marker(final)) is None:
        raise InputError(f"{final} holds other things: name a new directory")
    if marker.kind != kind:
        raise InputError(f"{final} holds a {marker.kind}: name another directory")
    if others := foreign(final):
        raise InputError(f"{final} holds {others[0]}, which this program did not write: move it away first")
    if change := damage(final):  # somebody may have worked on it
        raise InputError(f"{final} is not as it was written: {change}. Move it away, or name another directory")


def recover(final: Path) -> None:
    """Puts right what a kill left of a folder: a draft is removed, a folder that was to be replaced comes back.

    Raises:
        InputError: something that is not ours has one of these names.
    """
    old = old_of(final)
    if old.is_symlink() or old.exists():
        marker = read_marker(old)
        if marker and marker.files is not None and not final.exists():
            old.rename(final)
        else:
            remove(old)
    draft = draft_of(final)
    if draft.is_symlink() or draft.exists():
        remove(draft)


def sweep(folder: Path) -> None:
    """Puts right what a kill left of anything in a folder."""
    for path in folder.glob(".*.every-parameter-*"):
        if hidden(path) and not path.is_file():
            recover(folder / path.name[1:].rpartition(".every-parameter-")[0])


# --- Checkpoints of a run ------------------------------------------------------------------------


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of ours below a folder, the newest last, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name) and read_marker(path)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(CHECKPOINT.fullmatch(checkpoint.name)[1])


def newest_whole(folder: Path, say: Callable[[str], None], wrong: Callable[[Path], str] = damage) -> Path | None:
    """The newest checkpoint that is whole; each newer one is passed over with a line.

    Args:
        folder: of the run.
        say: is told what is passed over.
        wrong: says in a few words why one cannot be gone on from; an empty string if it can.

    Returns:
        None if there is none to go on from, and none was damaged after it was written.

    Raises:
        InputError: there are checkpoints, and none of them is whole.
    """
    named = (path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name))
    there = [path for path in named if path.is_dir() and not path.is_symlink() and not blank(path)]
    reasons = []
    for path in sorted(there, key=step_of, reverse=True):  # also those whose marker is gone
        if not (reason := wrong(path)):
            return path
        say(f"{path} is passed over: {reason}")
        marker = read_marker(path)
        if marker is None or marker.files is not None:
            reasons.append(f"{path.name}: {reason}")
    if reasons:
        raise InputError(
            f"no checkpoint in {folder} is whole ({reasons[0]}): bring it back from a copy, or begin again with "
            "--overwrite"
        )
    return None


def remove_checkpoints(
    folder: Path,
    newest: int,
    say: Callable[[str], None],
    reached: float = math.inf,
    keep: Callable[[Path], Path | None] = lambda path: None,
) -> None:
    """Removes all checkpoints of ours but the newest ones; one that somebody put a file into stays, with a line.

    Args:
        folder: of the run.
        newest: so many stay.
        say: is told what stays against the rule.
        reached: the step of the run; what claims a later one was passed over when the run went on, and goes as well.
        keep: names another checkpoint that one of those needs, such as the best so far.
    """
    found = checkpoints(folder)
    past = [path for path in found if step_of(path) <= reached]
    kept = past[max(0, len(past) - newest) :]
    kept += [path for other in kept if (path := keep(other))]
    for path in (path for path in found if path not in kept):
        try:
            remove(path)
        except InputError as reason:
            say(str(reason))


@contextlib.contextmanager
def only_one_run(folder: Path) -> Iterator[None]:
    """Keeps a second run out of a folder, on every system, until the block or the process ends.

    Raises:
        InputError: another run is there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as cause:
        raise InputError(f"another run writes to {folder}: wait for it, or name another --output-dir") from cause
    try:
        yield
    finally:
        lock.release()
