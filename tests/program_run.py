"""A program under test, in one process or several, each forked from a warm one: killed, signalled, listed, compared."""

import hashlib
import importlib
import itertools
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import warm

from takehome.checkpoints import checkpoints, damage

NUMBERS = itertools.count()  # each run has an output of its own


def prepare(environment: dict[str, str], output: str | Path, change: tuple | None = None) -> None:
    """In the new process, before the program: its environment, where it writes, and what is changed in it."""
    import torch

    os.environ.update(environment)
    warm.write_to(output)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell leaves them, whatever the tests are run by
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if change:
        change[0](*change[1:])


def child(
    program: str, words: list[str], environment: dict[str, str], output: str, change: tuple | None, forecast: bool
) -> None:
    prepare(environment, output, change)
    if not forecast:
        from takehome import planning

        planning.calibrate = lambda **_: 1e9
    status = importlib.import_module(program).main(words)
    if status:
        sys.exit(status)


def tell_what_is_left() -> None:
    """In the new process: says how many DDP models there still are when the processes leave each other."""
    import gc

    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    leave = distributed.destroy_process_group

    def leave_and_tell(*arguments) -> None:
        left = [thing for thing in gc.get_objects() if isinstance(thing, DistributedDataParallel)]
        print(f"\nmodels left: {len(left)}", flush=True)
        leave(*arguments)

    distributed.destroy_process_group = leave_and_tell


def slow_steps(seconds: float) -> None:
    """In the program's process: each step takes so long at least, so that a kill or a signal comes before the end."""
    from takehome.accelerator import SharedStop

    after_step = SharedStop.after_step
    SharedStop.after_step = lambda self: time.sleep(seconds) or after_step(self)


class Run:
    """A program, started in one or more processes as torchrun would.

    Args:
        program: name of its module.
        folder: its --output-dir.
        words: its command line.
        processes: how many.
        change: a function and its arguments, called in the new process before the program.
        environment: beside what a launcher sets.
        forecast: whether the machine's speed is measured, which takes half a second, to say how long it will take.
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        *words,
        processes: int = 1,
        change: tuple | None = None,
        environment: dict[str, str] | None = None,
        forecast: bool = False,
    ):
        self.folder, self.output = Path(folder), Path(f"{folder}.{next(NUMBERS)}.out")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told, self.processes = [*map(str, words), f"--output-dir={folder}"], []
        for rank in range(processes):
            around = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | (environment or {})
            if processes > 1:
                meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
                meeting |= {"LOCAL_WORLD_SIZE": str(processes)}  # else each would take all cores
                around |= meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            given = (program, told, around, str(self.output), change, forecast)
            self.processes.append(warm.context.Process(target=child, args=given, daemon=True))
            self.processes[-1].start()

    def wait(self, until: Callable[[], object] | None = None, seconds: float = 240) -> None:
        """Waits for the end, or until something is true."""
        end = time.monotonic() + seconds
        while any(process.is_alive() for process in self.processes) and not (until and until()):
            assert time.monotonic() < end, f"still running after {seconds} s:\n{self.text}"
            time.sleep(0.005)

    def kill(self) -> bool:
        """SIGKILL to all processes; returns whether they were still there."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        return {process.exitcode for process in self.processes} == {-signal.SIGKILL}

    def send(self, number: int) -> None:
        for process in self.processes:
            os.kill(process.pid, number)

    def finish(self) -> "Run":
        self.wait()
        assert self.statuses == [0] * len(self.processes), self.text
        return self

    @property
    def statuses(self) -> list[int]:
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def refusal(self, status: int = 2) -> str:
        """Waits for the program to refuse; returns what it says, which is one line and no traceback."""
        self.wait()
        assert self.statuses[0] == status, self.text
        assert "Traceback" not in self.text, self.text
        said = [line for line in self.text.splitlines() if ".py: " in line]
        assert said, self.text
        return said[-1].partition(".py: ")[2]

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace") if self.output.exists() else ""


def kill_at_random_moments(start: Callable[[], Run], ready: str, seconds: float, kills: int, seed: int) -> int:
    """Starts the same run again and again, and kills it at any moment after it said `ready`.

    Returns:
        How many kills there were; fewer than asked for if the run came to its end before.
    """
    rng = random.Random(seed)
    for number in range(kills):
        run = start()
        run.wait(until=lambda run=run: ready in run.text)
        time.sleep(rng.uniform(0, seconds))
        if not run.kill():
            return number
        assert all(damage(path) == "" for path in checkpoints(run.folder))
    return kills


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, with digests."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


# --- Damage --------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def missing(path: Path) -> None:
    path.unlink()


def pickled(path: Path) -> None:
    """Puts a pickle there that leaves a file behind if somebody loads it."""
    import pickle

    path.write_bytes(pickle.dumps(Payload(path.parent.parent / "executed")))


class Payload:
    """Unpickled, it makes a directory."""

    def __init__(self, trace: Path):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def pickled_by_torch(path: Path) -> None:
    import torch

    torch.save(Payload(path.parent.parent / "executed"), path)


DAMAGES = [empty, cut, zeros, flip, missing, pickled]
