"""What a submitted notebook has of a lesson's exercises, found without running any of it.

Run as a program it answers one question, a line of JSON on its standard input. `check_exercises.py` runs it in the
sandbox, since a file can be made to break those that read it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import stat
import symtable
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

LARGEST = 20 << 20  # bytes of a notebook


class SubmissionError(ValueError):
    """A file that cannot be checked; the message says why, in a few words for the table."""


@dataclass(frozen=True)
class Statement:
    """A top-level statement of a code cell."""

    cell: int  # the number of its code cell, from 1
    place: int  # its number in the cell, from 0
    node: ast.stmt
    text: str  # as Python would write it: without comments, and the same for the same code


@dataclass(frozen=True)
class Parsed:
    """All that is Python in a notebook."""

    statements: list[Statement]
    sources: dict[int, str]  # of the code cells, after IPython's magic was translated
    broken: list[str]  # a remark for each code cell that is no Python


def read(path: Path) -> str:
    """The text of a submitted file, if it is an ordinary one of ordinary size.

    Raises:
        SubmissionError: it is something else, or cannot be read.
    """
    if path.is_symlink():
        raise SubmissionError("a link, which is not followed")
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))
    try:
        with open(os.open(path, os.O_RDONLY | sum(flags)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SubmissionError("not an ordinary file")
            content = file.read(LARGEST + 1)
    except IsADirectoryError:
        raise SubmissionError("a folder, not a notebook") from None
    except OSError as error:
        raise SubmissionError(f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise SubmissionError(f"larger than {LARGEST >> 20} MB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SubmissionError("not a notebook") from None


def code_cells(text: str) -> list[str]:
    """The sources of a notebook's code cells.

    Raises:
        SubmissionError: not a notebook, or not one of Python.
    """
    try:
        content = json.loads(text)
        if content["nbformat"] != 4:
            import nbformat

            content = nbformat.convert(nbformat.reader.reads(text), 4)
        sources = [cell["source"] for cell in content["cells"] if cell["cell_type"] == "code"]
        cells = [source if isinstance(source, str) else "".join(source) for source in sources]
        metadata = content.get("metadata", {})
        language = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
    except Exception:
        raise SubmissionError("not a notebook") from None
    if language and language != "python":
        raise SubmissionError(f"a notebook for {language}, not for Python")
    return cells


def parse(cells: list[str]) -> Parsed:
    """Parses each cell for itself. One that Python or IPython would refuse is a remark and has no statements."""
    found, sources, broken = [], {}, []
    for number, source in enumerate(cells, 1):
        try:
            source = source if is_python(source) else translated(source)
            compile(source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # sees more errors than ast.parse
            body = [(node, ast.unparse(node)) for node in ast.parse(source).body]
        except Exception as error:
            broken.append(f"code cell {number}: {getattr(error, 'msg', None) or type(error).__name__}")
            continue
        sources[number] = source
        found += [Statement(number, place, node, text) for place, (node, text) in enumerate(body)]
    return Parsed(found, sources, broken)


def is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def translated(source: str) -> str:
    """A cell with magic in it as the Python that IPython makes of it."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


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


def used(text: str) -> set[str]:
    """Global names that a statement looks up, also inside its functions; not their local ones, nor attributes."""
    top = symtable.symtable(text, "<submitted>", "exec")
    names, scopes = set(), [top]
    for scope in scopes:
        symbols = [symbol for symbol in scope.get_symbols() if symbol.is_referenced()]
        names |= {symbol.get_name() for symbol in symbols if scope is top or symbol.is_global()}
        scopes += scope.get_children()
    return names


def needed(statements: list[Statement], name: str) -> list[Statement] | None:
    """What must run for `name` to exist: its last definition, and those of the names used there. None without it."""
    last = {each: number for number, statement in enumerate(statements) for each in bound(statement.node)}
    if name not in last:
        return None
    numbers, waiting = set(), [name]
    while waiting:
        number = last.get(waiting.pop())
        if number is not None and number not in numbers:
            numbers.add(number)
            waiting += used(statements[number].text)
    return [statements[number] for number in sorted(numbers)]


def checks_called(parsed: Parsed) -> dict[str, str]:
    """The function that each check of a lesson wants: {"lesson_02_padded_tokens": "padded_tokens"}."""
    found = {}
    for statement in parsed.statements:
        call = statement.node.value if isinstance(statement.node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("checks.lesson_"):
            found[call.func.attr] = ast.unparse(call.args[0])
    return found


def exercises(notebook: Path) -> dict[str, str]:
    """What `checks_called` finds in a lesson of ours.

    Raises:
        SubmissionError: the notebook cannot be read.
    """
    return checks_called(parse(code_cells(read(notebook))))


def cells_of(statements: list[Statement], sources: dict[int, str]) -> list:
    """Statements for `exercise_runner.py`: [name of the cell, its source, places of the statements in it]."""
    cells = dict.fromkeys(each.cell for each in statements)
    return [
        [f"code cell {number}", sources[number], [each.place for each in statements if each.cell == number]]
        for number in cells
    ]


def report(text: str, wanted: list[str]) -> dict:
    """What there is of the wanted functions: their cells, how often each name is defined, and what is broken."""
    try:
        parsed = parse(code_cells(text))
    except SubmissionError as error:
        return {"problem": str(error)}
    found = {name: needed(parsed.statements, name) for name in wanted}
    code = json.dumps([[name, [each.text for each in found[name]]] for name in wanted if found[name]])
    return {
        "cells": {name: cells_of(statements, parsed.sources) for name, statements in found.items() if statements},
        "defined": Counter(name for statement in parsed.statements for name in bound(statement.node)),
        "broken": parsed.broken[:3],
        "digest": hashlib.sha256(code.encode(errors="surrogatepass")).hexdigest(),
    }


def main() -> None:
    question = json.loads(sys.stdin.buffer.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    answers.write(json.dumps(report(question["notebook"], question["wanted"])) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
