"""Reads tables that are text, CSV and JSON, as other people write them; what can be repaired is repaired and said."""

import contextlib
import csv
import itertools
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from takehome.encodings import Encoding, find_encoding, lines
from takehome.errors import InputError
from takehome.values import LABEL_NAMES, TEXT_NAMES, Records, Sheet, by_name, is_date, is_number, words
from takehome.wording import counted, listed, rows_named

MAX_RECORD = 64_000_000  # characters that an open quote may swallow before we call it a mistake
SAMPLE = 1000  # lines by which the form of a file is found out
NO_DELIMITER = "\x1f"  # which no file has
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}


# ------------------------------------------------------------------ CSV and TSV


@dataclass(frozen=True)
class _Form:
    """How the rows of a CSV file are written."""

    delimiter: str
    width: int  # fields of the first row
    header: bool  # whether that row holds names
    linewise: bool  # quotes are plain characters, and each line is a row


def read_csv(path: Path, told: str | None, remarks: list[str]) -> Sheet:
    """A CSV or TSV file; its delimiter, quotes and header are found out.

    Args:
        path: of the file.
        told: its encoding, if the user gave one.
        remarks: gets a sentence for each repair; they are complete when the records are read.

    Raises:
        InputError: it is empty, or a row cannot be read.
    """
    encoding = find_encoding(path, told, remarks)
    csv.field_size_limit(2 * MAX_RECORD)
    expected = "," if path.suffix.lower() == ".csv" else "\t"
    sample = _sample(path, encoding)
    said = re.fullmatch(r"sep=(.)\s*", sample[0] if sample else "")  # Excel's own way of saying it
    sample = sample[1:] if said else sample
    delimiter = said[1] if said else _delimiter(sample, expected)
    if delimiter not in (expected, NO_DELIMITER):
        named = DELIMITERS.get(delimiter, repr(delimiter))
        remarks.append(f"The columns of {path.name} are separated by {named}.")
    fields = [record for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if any(record)]
    if not fields:
        raise InputError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    header, width = _has_header(fields), len(fields[0])
    columns = [name.strip() for name in fields[0]] if header else [f"column {n}" for n in range(1, width + 1)]
    if not header:
        remarks.append(f"{path.name} has no header: its columns are called {listed(columns)}.")
    columns = [name or f"Unnamed: {n}" for n, name in enumerate(columns)]
    # where tabs separate, quotes are mostly plain characters, and no text goes on in the next line
    linewise = delimiter == "\t" and all(line.count("\t") == width - 1 for line in sample if line.strip())
    numbered = itertools.islice(lines(path, encoding), 1 if said else 0, None)
    reader = _Reader(path, numbered, _Form(delimiter, width, header, linewise), remarks)
    return Sheet(columns, reader.rows())


def _sample(path: Path, encoding: Encoding) -> list[str]:
    sample, size = [], 0
    for line in itertools.islice(lines(path, encoding), SAMPLE):
        sample.append(line)
        if (size := size + len(line)) > 2_000_000:
            break
    return sample


def _delimiter(sample: list[str], expected: str) -> str:
    """The separator that gives most rows as many fields as the first; \\x1f, which no file has, if there is none."""
    shares = {}
    for delimiter in dict.fromkeys(expected + ",;\t|"):
        widths = [len(record) for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if record]
        if widths and widths[0] > 1:
            share = sum(width == widths[0] for width in widths) / len(widths)
            if share > 0.5 or delimiter == expected:
                shares[delimiter] = share
    best = max(shares, key=shares.get, default=NO_DELIMITER)
    return expected if shares.get(expected, 0) >= min(0.9, shares.get(best, 1)) else best


def _has_header(records: list[list[str]]) -> bool:
    first, rest = [cell.strip() for cell in records[0]], records[1:]
    if first == [str(n) for n in range(len(first))]:
        return True
    if any(len(cell) > 100 for cell in first):
        return False
    if len(first) == 1:  # a list of texts
        return len(words(first[0])) <= 2
    if any(group for names in (TEXT_NAMES, LABEL_NAMES) for group in by_name(first, names)[::2]):
        return True
    if any(is_number(cell) or is_date(cell) for cell in first):
        return False
    return not any(cell and any(n < len(r) and r[n].strip() == cell for r in rest) for n, cell in enumerate(first))


