"""Questions without code: the data is sound, a notebook asks and answers, and the site shows cards of the same."""

import re
from collections import Counter

import nbformat
import pytest

from helpers import checks
from helpers.checks.asking import as_html
from helpers.profiles import ROOT

LESSONS = {path.name[:2]: path for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
ALL = [question for lesson in LESSONS for question in checks.questions(lesson)]


def place(question) -> int:
    (number,) = [number for number, option in enumerate(question.options) if option.right]
    return number


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_has_four_to_six_questions_that_it_answers(lesson):
    asked = checks.questions(lesson)
    assert 4 <= len(asked) <= 6
    assert any(question.prediction for question in asked)
    cells = nbformat.read(LESSONS[lesson], as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = set(re.findall(r"^#{2,4} (.+)$", prose, re.MULTILINE))
    assert {question.heading for question in asked} <= headings
    assert len({place(question) for question in asked}) >= 3, "the right option stands at different places"


def test_each_question_has_one_right_option_and_a_reason_for_all():
    assert len({question.id for question in ALL}) == len(ALL)
    for question in ALL:
        assert 3 <= len(question.options) <= 4, question.id
        assert sum(option.right for option in question.options) == 1, question.id
        assert len({option.text for option in question.options}) == len(question.options), question.id
        assert len({option.reason for option in question.options}) == len(question.options), question.id
        assert question.text.endswith("?"), question.id
        for text in (text for option in question.options for text in (option.text, option.reason)):
            assert text.endswith(".") and text == text.strip() and text.count("`") % 2 == 0, (question.id, text)


def test_the_form_of_an_option_does_not_give_it_away():
    places = Counter(map(place, ALL))
    assert all(places[number] > len(ALL) / 8 for number in range(4))
    lengths = {question.id: [len(option.text) for option in question.options] for question in ALL}
    longest = [question.id for question in ALL if lengths[question.id][place(question)] == max(lengths[question.id])]
    shortest = [question.id for question in ALL if lengths[question.id][place(question)] == min(lengths[question.id])]
    assert len(longest) < len(ALL) / 2 > len(shortest)
    assert not {name: found for name, found in lengths.items() if max(found) > 1.7 * min(found)}


def test_an_answer_comes_with_its_reason():
    question = checks.questions("01")[0]
    right = "abcd"[place(question)]
    verdict = question.answer(right)
    assert verdict and repr(verdict) == f"Right: {question.options[place(question)].reason}"
    for letter in {*"abcd"} - {right}:
        assert not question.answer(letter) and repr(question.answer(letter)).startswith("Not this one: ")
    for nonsense in ("e", "", "ab", 1, None):
        with pytest.raises(ValueError, match="answer with one of the letters a, b, c, d"):
            question.answer(nonsense)
    for nonsense in ("99", "1", 1, "../01"):
        with pytest.raises(ValueError, match="there are questions for the lessons 01, 02"):
            checks.questions(nonsense)


def test_a_notebook_asks_and_answers():
    """With a kernel there are choices; every other page has the questions, and no answer."""
    asked = checks.questions("02")
    bundle = asked._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    for question in asked:
        assert question.text in bundle["text/plain"] and as_html(question.text) in bundle["text/html"]
        for option in question.options:
            assert option.text in bundle["text/plain"] and as_html(option.text) in bundle["text/html"]
            assert option.reason not in bundle["text/plain"] and as_html(option.reason) not in bundle["text/html"]
    from helpers.checks.asking import _to_choose

    _, choices, said = _to_choose("1. ", asked[0]).children
    assert choices.index is None and not said.value
    for number, option in enumerate(asked[0].options):
        choices.index = number
        assert as_html(option.verdict.sentence) in said.value


def test_a_lesson_asks_one_question_where_a_cell_answers_it():
    every = checks.questions("02")
    name = every[2].id.removeprefix("02-")
    assert checks.questions("02", name) == (every[2],)
    assert repr(checks.questions("02", name)).startswith(every[2].text) and repr(every).startswith("1. ")
    with pytest.raises(ValueError, match=r"the questions of lesson 02 are .*, not 'nonsense'"):
        checks.questions("02", name, "nonsense")


def test_the_questions_that_a_lesson_asks_are_there_and_guesses_stand_where_they_are_answered():
    for lesson, path in LESSONS.items():
        heading = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^#{2,4} (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
            for names in re.findall(r'checks\.questions\("\d\d"((?:, "[\w-]+")+)\)', cell.source):
                for question in checks.questions(lesson, *re.findall(r'"([\w-]+)"', names)):
                    if question.prediction:  # a guess, before the cell that answers it; others may look back
                        assert question.heading == heading, question.id


def test_a_committed_page_keeps_the_questions_without_the_widget():
    import execute

    data = checks.questions("03")._repr_mimebundle_()
    kept, gone = nbformat.v4.new_output("execute_result", data), nbformat.v4.new_output("display_data", dict(data))
    del gone.data["text/html"]
    (cleaned,) = execute._clean_outputs([kept, gone])
    assert set(cleaned.data) == {"text/plain", "text/html"}


def test_code_in_a_text_is_marked_and_the_rest_is_no_html():
    assert as_html("`a < b` & <c>") == "<code>a &lt; b</code> &amp; &lt;c&gt;"
