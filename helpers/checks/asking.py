"""Questions without code: read from `lesson_NN.toml`, asked in a notebook and on the site, answered with a reason.

In a file each question has an `id`, a `text`, the `heading` of the section that answers it, `options` as pairs of text
and reason, and the number of the `right` option, from 1. `prediction = true` says that a cell of that section shows it.
"""

import re
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

from helpers.checks.judging import RIGHT, Verdict

LETTERS = "abcd"
NOT_THIS = "Not this one"


@dataclass(frozen=True)
class Option:
    text: str
    reason: str
    right: bool

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.right, f"{RIGHT if self.right else NOT_THIS}: {self.reason}")


@dataclass(frozen=True)
class Question:
    """A question with options, of which one is right.

    Attributes:
        id: the lesson and a name, as in "01-overfitting".
        text: the question. Backticks mark code, here and in options and reasons.
        heading: the section of the lesson that answers it.
        prediction: whether a cell of that section shows the answer.
    """

    id: str
    text: str
    heading: str
    prediction: bool
    options: tuple[Option, ...]

    def answer(self, letter: str) -> Verdict:
        """What is to be said to the option with this letter.

        Raises:
            ValueError: there is no such option.
        """
        letters = LETTERS[: len(self.options)]
        if not (isinstance(letter, str) and len(letter) == 1 and letter in letters):
            raise ValueError(f"answer with one of the letters {', '.join(letters)}, not with {letter!r}")
        return self.options[letters.index(letter)].verdict

    def __repr__(self) -> str:
        lines = [f"  {letter}) {option.text}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.text, *lines])

    def _repr_html_(self) -> str:
        options = "".join(f"<li>{as_html(option.text)}</li>" for option in self.options)
        return f'<p>{as_html(self.text)}</p><ol type="a">{options}</ol>'


class Questions(tuple[Question, ...]):
    """The questions of a lesson, shown without their answers. In a running notebook one chooses and is told."""

    def __repr__(self) -> str:
        return "\n\n".join(f"{number}{question!r}" for number, question in zip(self._numbers(), self, strict=True))

    def _repr_mimebundle_(self, **_) -> dict:
        """The choices where a kernel runs, and for every other page the questions as HTML or text."""
        from ipywidgets import VBox

        static = {"text/plain": repr(self), "text/html": "<hr>".join(question._repr_html_() for question in self)}
        return (
            VBox([_to_choose(*each) for each in zip(self._numbers(), self, strict=True)])._repr_mimebundle_() | static
        )

    def _numbers(self) -> list[str]:
        """What stands before each question; one alone needs no number."""
        return [f"{number}. " for number in range(1, len(self) + 1)] if len(self) > 1 else [""]


def questions(lesson: str, *names: str) -> Questions:
    """The questions of a lesson, for the last line of a cell: `checks.questions("01")`.

    `checks.questions("01", "overfitting")` asks only what the file calls so: a guess before the cell that answers it.
    Without a notebook, `checks.questions("01")[0].answer("b")` says whether b is right, and why.

    Raises:
        ValueError: no lesson of this number has questions, or it has none of this name.
    """
    files = {path.stem.removeprefix("lesson_"): path for path in sorted(Path(__file__).parent.glob("lesson_*.toml"))}
    if lesson not in files:
        raise ValueError(f"there are questions for the lessons {', '.join(files)}, not for {lesson!r}")
    rows = tomllib.loads(files[lesson].read_text(encoding="utf-8"))["questions"]
    known = [row["id"] for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the questions of lesson {lesson} are {', '.join(known)}, not {unknown[0]!r}")
    return Questions(_question(lesson, **row) for row in rows if not names or row["id"] in names)


def _question(lesson, id, text, heading, right, options, prediction=False) -> Question:
    listed = tuple(Option(*option, right=number == right) for number, option in enumerate(options, 1))
    return Question(f"{lesson}-{id}", text, heading, prediction, listed)


def as_html(text: str) -> str:
    """Escaped, with `code` marked."""
    return _with_code(escape(text))


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _to_choose(number: str, question: Question):
    """A widget: the question, a button for each option, and the reason of the one that was chosen last."""
    from ipywidgets import HTML, RadioButtons, VBox

    choices = RadioButtons(
        options=[(option.text.replace("`", ""), option) for option in question.options],
        index=None,
        layout={"width": "max-content"},
    )
    said = HTML()
    choices.observe(lambda change: setattr(said, "value", _with_code(change.new.verdict._repr_html_())), "value")
    return VBox([HTML(f"<p><b>{number}</b>{as_html(question.text)}</p>"), choices, said])
