"""How the labels of a table are written, and so what task it is: a class, several labels a text, a score, or a pair.

    from takehome.forms import find_form
    form = find_form(path, raw, "text", wanted, remarks)
    form.task, form.columns                   # "multi-label", ("toxic", "insult", "threat")
    form.spelling(["1", "0", "1"])            # one string for the answer of a row: "toxic\x1fthreat"

What is obvious is found, and said; the rest is asked for with --task.
"""

import ast
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass, replace

from takehome.columns import LIST, Column, Raw, Wanted, choose_label, exactly
from takehome.errors import InputError
from takehome.values import LABEL_NAMES, by_name, is_number, key, says_nothing, words
from takehome.wording import counted, listed

CLASSES, LABELS, SCORE = "classification", "multi-label", "regression"
BETWEEN = "\x1f"  # the labels of a row, in its spelling; no file has it
SEPARATORS = ";|,"
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


@dataclass(frozen=True)
class Form:
    """How labels are written: in which columns, and what separates them there.

    Attributes:
        task: classification, multi-label or regression.
        columns: one, or one for each label.
        separator: between the labels in a cell; None for a list, or one column a label.
    """

    task: str
    columns: tuple[str, ...]
    separator: str | None = None

    @property
    def name(self) -> str:
        """For messages, and for a card."""
        return ", ".join(self.columns)

    def spelling(self, values: list[str | None]) -> str | None:
        """The answer of a row as one text; None if it has none. Several labels are sorted, and may be none at all."""
        if self.task == CLASSES:
            return values[0]
        if self.task == SCORE:
            return values[0] if values[0] and is_number(values[0]) else None
        if len(self.columns) > 1:
            filled = [(name, value.lower()) for name, value in zip(self.columns, values, strict=True) if value]
            return BETWEEN.join(sorted(name for name, value in filled if value in YES)) if filled else None
        if values[0] is None:
            return None
        if self.separator:
            return BETWEEN.join(sorted({part.strip() for part in values[0].split(self.separator) if part.strip()}))
        found = parse_list(values[0])
        return None if found is None else BETWEEN.join(sorted(set(found)))


