"""How a check becomes a verdict: it calls the learner's function, compares, and never raises."""

import copy
import functools
import linecache
import math
import reprlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

RIGHT, NOT_YET, NOT_STARTED = "Right", "Not yet", "Not started yet"


@dataclass(frozen=True)
class Verdict:
    """The answer of a check: true if the exercise is solved, printed as one sentence."""

    passed: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        style = "border-left: 4px solid %s; padding-left: 0.6em" % ("#009e73" if self.passed else "#d55e00")
        return f'<p style="{style}">{escape(self.sentence)}</p>'


class Wrong(Exception):
    """Ends a check; the message tells the learner what differs. `expect` raises it, and so may a check."""


class Failed(Exception):
    """The learner's function raised in another process; the message is the sentence that `failure` made there."""


def exercise(check: Callable[..., str]) -> Callable[..., Verdict]:
    """Turns a check into one that never raises: whatever the learner's function does becomes a Verdict.

    The learner's function gets copies of what a check hands over, so that it cannot change what the check compares
    with. A check that wants to know what became of them finds them in `function.arguments_after`.
    """

    @functools.wraps(check)
    def judge(function: Callable, *context) -> Verdict:
        if not callable(function):
            return Verdict(False, f"{NOT_YET}: hand over the function itself, by its name without brackets.")
        name = getattr(function, "__name__", "your function")
        raised, answers = [], []

        def watched(*args):
            given = copy.deepcopy(args)
            try:
                answers.append(function(*given))
            except Exception as error:
                raised.append(error)
                raise
            watched.arguments_after = getattr(function, "arguments_after", given)
            return answers[-1]

        try:
            return Verdict(True, f"{RIGHT}: {check(watched, *context)}")
        except Exception as error:
            if error in raised:
                return Verdict(False, str(error) if isinstance(error, Failed) else failure(name, function, error))
            if answers and (answers[-1] is None or answers[-1] is ...):
                return Verdict(False, f"{NOT_STARTED}: {name} returns nothing; is its `return` missing?")
            if isinstance(error, Wrong):
                return Verdict(False, f"{NOT_YET}: {error}")
            got = f"{show(answers[-1])} (a {type(answers[-1]).__name__})" if answers else "nothing"
            return Verdict(False, f"{NOT_YET}: {name} returned {got}, which is no answer here: {error}")

    return judge


def expect(answer, expected, given: str, hints: tuple = (), tolerance: float = 1e-4) -> None:
    """Compares an answer with the expected one: numbers, texts, tensors, arrays, or lists and dicts of them.

    Args:
        answer: what the learner's function returned.
        expected: the right answer.
        given: the inputs in words; completes "for ...".
        hints: pairs of a wrong answer that is often given and the sentence that helps.
        tolerance: relative, where a fraction is expected; whole numbers must be equal.

    Raises:
        Wrong: they differ.
    """
    if _same(answer, expected, tolerance):
        return
    for wrong, hint in hints:
        if _same(answer, wrong, tolerance):
            raise Wrong(f"for {given}, {show(answer)} is not the answer. {hint}")
    raise Wrong(f"for {given}, expected {show(expected)}, got {show(answer)}.")


def _same(answer, expected, tolerance: float) -> bool:
    answer, expected = (value.tolist() if hasattr(value, "tolist") else value for value in (answer, expected))
    if isinstance(expected, dict):
        return (
            isinstance(answer, dict)
            and answer.keys() == expected.keys()
            and all(_same(answer[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(answer, list | tuple)
            and len(answer) == len(expected)
            and all(_same(*pair, tolerance) for pair in zip(answer, expected, strict=True))
        )
    if isinstance(expected, int | float) and isinstance(answer, int | float):
        if isinstance(expected, bool) != isinstance(answer, bool):
            return False
        rel_tol = tolerance if isinstance(expected, float) else 0  # a count is exact
        return math.isclose(answer, expected, rel_tol=rel_tol, abs_tol=1e-9)
    return type(answer) is type(expected) and answer == expected


def show(value) -> str:
    """A value in few characters, for a sentence."""
    try:
        if hasattr(value, "tolist"):
            value = value.tolist()
        return f"{value:.6g}" if isinstance(value, float) else reprlib.repr(value)
    except Exception:  # a number of 5,000 digits, or a class of the learner's own
        return f"<{type(value).__name__}>"


def failure(name: str, function: Callable, error: Exception) -> str:
    """The sentence that says which exception the learner's code raised and in which of its lines."""
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, NotImplementedError) and frames[-1].filename == own:
        return f"{NOT_STARTED}: write {name} at `raise NotImplementedError`, then run it again."
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    where = next((f", in line {f.lineno} of its cell" for f in reversed(frames) if f.filename == own), "")
    line = next((linecache.getline(own, f.lineno).strip() for f in reversed(frames) if f.filename == own), "")
    return f"{NOT_YET}: {name} raised {said}{where}" + (f": `{line}`" if line else ".")
