"""Checks the exercises of a whole room: one line for each submitted notebook, one column for each exercise.

    python tools/check_exercises.py notebooks/02_imdb_gpt2_classifier.ipynb submitted/

or `make check-exercises NOTEBOOK=notebooks/02_imdb_gpt2_classifier.ipynb SUBMITTED=submitted`. Which exercises there
are, and what checks them, comes from our notebook, never from the submitted one. Of that only what the exercises
need is run: their functions, and the imports and definitions that these use. So a lesson that trains for a minute is
checked in seconds, and a cell that somebody broke elsewhere does no harm.

Submitted code is a stranger's code. Each notebook runs in a process of its own with a time limit, a limit on memory
and on what it may write, in an empty directory, its output thrown away. On Linux, where the kernel lets us, it also
gets no network and a process namespace of its own, so that nothing it starts outlives it. It can still read what you
can read: check a room's notebooks as a user who owns nothing dear.

The exit code is 0 when the table was made, whatever it says, and 2 for bad input.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import symtable
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nbformat
import psutil
from IPython.core.inputtransformer2 import TransformerManager

from helpers import checks

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
MEMORY = 8 << 30  # bytes of address space: importing torch reserves several
WRITES = 64 << 20  # bytes a file may grow to


class SubmissionError(ValueError):
    """A file that cannot be checked; the message says why, in a few words for the table."""


def exercises(notebook: Path) -> dict[str, str]:
    """The function that each check of a lesson wants: {"lesson_02_padded_tokens": "padded_tokens"}.

    Raises:
        SubmissionError: the notebook cannot be read.
    """
    found = {}
    for statement in statements(notebook):
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("checks.lesson_"):
            found[call.func.attr] = ast.unparse(call.args[0])
    return found


def statements(notebook: Path) -> list[ast.stmt]:
    """Top-level statements of all code cells, in order. A cell that is no Python counts as empty.

    Raises:
        SubmissionError: not a notebook, or not one of Python.
    """
    try:
        content = nbformat.reader.reads(notebook.read_text(encoding="utf-8-sig"))
        content = nbformat.convert(content, 4)
        cells = [cell.source for cell in content.cells if cell.cell_type == "code"]
        kernel = content.metadata.get("kernelspec", {}).get("language") or content.metadata.get(
            "language_info", {}
        ).get("name", "python")
    except OSError as error:
        raise SubmissionError(f"cannot be read: {error.strerror}") from None
    except Exception:
        raise SubmissionError("not a notebook") from None
    if kernel != "python":
        raise SubmissionError(f"a notebook for {kernel}, not for Python")
    transform, parsed = TransformerManager().transform_cell, []
    for source in cells:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            parsed += ast.parse(transform(source)).body
    return parsed


def bound(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return {
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
    return set()


def needed(parsed: list[ast.stmt], name: str) -> list[ast.stmt] | None:
    """What must run for `name` to exist: its last definition, and those of the names used there. None without it."""
    last = {each: number for number, statement in enumerate(parsed) for each in bound(statement)}
    if name not in last:
        return None
    numbers, waiting = set(), [name]
    while waiting:
        number = last.get(waiting.pop())
        if number is not None and number not in numbers:
            numbers.add(number)
            waiting += used(parsed[number])
    return [parsed[number] for number in sorted(numbers)]


def used(statement: ast.stmt) -> set[str]:
    """Global names that a statement looks up, also inside its functions; not their local ones, nor attributes."""
    top = symtable.symtable(ast.unparse(statement), "<submitted>", "exec")
    names, scopes = set(), [top]
    for scope in scopes:
        symbols = [symbol for symbol in scope.get_symbols() if symbol.is_referenced()]
        names |= {symbol.get_name() for symbol in symbols if scope is top or symbol.is_global()}
        scopes += scope.get_children()
    return names


def other_lesson(defined: set[str], wanted: dict[str, str]) -> str | None:
    """The lesson of ours, if any, whose exercises a notebook has more of than of the one it is checked for."""
    hits = {path.name: len(defined & set(exercises(path).values())) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    best = max(hits, key=hits.get)
    return best if hits[best] > len(defined & set(wanted.values())) else None


# Runs inside the sandbox: reads the tasks, then reports each verdict on the descriptor that nothing else knows of.
RUNNER = """
import json, os, sys
tasks, token, memory, writes = json.load(sys.stdin)
report = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1); os.dup2(1, 2)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (writes, writes))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (ImportError, ValueError):
    pass
from helpers import checks
for check, name, source in tasks:
    judge = getattr(checks, check)
    def say(**answer):
        report.write(json.dumps([token, check, answer]) + "\\n"); report.flush()
    say(started=True)
    space = {"__name__": "__main__"}
    try:
        exec(compile(source, "<submitted>", "exec"), space)
        verdict = judge(space[name])
        say(passed=verdict.passed is True, sentence=verdict.sentence[:500])
    except BaseException as error:
        say(error=type(error).__name__)
