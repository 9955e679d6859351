"""Linux made to fail as Windows or macOS does: Python imports this at its start where this folder is in PYTHONPATH.

`AS_ON=windows` or `AS_ON=macos` says which. What these systems lack is missing for the project's own code, and what
they refuse raises the error that they raise; libraries go on as on Linux, since they have code of their own for each
system. Child processes inherit all this. It is no Windows: paths, rights, open files and line ends stay Linux's.
"""

import builtins
import errno
import io
import multiprocessing
import os
import select
import shutil
import signal
import sys
import types
from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
BETWEEN = ("pathlib.py", "tempfile.py", "sitecustomize.py")  # they open files in the name of somebody else

MISSING_MODULES = {"windows": {"resource", "fcntl", "grp", "pwd", "termios"}, "macos": set()}
LINUX_ALONE = "sched_getaffinity sched_setaffinity unshare setns posix_fadvise memfd_create pidfd_open O_TMPFILE"
MISSING_NAMES = {
    "windows": {
        os: f"{LINUX_ALONE} O_DIRECTORY O_NOFOLLOW fork forkpty geteuid getuid getegid getgid getpgid killpg setsid "
        "mkfifo statvfs wait3 wait4 WIFSIGNALED uname",
        signal: "SIGHUP SIGKILL SIGXFSZ SIGALRM SIGUSR1 SIGUSR2 SIGQUIT SIGPIPE alarm setitimer pthread_sigmask",
        select: "poll epoll",
    },
    "macos": {os: LINUX_ALONE},
}
OTHER_VALUES = {
    "windows": {os: {"name": "nt"}, sys: {"platform": "win32"}},
    "macos": {os: {}, sys: {"platform": "darwin"}},
}
MISSING_COMMANDS = ("unshare", "bwrap", "setpriv")  # no system but Linux has them


def is_ours(file: str) -> bool:
    """Whether a file is the project's, not a library's."""
    return file.startswith(ROOT) and "site-packages" not in file and not file.startswith(os.path.dirname(__file__))


def asked_by_us() -> bool:
    """Whether the project's own code called what calls this."""
    frame = sys._getframe(2)
    while frame.f_back and os.path.basename(frame.f_code.co_filename) in BETWEEN:
        frame = frame.f_back
    return is_ours(frame.f_code.co_filename)


def become(system: str) -> None:
    """Takes away what `system` lacks."""
    hide_modules(MISSING_MODULES[system])
    for module in (os, sys, signal, select):
        missing = set(MISSING_NAMES[system].get(module, "").split())
        change_names(module, missing, OTHER_VALUES[system].get(module, {}))
    which = shutil.which
    shutil.which = lambda name, *more, **named: None if name in MISSING_COMMANDS else which(name, *more, **named)
    if system == "windows":
        start_by_spawning_alone()
        refuse_as_windows_does()
        read_and_write_cp1252()


def hide_modules(hidden: set[str]) -> None:
    """Lets our imports of these modules fail."""
    real = builtins.__import__

    def checked(name, globals=None, *more, **named):
        if name in hidden and is_ours((globals or {}).get("__file__") or ""):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, *more, **named)

    builtins.__import__ = checked


class Real(str):
    """The value that this system has itself; what a test sets in its place is another object, though it be equal."""


def change_names(module: types.ModuleType, missing: set[str], other: dict[str, str]) -> None:
    """Makes our code find some names of a module missing, and others with other values."""

    here = {name: Real(getattr(module, name)) for name in other}
    for name, value in here.items():
        setattr(module, name, value)

    class Changed(types.ModuleType):
        def __getattribute__(self, name):
            if name in missing and is_ours(sys._getframe(1).f_code.co_filename):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            value = super().__getattribute__(name)
            if name in other and value is here[name] and is_ours(sys._getframe(1).f_code.co_filename):
                return other[name]  # unless a test has set it
            return value

    module.__class__ = Changed


def start_by_spawning_alone() -> None:
    """Processes can be started afresh, not forked."""
    real = multiprocessing.get_context

    def get_context(method=None):
        if method in ("fork", "forkserver") and asked_by_us():
            raise ValueError(f"cannot find context for {method!r}")
        return real("spawn" if method is None else method)

    multiprocessing.get_context = get_context
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    multiprocessing.set_start_method("spawn", force=True)


def refuse_as_windows_does() -> None:
    """A file is not renamed over another, no directory is opened or put in another's place, and only writers sync."""
    fsync, rename, replace, opened = os.fsync, os.rename, os.replace, os.open

    def checked_fsync(file):
        number = file if isinstance(file, int) else file.fileno()
        flags = Path(f"/proc/self/fdinfo/{number}").read_bytes().split(b"flags:")[1].split()[0]
        if int(flags, 8) & 0o3 == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(file)

    def checked_rename(source, target, **named):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
        rename(source, target, **named)

    def checked_replace(source, target, **named):
        if os.path.isdir(target):
            raise PermissionError(errno.EACCES, "Access is denied", str(target))
        replace(source, target, **named)

    def checked_open(path, *more, **named):
        if not isinstance(path, int) and os.path.isdir(path) and asked_by_us():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *more, **named)

    os.fsync, os.rename, os.replace, os.open = checked_fsync, checked_rename, checked_replace, checked_open


def read_and_write_cp1252() -> None:
    """A text file that our code opens without naming an encoding is read and written in Western Europe's old one."""
    real = io.open

    def checked(file, mode="r", buffering=-1, encoding=None, *more, **named):
        if encoding in (None, "locale") and "b" not in mode and asked_by_us():
            encoding = "cp1252"
        return real(file, mode, buffering, encoding, *more, **named)

    builtins.open = io.open = checked


if system := os.environ.get("AS_ON"):
    become(system)
