"""Reads questions about texts, and their answers: SQuAD's JSON as downloaded, or a table of the three.

    from takehome.tables import read_table
    table = read_table("train-v2.0.json", task="questions")
    table.dataset[0]["answers"], table.dataset[0]["start"]     # the accepted answers, and the place of the first

Each answer's place is looked at: where it is wrong or missing and the answer stands once in the context, it is found.
"""

import ast
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from takehome.columns import Wanted, exactly, write_arrow
from takehome.errors import InputError
from takehome.values import Sheet, hash64, key
from takehome.wording import counted, listed, rows_named

QUESTIONS = "questions"
# How columns are called; the first are those by which the task is found.
NAMES = {
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "document", "text"),
    "answers": ("answers", "answer", "answer_text", "answer_texts"),
    "place": ("answer_start", "start"),
    "impossible": ("is_impossible",),
    "id": ("id", "qid", "question_id"),
}
PEEK = 50  # rows that are looked at to find the task
ARRAY = re.compile(r"array\((\[.*?\])(?:, dtype=[\w'<>]+)?\)", re.DOTALL)  # as pandas writes a list into a CSV
NOWHERE = "whose answer does not stand in the context"
CUT = "whose context ends before its answer"
SEVERAL = "whose answer stands in the context several times, and none of them is said to be its place,"


@dataclass(frozen=True)
class Answer:
    """An accepted answer, and the character of the context where it is said to begin."""

    text: str
    start: int | None


@dataclass
class Found:
    """What was seen of a split: the rows behind each remark, and what is needed to join rows."""

    moved: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    placeless: dict[str, list[int]] = field(default_factory=dict)  # by the reason
    ids: Counter = field(default_factory=Counter)
    first: dict[int, int] = field(default_factory=dict)  # the row of each question and context
    more: dict[int, list[tuple]] = field(default_factory=dict)  # answers, and a place, that later rows add to it
    rows: int = 0


# ------------------------------------------------------------------ which columns


def are_questions(sheet: Sheet) -> bool:
    """Whether a table obviously holds questions with answers that stand in their contexts; its rows stay readable."""
    lower = {name.strip().lower(): name for name in sheet.columns}
    if not ({"question", "context"} <= lower.keys() and lower.keys() & {*NAMES["answers"], "answer_start"}):
        return bool(lower.keys() & {"paragraphs", "data"}) and any(_articles(row) for row in _peek(sheet))
    if "answer_start" in lower:
        return True
    columns = _columns("", sheet.columns, Wanted())
    standing, asked = 0, 0
    for row in _peek(sheet):
        answers = [own for own in parse_answers(row.get(columns["answers"])) if own.text]
        asked += bool(answers)
        standing += any(own.start is not None or own.text in str(row[columns["context"]]) for own in answers)
    return asked > 0 and standing >= asked / 2


def _peek(sheet: Sheet) -> list[dict[str, Any]]:
    """The first rows, which are put back."""
    first = list(itertools.islice(sheet.records, PEEK))
    sheet.records = itertools.chain(first, sheet.records)
    return [dict(zip(sheet.columns, values, strict=True)) for _, values in first]


def _articles(row: dict[str, Any]) -> list[dict]:
    """The articles of SQuAD's JSON in a row: it is one, or holds a list of them."""
    parts = row["data"] if isinstance(row.get("data"), list) else [row]
    return [own for own in parts if isinstance(own, dict) and isinstance(own.get("paragraphs"), list)]


def opened(sheet: Sheet) -> Sheet:
    """SQuAD's JSON as a table of questions, articles and paragraphs opened; any other table as it is."""
    if not any(_articles(row) for row in _peek(sheet)):
        return sheet
    columns = ["id", "question", "context", "answers", "is_impossible"]

    def records() -> Iterator[tuple[int, list]]:
        number = 0
        for _, values in sheet.records:
            for article in _articles(dict(zip(sheet.columns, values, strict=True))):
                for paragraph in article["paragraphs"]:
                    for asked in (paragraph.get("qas") or []) if isinstance(paragraph, dict) else []:
                        number += 1
                        own = {"context": paragraph.get("context")} | (asked if isinstance(asked, dict) else {})
                        yield number, [own.get(name) for name in columns]

    made = Sheet(columns, records())
    if any(row["answers"] is not None for row in _peek(made)):
        return made
    kept = [n for n, name in enumerate(columns) if name != "answers"]  # nobody answered yet
    return Sheet([columns[n] for n in kept], ((row, [values[n] for n in kept]) for row, values in made.records))


