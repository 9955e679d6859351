"""Command lines that all programs share: numbers with bounds, errors in one line, an end that loses nothing."""

import argparse
import contextlib
import gc
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from helpers.profiles import ProfileError
from takehome.checkpoints import read_marker
from takehome.errors import InputError, explain_limits, one_line


class Parser(argparse.ArgumentParser):
    """Tells a wrong option as an InputError; no option may be shortened."""

    def __init__(self, **settings):
        super().__init__(**settings, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        raise InputError(f"{one_line(message)} (--help lists all options)")


def number(kind: type, low: float = -math.inf, high: float = math.inf, above: bool = False) -> Callable:
    """The type of an option that takes a number from `low` to `high`, or above `low`; never nan or infinity.

    Args:
        kind: int or float.
        low: the least value; with `above`, the value is above it.
        high: the greatest value.
        above: whether `low` itself is out of range.
    """

    def parse(text: str):
        value = kind(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is no finite number")
        if value > high or value < low or (above and value == low):
            least = f"above {low:g}" if above else f"at least {low:g}"
            most = f", at most {high:g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} is out of range: {least}{most}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"  # argparse names it where the text is no number
    return parse


class Stopped(Exception):
    """A signal asked the program to stop. `status` is the exit status."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class StopSignals:
    """Within `with`, Ctrl-C, SIGTERM and SIGHUP set `asked`: the step ends, a checkpoint is written. A second one
    of them ends the program at once, but not under a launcher: that sends one to each process after the terminal did,
    and ends those that take too long.

    Use it in the main thread. After the checkpoint: `raise Stopped(signals.asked)`.
    """

    def __init__(self, say: Callable[[str], None] = print):
        self.asked, self.say, self.before = 0, say, {}
        self.launched = "LOCAL_RANK" in os.environ

    def __enter__(self) -> "StopSignals":
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored
                self.before[number] = signal.signal(number, self.ask)
        return self

    def ask(self, number: int, frame) -> None:
        first, self.asked = not self.asked, self.asked or number
        if not self.launched:
            self.restore()
        if first:
            more = "" if self.launched else "; once more stops at once"
            with contextlib.suppress(RuntimeError):  # the signal came while something was printed
                self.say(f"{signal.Signals(number).name}: stopping after this step{more}")

    def restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def __exit__(self, *_) -> None:
        self.restore()


@contextlib.contextmanager
def stopped_by_signals():
    """Within `with`, SIGTERM and SIGHUP raise Stopped, as Ctrl-C raises KeyboardInterrupt, so that all is tidied up."""

    def stop(number: int, frame):
        raise Stopped(number)

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_program(
    name: str,
    program: Callable[[], None],
    output: Callable[[], Path | None],
    kept: Callable[[], str] | None = None,
    keep_traceback: bool = False,
) -> int:
    """Runs a program and tells in one line what ended it.

    Args:
        name: of the program.
        program: raises InputError, ProfileError, Stopped, or what nobody thought of.
        output: where it writes, once that is known.
        kept: says what is left after a stop; without it the program has told of the stop itself.
        keep_traceback: whether the output, if it is ours, keeps the traceback of what nobody thought of.

    Returns:
        The exit status: 0, 2 for what the user has to change, 1 for what nobody thought of, 128 and the number of
        the signal for a stop.
    """
    rank = os.environ.get("RANK", "0")
    who = f"process {rank} of {os.environ.get('WORLD_SIZE', '?')}: " if "LOCAL_RANK" in os.environ else ""
    try:
        with stopped_by_signals():
            program()
        leave_processes()
        return 0
    except (Stopped, KeyboardInterrupt) as stop:
        status = getattr(stop, "status", 128 + signal.SIGINT)
        said = "interrupted" if status == 128 + signal.SIGINT else f"stopped by {stop}"
        if rank != "0" or (isinstance(stop, Stopped) and not kept):  # one process speaks for all
            return status
        said = f"{said}; {kept()}" if kept else said
    except (InputError, ProfileError) as error:
        status, said = 2, one_line(error, 2000)
    except Exception as error:
        status, said = 2, explain_limits(error, output() or Path.cwd())
        if said and kept:
            said = f"{said}; {kept()}"
        elif not said:
            if not keep_traceback or output() is None or read_marker(output()) is None:
                raise
            trace = output() / f"traceback-{rank}.txt"
            trace.write_text(traceback.format_exc(), encoding="utf-8")
            status, said = 1, f"{type(error).__name__}: {one_line(error)} (see {trace})"
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(f"{name}: {who}{one_line(said, 2000)}", file=sys.stderr, flush=True)
    return status


def leave_processes() -> None:
    """Ends what torch.distributed holds, after everything that uses it is gone.

    DDP's Reducer holds it too. If that one went last, torch 2.13 could wait for ever: Python, busy with removing the
    Reducer, waits for gloo's thread, which waits for Python.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        gc.unfreeze()
        gc.collect()
        distributed.destroy_process_group()
