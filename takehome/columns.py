"""Copies a table to disk, learns on the way what its columns are like, and finds the ones of texts and of labels."""

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from takehome.errors import InputError
from takehome.values import (
    BATCH_ROWS,
    INTEGER,
    LABEL_NAMES,
    PRINTED_LIST,
    PROSE,
    TEXT_NAMES,
    Records,
    Sheet,
    by_name,
    is_date,
    is_error,
    is_number,
    key,
    says_nothing,
    unique,
    words,
)
from takehome.wording import counted, listed

MAX_CHARACTERS = 100_000  # of a text: no model here reads further
MAX_LABELS = 10_000  # different values that are counted of a column
LIST = "\x1e"  # begins a list in the staged table, written as JSON; no text begins so


@dataclass
class Wanted:
    """What a caller asks of a table; the arguments of `takehome.tables.read_table`."""

    text_column: str | None = None
    label_column: str | None = None
    labelled: bool | None = True
    labels: list[str] | None = None
    usual: Collection[str] = ()
    training: bool = True
    task: str | None = "classification"  # multi-label, regression; None: find out
    pair_column: str | None = None
    pairs: bool = False  # whether two columns of texts are insisted on


@dataclass
class Column:
    """What the values of a column are like."""

    filled: int = 0  # values that are not missing
    numbers: int = 0
    integers: int = 0
    dates: int = 0
    prose: int = 0
    nested: int = 0  # lists or objects
    flat: int = 0  # lists of texts or numbers, of the nested
    printed: int = 0  # texts that look like lists
    characters: int = 0
    damaged: int = 0  # with bytes that are no text
    values: Counter = field(default_factory=Counter)  # their beginnings, until there are more than MAX_LABELS
    nothing: Counter = field(default_factory=Counter)  # values such as NA, which may be missing or a class
    early: set[int] = field(default_factory=set)  # of the first thousand values
    types: set[str] = field(default_factory=set)

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
            self.printed += len(value) < 1000 and bool(PRINTED_LIST.fullmatch(value))
        self.prose += bool(PROSE.search(value))
        if len(self.values) <= MAX_LABELS:
            self.values[value[:200]] += 1

    @property
    def mean_length(self) -> float:
        return self.characters / max(1, self.filled)

    @property
    def lists(self) -> int:
        return self.flat + self.printed

    @property
    def mostly_plain(self) -> str | None:
        """What the column holds instead of texts, if most of it is that."""
        for kind, count in (("numbers", self.numbers), ("dates", self.dates), ("lists or objects", self.nested)):
            if count > self.filled / 2:
                return kind
        return None

    @property
    def kept_as_classes(self) -> set[str]:
        """Keys of values such as NA that occur at least half as often as another on average: they may be a class."""
        usual = sum(self.values.values()) / max(1, len(self.values))
        counts = Counter()
        for value, count in self.nothing.items():
            counts[key(value)] += count
        return {value for value, count in counts.items() if count >= max(2, usual / 2)}

    def looks_like_text(self) -> bool:
        distinct = len(self.early) / max(1, min(1000, self.filled))
        return bool(self.filled) and not self.mostly_plain and self.prose > self.filled / 2 and distinct > 0.3

    def looks_like_labels(self, rows: int) -> bool:
        plain = not self.dates and not self.nested and self.numbers == self.integers and self.mean_length <= 60
        filled = self.filled + sum(self.nothing.values())
        distinct = len(self.values) + len(self.kept_as_classes)
        return plain and self.filled > rows / 4 and filled > rows / 2 and 2 <= distinct <= min(1000, max(2, filled / 2))


@dataclass
class Raw:
    """A split as it was found: all its values as texts in an Arrow stream on disk."""

    file: Path
    columns: dict[str, Column]
    rows: int

    def read(self, *names: str) -> Records:
        """(row, the values of these columns) in order, a batch in memory at a time."""
        import pyarrow as pa

        numbers = [0, *(1 + list(self.columns).index(name) for name in names)]
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield from zip(*(batch.column(number).to_pylist() for number in numbers), strict=True)


def stage(sheet: Sheet, file: Path, remarks: list[str]) -> Raw:
    """Copies a table to an Arrow stream on disk."""
    import pyarrow as pa

    names = unique(sheet.columns)
    for name, new in zip(sheet.columns, names, strict=True):
        if name != new:
            remarks.append(f"There is more than one column {name!r}: a later one is called {new!r}.")
    found = {name: Column() for name in names}
    schema = pa.schema([("row", pa.int64()), *((f"{n}", pa.large_string()) for n in range(len(names)))])
    rows = ((row, *map(_as_text, values, found.values())) for row, values in sheet.records)
    return Raw(file, found, write_arrow(file, schema, rows))


def _as_text(value, column: Column) -> str | None:
    """A value as a text, None for a missing one; a very long one is cut, a character behind where it is in the end."""
    if value is None or value != value:  # nan
        return None
    if isinstance(value, (list, dict, tuple)):
        column.nested += 1
        column.filled += 1
        flat = not isinstance(value, dict) and all(isinstance(part, (str, int, float)) for part in value)
        column.flat += flat
        return f"{LIST}{json.dumps(list(value))}" if flat else None
    column.types.add("text" if isinstance(value, str) else "number" if isinstance(value, (int, float)) else "other")
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    elif isinstance(value, bytes):
        decoded = value.decode(errors="replace")
        column.damaged += "\ufffd" in decoded
        value = decoded
    elif isinstance(value, bool):
        value = str(value).lower()
    value = str(value)[: MAX_CHARACTERS + 1000].replace("\r\n", "\n").strip()[: MAX_CHARACTERS + 1]
    if not value or is_error(value):
        return None
    if says_nothing(value):
        column.nothing[value] += 1
        return value
    if not value.isascii():
        valid = value.encode(errors="replace").decode()  # JSON may hold halves of a character
        column.damaged += valid != value
        value = valid
    column.add(value)
    return value