def _columns(path, names: list[str], wanted: Wanted) -> dict[str, str | None]:
    """The column of each thing in NAMES, None where there is none."""
    told = {
        "question": (wanted.text_column, "--text-column"),
        "context": (wanted.pair_column, "--pair-column"),
        "answers": (wanted.label_column, "--label-column"),
    }
    lower = {name.strip().lower(): name for name in names}
    found: dict[str, str | None] = {}
    for thing, usual in NAMES.items():
        name, option = told.get(thing, (None, ""))
        found[thing] = (
            exactly(path, name, names, option) if name else next((lower[n] for n in usual if n in lower), None)
        )
    for thing in ("question", "context"):
        if found[thing] is None:
            option = told[thing][1]
            raise InputError(f"{path}: no column of {thing}s; name it with {option}, there is {listed(names)}")
    return found


# ------------------------------------------------------------------ answers, and where they stand


def parse_answers(value: Any, starts: Any = None) -> list[Answer]:
    """The answers of a cell: a text, a list of texts, SQuAD's lists of texts and places, or such lists as a text.

    Args:
        value: of the column of answers.
        starts: of a column of places beside it: a number, or a list of them.
    """
    if value is None or value != value:  # nan
        return []
    if isinstance(value, str):
        opened = _open(value)
        if opened is None:
            place = starts[0] if isinstance(starts, list) and starts else starts
            return [Answer(value.strip(), _number(place))] if value.strip() else []
        value = opened
    if isinstance(value, dict):
        starts = value.get("answer_start", value.get("start", starts))
        value = value.get("text", value.get("texts"))
        value = value if isinstance(value, list) else [value]
    if not isinstance(value, list):
        value = [value]
    if any(isinstance(own, dict) for own in value):
        return [answer for own in value for answer in parse_answers(own)]
    places = starts if isinstance(starts, list) else [starts]
    places = [*places, *[None] * len(value)]
    given = [(text, _number(place)) for text, place in zip(value, places, strict=False) if text is not None]
    return [Answer(_whole(text, place), place) for text, place in given if str(text).strip()]


def _whole(text: Any, place: int | None) -> str:
    """The text of an answer; one that comes with its place keeps its spaces, which the place may count."""
    return str(text) if place is not None else str(text).strip()


def _open(value: str) -> dict | list | None:
    """The lists that a text shows, as JSON, Python or NumPy print them; None if it shows none."""
    if not re.match(r"\s*[\[{]", value):
        return None
    for read in (json.loads, lambda text: ast.literal_eval(ARRAY.sub(r"\1", text))):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        lists = isinstance(found, list) and all(isinstance(own, (str, dict)) for own in found)
        return found if isinstance(found, dict) or lists else None
    return None


