# ruff: noqa: F403
"""Checks for the exercises: each tries a learner's function and answers in one sentence.

In a lesson the last line of a cell is `checks.lesson_01_optimizer_steps(optimizer_steps)`; in a solution the same call
stands behind `assert`. A new check is a function under `@exercise` in the file of its lesson. It takes the learner's
function, calls it on inputs it makes itself, compares with `expect`, and returns what the learner has now understood.

`checks.questions("01")` asks questions without code, `checks.questions("01", "overfitting")` one of them, where it is a
guess before the cell that answers it. The questions themselves are in `lesson_01.toml` and so on.
"""

from helpers.checks.asking import Option, Question, Questions, questions
from helpers.checks.judging import NOT_STARTED, NOT_YET, RIGHT, Failed, Verdict, Wrong, exercise, expect
from helpers.checks.lesson_01 import *
from helpers.checks.lesson_02 import *
from helpers.checks.lesson_03 import *
from helpers.checks.lesson_04 import *
from helpers.checks.lesson_05 import *
from helpers.checks.lesson_06 import *
from helpers.checks.lesson_07 import *
from helpers.checks.lesson_08 import *
from helpers.checks.lesson_09 import *
from helpers.checks.lesson_10 import *
from helpers.checks.lesson_11 import *
from helpers.checks.lesson_12 import *
from helpers.checks.lesson_13 import *

__all__ = ["NOT_STARTED", "NOT_YET", "RIGHT", "Failed", "Option", "Question", "Questions", "Verdict", "Wrong"]
__all__ += ["exercise", "expect", "questions"]
