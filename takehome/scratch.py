"""Folders for copies of a user's data, which go with the program however it ends."""

import atexit
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from takehome.checkpoints import LOCK, MARKER, claim, read_marker, remove
from takehome.errors import InputError

PREFIX, KIND = "every-parameter-table-", "copy of a table"
YOUNG = 60  # seconds in which a folder may be made, but not locked yet
_folders: dict[Path, tuple[int, FileLock | None]] = {}  # to be removed in the end, by the process with this id


@contextmanager
def scratch_folder(parent: str | os.PathLike | None) -> Iterator[Path]:
    """A new folder in `parent` that stays if the block succeeds; without one, a temporary one that ends with Python.

    Whatever goes wrong in the block, the folder is removed. SIGTERM and SIGHUP remove it before they end the process
    (unless the program handles them itself). What a kill -9 leaves in the temporary directory, the next call removes.
    """
    if parent is None:
        folder = _temporary_folder()
    else:
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="table-", dir=parent))
        _folders[folder] = os.getpid(), None
    _watch_signals()
    try:
        yield folder
    except BaseException:
        _remove(folder)
        raise
    if parent is not None:
        _folders.pop(folder, None)


def _temporary_folder() -> Path:
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = FileLock(folder / LOCK)
    _folders[folder] = os.getpid(), lock
    claim(folder, KIND)
    with suppress(OSError, NotImplementedError):  # a file system without locks: nobody else gets one either
        lock.acquire(blocking=False)
    return folder


def _remove_abandoned(place: Path) -> None:
    """Removes folders of ours whose process is gone: they are marked, nobody holds their lock, and they are not new."""
    for folder in place.glob(f"*{PREFIX}*"):
        with suppress(OSError, InputError, NotImplementedError):
            marker = read_marker(folder)
            if not marker or marker.kind != KIND or time.time() - (folder / MARKER).stat().st_mtime < YOUNG:
                continue
            lock = FileLock(folder / LOCK)
            lock.acquire(blocking=False)  # Timeout, an OSError, if its process lives
            try:
                remove(folder)
            finally:
                lock.release()


def _remove(folder: Path) -> None:
    owner, lock = _folders.get(folder, (None, None))
    if owner == os.getpid():  # not in a process that was forked
        del _folders[folder]
        shutil.rmtree(folder, ignore_errors=True)
        if lock:
            lock.release()


def _remove_all() -> None:
    for folder in list(_folders):
        _remove(folder)


def _end(number: int, frame) -> None:
    _remove_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _watch_signals() -> None:
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)


atexit.register(_remove_all)