def _number(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def locate(context: str, answer: Answer) -> tuple[int, str]:
    """(where the answer begins in the context, what was wrong with the place that was given); -1 for nowhere."""
    text, start = answer.text, answer.start
    if start is not None and start >= 0 and text and context[start : start + len(text)] == text:
        return start + len(text) - len(text.lstrip()), ""
    text = text.strip()
    times = context.count(text)
    if times == 1:
        return context.index(text), "moved" if start is not None else ""
    if times:
        return -1, SEVERAL
    return -1, CUT if start is not None and start + len(text) > len(context) else NOWHERE


def place_all(context: str, answers: list[Answer]) -> tuple[int, list[str], str]:
    """(where the first answer begins, the accepted texts with that first, what was wrong); a start of -1 is nowhere."""
    placed = [(*locate(context, answer), answer.text.strip()) for answer in answers]
    good = [(start, text) for start, _, text in placed if start >= 0]
    wrong = next((said for start, said, _ in placed if said and (start >= 0 or not good)), "")
    start, first = good[0] if good else (-1, placed[0][2])
    return start, list(dict.fromkeys([first, *(text for *_, text in placed)])), wrong


# ------------------------------------------------------------------ splits


def read_questions(path, sheets: dict[str, Sheet], folder: Path, wanted: Wanted, remarks: list[str]):
    """The data set of each split, with columns question, context, row and, if labelled, answers and start.

    Args:
        path: for messages.
        sheets: of each split.
        folder: where the Arrow files are written.
        wanted: what was asked; `training` leaves out what cannot be learned from, and joins rows that repeat.
        remarks: gets a sentence for each repair.

    Returns:
        The data sets, and the names of the columns of questions, contexts and answers (None without answers).

    Raises:
        InputError: a column is missing, or no row can be used.
    """
    import datasets

    sheets = {name: opened(sheet) for name, sheet in sheets.items()}
    remarks[:] = [remark for remark in remarks if not remark.endswith(": version.")]  # of SQuAD: no loss
    columns = {name: _columns(path, sheet.columns, wanted) for name, sheet in sheets.items()}
    names = columns["train"]
    labelled = wanted.labelled is not False and names["answers"] is not None
    if wanted.labelled and not labelled:
        raise InputError(
            f"{path}: no column of answers; name it with --label-column, there is {listed(sheets['train'].columns)}"
        )
    text = datasets.Value("string")
    features = {"question": text, "context": text, "row": datasets.Value("int64")}
    if labelled:
        features |= {"answers": datasets.List(text), "start": datasets.Value("int64")}
    features, done = datasets.Features(features), {}
    for name, sheet in sheets.items():
        if labelled and columns[name]["answers"] is None:
            remarks.append(f"Not read: {name}, which has no column of answers (it has {listed(sheet.columns, 5)}).")
            continue
        where = f" of {name}" if len(sheets) > 1 else ""
        found, learned = Found(), wanted.training and name == "train"
        rows = _rows(sheet, columns[name], labelled, learned, found, join=wanted.training)
        raw, file = folder / f"{name}.questions", folder / f"{name}.arrow"
        write_arrow(raw, features.arrow_schema, rows)
        made = datasets.Dataset.from_file(str(raw), split=name)
        write_arrow(file, features.arrow_schema, _joined(made, found))
        del made
        raw.unlink()
        done[name] = datasets.Dataset.from_file(str(file), split=name)
        _tell(found, where, learned, remarks)
        if learned and not any(start >= 0 for batch in done[name].iter(1000) for start in batch["start"]):
            raise InputError(f"{path}: none of the {found.rows:,} rows{where} has an answer that stands in its context")
        if not len(done[name]) and name == "train":
            raise InputError(f"{path}: none of the {found.rows:,} rows has a question and a context")
    return done, (names["question"], names["context"], names["answers"] if labelled else None)


def _rows(sheet: Sheet, columns: dict, labelled: bool, learned: bool, found: Found, join: bool) -> Iterator[tuple]:
    """(question, context, row and, if labelled, answers, start) of the rows that can be used."""
    for row, values in sheet.records:
        found.rows += 1
        own = dict(zip(sheet.columns, values, strict=True))
        question, context = (_text(own[columns[thing]]) for thing in ("question", "context"))
        if not key(question) or not key(context[:10_000]):
            found.empty.append(row)
            continue
        if columns["id"] and own[columns["id"]] is not None:
            found.ids[hash64(str(own[columns["id"]]))] += 1
        if not labelled:
            yield question.strip(), context, row
            continue
        impossible = columns["impossible"] and str(own[columns["impossible"]]).strip().lower() in ("true", "1", "1.0")
        starts = own[columns["place"]] if columns["place"] else None
        starts = re.findall(r"\d+", starts) if isinstance(starts, str) and "[" in starts else starts
        answers = [] if impossible else parse_answers(own[columns["answers"]], starts)
        start, texts, wrong = place_all(context, answers) if answers else (-1, [], "")
        if wrong == "moved":
            found.moved.append(row)
        elif wrong and start < 0:
            found.placeless.setdefault(wrong, []).append(row)
            if learned:
                continue
            start = context.find(texts[0])
        if join:
            same = hash64(f"{key(question)}\x1f{context}")
            if same in found.first:
                found.joined.append(row)
                found.more.setdefault(found.first[same], []).append((texts, start))
                continue
            found.first[same] = row
        yield question.strip(), context, row, texts, start


def _text(value: Any) -> str:
    """A value as a text that can be written; halves of characters, which JSON may hold, become question marks."""
    return "" if value is None or value != value else str(value).encode(errors="replace").decode()


def _joined(made, found: Found) -> Iterator[tuple]:
    """All rows, with the answers that later rows with the same question and context add."""
    for batch in made.iter(1000):
        for values in zip(*batch.values(), strict=True):
            if values[2] in found.more:
                question, context, row, texts, start = values
                for more, place in found.more[row]:
                    texts = [*more, *texts] if start < 0 else [*texts, *more]
                    start = place if start < 0 else start
                values = question, context, row, list(dict.fromkeys(texts)), start
            yield values


def _tell(found: Found, where: str, learned: bool, remarks: list[str]) -> None:
    def say(rows: list[int], what: str) -> None:
        if rows:
            remarks.append(f"{counted(len(rows), 'row')}{where} {what} ({rows_named(rows)}).")

    say(found.empty, "without a question or a context left out")
    say(found.moved, "with a wrong place of the answer, which stands once in the context: found there")
    for reason, rows in found.placeless.items():
        say(rows, f"{reason} left out" if learned else f"{reason} kept: its text alone counts")
    say(found.joined, "with the question and the context of an earlier one: their answers go together")
    if repeated := sum(count > 1 for count in found.ids.values()):
        remarks.append(
            f"{counted(repeated, 'id')}{where} in more than one row: rows are told apart by where they stand."
        )
