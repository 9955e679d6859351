"""Checks the exercises of a whole room: one line for each submitted notebook, one column for each exercise.

    python tools/check_exercises.py notebooks/02_imdb_gpt2_classifier.ipynb submitted/

or `make check-exercises NOTEBOOK=notebooks/02_imdb_gpt2_classifier.ipynb SUBMITTED=submitted`. Which exercises there
are, and what checks them, comes from our notebook, never from the submitted one. Of that only what the exercises
need is run: their functions, and the imports and definitions that these use. So a lesson that trains for a minute is
checked in seconds, and a cell that somebody broke elsewhere does no harm.

Submitted code is a stranger's code. The checks and the right answers stay in this process, which it never enters: a
check calls a stand-in, which sends the arguments to a process in a sandbox (`sandbox.py`), one for each exercise of
each notebook, and brings the answer back as plain values (`crossing.py`). Files are read in a sandbox, too.

The exit code is 0 when the table was made, whatever it says, and 2 for bad input or a system that cannot isolate.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from crossing import Malformed, decode, encode
from sandbox import Ended, Limits, Sandbox, isolation_problem
from submissions import SubmissionError, exercises, read

from helpers import checks

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WIDEST = 100  # characters of a name, a remark or a sentence of somebody else's
WITHOUT = """\
WITHOUT ISOLATION: {problem}.
Submitted code may now read, change and delete what you may, use the network, and change what this program says.
It is ended after its time, but may leave something running. Use an account or a machine that has nothing to lose."""


@dataclass(frozen=True)
class Room:
    """What is the same for all notebooks of a room."""

    wanted: dict[str, str]  # check: the name of the function that it wants
    lessons: dict[str, set[str]]  # file name of each lesson of ours: the functions that its exercises want
    submitted: Path
    limits: Limits
    isolated: bool
    deadline: float  # of time.monotonic(), for all of them


@dataclass
class Row:
    """One line of the table."""

    name: str
    answers: dict[str, str] = field(default_factory=dict)  # check: one or two words
    sentences: dict[str, str] = field(default_factory=dict)  # check: what the check says
    remark: str = ""
    digest: str = ""  # the same for copies; "" where nothing was started


def printable(text: str, width: int = WIDEST) -> str:
    """A text of somebody else's for one cell of a table: no control codes, no line breaks, no gap like a new column."""
    text = re.sub(" {2,}", " ", text)
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text[:width])
    return safe if len(text) <= width and len(safe) <= width else safe[: width - 1] + "…"


class StandIn:
    """The submitted function as a check sees it: a call that goes to the sandbox and comes back as plain values."""

    def __init__(self, box: Sandbox, name: str):
        self.box, self.__name__, self.arguments_after = box, name, ()

    def __call__(self, *arguments):
        answer = self.box.ask({"arguments": [encode(each, strict=True) for each in arguments]})
        if isinstance(answer.get("failed"), str):
            raise checks.Failed(answer["failed"])
        stop_at_error(answer)
        try:
            after = [decode(form) for form in answer["arguments"]]
            if len(after) != len(arguments):
                raise Malformed("arguments are missing")
            self.arguments_after = after
            return decode(answer["answer"])
        except (Malformed, KeyError, TypeError, RecursionError):
            raise Ended("crash") from None


def stop_at_error(answer: dict) -> None:
    """Raises Ended if the process says that the submitted code ended it."""
    if "error" in answer:
        kind = answer["error"]
        named = isinstance(kind, str) and kind.isidentifier() and kind.isascii() and len(kind) < 40
        raise Ended(f"crash ({kind})" if named else "crash")


def try_exercise(room: Room, check: str, cells: list) -> tuple[str, str]:
    """Runs one exercise in a sandbox of its own; returns a word for the table and the sentence of the check."""
    seconds = min(room.limits.seconds, room.deadline - time.monotonic())
    if seconds <= 0:
        return "no time left", ""
    limits, name = Limits(**{**vars(room.limits), "seconds": seconds}), room.wanted[check]
    try:
        with Sandbox("exercise_runner.py", limits, room.isolated, (room.submitted,)) as box:
            answer = box.ask({"cells": cells, "name": name})
            stop_at_error(answer)
            verdict = getattr(checks, check)(StandIn(box, name) if answer.get("callable") is True else None)
    except Ended as ended:
        return str(ended), ""
    first = verdict.sentence.split(":")[0]
    return "right" if verdict.passed else "not started" if first == checks.NOT_STARTED else "wrong", verdict.sentence