"""


def isolated() -> list[str]:
    """A command that takes the network and the sight of other processes away, if this machine lets us."""
    command = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare"):
        return []
    works = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else []


def run(tasks: list, seconds: float, sandbox: list[str]) -> dict[str, str]:
    """Answers to the tasks (check, function name, source) of one notebook, in one process, ended after `seconds`.

    A task that crashes or runs over time takes the process with it; those behind it are then left out of the answers.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as directory:
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "SYSTEMROOT")}
        environment |= {"HOME": directory, "TMPDIR": directory, "PYTHONPATH": str(NOTEBOOKS.parent)}
        environment |= {"FINETUNING_PROFILE": "reduced", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*sandbox, sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=directory, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        late = False
        try:
            output, _ = process.communicate(json.dumps([tasks, token, MEMORY, WRITES]), timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            stop(process, directory)
        if late:
            output, _ = process.communicate()
    answers = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            said, check, answer = json.loads(line)
            if said == token:
                answers[check] = in_words(answer, late)
    return answers or {tasks[0][0]: "over time" if late else "crash"}


def stop(process: subprocess.Popen, directory: str) -> None:
    """Ends a process and what it started; also what moved away from it, which our directory as its home gives away."""
    process.kill()
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.environ().get("HOME") == directory or each.cwd() == directory:
                each.kill()


def in_words(answer: dict, late: bool) -> str:
    if "sentence" in answer:
        first = answer["sentence"].split(":")[0]
        return "right" if answer["passed"] else "not started" if first == checks.NOT_STARTED else "wrong"
    if "error" in answer:
        return f"crash ({answer['error']})"
    return "over time" if late else "crash"


def check_notebook(path: Path, wanted: dict[str, str], seconds: float, sandbox: list[str]) -> tuple[dict, str, str]:
    """One line of the table: the answer to each exercise, a remark, and what tells copies apart ("" if nothing)."""
    try:
        parsed = statements(path)
    except SubmissionError as error:
        return {}, str(error), ""
    defined = Counter(name for statement in parsed for name in bound(statement))
    lesson = other_lesson(set(defined), wanted)
    if lesson:
        return {}, f"another lesson: {lesson}", ""
    sources = {check: needed(parsed, name) for check, name in wanted.items()}
    tasks = [[check, wanted[check], "\n".join(map(ast.unparse, source))] for check, source in sources.items() if source]
    if not tasks:
        return {}, "none of this lesson's exercises in it", ""
    answers, waiting = dict.fromkeys(wanted, "missing"), tasks
    while waiting:
        answers |= run(waiting, seconds, sandbox)
        waiting = [task for task in waiting if answers[task[0]] == "missing"]
    twice = [name for name in wanted.values() if defined[name] > 1]
    remark = f"more than one {', '.join(twice)}: the last one counts" if twice else ""
    started = any(answer not in ("missing", "not started") for answer in answers.values())
    return answers, remark, json.dumps(tasks) if started else ""


def table(rows: list[tuple[str, dict, str]], wanted: dict[str, str]) -> str:
    """The table as text: a line for each notebook, its answers and a remark."""
    header = ["notebook", *wanted.values(), "remark"]
    lines = [[name, *(answers.get(check, "-") for check in wanted), remark] for name, answers, remark in rows]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in [header, *lines])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks the exercises of a room's notebooks.")
    parser.add_argument("notebook", type=Path, help="our lesson, such as notebooks/02_imdb_gpt2_classifier.ipynb")
    parser.add_argument("submitted", type=Path, help="the folder with the learners' notebooks, one file each")
    parser.add_argument("--seconds", type=float, default=30, help="time limit for each exercise (30)")
    args = parser.parse_args(arguments)
    try:
        wanted = exercises(args.notebook)
    except SubmissionError as error:
        print(f"{args.notebook}: {error}", file=sys.stderr)
        return 2
    files = sorted(args.submitted.rglob("*.ipynb")) if args.submitted.is_dir() else []
    files = [path for path in files if ".ipynb_checkpoints" not in path.parts]
    if not wanted or not files:
        missing = f"{args.notebook}: no exercises in it" if not wanted else f"{args.submitted}: no .ipynb files there"
        print(missing, file=sys.stderr)
        return 2
    sandbox, rows, seen = isolated(), [], {}
    for number, path in enumerate(files, 1):
        name, start = str(path.relative_to(args.submitted)), time.monotonic()
        answers, remark, solution = check_notebook(path, wanted, args.seconds, sandbox)
        if solution and solution in seen:
            remark = f"word for word as {seen[solution]}" + (f"; {remark}" if remark else "")
        seen.setdefault(solution, name)
        rows.append((name, answers, remark))
        print(f"{number}/{len(files)} {name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    print(table(rows, wanted))
    if not sandbox:
        print("The network could not be taken from the submitted code on this machine.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