def write_arrow(file: Path, schema, rows: Iterable[tuple]) -> int:
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


def choose_text(path, raw: Raw, wanted: Wanted, remarks: list[str]) -> str:
    """The column of texts.

    Raises:
        InputError: there is none, or more than one could be it.
    """
    told = wanted.text_column
    columns = {name: column for name, column in raw.columns.items() if told or name != wanted.label_column}
    name = exactly(path, told, columns, "--text-column") if told else _best_text(path, columns, wanted.usual, remarks)
    column = columns[name]
    if not column.filled or column.mostly_plain:
        raise InputError(
            f"{path}: column {name!r} holds {column.mostly_plain or 'nothing'}, not texts; name another with "
            f"--text-column, there is {listed(columns)}"
        )
    return name


def _best_text(path, columns: dict[str, Column], usual, remarks: list[str]) -> str:
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


def _longest(path, names: list[str], columns: dict[str, Column]) -> str:
    longest = max(columns[name].mean_length for name in names)
    close = [name for name in names if longest < 1.5 * columns[name].mean_length]
    if len(close) > 1:
        raise InputError(f"{path}: {listed(close)} may each be the text; choose one with --text-column")
    return close[0]


def choose_label(path, raw: Raw, text_column: str, wanted: Wanted, remarks: list[str]) -> str | None:
    """The column of labels; None if there is none and labels are not insisted on.

    Raises:
        InputError: there is none, or more than one could be it.
    """
    columns = {name: column for name, column in raw.columns.items() if name != text_column}
    if wanted.label_column is not None:
        name = exactly(path, wanted.label_column, raw.columns, "--label-column")
        if name == text_column:
            raise InputError(f"{path}: column {name!r} cannot be text and label at once; change one of the two options")
        return name
    if wanted.labels is not None:
        likely = {name: c for name, c in columns.items() if _share_of_known(c, wanted.labels) > 1 / 2}
    else:
        likely = {name: column for name, column in columns.items() if column.looks_like_labels(raw.rows)}
    named = by_name(columns, LABEL_NAMES)
    for group in [[name for name in columns if name in wanted.usual], *named]:
        if good := [name for name in group if name in likely]:
            if wanted.labels is None and (group is named[2] or group is named[3]):  # a name that says little
                good = list(likely)
            name = _same_classes(path, raw, good, columns)
            return name if wanted.labels else _with_names(raw, name, likely, remarks)
    if likely and wanted.labels is not None:
        return _same_classes(path, raw, list(likely), columns)
    sure = named[0][0] if len(named[0]) == 1 else None
    if sure and not columns[sure].dates and (wanted.labelled or columns[sure].filled):
        return sure  # it is called so, whatever it holds: let that be said
    if wanted.labelled is None:  # only a column that says so, or holds what the model knows, is one of labels
        return None
    if likely:
        name = _same_classes(path, raw, list(likely), columns)
        remarks.append(f"Column {name!r} taken as the label: it has {counted(len(likely[name].values), 'value')}.")
        return name
    if len(raw.columns) == 1:
        raise InputError(
            f"{path}: one column only ({text_column!r}) and so no labels; separate text and label by a comma or "
            "tab, and delete lines above the header"
        )
    raise InputError(
        f"{path}: no column holds labels, a few values that repeat (columns: {listed(raw.columns)}); "
        "name one with --label-column"
    )


def _share_of_known(column: Column, labels: list[str]) -> float:
    known = {key(label) for label in labels}
    both = column.values + column.nothing
    return sum(count for value, count in both.items() if key(value) in known) / max(1, column.filled)


def _same_classes(path, raw: Raw, names: list[str], columns: dict[str, Column]) -> str:
    """One of several columns if they say the same, such as numbers and names of the classes."""
    if len(names) == 1:
        return names[0]
    if not all(_one_to_one(raw, names[0], name) for name in names[1:]):
        raise InputError(f"{path}: {listed(names)} may each be the label; choose one with --label-column")
    return next((name for name in names if not columns[name].numbers), names[0])


def _with_names(raw: Raw, name: str, likely: dict[str, Column], remarks: list[str]) -> str:
    """Where `label` holds numbers and `label_text` their names, the latter."""
    if likely[name].numbers:
        for other, column in likely.items():
            if not column.numbers and set(words(name)) & set(words(other)) and _one_to_one(raw, name, other):
                remarks.append(f"Labels taken from column {other!r}, which names the numbers of {name!r}.")
                return other
    return name


def _one_to_one(raw: Raw, one: str, other: str) -> bool:
    pairs = {(a, b) for _, a, b in raw.read(one, other) if a or b}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def exactly(path, wanted: str, columns: Iterable[str], option: str) -> str:
    close = [name for name in columns if name == wanted]
    close = close or [name for name in columns if name.strip().lower() == wanted.strip().lower()]
    if len(close) != 1:
        raise InputError(f"{path}: no column {wanted!r}; give {option} one of {listed(columns)}")
    return close[0]