def check_notebook(path: Path, room: Room) -> Row:
    """One line of the table. Whatever the file is, there is one."""
    row = Row(printable(str(path.relative_to(room.submitted))))
    try:
        question = {"notebook": read(path), "wanted": list(room.wanted.values())}
        with Sandbox("submissions.py", room.limits, room.isolated, (room.submitted,)) as box:
            found = box.ask(question)
    except SubmissionError as error:
        row.remark = printable(str(error))
        return row
    except Ended as ended:
        row.remark = f"cannot be parsed ({ended})"
        return row
    if "problem" in found:
        row.remark = printable(found["problem"])
        return row
    cells, defined, broken = found["cells"], found["defined"], list(map(printable, found["broken"]))
    lesson = other_lesson(set(defined), room)
    if lesson or not cells:
        nothing = f"another lesson: {lesson}" if lesson else "none of this lesson's exercises in it"
        row.remark = "; ".join([nothing, *broken])
        return row
    for check, name in room.wanted.items():
        row.answers[check], row.sentences[check] = "missing", ""
        if name in cells:
            row.answers[check], row.sentences[check] = try_exercise(room, check, cells[name])
    twice = [name for name in room.wanted.values() if defined.get(name, 0) > 1]
    remarks = [f"more than one {', '.join(twice)}: the last one counts"] if twice else []
    row.remark = "; ".join(remarks + broken if "missing" in row.answers.values() else remarks)
    if any(answer not in ("missing", "not started") for answer in row.answers.values()):
        row.digest = found["digest"]
    return row


def other_lesson(defined: set[str], room: Room) -> str | None:
    """The lesson of ours, if any, whose exercises a notebook has more of than of the one it is checked for."""
    hits = {name: len(defined & wanted) for name, wanted in room.lessons.items()}
    best = max(hits, key=hits.get)
    return best if hits[best] > len(defined & set(room.wanted.values())) else None


def table(rows: list[Row], wanted: dict[str, str]) -> str:
    """The table as text: a line for each notebook, its answers and a remark."""
    header = ["notebook", *wanted.values(), "remark"]
    lines = [[row.name, *(row.answers.get(check, "-") for check in wanted), row.remark] for row in rows]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in [header, *lines])


def sentences(rows: list[Row], wanted: dict[str, str]) -> list[str]:
    """What the checks say about the answers that are not right, as the learners would read it."""
    return [
        f"{row.name}: {name}: {printable(row.sentences[check], 4 * WIDEST)}"
        for row in rows
        for check, name in wanted.items()
        if row.sentences.get(check) and row.answers[check] != "right"
    ]


def find_files(folder: Path) -> list[Path]:
    """All that is called a notebook, whatever it is; nothing behind links."""
    files = sorted(folder.rglob("*.ipynb")) if folder.is_dir() else []
    return [path for path in files if ".ipynb_checkpoints" not in path.parts]


def check_room(files: list[Path], room: Room) -> list[Row]:
    rows, seen = [], {}
    for number, path in enumerate(files, 1):
        start = time.monotonic()
        try:
            row = check_notebook(path, room)
        except Exception as error:  # whatever it is, the room has other notebooks
            row = Row(printable(str(path.relative_to(room.submitted))))
            row.remark = f"cannot be checked ({type(error).__name__})"
        if row.digest in seen:
            row.remark = f"word for word as {seen[row.digest]}" + (f"; {row.remark}" if row.remark else "")
        elif row.digest:
            seen[row.digest] = row.name
        rows.append(row)
        print(f"{number}/{len(files)} {row.name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return rows


def positive(text: str) -> float:
    """A number of seconds or minutes from the command line."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time; give a number above 0")
    return number


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Checks the exercises of a room's notebooks.")
    parser.add_argument("notebook", type=Path, help="our lesson, such as notebooks/02_imdb_gpt2_classifier.ipynb")
    parser.add_argument("submitted", type=Path, help="the folder with the learners' notebooks, one file each")
    parser.add_argument("--seconds", type=positive, default=30, help="time limit for each exercise (30)")
    parser.add_argument("--minutes", type=positive, default=60, help="time limit for the whole room (60)")
    parser.add_argument("--sentences", action="store_true", help="also print what the checks say about wrong answers")
    parser.add_argument("--without-isolation", action="store_true", help="run submitted code even where it can do harm")
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may not fit the terminal's encoding
    try:
        wanted = exercises(args.notebook)
    except SubmissionError as error:
        print(f"{args.notebook}: {error}", file=sys.stderr)
        return 2
    files = find_files(args.submitted)
    if not wanted or not files:
        missing = f"{args.notebook}: no exercises in it" if not wanted else f"{args.submitted}: no .ipynb files there"
        print(missing, file=sys.stderr)
        return 2
    problem = isolation_problem()
    if problem and not args.without_isolation:
        print(
            f"Submitted code cannot be isolated here: {problem}. Nothing was run. Check the notebooks on Linux, "
            "or read about --without-isolation in INSTRUCTOR.md.",
            file=sys.stderr,
        )
        return 2
    if problem:
        print(WITHOUT.format(problem=problem), file=sys.stderr)
    lessons = {path.name: set(exercises(path).values()) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    deadline = time.monotonic() + 60 * args.minutes
    room = Room(wanted, lessons, args.submitted, Limits(seconds=args.seconds), not problem, deadline)
    rows = check_room(files, room)
    print(table(rows, wanted))
    if args.sentences:
        print("", *sentences(rows, wanted), sep="\n")
    if problem:
        print(WITHOUT.format(problem=problem), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
