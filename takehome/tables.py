"""Reads texts and their labels from files that other people made, repairs what can be repaired, and says so.

    from takehome.tables import read_table
    table = read_table("reviews.csv")
    table.dataset                 # datasets.Dataset with columns text, label and row, memory-mapped
    table.labels                  # ["negative", "positive"]
    table.remarks                 # ["3 rows without a label left out (rows 4, 9, 12)."]

A file is read as a stream and written to an Arrow file, so a large one needs no more memory than a small one.
"""

import atexit
import errno
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from takehome.errors import InputError
from takehome.table_files import (
    BATCH_ROWS,
    LABEL_NAMES,
    TEXT_NAMES,
    Records,
    by_name,
    counted,
    is_date,
    is_number,
    listed,
    open_splits,
    rows_named,
    unique,
    words,
)

MISSING = {"", "nan", "null", "n/a", "na", "#n/a", "<na>", "-nan", "nat", "#value!", "#ref!"}
INTEGER = re.compile(r"[-+]?\d+(\.0+)?")
PROSE = re.compile(r"\S\s+\S|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # words, or no spaces at all
HTML = re.compile(r"<(br|p|div|span|a|b|i|em|strong|li|ul|td|tr|h\d)(\s[^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#\d+);", re.I)
MAX_CHARACTERS = 100_000  # of a text: no model here reads further
MAX_LABELS = 10_000  # different values that are counted of a column


@dataclass
class Table:
    """Texts, with their labels if there are any.

    Attributes:
        path: what was read.
        dataset: `datasets.Dataset`, memory-mapped: "text" (string), "label" (ClassLabel) when labelled, "row" (int64),
            where it stood: in a CSV the row as a spreadsheet counts (the header is row 1), in JSON lines the line.
        text_column, label_column: the columns that were read, as the file names them.
        labels: names of the classes, in the order of their ids: sorted, numbers by value; empty without labels.
        remarks: each repair and each thing worth knowing, one sentence each, in the order found.
        splits: what the data has beside its training split: "validation", "test" or both, with the same columns. Texts
            that also stand in one of them were left out of `dataset`.
    """

    path: Path | str
    dataset: "datasets.Dataset"  # noqa: F821
    text_column: str
    label_column: str | None
    labels: list[str]
    remarks: list[str]
    splits: dict[str, "datasets.Dataset"] = field(default_factory=dict)  # noqa: F821


def read_table(
    path: str | os.PathLike,
    text_column: str | None = None,
    label_column: str | None = None,
    *,
    labelled: bool | None = True,
    labels: list[str] | None = None,
    usual: Collection[str] = (),
    training: bool = True,
    config: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Table:
    """Reads a table of texts.

    Args:
        path: a CSV, TSV, JSON-lines or Parquet file; a directory with one such file, with files called train,
            validation (dev, val) and test, or with a directory of .txt files for each class; or the id of a data set
            on the Hub, `namespace/name`.
        text_column, label_column: columns to read; found by name, then by content, if there is one best candidate.
        labelled: False reads texts only; None reads labels if there is a column of them.
        labels: names of the classes that are known, in the order of their ids, for instance those of a model. A label
            that is not among them is an error. Without it, the classes are those of the training split.
        usual: names of columns that come first where there are any, for instance those that a model was trained on.
        training: leave out what would harm training: repeated texts, texts with contradicting labels, classes with a
            single row. A row without a text or a label is left out in any case.
        config, revision: of a data set on the Hub, or of a directory laid out like one.
        cache_dir: where the Arrow file is written; by default in a temporary directory that goes with the process.

    Raises:
        InputError: the data cannot be read or makes no table of texts; nothing is left behind.
    """
    folder = _work_folder(cache_dir)
    remarks: list[str] = []
    try:
        sources = open_splits(path, folder, config, revision, remarks)
        raws = {name: _stage(columns, records, folder / f"{name}.raw") for name, (columns, records) in sources.items()}
        return _build(path, raws, folder, text_column, label_column, labelled, labels, usual, training, remarks)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"no space left in {folder.parent} for a copy; free some, or set TMPDIR"
        else:
            said = f"{error.strerror or error} ({error.filename}); check the file and its rights"
        raise InputError(f"{path}: {said}") from error
    finally:
        for raw in folder.glob("*.raw"):
            raw.unlink()
        shutil.rmtree(folder / "hub", ignore_errors=True)


def _work_folder(cache_dir) -> Path:
    if cache_dir is not None:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="table-", dir=cache_dir))
    folder = Path(tempfile.mkdtemp(prefix="table-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# ------------------------------------------------------------------ staging, and what the columns are like


class _Column:
    """What the values of a column are like."""

    def __init__(self):
        self.filled = self.numbers = self.integers = self.dates = self.prose = self.characters = self.nested = 0
        self.values: Counter = Counter()  # their beginnings, until there are more than MAX_LABELS
        self.early: set[int] = set()  # of the first thousand values
        self.types: set[str] = set()

    def add(self, value: str) -> None:
        self.filled += 1
        self.characters += len(value)
        if self.filled <= 1000:
            self.early.add(hash(value))
        if is_number(value):
            self.numbers += 1
            self.integers += bool(INTEGER.fullmatch(value))
        else:
            self.dates += is_date(value)
        self.prose += bool(PROSE.search(value))
        if len(self.values) <= MAX_LABELS:
            self.values[value[:200]] += 1

    @property
    def mean_length(self) -> float:
        return self.characters / max(1, self.filled)

    @property
    def mostly_plain(self) -> str | None:
        """What the column holds instead of texts, if most of it is that."""
        for kind, count in (("numbers", self.numbers), ("dates", self.dates), ("lists or objects", self.nested)):
            if count > self.filled / 2:
                return kind
        return None

    def looks_like_text(self) -> bool:
        distinct = len(self.early) / max(1, min(1000, self.filled))
        return self.filled and not self.mostly_plain and self.prose > self.filled / 2 and distinct > 0.3

    def looks_like_labels(self, rows: int) -> bool:
        plain = not self.dates and not self.nested and self.numbers == self.integers and self.mean_length <= 60
        return plain and self.filled > rows / 2 and 2 <= len(self.values) <= min(1000, max(2, self.filled / 2))


@dataclass
class _Raw:
    """A split as it was found: all its values as texts in an Arrow stream on disk."""

    file: Path
    columns: dict[str, _Column]
    rows: int

    def read(self, *names: str) -> Records:
        """(row, the values of these columns) in order, a batch in memory at a time."""
        import pyarrow as pa

        numbers = [0, *(1 + list(self.columns).index(name) for name in names)]
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield from zip(*(batch.column(number).to_pylist() for number in numbers), strict=True)


def _stage(columns: list[str], records: Records, file: Path) -> _Raw:
    import pyarrow as pa

    found = {name: _Column() for name in unique(columns)}
    schema = pa.schema([("row", pa.int64()), *((name, pa.large_string()) for name in found)])
    rows = ((row, *map(_as_text, values, found.values())) for row, values in records)
    return _Raw(file, found, _write_arrow(file, schema, rows))


def _as_text(value, column: _Column) -> str | None:
    """A value as a text, None for a missing one; a very long one is cut, a character behind where it is in the end."""
    if value is None:
        return None
    if isinstance(value, (list, dict)):
        column.nested += 1
        column.filled += 1
        return None
    column.types.add("text" if isinstance(value, str) else "number" if isinstance(value, (int, float)) else "other")
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    elif isinstance(value, bytes):
        value = value.decode(errors="replace")
    elif isinstance(value, bool):
        value = str(value).lower()
    value = str(value)[: MAX_CHARACTERS + 1000].replace("\r\n", "\n").strip()[: MAX_CHARACTERS + 1]
    if len(value) < 8 and value.lower() in MISSING:
        return None
    column.add(value)
    return value.encode(errors="replace").decode() if not value.isascii() else value  # lone surrogates of JSON


def _write_arrow(file: Path, schema, rows: Iterable[tuple]) -> int:
    """Writes rows as an Arrow stream, a batch in memory at a time; returns how many."""
    import pyarrow as pa

    total, waiting, rows = 0, [], iter(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            waiting.append(pa.record_batch([list(v) for v in zip(*batch, strict=True)], schema=schema))
            total += len(batch)
            if sum(part.nbytes for part in waiting) > 2**18:  # of few large batches, few pages are mapped at first
                writer.write_batch(pa.concat_batches(waiting))
                waiting = []
        for part in waiting:
            writer.write_batch(part)
    return total


# ------------------------------------------------------------------ which column is which


def _choose_text(path, raw: _Raw, wanted: str | None, label_column: str | None, usual, remarks: list[str]) -> str:
    columns = {name: column for name, column in raw.columns.items() if wanted or name != label_column}
    name = _exactly(path, wanted, columns, "--text-column") if wanted else _best_text(path, columns, usual, remarks)
    column = columns[name]
    if not column.filled or column.mostly_plain:
        raise InputError(
            f"{path}: column {name!r} holds {column.mostly_plain or 'nothing'}, not texts; name another with "
            f"--text-column, there is {listed(columns)}"
        )
    return name


def _best_text(path, columns: dict[str, _Column], usual, remarks: list[str]) -> str:
    likely = {name: column for name, column in columns.items() if column.looks_like_text()}
    named = by_name(columns, TEXT_NAMES)
    for group in [[name for name in columns if name in usual], *named]:
        if good := [name for name in group if name in likely]:
            return _longest(path, good, likely)
    if likely:
        name = _longest(path, list(likely), likely)
        remarks.append(f"Column {name!r} taken as the text: its values are the longest and mostly distinct.")
        return name
    for group in named[:2]:  # it is called so, whatever it holds: let that be said
        if len(group) == 1:
            return group[0]
    filled = [name for name, column in columns.items() if column.filled and not column.mostly_plain]
    rest = [name for name in filled if not by_name([name], LABEL_NAMES)[0]]
    if len(rest) == 1 and len(columns[rest[0]].values) > 2:  # single words may be texts too
        return rest[0]
    raise InputError(f"{path}: no column holds texts (columns: {listed(columns)}); name one with --text-column")


def _longest(path, names: list[str], columns: dict[str, _Column]) -> str:
    longest = max(columns[name].mean_length for name in names)
    close = [name for name in names if longest < 1.5 * columns[name].mean_length]
    if len(close) > 1:
        raise InputError(f"{path}: {listed(close)} may each be the text; choose one with --text-column")
    return close[0]


def _choose_label(path, raw: _Raw, wanted, text_column, labelled, labels, usual, remarks: list[str]) -> str | None:
    columns = {name: column for name, column in raw.columns.items() if name != text_column}
    if wanted is not None:
        name = _exactly(path, wanted, raw.columns, "--label-column")
        if name == text_column:
            raise InputError(f"{path}: column {name!r} cannot be text and label at once; change one of the two options")
        return name
    likely = {name: column for name, column in columns.items() if column.looks_like_labels(raw.rows)}
    if labels is not None:
        known = {_key(label) for label in labels}
        shares = {name: sum(n for v, n in c.values.items() if _key(v) in known) for name, c in columns.items()}
        likely = {name: c for name, c in columns.items() if shares[name] > c.filled / 2}
    named = by_name(columns, LABEL_NAMES)
    for group in [[name for name in columns if name in usual], *named]:
        if good := [name for name in group if name in likely]:
            name = _same_classes(path, raw, good, columns)
            others = [other for other in likely if other not in good]
            if others and labels is None and group is not named[0]:
                others = f"{listed(others, 5)} could be it too: --label-column decides"
                remarks.append(f"Column {name!r} taken as the label, by its name; {others}.")
            return name if labels else _with_names(raw, name, likely, remarks)
    if likely and labels is not None:
        return _same_classes(path, raw, list(likely), columns)
    if len(named[0]) == 1 and not columns[named[0][0]].dates and (labelled or columns[named[0][0]].filled):
        return named[0][0]
    if labelled is None:  # only a column that says so, or holds what the model knows, is one of labels
        return None
    if likely:
        plain = [name for name, column in likely.items() if not column.numbers]
        name = _same_classes(path, raw, plain or list(likely), columns)
        remarks.append(f"Column {name!r} taken as the label: it has {counted(len(likely[name].values), 'value')}.")
        return name
    if len(raw.columns) == 1:
        raise InputError(
            f"{path}: one column only ({text_column!r}) and so no labels; separate text and label by a comma or tab"
        )
    raise InputError(
        f"{path}: no column holds labels, a few values that repeat (columns: {listed(raw.columns)}); "
        "name one with --label-column"
    )


def _same_classes(path, raw: _Raw, names: list[str], columns: dict[str, _Column]) -> str:
    """One of several columns if they say the same, such as numbers and names of the classes."""
    if len(names) == 1:
        return names[0]
    if not all(_one_to_one(raw, names[0], name) for name in names[1:]):
        raise InputError(f"{path}: {listed(names)} may each be the label; choose one with --label-column")
    return next((name for name in names if not columns[name].numbers), names[0])


def _with_names(raw: _Raw, name: str, likely: dict[str, _Column], remarks: list[str]) -> str:
    """Where `label` holds numbers and `label_text` their names, the latter."""
    if likely[name].numbers:
        for other, column in likely.items():
            if not column.numbers and set(words(name)) & set(words(other)) and _one_to_one(raw, name, other):
                remarks.append(f"Labels taken from column {other!r}, which names the numbers of {name!r}.")
                return other
    return name


def _one_to_one(raw: _Raw, one: str, other: str) -> bool:
    pairs = {(a, b) for _, a, b in raw.read(one, other) if a or b}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _exactly(path, wanted: str, columns, option: str) -> str:
    close = [name for name in columns if name == wanted]
    close = close or [name for name in columns if name.strip().lower() == wanted.strip().lower()]
    if len(close) != 1:
        raise InputError(f"{path}: no column {wanted!r}; give {option} one of {listed(columns)}")
    return close[0]


# ------------------------------------------------------------------ cleaning


def _build(path, raws, folder, text_column, label_column, labelled, labels, usual, training, remarks) -> Table:
    import datasets

    raw = raws["train"]
    if not raw.rows:
        raise InputError(f"{path}: has a header and no rows; write at least two rows for each class")
    text, label = _choose_text(path, raw, text_column, label_column, usual, remarks), None
    if labelled is not False:
        label = _choose_label(path, raw, label_column, text, labelled, labels, usual, remarks)
    for name, raw in raws.items():
        for column in filter(None, (text, label)):
            if column not in raw.columns and raw.rows:
                raise InputError(
                    f"{path}: {name} has no column {column!r} as train has; rename it, or leave {name} out"
                )
    splits = {n: _examine(path, raw, f" of {n}" if len(raws) > 1 else "", text, label, remarks)
              for n, raw in raws.items()}  # fmt: skip
    train, order = splits["train"], [0]
    if label is not None:
        names = _settle_labels(path, splits, label, labels, remarks)
    if training:
        _drop_repeated(splits, remarks)
        if label is not None and labels is None:
            _drop_single(path, train, label, names, remarks)
    if train.rows.empty:
        raise InputError(f"{path}: no row has a text{' and a label' if label else ''}; fill column {text!r}")
    features = datasets.Features({"text": datasets.Value("string")})
    if label is not None:
        order = sorted(set(train.rows.label), key=lambda n: _order(names[n])) if labels is None else range(len(names))
        features["label"] = datasets.ClassLabel(names=[names[n] for n in order])
        if len(order) < 2 and labels is None:
            raise InputError(f"{path}: column {label!r} has one class only ({names[order[0]]!r}); add rows of another")
    features["row"] = datasets.Value("int64")
    done = {}
    for name, split in splits.items():
        file = folder / f"{name}.arrow"
        _write_arrow(file, features.arrow_schema, split.texts(text, label, {old: new for new, old in enumerate(order)}))
        done[name] = datasets.Dataset.from_file(str(file), split=name)
    dataset = done.pop("train")
    found = features["label"].names if label is not None else []
    return Table(path, dataset, text, label, found, remarks, done)


@dataclass
class _Split:
    """A split and the rows that are kept of it."""

    raw: _Raw
    where: str  # " of test", or nothing
    rows: "pandas.DataFrame"  # noqa: F821 (by place in raw: row in the file, digest of the text, number of the label)
    spellings: list[str]  # of the labels, by number

    def drop(self, where, what: str, remarks: list[str]) -> None:
        """Leaves rows out and says so; `what` goes on "3 rows …"."""
        if where.any():
            rows = self.rows.row[where].tolist()
            remarks.append(f"{counted(len(rows), 'row')}{self.where} {what} left out ({rows_named(rows)}).")
            self.rows = self.rows[~where]

    def counts(self) -> dict[str, int]:
        return {self.spellings[n]: count for n, count in self.rows.label.value_counts(sort=False).items()}

    def first_row(self, spelling: str) -> int:
        return self.rows.row[self.rows.label == self.spellings.index(spelling)].iloc[0]

    def texts(self, text: str, label: str | None, ids: dict[int, int]) -> Iterator[tuple]:
        """(text, label, row in the file) of what is kept, with its final number."""
        places = np.full(self.raw.rows, -1, np.int32)
        places[self.rows.index] = self.rows.label.map(ids).fillna(-1)
        for (row, value), number in zip(self.raw.read(text), places, strict=True):
            if number >= 0:
                yield (value[:MAX_CHARACTERS], *([int(number)] if label else []), row)


def _examine(path, raw: _Raw, where: str, text: str, label: str | None, remarks: list[str]) -> _Split:
    import pandas as pd

    number, digest = np.zeros(raw.rows, np.int32), np.zeros(raw.rows, np.uint64)
    labels, spellings = np.full(raw.rows, -1 if label else 0, np.int32), {}
    long, html, plain = [], 0, []
    for n, (row, value, *rest) in enumerate(raw.read(*filter(None, (text, label)))):
        number[n] = row
        if value:
            digest[n] = int.from_bytes(hashlib.blake2b(_key(value).encode(), digest_size=8).digest(), "big") or 1
            html += bool(HTML.search(value))
            if len(value) > MAX_CHARACTERS:
                long.append(row)
            if is_number(value) or is_date(value):
                plain.append(row)
        if rest and rest[0]:
            labels[n] = spellings.setdefault(rest[0], len(spellings))
            if len(spellings) > MAX_LABELS:
                raise InputError(_not_classes(path, label, len(spellings), raw.rows))
    rows = pd.DataFrame({"row": number, "digest": digest, "label": labels})
    split = _Split(raw, where, rows, list(spellings))
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
    return split


def _settle_labels(path, splits: dict[str, _Split], label: str, labels, remarks: list[str]) -> list[str]:
    """Makes one class of spellings that differ by case or spaces; the classes of all splits, in no order yet."""
    train = splits["train"]
    classes: dict[str, dict[str, int]] = {}
    for spelling, count in train.counts().items():
        classes.setdefault(_key(spelling), {})[spelling] = count
    if not classes:
        what = "lists or objects" if train.raw.columns[label].nested else "no labels"
        raise InputError(
            f"{path}: column {label!r} has {what}; write one label a row, or name another with --label-column"
        )
    if labels is not None:
        names, known = list(labels), {_key(name): n for n, name in enumerate(labels)}
        for split in splits.values():
            _refuse_unknown(path, split, known, names, label)
    else:
        rows = len(train.rows)
        if len(classes) > max(2, rows / 2 if rows >= 20 else rows - 1):
            raise InputError(_not_classes(path, label, len(classes), rows))
        _refuse_mixed(path, train, classes, label)
        names = [max(sorted(c), key=c.get) for c in classes.values()]
        known = {key: n for n, key in enumerate(classes)}
        for shown, spellings in zip(names, classes.values(), strict=True):
            if len(spellings) > 1:
                others = ", ".join(repr(s) for s in sorted(spellings) if s != shown)
                remarks.append(f"Label {others} counted as {shown!r}.")
            if shown.startswith(("=", "@", "+", "-")) and not is_number(shown):
                remarks.append(f"Label {shown!r} looks like a formula; it is kept as text.")
    if {"text", "number"} <= train.raw.columns[label].types:
        remarks.append(f"Column {label!r} has labels as texts and as numbers; all read as texts.")
    for split in splits.values():
        numbers = {n: known.get(_key(spelling), -1) for n, spelling in enumerate(split.spellings)}
        split.rows = split.rows.assign(label=split.rows.label.map(numbers).astype(np.int32))
        split.drop(split.rows.label < 0, "with a label that train has not", remarks)
    return names


def _refuse_unknown(path, split: _Split, known: dict[str, int], names: list[str], label: str) -> None:
    for spelling in split.counts():
        if _key(spelling) not in known:
            there = sorted({_key(other): other for other in split.spellings}.values(), key=_order)
            raise InputError(
                f"{path}, row {split.first_row(spelling)}: label {spelling!r} of column {label!r} is unknown to the "
                f"model; the file has {listed(there)}, the model {listed(names)}; write them as the model does"
            )


def _refuse_mixed(path, train: _Split, classes: dict[str, dict[str, int]], label: str) -> None:
    numbers, others = [key for key in classes if is_number(key)], [key for key in classes if not is_number(key)]
    if numbers and others:
        rare = min(numbers, others, key=lambda keys: sum(sum(classes[key].values()) for key in keys))
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


def _drop_repeated(splits: dict[str, _Split], remarks: list[str]) -> None:
    """Leaves out repeated texts, all copies of those with contradicting labels, and texts of train found in others."""
    for split in splits.values():
        order = np.argsort(split.rows.digest.to_numpy(), kind="stable")
        digest, label = (split.rows[name].to_numpy()[order] for name in ("digest", "label"))
        again = np.append(False, digest[1:] == digest[:-1])[: len(order)]
        different, repeated = digest[again & (label != np.roll(label, 1))], split.rows.index[order[again]]
        split.drop(split.rows.digest.isin(different), "with the same text and different labels", remarks)
        split.drop(split.rows.index.isin(repeated), "that repeat an earlier one", remarks)
    train = splits["train"]
    for name, split in splits.items():
        if name != "train":
            train.drop(train.rows.digest.isin(split.rows.digest), f"whose text is also in {name}", remarks)


def _drop_single(path, train: _Split, label: str, names: list[str], remarks: list[str]) -> None:
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


def _key(value: str) -> str:
    """The same for values that differ by case, spaces or the way of writing a character, and for 1 and 1.0."""
    key = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return key.partition(".")[0] if len(key) <= 20 and INTEGER.fullmatch(key) else key


def _order(name: str) -> tuple:
    return (0, float(name), name) if re.fullmatch(r"[-+]?\d+(\.\d+)?", name) else (1, 0.0, name)