@dataclass
class _Reader:
    """Reads the rows of a CSV file one by one, and those with wrong quotes in another way."""

    path: Path
    lines: Iterator[str]
    form: _Form
    remarks: list[str]
    waiting: deque[str] = field(default_factory=deque)  # lines to read before those of the file
    taken: list[str] = field(default_factory=list)  # lines of the record that is being read
    quotes: list[int] = field(default_factory=list)  # rows with stray quotation marks
    broken: list[int] = field(default_factory=list)  # rows with too many fields
    most: int = 0  # fields of the first of these

    def rows(self) -> Records:
        """(row as a spreadsheet counts, its fields), as many as the header has."""
        width, rows, header = self.form.width, 0, self.form.header
        for row, fields in self._records():
            if not any(cell.strip() for cell in fields):
                continue
            if header:
                header = False
                continue
            rows += 1
            if len(fields) > width and any(cell.strip() for cell in fields[width:]):
                self.most = self.most or len(fields)
                self.broken.append(row)
                continue
            yield row, (fields + [None] * width)[:width]
        self._tell(rows)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        reader, row, line = self._start(), 0, 0
        while True:
            self.taken.clear()
            row += 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fields = _reparse(self.taken[0], self.form.delimiter, self.form.width)
                if fields is None:
                    raise InputError(
                        f"{self.path}, row {row} (line {line + 1}): a quotation mark opens and never closes, or "
                        'stands alone; close it, or write it twice ("") inside a quoted text'
                    ) from error
                self.quotes.append(row)
                self.waiting.extendleft(reversed(self.taken[1:]))  # the lines that the open quote took
                del self.taken[1:]
                reader = self._start()
            line += len(self.taken)
            if self.form.linewise:
                fields = [c[1:-1].replace('""', '"') if len(c) > 1 and c[0] == c[-1] == '"' else c for c in fields]
            yield row, fields

    def _start(self):
        style = dict(quoting=csv.QUOTE_NONE) if self.form.linewise else dict(skipinitialspace=True, strict=True)
        return csv.reader(self._tapped(), delimiter=self.form.delimiter, **style)

    def _tapped(self) -> Iterator[str]:
        while (line := self.waiting.popleft() if self.waiting else next(self.lines, None)) is not None:
            self.taken.append(line)
            if len(self.taken) % 1000 == 0 and sum(map(len, self.taken)) > MAX_RECORD:
                raise csv.Error("a record without end")
            yield line

    def _tell(self, rows: int) -> None:
        if self.quotes:
            found = f"{counted(len(self.quotes), 'row')} of {self.path.name} ({rows_named(self.quotes)})"
            self.remarks.append(f"Stray quotation marks in {found} taken as text.")
        if len(self.broken) > rows / 10:
            raise InputError(
                f"{self.path}, row {self.broken[0]}: {self.most} fields where the header has {self.form.width}, and so "
                f"in {len(self.broken):,} of {rows:,} rows; put quotation marks round each text that holds "
                f"{self.form.delimiter!r}"
            )
        if self.broken:
            found = f"{counted(len(self.broken), 'row')} of {self.path.name} with too many fields"
            self.remarks.append(f"{found} left out ({rows_named(self.broken)}).")


def _reparse(line: str, delimiter: str, width: int) -> list[str] | None:
    """One line whose quotes are wrong, read in the other ways that quotes are written; None if none fits."""
    line = line.rstrip("\r\n")
    ways = [_between_delimiters(line, delimiter), _behind_backslashes(line, delimiter)]
    if '\\"' in line:
        ways.reverse()
    return next((fields for fields in ways if fields and len(fields) == width), None)


def _between_delimiters(line: str, delimiter: str) -> list[str]:
    """Fields where a quote ends a text only if the delimiter follows, or the line ends."""
    separator = re.escape(delimiter)
    fields = re.finditer(rf'(?:^|{separator}) *(?:"(.*?)" *(?={separator}|$)|([^{separator}]*))', line)
    return [quoted.replace('""', '"') if (quoted := match[1]) is not None else match[2] for match in fields]


def _behind_backslashes(line: str, delimiter: str) -> list[str] | None:
    with contextlib.suppress(csv.Error, StopIteration):
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, escapechar="\\", strict=True))
    return None


# ------------------------------------------------------------------ JSON


def looks_like_json(head: bytes) -> bool:
    """Whether a file that is called otherwise begins as JSON of objects."""
    return re.match(rb"(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*\"", head) is not None


def read_json(path: Path, told: str | None, remarks: list[str]) -> Sheet:
    """A file with one object a line, or with one value: a list of objects, these under a name, or a list a column.

    Raises:
        InputError: it is not valid JSON, or its rows are no objects.
    """
    encoding = find_encoding(path, told, remarks)
    one_value = _is_one_value(path, encoding)

    def objects() -> Records:
        parsed = enumerate(_whole(path, encoding, remarks), 1) if one_value else _by_line(path, encoding)
        for number, value in parsed:
            if not isinstance(value, dict):
                form = '{"text": "…", "label": "…"}'
                raise InputError(f"{path}, line {number}: not an object such as {form}; write one a line")
            yield number, value

    columns = list(dict.fromkeys(name for _, value in objects() for name in value))
    return Sheet(columns, ((number, [value.get(name) for name in columns]) for number, value in objects()))


def _is_one_value(path: Path, encoding: Encoding) -> bool:
    filled = (line.strip() for line in lines(path, encoding) if line.strip())
    first, second = next(filled, ""), next(filled, None)
    if first.startswith("["):
        return second is None or first.startswith("[{") or not _is_json(first)
    if path.suffix.lower() != ".json":
        return False
    row = re.match(r'\{\s*"([^"\\]|\\.)*"\s*:\s*[^\s\[{]', first)  # its first value is no list or object
    return not _is_json(first) or (second is None and not row)


def _is_json(line: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False


def _by_line(path: Path, encoding: Encoding) -> Records:
    for number, line in enumerate(lines(path, encoding), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(f"{path}, line {number}: not valid JSON ({said}); correct or delete the line") from error


def _whole(path: Path, encoding: Encoding, remarks: list[str]) -> list:
    """The objects of a JSON file that is one value."""
    import pandas as pd

    try:
        value = json.loads("".join(lines(path, encoding)))
        if isinstance(value, list):
            return value
        if not isinstance(value, dict):
            return [value]
        tables = [name for name, rows in value.items() if _is_table(rows)]
        if len(tables) == 1:
            others = [name for name in value if name not in tables]
            if others and (remark := f"Not read of {path.name}: {listed(others)}.") not in remarks:
                remarks.append(remark)
            return value[tables[0]]
        return pd.DataFrame(value, dtype=object).to_dict("records")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON of rows ({error}); correct it, or write one object a line") from error


def _is_table(value) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
