"""A Python program in a process that it cannot leave, with limits, and questions to it as lines of JSON.

On Linux the process sees nothing but Python, what it is shown and an empty scratch folder, has no network, and takes
all that it started with it when it ends (`isolation.py`). Elsewhere it is an ordinary process: it is ended in time, and
what it started too, as far as we can find it, but it may read and write what you may.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from isolation import NOBODY, SCRATCH, Plan

TOOLS = Path(__file__).resolve().parent
PROJECT = TOOLS.parent
INSIDE = ("exercise_runner.py", "crossing.py", "submissions.py")  # what of this folder runs in the sandbox
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
PR_SET_CHILD_SUBREAPER = 36
PASSWD = f"learner:x:{NOBODY}:{NOBODY}::{SCRATCH}:/bin/sh\n"  # some packages ask for their user
TICK = 0.1  # seconds between two looks at what a process uses
PATIENCE = 5.0  # seconds that a killed process may take to vanish

# In the sandbox an exercise may import `checks`, as its cell does, and finds nothing in it that knows an answer.
NO_CHECKS = "def __getattr__(name):\n    return lambda *_: None\n"


@dataclass(frozen=True)
class Limits:
    """What a process may use, with all that it starts."""

    seconds: float = 30.0
    memory: int = 2 << 30  # bytes in all
    address_space: int = 8 << 30  # bytes for each process: importing torch reserves several GB
    processes: int = 64  # threads count, too
    scratch: int = 64 << 20  # bytes written in all; without isolation for each file
    report: int = 4 << 20  # bytes of one answer


class Ended(BaseException):
    """The process will not answer any more; the message says why, in words for a table.

    No `Exception`, so that a check, which turns all of those into a verdict, lets it pass.
    """


class Sandbox:
    """A running program of `tools/`: `with Sandbox("exercise_runner.py", limits, True) as box: box.ask({...})`."""

    def __init__(self, script: str, limits: Limits, isolated: bool, hidden: tuple[Path, ...] = ()):
        self.script, self.limits, self.isolated, self.hidden = script, limits, isolated, hidden
        self.reason = ""  # why it was ended
        self.watching = threading.Event()
        self.thread = threading.Thread()

    def __enter__(self) -> Sandbox:
        self.folder = tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True)
        self.shared = shared_memory()
        if not self.isolated:
            self.before = {process.pid for process in descendants(os.getpid())}
            adopt_orphans()
        self.deadline = time.monotonic() + self.limits.seconds
        self.process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder.name,
            env=self._environment(),
            start_new_session=True,
        )
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.watching.set()
        self._end("")
        self.process.poll()
        if not self.thread.is_alive():  # otherwise something that we could not end still holds the pipe
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()
        self.folder.cleanup()

    def ask(self, question: dict) -> dict:
        """Sends one line and waits for the answer.

        Raises:
            Ended: there is none, or none of the form {...} within the limits.
        """
        lines = []
        self.thread = threading.Thread(target=lambda: lines.append(self._exchange(question)), daemon=True)
        self.thread.start()
        self.thread.join(max(0.0, self.deadline - time.monotonic()) + PATIENCE)
        line = lines[0] if lines else b""
        if len(line) > self.limits.report:
            self._end("too much output")
        if not line.endswith(b"\n"):
            self.process_ended()
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Ended("crash")
        return answer

    def process_ended(self) -> None:
        """Raises Ended with the reason, once it is known."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2 * TICK)  # the watcher may be about to say why
        raise Ended(self.reason or "crash")

    def _exchange(self, question: dict) -> bytes:
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
            return self.process.stdout.readline(self.limits.report + 1)
        return b""

    def _watch(self) -> None:
        """Ends the process when it passes a limit."""
        while not self.watching.wait(TICK):
            try:
                members = self._members()
                memory = sum(map(resident, members)) + max(0, shared_memory() - self.shared)
            except OSError:  # a process ended while we looked at it
                continue
            if memory > self.limits.memory:
                self._end("too much memory")
            elif sum(map(threads, members)) > 2 * self.limits.processes:
                self._end("too many processes")
            elif time.monotonic() > self.deadline:
                self._end("over time")

    def _members(self) -> list[psutil.Process]:
        """The process and all that it started; without isolation also what has moved away, if it came to us."""
        if self.isolated:
            return [*alive(self.process.pid), *descendants(self.process.pid)]
        return [process for process in descendants(os.getpid()) if process.pid not in self.before]

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        until = time.monotonic() + PATIENCE
        while (members := self._members()) and time.monotonic() < until:
            for member in members:  # the init of the namespace is among them, and takes the rest with it
                with contextlib.suppress(psutil.Error):
                    member.kill()
            if hasattr(os, "killpg"):
                with contextlib.suppress(OSError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            psutil.wait_procs(members, timeout=TICK)

    def _command(self) -> list[str]:
        command = [sys.executable, "-P", "-s", str(TOOLS / self.script)]
        if os.name != "posix":
            return command
        steps = steps_to_show(self.hidden) if self.isolated else []
        limits = self.limits
        plan = Plan(
            command,
            self._environment(),
            self.isolated,
            self.folder.name,
            steps,
            limits.scratch,
            limits.address_space,
            limits.processes,
        )
        return [sys.executable, "-I", "-S", str(TOOLS / "isolation.py"), json.dumps(plan._asdict())]

    def _environment(self) -> dict[str, str]:
        """All that a submission learns of the environment."""
        scratch = SCRATCH if self.isolated else self.folder.name
        kept = {key: value for key, value in os.environ.items() if key == "SYSTEMROOT"}
        kept |= {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "learner", "HOME": scratch, "TMPDIR": scratch}
        kept |= {"PYTHONPATH": f"{PROJECT}{os.pathsep}{TOOLS}", "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg"}
        kept |= {"FINETUNING_PROFILE": "reduced", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        return kept | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def steps_to_show(hidden: tuple[Path, ...]) -> list[list[str]]:
    """What a submission sees: the system's programs, Python, our helpers without the checks, and the data."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    python = [sys.prefix, sys.base_prefix, Path(sys._base_executable).parent.parent, *packages]
    ours = [PROJECT / "helpers", PROJECT / "data", *(TOOLS / name for name in INSIDE)]
    shown = {os.path.abspath(path) for path in [*python, *ours]}
    shown |= {os.path.realpath(path) for path in shown}
    checks = PROJECT / "helpers" / "checks"
    home = Path(os.path.expanduser("~"))
    covered = {PROJECT, checks, home, *map(Path.absolute, hidden), *map(Path.resolve, hidden)}
    steps = [["show", path] for path in {*shown, *SYSTEM, str(checks / "judging.py")} if os.path.lexists(path)]
    steps += [["hide", str(path)] for path in covered if path.is_absolute()]  # what lies in something that is shown
    steps += [["write", str(checks / "__init__.py"), NO_CHECKS], ["write", "/etc/passwd", PASSWD]]
    return sorted(steps, key=lambda step: (len(Path(step[1]).parts), step))  # a folder before what is in it


def isolation_problem() -> str:
    """Why submissions cannot be isolated here, found by trying; "" where they can."""
    if sys.platform != "linux":
        return "only Linux has the means"
    with Sandbox("exercise_runner.py", Limits(seconds=20), isolated=True) as box:
        try:
            box.ask({"cells": [], "name": "nothing"})
        except Ended as ended:
            box.process.kill()
            said = box.process.stderr.read().decode(errors="replace").strip()
            return said.splitlines()[-1] if said else f"a trial ended: {ended}"
    return ""


def alive(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [] if process.status() == psutil.STATUS_ZOMBIE else [process]
    except psutil.Error:
        return []


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def threads(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.Error:
        return 0


def shared_memory() -> int:
    """Bytes of memory that belong to no process, such as an open memfd; 0 where the system does not say."""
    return getattr(psutil.virtual_memory(), "shared", 0)


def adopt_orphans() -> None:
    """On Linux, what a submission leaves behind becomes a child of ours, which we can find and end."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
