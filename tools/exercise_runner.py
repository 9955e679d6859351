"""Runs inside the sandbox: defines one exercise of a submission and calls it as often as the other side asks.

The first line on its standard input says what to define, every further line holds arguments; each is answered by one
line. Nothing here decides what is right, and nothing here knows.
"""

from __future__ import annotations

import ast
import json
import linecache
import os

from crossing import decode, encode


def take_pipes() -> tuple:
    """The two pipes as files; what the submission reads and prints goes nowhere."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return questions, answers


def define(cells: list, name: str) -> object:
    """Runs the chosen statements of some cells and returns what is then called `name`."""
    space = {"__name__": "__main__"}
    for cell, source, places in cells:
        linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)
        body = ast.parse(source).body
        chosen = ast.Module([body[place] for place in places], type_ignores=[])
        exec(compile(chosen, cell, "exec"), space)
    return space[name]


def call(function, arguments: list) -> dict:
    """The answer to one call, with what became of the arguments; or the sentence about what it raised."""
    try:
        return {"answer": encode(function(*arguments)), "arguments": [encode(each) for each in arguments]}
    except Exception as error:
        from helpers.checks.judging import failure

        return {"failed": failure(getattr(function, "__name__", "your function"), function, error)[:1000]}


def main() -> None:
    questions, answers = take_pipes()

    def say(answer: dict) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        task = json.loads(questions.readline())
        function = define(task["cells"], task["name"])
        say({"callable": callable(function)})
        for line in questions:
            say(call(function, [decode(each) for each in json.loads(line)["arguments"]]))
    except BaseException as error:
        say({"error": type(error).__name__, "text": str(error)[:300]})


if __name__ == "__main__":
    main()
