"""What a user has to change, in one line: the error of all programs, and how other errors are told."""

import re
import shutil
from pathlib import Path

# How the operating system, Arrow, safetensors and torch say that the disk is full, or a file as long as it may be.
FULL_DISK = re.compile(r"No space left|File too large|quota exceeded|os error (27|28)\b|inline_container", re.I)


class InputError(Exception):
    """Something the user gave cannot be used; the message says in one line what it is and what to do."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text with escapes for what would break the line or control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, most: int = 300) -> str:
    """A text of unknown origin on one line, without terminal codes, cut after `most` characters."""
    line = printable(" ".join(str(text).split()))
    if not line and isinstance(text, BaseException):
        line = type(text).__name__
    return line if len(line) <= most else line[: most - 1] + "…"


def explain_limits(error: BaseException, output: Path) -> str | None:
    """Says which limit of the machine was met: a full disk or a full memory; None if it was neither.

    Args:
        error: what was raised while the program wrote below `output`, or trained.
        output: where the program writes; its disk is looked at.
    """
    if FULL_DISK.search(str(error)):
        there = next(folder for folder in [output, *output.absolute().parents] if folder.exists())
        free = shutil.disk_usage(there).free / 1e6
        return f"{output} could not be written, {free:,.0f} MB are free there: make room"
    if out_of_memory(error):
        return (
            "out of memory: halve --per-device-train-batch-size and double --gradient-accumulation-steps, shorten the "
            "texts, or add --activation-checkpointing"
        )
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a device did not suffice."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or "can't allocate memory" in str(error)  # torch on a CPU