def parse_list(value: str) -> list[str] | None:
    """The labels of a list as JSON or Python print it, NumPy too; None if it is no list."""
    value = value.removeprefix(LIST)
    if value.startswith("[") and re.search(r"['\"]\s+['\"]", value):  # NumPy's, which Python would read as one text
        return [one or other for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", value)]
    try:
        found = json.loads(value)
    except ValueError:
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(found, (list, tuple, set)):
        return None
    return [str(part).strip() for part in found if isinstance(part, (str, int, float)) and str(part).strip()]


def find_form(path, raw: Raw, texts: list[str], wanted: Wanted, remarks: list[str]) -> Form | None:
    """How the labels of a table are written; None if it has none and they are not insisted on.

    Args:
        path: for messages.
        raw: the training split.
        texts: the columns of texts.
        wanted: what was asked; its task None means: find out.
        remarks: gets a sentence on what was found.

    Raises:
        InputError: there are no labels, or more than one column could hold them.
    """
    task, told = wanted.task, wanted.label_column
    rest = {name: column for name, column in raw.columns.items() if name not in texts}
    if task != CLASSES:
        if not told and wanted.labelled is not False:  # as in training, if that is here
            usual = [name for name in wanted.usual if all(part.strip() in rest for part in name.split(","))]
            told = next(iter(usual), None)
            wanted = replace(wanted, label_column=told)
        if told and told not in raw.columns and "," in told:
            names = [exactly(path, part, rest, "--label-column") for part in told.split(",")]
            return Form(LABELS, tuple(names))
        if form := _several(path, raw, rest, wanted, remarks):
            return form
        if form := _score(path, rest, wanted, remarks):
            return form
        if task is not None and told is None and wanted.labelled is None:
            return None
    name = choose_label(path, raw, texts[0], wanted, remarks)
    if name is None or task == CLASSES:
        return name and Form(CLASSES, (name,))
    column = raw.columns[name]
    separator = find_separator(column)
    if task == LABELS or separator:
        said = f"{separator!r} separates several labels in column {name!r}: --task multi-label"
        if task is None:
            remarks.append(f"{said}; --task classification takes each combination as a class.")
        return Form(LABELS, (name,), separator or ";")
    if task is None and (order := _in_order(column)):
        remarks.append(f"Labels {order} are in an order: they are classes here; --task regression predicts a score.")
    return Form(CLASSES, (name,))


def _several(path, raw: Raw, rest: dict[str, Column], wanted: Wanted, remarks: list[str]) -> Form | None:
    """A column of lists, or one column of 0 and 1 for each label."""
    if wanted.task not in (None, LABELS):
        return None
    told = wanted.label_column and exactly(path, wanted.label_column, rest, "--label-column")
    lists = [told] if told else list(rest)
    lists = [name for name in lists if rest[name].lists > rest[name].filled / 2]
    if lists and not told and not any(by_name(lists, LABEL_NAMES)):
        plain = [name for name in rest if name not in lists]
        lists = [] if any(by_name(plain, LABEL_NAMES)[:2]) else lists  # tokens, say, beside a column of labels
    if len(lists) > 1:
        named = [name for group in by_name(lists, LABEL_NAMES) for name in group]
        if len(dict.fromkeys(named)) != 1:
            raise InputError(f"{path}: {listed(lists)} are lists and may each be labels; choose one: --label-column")
        lists = named[:1]
    if lists:
        if wanted.task is None:
            remarks.append(f"Column {lists[0]!r} holds lists of labels: --task multi-label.")
        return Form(LABELS, tuple(lists))
    if told:
        return None
    binary = [name for name in rest if set(map(str.lower, rest[name].values)) <= YES | NO and rest[name].filled]
    binary = [name for name in binary if rest[name].filled > raw.rows / 2 and not by_name([name], LABEL_NAMES)[0]]
    if wanted.labels is not None:  # of a model that is known: its labels are the columns
        known = {key(label) for label in wanted.labels}
        binary = [name for name in binary if key(name) in known]
    if len(binary) < 2 or any(by_name([name], LABEL_NAMES)[0] for name in rest):
        return None
    sums = Counter(sum((value or "").lower() in YES for value in values) for _, *values in raw.read(*binary))
    if wanted.task is None and wanted.labels is None:
        if set(sums) == {1}:
            return None  # each row has exactly one
        remarks.append(f"Columns {listed(binary, 12)} hold 0 and 1, a label each: --task multi-label.")
    return Form(LABELS, tuple(binary))


def _score(path, rest: dict[str, Column], wanted: Wanted, remarks: list[str]) -> Form | None:
    """A column of numbers; without being told, only one with fractions that is called score, label or the like."""
    if wanted.task not in (None, SCORE):
        return None
    numeric = {name: c for name, c in rest.items() if c.filled and c.numbers > 0.9 * c.filled}
    if wanted.label_column:
        name = exactly(path, wanted.label_column, rest, "--label-column")
        if wanted.task == SCORE and name not in numeric:
            raise InputError(f"{path}: column {name!r} holds no numbers to predict; name another with --label-column")
        candidates = [name]
    else:
        groups = [[name for name in numeric if name in wanted.usual], *by_name(numeric, LABEL_NAMES)]
        candidates = next((group for group in groups if group), [])
        if wanted.task == SCORE and not candidates:
            candidates = list(numeric)
    if wanted.task == SCORE:
        if len(candidates) != 1:
            there = f"{listed(candidates)} may each be the score" if candidates else "no column holds numbers"
            if not candidates and wanted.labelled is None:
                return None
            raise InputError(f"{path}: {there} (columns: {listed(rest)}); name one with --label-column")
        if order := _in_order(rest[candidates[0]]):
            remarks.append(f"The scores are {order}: predictions lie between them too; rounded, they are stars again.")
        return Form(SCORE, (candidates[0],))
    fractions = [name for name in candidates if rest[name].numbers - rest[name].integers > rest[name].filled / 10]
    if len(fractions) == 1 and len(rest[fractions[0]].values) > 10:
        remarks.append(f"Column {fractions[0]!r} holds numbers with fractions: --task regression.")
        return Form(SCORE, (fractions[0],))
    return None


def find_separator(column: Column) -> str | None:
    """What separates several labels in the cells of a column, if nearly all parts occur in other cells too."""
    for separator in SEPARATORS:
        parts = {value: [part.strip() for part in value.split(separator)] for value in column.values}
        several = {value: own for value, own in parts.items() if len(own) > 1}
        if len(several) < 2 or sum(column.values[value] for value in several) < column.filled / 20:
            continue
        seen = Counter(part for own in parts.values() for part in set(own))
        alone = seen.keys() & {own[0] for own in parts.values() if len(own) == 1}
        if separator == "," and len(alone) < len(seen) / 2:
            continue  # as in "Smith, Anna" or "Oslo, Norway": what is between commas never stands alone
        known = [seen[part] > 1 and 0 < len(part) <= 60 for own in several.values() for part in own]
        if sum(known) > 0.9 * len(known) and len(seen) < max(3, len(parts)) and not _prose(seen):
            return separator
    return None


def _prose(parts) -> bool:
    """Whether parts of cells are sentences rather than names."""
    return sum(len(words(part)) > 6 for part in parts) > len(parts) / 10


def _in_order(column: Column) -> str:
    """ "1 to 5" for labels that are whole numbers one after the other, three or more; else nothing."""
    values = [value for value in column.values if not says_nothing(value)]
    if not 3 <= len(values) <= 11 or column.integers != column.filled:
        return ""
    numbers = sorted(int(float(value)) for value in values)
    return f"{numbers[0]} to {numbers[-1]}" if all(b - a == 1 for a, b in itertools.pairwise(numbers)) else ""


# ------------------------------------------------------------------ pairs of texts

OBVIOUS = [("premise", "hypothesis"), ("question", "sentence"), ("claim", "evidence"), ("text", "text_pair")]
LIKELY = [("question", "passage"), ("question", "answer"), ("query", "passage"), ("query", "document")]


def find_pair(path, raw: Raw, wanted: Wanted) -> tuple[str, str] | None:
    """The two columns of texts, if that is what was asked for, or what their names say; None for one text a row."""
    if wanted.pair_column:
        second = exactly(path, wanted.pair_column, raw.columns, "--pair-column")
        if wanted.text_column:
            return exactly(path, wanted.text_column, raw.columns, "--text-column"), second
    elif wanted.text_column or (wanted.task == CLASSES and not wanted.pairs):
        return None
    likely = [name for name, column in raw.columns.items() if column.looks_like_text()]
    if wanted.pair_column:
        likely = [name for name in likely if name != second]
        if len(likely) != 1:
            raise InputError(f"{path}: which text stands first? Choose it with --text-column, of {listed(raw.columns)}")
        return likely[0], second
    lower = {name.strip().lower(): name for name in likely}
    named = [(lower[a], lower[b]) for a, b in OBVIOUS + LIKELY * wanted.pairs if a in lower and b in lower]
    named += [(a, b) for a, b in itertools.combinations(likely, 2) if _numbered(a, b)]
    if len(named) == 1:
        return named[0]
    if wanted.pairs:
        if len(likely) == 2:
            return likely[0], likely[1]
        raise InputError(
            f"{path}: which two columns are the pair? Choose them with --text-column and --pair-column, of "
            f"{listed(raw.columns)}"
        )
    return None


def _numbered(one: str, other: str) -> bool:
    """Whether two names differ in a 1 and a 2, or an a and a b: sentence1 and sentence2, text_a and text_b."""
    pattern = r"[ _#-]*({})[ _-]*(?=string|$)|^[# ]*({})(?=\W)"
    stems = []
    for name, marks in ((one, "1|a"), (other, "2|b")):
        stem, found = re.subn(pattern.format(marks, marks), "", name.strip().lower())
        stems.append(stem if found else None)
    return stems[0] is not None and stems[0] == stems[1]


def remark_pair(pair: tuple[str, str], remarks: list[str]) -> None:
    remarks.append(f"Columns {pair[0]!r} and {pair[1]!r} are read as a pair of texts.")


def remark_sets(sets: list[tuple[int, ...]], counts: list[int], remarks: list[str]) -> None:
    """How many labels texts have; `counts` rows of each set."""
    rows, labels = sum(counts), sum(len(own) * count for own, count in zip(sets, counts, strict=True))
    without = sum(count for own, count in zip(sets, counts, strict=True) if not own)
    none = f", {counted(without, 'row')} none" if without else ""
    remarks.append(f"A text has {labels / max(1, rows):.2f} labels on average{none}.")
