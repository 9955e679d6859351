"""Leaves out rows that cannot be used or would harm training, settles the classes of a table, and says so."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from takehome.columns import LIST, MAX_CHARACTERS, MAX_LABELS, Column, Raw, Wanted
from takehome.errors import InputError
from takehome.forms import BETWEEN, CLASSES, Form, remark_sets
from takehome.values import HTML, SEVERAL, hash64, is_date, is_number, key, order, says_nothing, visible
from takehome.wording import counted, listed, rows_named

if TYPE_CHECKING:
    import pandas


@dataclass
class Split:
    """A split and the rows that are kept of it."""

    raw: Raw
    where: str  # " of test", or nothing
    rows: "pandas.DataFrame"  # by place in raw: row in the file, digest of the text, number of the label
    spellings: list[str]  # of the labels, by number
    left_out: Counter = field(default_factory=Counter)  # rows, by the reason

    def drop(self, where, what: str, remarks: list[str]) -> None:
        """Leaves rows out and says so; `what` goes on "3 rows …"."""
        if where.any():
            rows = self.rows.row[where].tolist()
            remarks.append(f"{counted(len(rows), 'row')}{self.where} {what} left out ({rows_named(rows)}).")
            self.left_out[what] += len(rows)
            self.rows = self.rows[~where]

    def counts(self) -> dict[str, int]:
        return {self.spellings[n]: count for n, count in self.rows.label.value_counts(sort=False).items()}

    def first_row(self, spelling: str) -> int:
        return self.rows.row[self.rows.label == self.spellings.index(spelling)].iloc[0]

    def texts(self, texts: list[str], answers: list | None) -> Iterator[tuple]:
        """(text, the second of a pair, answer, row in the file) of what is kept; `answers` by number of the label."""
        places = np.full(self.raw.rows, -1, np.int32)
        places[self.rows.index] = self.rows.label
        for (row, *values), number in zip(self.raw.read(*texts), places, strict=True):
            if number >= 0 and (answers is None or answers[number] is not None):
                own = [] if answers is None else [answers[number]]
                yield (*(value[:MAX_CHARACTERS] for value in values), *own, row)


def examine(
    path, raw: Raw, where: str, texts: list[str], form: Form | None, nothing: set[str], remarks: list[str]
) -> Split:
    """Reads the texts and labels of a split once; leaves out rows without a text or a label.

    Args:
        path: for messages.
        raw: the split.
        where: " of test", or nothing if there is one split only.
        texts: the columns of texts, one or two.
        form: how labels are written; None if none are read.
        nothing: keys of labels such as NA that are classes here.
        remarks: gets a sentence about each thing that was found.
    """
    import pandas as pd

    number, digest = np.zeros(raw.rows, np.int32), np.zeros(raw.rows, np.uint64)
    labels, spellings = np.full(raw.rows, -1 if form else 0, np.int32), {}
    long, html, plain = [], 0, []
    for n, (row, *values) in enumerate(raw.read(*texts, *(form.columns if form else ()))):
        number[n] = row
        own, rest = values[: len(texts)], values[len(texts) :]
        if all(value and key(value) and not says_nothing(value) and value[0] != LIST for value in own):
            digest[n] = hash64("\x1f".join(map(key, own))) or 1
            html += any(HTML.search(value) for value in own)
            if any(len(value) > MAX_CHARACTERS for value in own):
                long.append(row)
            if any(is_number(value) or is_date(value) for value in own):
                plain.append(row)
        label = form.spelling(rest) if form else None
        if form and form.task != CLASSES:
            labels[n] = -1 if label is None else spellings.setdefault(label, len(spellings))
        elif label and (same := key(label)) and (not says_nothing(label) or same in nothing):
            labels[n] = spellings.setdefault(label, len(spellings))
            if len(spellings) > MAX_LABELS:
                raise InputError(_not_classes(path, form.name, len(spellings), raw.rows))
    rows = pd.DataFrame({"row": number, "digest": digest, "label": labels})
    split = Split(raw, where, rows, list(spellings))
    split.drop(split.rows.digest == 0, "without a text", remarks)
    split.drop(split.rows.label < 0, "without a label", remarks)
    if long:
        what = f"{counted(len(long), 'text')}{where} longer than {MAX_CHARACTERS:,} characters"
        remarks.append(f"{what} cut there ({rows_named(long)}).")
    if plain:
        what = f"{counted(len(plain), 'text')}{where} nothing but a number or a date"
        remarks.append(f"{what}, kept ({rows_named(plain)}).")
    if html:
        remarks.append(f"{counted(html, 'text')}{where} with HTML, kept as it is.")
    if damaged := sum(raw.columns[text].damaged for text in texts if text in raw.columns):
        remarks.append(f"{counted(damaged, 'text')}{where} with bytes that are no text, read as \ufffd or ?.")
    return split


# ------------------------------------------------------------------ classes


def nothing_or_class(column: Column, wanted: Wanted, label: str, remarks: list[str]) -> set[str]:
    """Decides which values such as NA or None are classes, and says so; returns their keys."""
    if wanted.labels is not None:
        return {key(name) for name in wanted.labels}
    kept = column.kept_as_classes
    counts: dict[str, Counter] = {}
    for value, count in column.nothing.items():
        counts.setdefault(key(value), Counter())[value] += count
    for same, spellings in counts.items():
        shown, rows = spellings.most_common(1)[0][0], counted(spellings.total(), "row")
        if same in kept:
            remarks.append(f"Label {shown!r} ({rows}) taken as a class; empty these cells if none is known there.")
        else:
            remarks.append(f"Label {shown!r} ({rows}) taken as none; write it in another way if it is a class.")
    return kept


def settle_labels(path, splits: dict[str, Split], label: str, wanted: Wanted, remarks: list[str]) -> list[str]:
    """Makes one class of spellings that look the same; the classes of all splits, in no order yet.

    Raises:
        InputError: the column holds no classes, or ones that the model does not know.
    """
    train = splits["train"]
    column = train.raw.columns[label]
    classes: dict[str, dict[str, int]] = {}
    for spelling, count in train.counts().items():
        classes.setdefault(key(spelling), {})[spelling] = count
    if column.nested or column.printed > column.filled / 2:
        what = "lists or objects" if column.nested else f"lists, such as {next(iter(train.counts()), '')!r}"
        todo = "write one label a row, or name another with --label-column"
        raise InputError(f"{path}: column {label!r} has {what}; {todo}")
    if not classes:
        raise InputError(_no_labels(path, train, label))
    if wanted.labels is not None:
        names, known = list(wanted.labels), {key(name): n for n, name in enumerate(wanted.labels)}
        for split in splits.values():
            _refuse_unknown(path, split, known, names, label)
    else:
        rows = len(train.rows)
        if len(classes) > max(2, rows / 2 if rows >= 20 else rows - 1):
            raise InputError(_not_classes(path, label, len(classes), rows))
        _refuse_mixed(path, train, classes, label)
        names = [_name(spellings, remarks) for spellings in classes.values()]
        known = {same: n for n, same in enumerate(classes)}
        _remark_combined(names, remarks)
    if {"text", "number"} <= column.types:
        remarks.append(f"Column {label!r} has labels as texts and as numbers; all read as texts.")
    for split in splits.values():
        numbers = {n: known.get(key(spelling), -1) for n, spelling in enumerate(split.spellings)}
        strange = sorted({spelling for n, spelling in enumerate(split.spellings) if numbers[n] < 0})
        split.rows = split.rows.assign(label=split.rows.label.map(numbers).astype(np.int32))
        split.drop(split.rows.label < 0, f"with a label that train has not ({listed(strange, 3)})", remarks)
        if wanted.labels is None and (gone := _without_rows(names, split)):
            remarks.append(f"No row{split.where} has the label {listed(gone, 5)}.")
    return names


def _without_rows(names: list[str], split: Split) -> list[str]:
    """The classes that have no row in a split that has some."""
    return [] if split.rows.empty else [names[n] for n in sorted(set(range(len(names))) - set(split.rows.label))]


def settle_sets(splits: dict[str, Split], wanted: Wanted, remarks: list[str]) -> tuple[list[str], list[list[float]]]:
    """Makes the labels of a text, of several, 0 or 1 each: the names in their order, and the answers by number.

    A label of a single row is left out, and so is one that train has not, unless a model knows it.
    """
    train, counts, shown = splits["train"], Counter(), {}
    for spelling, count in train.counts().items():
        for part in filter(None, spelling.split(BETWEEN)):
            counts[key(part)] += count
            shown.setdefault(key(part), Counter())[part] += count
    names = wanted.labels or sorted(
        (n.most_common(1)[0][0] for same, n in shown.items() if counts[same] > 1), key=order
    )
    known = {key(name): n for n, name in enumerate(names)}
    lost = sorted(shown[same].most_common(1)[0][0] for same in shown if same not in known)
    if lost:
        why = "of which the model has none" if wanted.labels else "of a single row"
        remarks.append(f"Labels {why} left out: {listed(lost, 5)}.")
    answers: dict[tuple[int, ...], int] = {}
    for split in splits.values():
        own = [tuple(sorted({known[key(p)] for p in s.split(BETWEEN) if key(p) in known})) for s in split.spellings]
        numbers = [answers.setdefault(found, len(answers)) for found in own]
        split.rows = split.rows.assign(label=np.array([*numbers, -1], np.int32)[split.rows.label])
        split.spellings = split.spellings  # of what was read: for messages
        strange = {p for s in split.spellings for p in s.split(BETWEEN) if p and key(p) not in known} - set(lost)
        if strange and split is not train:
            remarks.append(f"Labels{split.where} that train has not, left out: {listed(sorted(strange), 5)}.")
    rows = np.bincount(train.rows.label, minlength=len(answers))
    remark_sets(list(answers), rows.tolist(), remarks)
    return names, [[float(n in own) for n in range(len(names))] for own in answers]


def settle_scores(splits: dict[str, Split], remarks: list[str]) -> list[float]:
    """The scores by the number of the label, one numbering for all splits."""
    values: dict[float, int] = {}
    for split in splits.values():
        numbers = [values.setdefault(number_of(spelling), len(values)) for spelling in split.spellings]
        split.rows = split.rows.assign(label=np.array([*numbers, -1], np.int32)[split.rows.label])
    return list(values)


def number_of(text: str) -> float:
    """The value of a number as people write it: 1,234.5 or 1.234,5 or 12 %."""
    plain = text.strip().rstrip("%").replace(" ", "").replace("_", "").replace("'", "")
    if "," in plain and ("." not in plain or plain.rindex(",") > plain.rindex(".")):
        plain = plain.replace(".", "").replace(",", ".", 1) if plain.count(",") == 1 else plain.replace(",", "")
    return float(plain.replace(",", ""))


def _name(spellings: dict[str, int], remarks: list[str]) -> str:
    """The name of a class: the commonest of its spellings, without what cannot be seen."""
    common = max(sorted(spellings), key=spellings.get)
    shown = common if visible(common) == common else next((s for s in spellings if visible(s) == s), visible(common))
    if others := ", ".join(repr(s) for s in sorted(spellings) if s != shown):
        remarks.append(f"Label {others} counted as {shown!r}.")
    if shown.startswith(("=", "@", "+", "-")) and not is_number(shown):
        remarks.append(f"Label {shown!r} looks like a formula; it is kept as text.")
    return shown


def _remark_combined(names: list[str], remarks: list[str]) -> None:
    """Says when labels such as "A;B" are made of others: here a text has one label only."""
    parts = {name: SEVERAL.split(name) for name in names}
    single = {key(name) for name in names if len(parts[name]) == 1}
    combined = [name for name in names if len(parts[name]) > 1 and any(key(part) in single for part in parts[name])]
    if combined:
        what = f"Labels such as {combined[0]!r} ({len(combined)} of {len(names)})"
        remarks.append(f"{what} look like several labels in one; each such combination is a class of its own here.")


def _no_labels(path, train: Split, label: str) -> str:
    """Why no class is left: there was no label, or no row with one."""
    if train.left_out["without a label"]:
        return f"{path}: column {label!r} has no labels; write one label a row, or name another with --label-column"
    return nothing_left(path, train)


def nothing_left(path, train: Split) -> str:
    """Says why no row of train is left."""
    reasons = "; ".join(f"{rows:,} {what}" for what, rows in train.left_out.most_common())
    most = train.left_out.most_common(1)[0][0] if train.left_out else ""
    todo = {
        "without a text": "fill its column of texts, or name another with --text-column",
        "without a label": "fill its column of labels, or name another with --label-column",
        "with the same text and different labels": "give each text one label, or name another with --label-column",
    }.get(most, "give train texts of its own" if "also in" in most else "add other rows")
    return f"{path}: none of the {train.raw.rows:,} rows{train.where} can be used ({reasons}); {todo}"


def _refuse_unknown(path, split: Split, known: dict[str, int], names: list[str], label: str) -> None:
    for spelling in split.counts():
        if key(spelling) not in known:
            there = sorted({key(other): other for other in split.spellings}.values(), key=order)
            raise InputError(
                f"{path}, row {split.first_row(spelling)}: label {spelling!r} of column {label!r} is unknown to the "
                f"model; the file has {listed(there)}, the model {listed(names)}; write them as the model does"
            )


def _refuse_mixed(path, train: Split, classes: dict[str, dict[str, int]], label: str) -> None:
    numbers, others = [same for same in classes if is_number(same)], [same for same in classes if not is_number(same)]
    if numbers and others:
        rare = min(numbers, others, key=lambda keys: sum(sum(classes[same].values()) for same in keys))
        raise InputError(
            f"{path}, row {train.first_row(next(iter(classes[rare[0]])))}: column {label!r} mixes words "
            f"({listed(others, 3)}) and numbers ({listed(numbers, 3)}); write each class in one way, or name another "
            "column with --label-column"
        )


def _not_classes(path, label: str, distinct: int, rows: int) -> str:
    return (
        f"{path}: column {label!r} has {distinct:,} different values in {rows:,} rows, too many for classes; "
        "name another with --label-column"
    )


# ------------------------------------------------------------------ rows that would harm training


def drop_repeated(splits: dict[str, Split], remarks: list[str]) -> None:
    """Leaves out repeated texts, all copies of those with contradicting labels, and texts of train found in others."""
    for split in splits.values():
        by_text = np.argsort(split.rows.digest.to_numpy(), kind="stable")
        digest, label = (split.rows[name].to_numpy()[by_text] for name in ("digest", "label"))
        again = np.append(False, digest[1:] == digest[:-1])[: len(by_text)]
        different, repeated = digest[again & (label != np.roll(label, 1))], split.rows.index[by_text[again]]
        split.drop(split.rows.digest.isin(different), "with the same text and different labels", remarks)
        split.drop(split.rows.index.isin(repeated), "that repeat an earlier one", remarks)
    train = splits["train"]
    for name, split in splits.items():
        if name != "train":
            train.drop(train.rows.digest.isin(split.rows.digest), f"whose text is also in {name}", remarks)


def drop_single(path, train: Split, label: str, names: list[str], remarks: list[str]) -> None:
    """Leaves out classes of train with a single row."""
    counts = train.rows.label.value_counts().sort_index()
    single = counts[counts == 1].index
    if len(single) and len(single) >= len(counts) - 1:
        row = train.rows.row[train.rows.label == single[0]].iloc[0]
        raise InputError(
            f"{path}, row {row}: class {names[single[0]]!r} of column {label!r} has this row only, and without it "
            "there are not two classes; give each class two rows or more"
        )
    for n in single:
        train.drop(train.rows.label == n, f"of class {names[n]!r}, which has no other,", remarks)


def drop_lost_classes(splits: dict[str, Split], names: list[str], remarks: list[str]) -> None:
    """Leaves out rows of other splits whose class has no row left in train."""
    there = set(splits["train"].rows.label)
    for name, split in splits.items():
        if name != "train":
            for n in sorted(set(split.rows.label) - there):
                split.drop(split.rows.label == n, f"of class {names[n]!r}, of which train keeps no row,", remarks)
