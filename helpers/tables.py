"""Reads texts and their labels from files that other people made, repairs what can be repaired, and says so.

    from helpers.tables import read_table
    table = read_table("reviews.csv")
    table.dataset                 # datasets.Dataset with columns text, label and row, memory-mapped
    table.labels                  # ["negative", "positive"]
    table.remarks                 # ["3 rows without a label left out (rows 4, 9, 12)."]

A file is read as a stream and written to an Arrow file, so a large one needs no more memory than a small one.
"""

import atexit
import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")  # of the files of a directory
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "validation", "eval": "validation", "test": "test", "testing": "test"}
# Names that columns of texts and of labels usually have; a later line counts only if no name of the first is there.
TEXT_NAMES = """\
text sentence review content body message comment tweet post description document narrative utterance question query \
abstract article sms email mail passage transcript transcription complaint statement
title headline subject summary name"""
LABEL_NAMES = """\
label class category target sentiment intent polarity emotion topic y gold annotation
type tag kind genre rating star score overall priority department product subject group code"""
TEXT_NAMES = [set(line.split()) for line in TEXT_NAMES.splitlines()]
LABEL_NAMES = [set(line.split()) for line in LABEL_NAMES.splitlines()]
MISSING = {"", "nan", "null", "n/a", "na", "#n/a", "<na>", "-nan", "nat", "#value!", "#ref!"}
NUMBER = re.compile(r"[-+]?(\d[\d ,_']*)?[.,]?\d+([eE][-+]?\d+)?\s?%?")
INTEGER = re.compile(r"[-+]?\d+(\.0+)?")
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,]+\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?"
    r"|(\w{3,9}[ ,]+)?(\d{1,2} \w{3,9}\.?|\w{3,9}\.? \d{1,2})[ ,]+(\d{2}:\d{2}:\d{2} \S+ )?\d{4}"
)
PROSE = re.compile(r"\S\s+\S|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # words, or no spaces at all
HTML = re.compile(r"<(br|p|div|span|a|b|i|em|strong|li|ul|td|tr|h\d)(\s[^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#\d+);", re.I)
MAX_CHARACTERS = 100_000  # of a text: no model here reads further
MAX_RECORD = 64_000_000  # characters that an open quote may swallow before we call it a mistake
MAX_LABELS = 10_000  # different values that are counted of a column
BATCH_ROWS, BATCH_CHARACTERS = 1000, 4_000_000  # what is in memory at a time


class TableError(ValueError):
    """Data that cannot be used; one line that names the file, the row or column, and what to do."""


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
        training: leave out what would harm training: repeated texts, texts with contradicting labels, classes with a
            single row. A row without a text or a label is left out in any case.
        config, revision: of a data set on the Hub, or of a directory laid out like one.
        cache_dir: where the Arrow file is written; by default in a temporary directory that goes with the process.

    Raises:
        TableError: the data cannot be read or makes no table of texts; nothing is left behind.
    """
    folder = _work_folder(cache_dir)
    remarks: list[str] = []
    try:
        sources = _open(path, folder, config, revision, remarks)
        raws = {name: _stage(columns, records, folder / f"{name}.raw") for name, (columns, records) in sources.items()}
        return _build(path, raws, folder, text_column, label_column, labelled, labels, training, remarks)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"no space left in {folder.parent} for a copy; free some, or set TMPDIR"
        else:
            said = f"{error.strerror or error} ({error.filename}); check the file and its rights"
        raise TableError(f"{path}: {said}") from error
    finally:
        for raw in folder.glob("*.raw"):
            raw.unlink()
        shutil.rmtree(folder / "hub", ignore_errors=True)


def _work_folder(cache_dir) -> Path:
    if cache_dir is not None:
        try:
            Path(cache_dir).mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="table-", dir=cache_dir))
        except OSError as error:
            raise TableError(f"{cache_dir}: cannot be written ({error.strerror}); give another cache_dir") from error
    folder, owner = Path(tempfile.mkdtemp(prefix="table-")), os.getpid()
    # a forked worker that ends must not take the file away from the others
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return folder


# ------------------------------------------------------------------ sources: columns and an iterator of (row, values)

Records = Iterator[tuple[int, list]]
Source = tuple[list[str], Records]


def _open(path, folder: Path, config, revision, remarks: list[str]) -> dict[str, Source]:
    """The splits of a data set by name; a single file is the split "train"."""
    place = Path(path).expanduser()
    if place.is_dir():
        card = place / "README.md"  # of a data set laid out as on the Hub
        declared = card.read_bytes()[:20_000] if card.is_file() else b""
        if config or (declared.startswith(b"---") and (b"configs:" in declared or b"dataset_info:" in declared)):
            return _hub(path, str(place.resolve()), folder, config, None, remarks)
        return _directory(place, remarks)
    if place.exists():
        return {"train": _file(place, remarks)}
    hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not place.parent.exists()
    if hub_id and place.suffix not in (*SUFFIXES, ".txt"):
        return _hub(path, str(path), folder, config, revision, remarks)
    near = [file.name for file in place.parent.glob("*") if file.suffix in SUFFIXES] if place.parent.is_dir() else []
    there = f"; {place.parent} has {', '.join(sorted(near)[:8])}" if near else "; check the path"
    raise TableError(f"{path}: no such file or directory{there}")


def _directory(place: Path, remarks: list[str]) -> dict[str, Source]:
    splits = {}
    for sub in sorted(place.iterdir()):
        if sub.is_dir() and sub.name.lower() in SPLITS and (classes := _class_folders(sub)):
            splits[SPLITS[sub.name.lower()]] = (["text", "label"], _text_files(classes))
    if splits:
        return _with_train(place, splits)
    if classes := _class_folders(place):
        return {"train": (["text", "label"], _text_files(classes))}
    files = [file for file in sorted(place.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]
    if len(files) == 1:
        return {"train": _file(files[0], remarks)}
    found: dict[str, list[Path]] = {}
    for file in files:
        words = [*re.split(r"[^a-z]+", file.stem.lower()), file.parent.name.lower()]
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        found.setdefault(split or "", []).append(file)
    if not files:
        raise TableError(f"{place}: holds no CSV, TSV, JSONL or Parquet file and no class directories of .txt files")
    if "" in found:
        names = ", ".join(str(file.relative_to(place)) for file in files[:8])
        raise TableError(f"{place}: which file? It holds {names}; name one, or call them train, validation and test")
    return _with_train(place, {split: _chain(group, remarks) for split, group in found.items()})


def _with_train(place, splits: dict) -> dict:
    if "train" not in splits:
        raise TableError(f"{place}: has {', '.join(splits)} and no train; name the file to read instead")
    return dict(sorted(splits.items(), key=lambda item: ("train", "validation", "test").index(item[0])))


def _class_folders(place: Path) -> dict[str, list[Path]]:
    folders = [sub for sub in sorted(place.iterdir()) if sub.is_dir() and not sub.name.startswith(".")]
    classes = {sub.name: sorted(sub.glob("*.txt")) for sub in folders}
    return {name: files for name, files in classes.items() if files} if sum(map(bool, classes.values())) > 1 else {}


def _text_files(classes: dict[str, list[Path]]) -> Records:
    files = ((name, file) for name, group in classes.items() for file in group)
    for row, (name, file) in enumerate(files, 1):
        encoding, errors = _encoding(file, [])
        yield row, [file.read_text(encoding, errors), name]


def _chain(files: list[Path], remarks: list[str]) -> Source:
    if len(files) == 1:
        return _file(files[0], remarks)
    parts = [_file(file, remarks) for file in files]
    for file, (columns, _) in zip(files, parts, strict=True):
        if columns != parts[0][0]:
            raise TableError(f"{file}: its columns {_list(columns)} are not {_list(parts[0][0])} as in {files[0].name}")
    first = itertools.count(0)
    return parts[0][0], ((next(first) + 1, values) for _, records in parts for _, values in records)


def _file(path: Path, remarks: list[str]) -> Source:
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise TableError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    if head.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return _parquet(path)
    kinds = {b"PK\3\4": "an Excel or zip file", b"\x1f\x8b": "packed", b"\xd0\xcf\x11\xe0": "an Excel file"}
    for magic, kind in kinds.items():
        if head.startswith(magic):
            raise TableError(f"{path}: is {kind}; unpack it, or save it as CSV UTF-8")
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _json(path, remarks)
    return _csv(path, remarks)


def _encoding(path: Path, remarks: list[str]) -> tuple[str, str]:
    """The encoding of a text file and what to do with bytes that do not fit: by its BOM, else by reading it once."""
    with path.open("rb") as file:
        head = file.read(65536)
        for bom, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
            if head.startswith(bom):
                remarks.append(f"{path.name} is {encoding.upper()} and was read as that.")
                return encoding, "replace"
        nuls = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
        if max(nuls) > 0.4:
            if min(nuls) > 0.2:
                raise TableError(f"{path}: is not text; save the table as CSV UTF-8")
            encoding = "utf-16-le" if nuls[1] > nuls[0] else "utf-16-be"
            remarks.append(f"{path.name} is {encoding.upper()} without a mark that says so, and was read as that.")
            return encoding, "replace"
        file.seek(0)
        reader = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        line, damaged, foreign, first, invalid, nul = 1, 0, 0, 0, set(), 0
        while chunk := reader.read(1 << 20):
            nul += chunk.count("\0")
            if not chunk.isascii():
                bad = re.findall("[\udc80-\udcff]", chunk)
                damaged += len(bad)
                foreign += len(re.findall("[^\0-\x7f\udc80-\udcff]", chunk))
                invalid.update(bad)
                if bad and not first:
                    first = line + chunk[: chunk.index(bad[0])].count("\n")
            line += chunk.count("\n")
    if head.startswith(b"\xef\xbb\xbf"):
        remarks.append(f"{path.name} begins with a byte-order mark (BOM), which is left out.")
    if nul:
        remarks.append(f"{_count(nul, 'NUL byte')} in {path.name} left out.")
    if not damaged:
        return "utf-8-sig", "strict"
    if damaged > foreign:  # a text in UTF-8 would have more characters that fit than bytes that do not
        undefined = {chr(0xDC00 + byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
        encoding, name = ("latin-1", "Latin-1") if invalid & undefined else ("cp1252", "Windows-1252 (Latin-1)")
        if damaged > path.stat().st_size / 5:  # too many for a language of Latin letters
            raise TableError(f"{path}: not UTF-8 (line {first}), and not in Latin letters; save it as UTF-8")
        remarks.append(f"{path.name} is not UTF-8 (line {first}) and was read as {name}.")
        return encoding, "replace"
    remarks.append(f"{_count(damaged, 'byte')} in {path.name} not UTF-8 (first in line {first}) and read as \ufffd.")
    return "utf-8-sig", "replace"


def _lines(path: Path, encoding: str, errors: str) -> Iterator[str]:
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        for line in file:
            yield line.replace("\0", "") if "\0" in line else line


def _csv(path: Path, remarks: list[str]) -> Source:
    encoding, errors = _encoding(path, remarks)
    csv.field_size_limit(2 * MAX_RECORD)
    expected = "," if path.suffix.lower() == ".csv" else "\t"
    sample, size = [], 0
    for line in _lines(path, encoding, errors):
        sample.append(line)
        size += len(line)
        if len(sample) == 1000 or size > 2_000_000:
            break
    told = re.fullmatch(r"sep=(.)\s*", sample[0] if sample else "")  # Excel's own way of saying it
    sample = sample[1:] if told else sample
    delimiter = told[1] if told else _delimiter(sample, expected)
    if delimiter not in (expected, "\x1f"):
        name = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}.get(delimiter, repr(delimiter))
        remarks.append(f"The columns of {path.name} are separated by {name}.")
    fields = [record for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if any(record)]
    if not fields:
        raise TableError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    header = _has_header(fields)
    columns = [name.strip() for name in fields[0]] if header else [f"column {n}" for n in range(1, len(fields[0]) + 1)]
    if not header:
        remarks.append(f"{path.name} has no header: its columns are called {_list(columns)}.")
    columns = _unique([name or f"Unnamed: {n}" for n, name in enumerate(columns)])
    # where tabs separate, quotes are mostly plain characters, and no text goes on in the next line
    linewise = delimiter == "\t" and all(line.count("\t") == len(columns) - 1 for line in sample if line.strip())
    lines = itertools.islice(_lines(path, encoding, errors), 1 if told else 0, None)
    return columns, _csv_records(path, lines, delimiter, len(columns), header, linewise, remarks)


def _delimiter(sample: list[str], expected: str) -> str:
    """The separator that gives most rows as many fields as the first; \\x1f, which no file has, if there is none."""
    shares = {}
    for delimiter in dict.fromkeys(expected + ",;\t|"):
        widths = [len(record) for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if record]
        if widths and widths[0] > 1:
            share = sum(width == widths[0] for width in widths) / len(widths)
            if share > 0.5 or delimiter == expected:
                shares[delimiter] = share
    best = max(shares, key=shares.get, default="\x1f")
    return expected if shares.get(expected, 0) >= min(0.9, shares.get(best, 1)) else best


def _has_header(records: list[list[str]]) -> bool:
    first, rest = [cell.strip() for cell in records[0]], records[1:]
    if first == [str(n) for n in range(len(first))]:
        return True
    if any(len(cell) > 100 for cell in first):
        return False
    if len(first) == 1:  # a list of texts
        return len(_words(first[0])) <= 2
    if any(group for names in (TEXT_NAMES, LABEL_NAMES) for group in _by_name(first, names)[::2]):
        return True
    if any(_is_number(cell) or _is_date(cell) for cell in first):
        return False
    return not any(cell and any(n < len(r) and r[n].strip() == cell for r in rest) for n, cell in enumerate(first))


def _csv_records(path, lines, delimiter, width, header, linewise, remarks) -> Records:
    pushed, buffer = deque(), []

    def tapped():
        while (line := pushed.popleft() if pushed else next(lines, None)) is not None:
            buffer.append(line)
            if len(buffer) % 1000 == 0 and sum(map(len, buffer)) > MAX_RECORD:
                raise csv.Error("a record without end")
            yield line

    def start():
        style = dict(quoting=csv.QUOTE_NONE) if linewise else dict(skipinitialspace=True, strict=True)
        return csv.reader(tapped(), delimiter=delimiter, **style)

    reader, row, line, quotes, broken, rows = start(), 0, 0, _Some(), _Some(), 0
    while True:
        buffer.clear()
        row += 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            fields = _reparse(buffer[0], delimiter, width)
            if fields is None:
                raise TableError(
                    f"{path}, row {row} (line {line + 1}): a quotation mark opens and never closes, or stands alone; "
                    'close it, or write it twice ("") inside a quoted text'
                ) from error
            quotes.add(row)
            pushed.extendleft(reversed(buffer[1:]))  # the lines that the open quote took
            del buffer[1:]
            reader = start()
        line += len(buffer)
        if linewise:
            fields = [c[1:-1].replace('""', '"') if len(c) > 1 and c[0] == c[-1] == '"' else c for c in fields]
        if not any(cell.strip() for cell in fields):
            continue
        if header:
            header = False
            continue
        rows += 1
        if len(fields) > width and any(cell.strip() for cell in fields[width:]):
            broken.add(row)
            if broken.count == 1:
                wrong = len(fields)
            continue
        yield row, (fields + [None] * width)[:width]
    if quotes.count:
        rows_of = f"{_count(quotes.count, 'row')} of {path.name} ({quotes})"
        remarks.append(f"Stray quotation marks in {rows_of} taken as text.")
    if broken.count > rows / 10:
        raise TableError(
            f"{path}, row {broken.first[0]}: {wrong} fields where the header has {width}, and so in {broken.count:,} "
            f"of {rows:,} rows; put quotation marks round each text that holds {delimiter!r}"
        )
    if broken.count:
        remarks.append(f"{_count(broken.count, 'row')} of {path.name} with too many fields left out ({broken}).")


def _reparse(line: str, delimiter: str, width: int) -> list[str] | None:
    """One line whose quotes are wrong, read in the other ways that quotes are written; None if none fits."""
    line = line.rstrip("\r\n")
    # a quote ends a text only where the delimiter follows, or the line ends
    found = re.finditer(
        rf'(?:^|{re.escape(delimiter)}) *(?:"(.*?)" *(?={re.escape(delimiter)}|$)|([^{re.escape(delimiter)}]*))', line
    )
    fields = [quoted.replace('""', '"') if (quoted := match[1]) is not None else match[2] for match in found]
    if len(fields) == width:
        return fields
    with contextlib.suppress(csv.Error, StopIteration):
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, escapechar="\\"))
        return fields if len(fields) == width else None
    return None


def _json(path: Path, remarks: list[str]) -> Source:
    encoding, errors = _encoding(path, remarks)
    columns: dict[str, None] = {}
    first = next((line for line in _lines(path, encoding, errors) if line.strip()), "").strip()
    whole = path.suffix.lower() == ".json" and not re.match(
        r'\{\s*"([^"\\]|\\.)*"\s*:\s*[^\s\[{]', first
    )  # not JSON lines

    def objects() -> Iterator[tuple[int, dict]]:
        if whole:
            try:
                parsed = enumerate(_records(json.loads(path.read_text(encoding, errors).replace("\0", ""))), 1)
            except (ValueError, RecursionError) as error:
                raise TableError(f"{path}: not valid JSON ({error}); correct it, or write one object a line") from error
        else:
            numbered = enumerate(_lines(path, encoding, errors), 1)
            parsed = ((number, _loads(path, number, line)) for number, line in numbered if line.strip())
        for number, value in parsed:
            if not isinstance(value, dict):
                form = '{"text": "…", "label": "…"}'
                raise TableError(f"{path}, line {number}: not an object such as {form}; write one a line")
            yield number, value

    for _, value in objects():
        columns.update(dict.fromkeys(value))
    return list(columns), ((number, [value.get(name) for name in columns]) for number, value in objects())


def _records(value) -> list:
    """The objects of a JSON file that is one value: a list of them, the same under a name, or a list a column."""
    parts = list(value.values()) if isinstance(value, dict) else []
    if parts and all(isinstance(part, (list, dict)) for part in parts):
        if len(parts) == 1 and isinstance(parts[0], list) and all(isinstance(row, dict) for row in parts[0]):
            return parts[0]
        parts = [list(part.values()) if isinstance(part, dict) else part for part in parts]
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    return value if isinstance(value, list) else [value]


def _loads(path: Path, number: int, line: str):
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise TableError(f"{path}, line {number}: not valid JSON ({said}); correct or delete the line") from error


def _parquet(path: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damaged = f"{path}: not a whole Parquet file (%s); copy or write it again"
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(damaged % _first_sentence(error)) from error
    names = {}
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        names = {key: feature["names"] for key, feature in features.items() if feature.get("_type") == "ClassLabel"}
    columns = file.schema_arrow.names

    def records() -> Records:
        row = 0
        try:
            for batch in file.iter_batches(BATCH_ROWS):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    yield row, [_named(value, names.get(name)) for name, value in zip(columns, values, strict=True)]
        except (pa.ArrowInvalid, OSError) as error:
            raise TableError(damaged % _first_sentence(error)) from error

    return columns, records()


def _hub(path, name: str, folder: Path, config, revision, remarks: list[str]) -> dict[str, Source]:
    import datasets

    local = Path(name).is_absolute()
    quiet = local and not datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, config, revision=revision, cache_dir=str(folder / "hub") if local else None)
    except Exception as error:
        todo = "check it" if local else "check the id and the network, or give a file"
        raise TableError(f"{path}: cannot be loaded as a data set ({_first_sentence(error)}); {todo}") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    splits = {SPLITS[split]: data for split, data in found.items() if split in SPLITS}
    ignored = [split for split in found if split not in SPLITS]
    if len(found) == 1:
        splits, ignored = {"train": next(iter(found.values()))}, []
    if ignored:
        remarks.append(f"Not read: {', '.join(ignored)}.")

    def records(data) -> Records:
        names = {key: feature.names for key, feature in data.features.items() if hasattr(feature, "names")}
        row = 0
        for batch in data.iter(BATCH_ROWS):
            for values in zip(*(batch[name] for name in data.column_names), strict=True):
                row += 1
                yield row, [_named(v, names.get(key)) for key, v in zip(data.column_names, values, strict=True)]

    return _with_train(path, {split: (data.column_names, records(data)) for split, data in splits.items()})


def _named(value, names: list[str] | None):
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None  # the Hub writes -1 where a label is hidden


# ------------------------------------------------------------------ staging, and what the columns are like


class _Some:
    """A count of rows and the first few of them."""

    def __init__(self):
        self.count, self.first = 0, []

    def add(self, row: int) -> None:
        self.count += 1
        if self.count <= 5:
            self.first.append(row)

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"row{'s' if self.count > 1 else ''} {', '.join(map(str, self.first))}{more}"


class _Column:
    """What the values of a column are like."""

    def __init__(self):
        self.filled = self.numbers = self.integers = self.dates = self.prose = self.characters = self.nested = 0
        self.values: Counter | None = Counter()  # None once there are too many
        self.early: set[int] = set()  # of the first thousand values
        self.types: set[str] = set()

    def add(self, value: str) -> None:
        self.filled += 1
        self.characters += min(len(value), MAX_CHARACTERS)
        if self.filled <= 1000:
            self.early.add(hash(value))
        if _is_number(value):
            self.numbers += 1
            self.integers += bool(INTEGER.fullmatch(value))
        else:
            self.dates += _is_date(value)
        self.prose += bool(PROSE.search(value))
        if self.values is not None:
            self.values[value if len(value) <= 200 else value[:200]] += 1
            if len(self.values) > MAX_LABELS or (len(value) > 200 and len(self.values) > 1000):
                self.values = None

    @property
    def distinct(self) -> int:
        return MAX_LABELS + 1 if self.values is None else len(self.values)

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
        return plain and self.filled > rows / 2 and 2 <= self.distinct <= min(1000, max(2, self.filled / 2))


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

    columns = _unique(columns)
    found = [_Column() for _ in columns]
    schema = pa.schema([("row", pa.int64()), *((f"{n}", pa.large_string()) for n in range(len(columns)))])
    count = 0

    def rows() -> Iterable[tuple]:
        nonlocal count
        for row, values in records:
            count += 1
            texts = [_as_text(value, column) for value, column in zip(values, found, strict=True)]
            yield row, *texts

    _write_arrow(file, schema, rows())
    return _Raw(file, dict(zip(columns, found, strict=True)), count)


def _as_text(value, column: _Column) -> str | None:
    if value is None:
        return None
    if isinstance(value, (list, dict)):
        column.nested += 1
        column.filled += 1
        return None
    if not isinstance(value, str):
        column.types.add("number" if isinstance(value, (int, float)) else type(value).__name__)
        if isinstance(value, float):
            value = None if value != value else int(value) if value.is_integer() else value
        elif isinstance(value, bytes):
            value = value.decode(errors="replace")
        value = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    else:
        column.types.add("text")
    value = value.replace("\r\n", "\n").strip()
    if len(value) < 8 and value.lower() in MISSING:
        return None
    column.add(value)
    return value.encode(errors="replace").decode() if not value.isascii() else value  # lone surrogates of JSON


def _write_arrow(file: Path, schema, rows: Iterable[tuple]) -> int:
    """Writes rows as an Arrow stream, a batch in memory at a time; returns how many."""
    import pyarrow as pa

    total = 0
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        batch, size = [], 0

        def flush():
            arrays = [pa.array(list(v), kind.type) for v, kind in zip(zip(*batch, strict=True), schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        for row in rows:
            batch.append(row)
            size += sum(len(value) for value in row if isinstance(value, str))
            total += 1
            if len(batch) == BATCH_ROWS or size > BATCH_CHARACTERS:
                flush()
                batch, size = [], 0
        if batch:
            flush()
    return total


# ------------------------------------------------------------------ which column is which


def _choose_text(path, raw: _Raw, wanted: str | None, label_column: str | None, remarks: list[str]) -> str:
    columns = {name: column for name, column in raw.columns.items() if wanted or name != label_column}
    if wanted is not None:
        name = _exactly(path, wanted, columns, "--text-column")
    else:
        name = _best_text(path, columns, remarks)
    column = columns[name]
    if not column.filled or column.mostly_plain:
        raise TableError(
            f"{path}: column {name!r} holds {column.mostly_plain or 'nothing'}, not texts; name another with "
            f"--text-column, there is {_list(columns)}"
        )
    return name


def _best_text(path, columns: dict[str, _Column], remarks: list[str]) -> str:
    likely = {name: column for name, column in columns.items() if column.looks_like_text()}
    named = _by_name(columns, TEXT_NAMES)
    for group in named:
        if good := [name for name in group if name in likely]:
            return _longest(path, good, likely)
    if likely:
        name = _longest(path, list(likely), likely)
        remarks.append(f"Column {name!r} taken as the text: its values are the longest and mostly distinct.")
        return name
    for group in named[:2]:  # it is called so, whatever it holds: let that be said
        if len(group) == 1:
            return group[0]
    plain = {name: column.mostly_plain for name, column in columns.items() if column.filled}
    rest = [name for name, kind in plain.items() if kind is None]
    words = [name for name in rest if not _by_name({name: None}, LABEL_NAMES)[0]]
    if len(words) == 1 and columns[words[0]].distinct > 2:  # single words may be texts too
        return words[0]
    raise TableError(f"{path}: no column holds texts (columns: {_list(columns)}); name one with --text-column")


def _longest(path, names: list[str], columns: dict[str, _Column]) -> str:
    names = sorted(names, key=lambda name: -columns[name].mean_length)
    if len(names) > 1 and columns[names[0]].mean_length < 1.5 * columns[names[1]].mean_length:
        close = [name for name in names if columns[names[0]].mean_length < 1.5 * columns[name].mean_length]
        raise TableError(f"{path}: {_list(close)} may each be the text; choose one with --text-column")
    return names[0]


def _choose_label(path, raw: _Raw, wanted, text_column, labelled, labels, remarks: list[str]) -> str | None:
    columns = {name: column for name, column in raw.columns.items() if name != text_column}
    if wanted is not None:
        name = _exactly(path, wanted, raw.columns, "--label-column")
        if name == text_column:
            raise TableError(f"{path}: column {name!r} cannot be text and label at once; change one of the two options")
        return name
    likely = {name: column for name, column in columns.items() if column.looks_like_labels(raw.rows)}
    if labels is not None:
        known = {_key(label) for label in labels}
        likely = {name: c for name, c in columns.items() if c.values and _share(c.values, known) > 0.5}
    for group in _by_name(columns, LABEL_NAMES):
        if good := [name for name in group if name in likely]:
            name = _same_classes(path, raw, good, columns)
            return name if labels else _with_names(raw, name, likely, remarks)
    if likely and labels is not None:
        return _same_classes(path, raw, list(likely), columns)
    named = _by_name(columns, LABEL_NAMES)[0]
    if len(named) == 1 and not columns[named[0]].dates and (labelled or columns[named[0]].filled):
        return named[0]
    if labelled is None:  # only a column that says so, or holds what the model knows, is one of labels
        return None
    if likely:
        words = [name for name, column in likely.items() if not column.numbers]
        name = _same_classes(path, raw, words or list(likely), columns)
        remarks.append(f"Column {name!r} taken as the label: it has {_count(likely[name].distinct, 'value')}.")
        return name
    if len(raw.columns) == 1:
        raise TableError(
            f"{path}: one column only ({text_column!r}) and so no labels; separate text and label by a comma or tab"
        )
    raise TableError(
        f"{path}: no column holds labels, a few values that repeat (columns: {_list(raw.columns)}); "
        "name one with --label-column"
    )


def _same_classes(path, raw: _Raw, names: list[str], columns: dict[str, _Column]) -> str:
    """One of several columns if they say the same, such as numbers and names of the classes."""
    if len(names) == 1:
        return names[0]
    if not all(_one_to_one(raw, names[0], name) for name in names[1:]):
        raise TableError(f"{path}: {_list(names)} may each be the label; choose one with --label-column")
    return next((name for name in names if not columns[name].numbers), names[0])


def _with_names(raw: _Raw, name: str, likely: dict[str, _Column], remarks: list[str]) -> str:
    """Where `label` holds numbers and `label_text` their names, the latter."""
    if likely[name].numbers:
        for other, column in likely.items():
            if not column.numbers and set(_words(name)) & set(_words(other)) and _one_to_one(raw, name, other):
                remarks.append(f"Labels taken from column {other!r}, which names the numbers of {name!r}.")
                return other
    return name


def _one_to_one(raw: _Raw, one: str, other: str) -> bool:
    pairs = {(a, b) for _, a, b in raw.read(one, other) if a or b}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _share(values: Counter, known: set[str]) -> float:
    return sum(count for value, count in values.items() if _key(value) in known) / values.total()


def _exactly(path, wanted: str, columns, option: str) -> str:
    close = [name for name in columns if name == wanted]
    close = close or [name for name in columns if name.strip().lower() == wanted.strip().lower()]
    if len(close) != 1:
        raise TableError(f"{path}: no column {wanted!r}; give {option} one of {_list(columns)}")
    return close[0]


def _by_name(columns, groups) -> list[list[str]]:
    """For each group of names the columns called so, then, for each, those with such a word in their name."""
    words = {name: _words(name) for name in columns}
    exact = [[name for name in columns if "".join(words[name]) in group] for group in groups]
    partly = [[name for name in columns if set(words[name]) & set(group)] for group in groups]
    return [exact[0], partly[0], exact[1], partly[1]]


def _words(name: str) -> list[str]:
    words = re.split(r"[\W_\d]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return [word if word == "class" else word.removesuffix("s") for word in words if word]


# ------------------------------------------------------------------ cleaning


def _build(path, raws, folder, text_column, label_column, labelled, labels, training, remarks) -> Table:
    import datasets

    train = raws["train"]
    if not train.rows:
        raise TableError(f"{path}: has a header and no rows; write at least two rows for each class")
    text = _choose_text(path, train, text_column, label_column, remarks)
    label = None if labelled is False else _choose_label(path, train, label_column, text, labelled, labels, remarks)
    for name, raw in raws.items():
        for column in filter(None, (text, label)):
            if column not in raw.columns and raw.rows:
                raise TableError(
                    f"{path}: {name} has no column {column!r} as train has; rename it, or leave {name} out"
                )
    splits = {
        name: _examine(path, raw, name if len(raws) > 1 else "", text, label, remarks) for name, raw in raws.items()
    }
    if label is not None:
        names = _settle_labels(path, splits, label, labels, remarks)
    if training:
        _drop_repeated(splits, remarks)
        if label is not None and labels is None:
            _drop_single(path, splits["train"], label, names, remarks)
    if not splits["train"].keep.any():
        raise TableError(f"{path}: no row has a text{' and a label' if label else ''}; fill column {text!r}")
    features = datasets.Features({"text": datasets.Value("string")})
    if label is not None:
        order = _final_order(splits, names, labels)
        features["label"] = datasets.ClassLabel(names=[names[n] for n in order])
        if len(order) < 2 and labels is None:
            raise TableError(f"{path}: column {label!r} has one class only ({names[order[0]]!r}); add rows of another")
    features["row"] = datasets.Value("int64")
    done = {}
    for name, split in splits.items():
        ids = {old: new for new, old in enumerate(order)} if label is not None else None
        file = folder / f"{name}.arrow"
        _write_arrow(file, features.arrow_schema, split.rows(text, ids))
        done[name] = datasets.Dataset.from_file(str(file), split=name)
    dataset = done.pop("train")
    found = features["label"].names if label is not None else []
    return Table(path, dataset, text, label, found, remarks, done)


@dataclass
class _Split:
    """What is known of each row of a split: arrays as long as it."""

    raw: _Raw
    where: str  # " of test", or nothing
    number: np.ndarray  # row in the file
    digest: np.ndarray  # of the text, 0 if there is none
    label: np.ndarray  # index into the spellings, -1 if there is none
    keep: np.ndarray
    spellings: list[str]

    def drop(self, where: np.ndarray, what: str, remarks: list[str]) -> None:
        """Leaves rows out and says so; `what` goes on "3 rows …"."""
        where = where & self.keep
        if where.any():
            remarks.append(f"{_count(int(where.sum()), 'row')}{self.where} {what} left out ({self.name_rows(where)}).")
            self.keep &= ~where

    def name_rows(self, where: np.ndarray) -> _Some:
        some = _Some()
        some.count, some.first = int(where.sum()), self.number[where][:5].tolist()
        return some

    def rows(self, text: str, ids: dict[int, int] | None) -> Iterable[tuple]:
        kept = zip(self.raw.read(text), self.keep.tolist(), self.label.tolist(), strict=True)
        for (row, value), keep, label in kept:
            if keep:
                shown = value[:MAX_CHARACTERS]
                yield (shown, row) if ids is None else (shown, ids[label], row)


def _examine(path, raw: _Raw, name: str, text: str, label: str | None, remarks: list[str]) -> _Split:
    rows = raw.rows
    number, digest = np.zeros(rows, np.int64), np.zeros(rows, np.uint64)
    classes, spellings = np.full(rows, -1, np.int32), {}
    long, html, plain = _Some(), 0, _Some()
    for n, (row, value, *rest) in enumerate(raw.read(*filter(None, (text, label)))):
        number[n] = row
        if value:
            digest[n] = int.from_bytes(hashlib.blake2b(_key(value).encode(), digest_size=8).digest(), "big") or 1
            html += bool(HTML.search(value))
            if len(value) > MAX_CHARACTERS:
                long.add(row)
            if _is_number(value) or _is_date(value):
                plain.add(row)
        if rest and rest[0]:
            classes[n] = spellings.setdefault(rest[0], len(spellings))
            if len(spellings) > MAX_LABELS:
                raise TableError(_not_classes(path, label, len(spellings), rows))
    where = f" of {name}" if name else ""
    split = _Split(raw, where, number, digest, classes, np.ones(rows, bool), list(spellings))
    split.drop(digest == 0, "without a text", remarks)
    if label is not None:
        split.drop(classes < 0, "without a label", remarks)
    if long.count:
        remarks.append(
            f"{_count(long.count, 'text')}{where} longer than {MAX_CHARACTERS:,} characters cut there ({long})."
        )
    if plain.count:
        remarks.append(f"{_count(plain.count, 'text')}{where} nothing but a number or a date, kept ({plain}).")
    if html:
        remarks.append(f"{_count(html, 'text')}{where} with HTML, kept as it is.")
    return split


def _settle_labels(path, splits: dict[str, _Split], label: str, labels, remarks: list[str]) -> list[str]:
    """Makes one class of spellings that differ by case or spaces; the classes of all splits, in no order yet."""
    train = splits["train"]
    counts: dict[str, Counter] = {}
    for spelling, count in zip(train.spellings, _counts(train), strict=True):
        if count:
            counts.setdefault(_key(spelling), Counter())[spelling] += count
    if not counts:
        what = "lists or objects" if train.raw.columns[label].nested else "no labels"
        raise TableError(
            f"{path}: column {label!r} has {what}; write one label a row, or name another with --label-column"
        )
    if labels is not None:
        names, known = list(labels), {_key(name): n for n, name in enumerate(labels)}
        for split in splits.values():
            _refuse_unknown(path, split, known, names, label)
    else:
        rows = int(train.keep.sum())
        if len(counts) > max(2, rows / 2 if rows >= 20 else rows - 1):
            raise TableError(_not_classes(path, label, len(counts), rows))
        _refuse_mixed(path, train, counts, label)
        names = [max(sorted(c), key=c.get) for c in counts.values()]
        known = {key: n for n, key in enumerate(counts)}
        for key, spellings in counts.items():
            if len(spellings) > 1:
                shown = names[known[key]]
                others = ", ".join(repr(s) for s in sorted(spellings) if s != shown)
                remarks.append(f"Label {others} counted as {shown!r}.")
            if names[known[key]].startswith(("=", "@", "+", "-")) and not _is_number(names[known[key]]):
                remarks.append(f"Label {names[known[key]]!r} looks like a formula; it is kept as text.")
    if {"text", "number"} <= train.raw.columns[label].types:
        remarks.append(f"Column {label!r} has labels as texts and as numbers; all read as texts.")
    for split in splits.values():
        new = np.array([known.get(_key(spelling), -1) for spelling in split.spellings] + [-1], np.int32)
        split.label = new[split.label]
        split.drop(split.label < 0, "with a label that train has not", remarks)
    return names


def _refuse_unknown(path, split: _Split, known: dict[str, int], names: list[str], label: str) -> None:
    for n, (spelling, count) in enumerate(zip(split.spellings, _counts(split), strict=True)):
        if count and _key(spelling) not in known:
            row = split.number[split.keep & (split.label == n)][0]
            there = sorted({_key(other): other for other in split.spellings}.values(), key=_order)
            raise TableError(
                f"{path}, row {row}: label {spelling!r} of column {label!r} is unknown to the model; "
                f"the file has {_list(there)}, the model {_list(names)}; write them as the model does"
            )


def _refuse_mixed(path, train: _Split, counts: dict[str, Counter], label: str) -> None:
    numbers = [key for key in counts if _is_number(key)]
    if numbers and len(numbers) < len(counts):
        words = [key for key in counts if key not in numbers]
        rare = min(numbers, words, key=lambda keys: sum(counts[key].total() for key in keys))
        spelling = next(iter(counts[rare[0]]))
        row = train.number[train.keep & (train.label == train.spellings.index(spelling))][0]
        raise TableError(
            f"{path}, row {row}: column {label!r} mixes words ({_list(words, 3)}) and numbers ({_list(numbers, 3)}); "
            "write each class in one way, or name another column with --label-column"
        )


def _not_classes(path, label: str, distinct: int, rows: int) -> str:
    return (
        f"{path}: column {label!r} has {distinct:,} different values in {rows:,} rows, too many for classes; "
        "name another with --label-column"
    )


def _drop_repeated(splits: dict[str, _Split], remarks: list[str]) -> None:
    """Leaves out repeated texts, all copies of those with contradicting labels, and texts of train found in others."""
    for split in splits.values():
        if not len(split.keep):
            continue
        _, inverse = np.unique(split.digest, return_inverse=True)
        lowest, highest = np.full(inverse.max() + 1, 2**31 - 1), np.full(inverse.max() + 1, -(2**31))
        np.minimum.at(lowest, inverse[split.keep], split.label[split.keep])
        np.maximum.at(highest, inverse[split.keep], split.label[split.keep])
        split.drop((lowest < highest)[inverse], "with the same text and different labels", remarks)
        kept = np.flatnonzero(split.keep)
        first = np.zeros(len(split.keep), bool)
        first[kept[np.unique(split.digest[kept], return_index=True)[1]]] = True
        split.drop(~first, "that repeat an earlier one", remarks)
    for name, split in splits.items():
        if name != "train":
            there = np.isin(splits["train"].digest, split.digest[split.keep])
            splits["train"].drop(there, f"whose text is also in {name}", remarks)


def _drop_single(path, train: _Split, label: str, names: list[str], remarks: list[str]) -> None:
    counts = _counts(train, len(names))
    single = [n for n, count in enumerate(counts) if count == 1]
    if single and len(single) >= sum(count > 0 for count in counts) - 1:
        row = train.number[train.keep & (train.label == single[0])][0]
        raise TableError(
            f"{path}, row {row}: class {names[single[0]]!r} of column {label!r} has this row only, and without it "
            "there are not two classes; give each class two rows or more"
        )
    for n in single:
        train.drop(train.label == n, f"of class {names[n]!r}, which has no other,", remarks)


def _counts(split: _Split, length: int | None = None) -> list[int]:
    kept = split.label[split.keep & (split.label >= 0)]
    return np.bincount(kept, minlength=len(split.spellings) if length is None else length).tolist()


def _final_order(splits: dict[str, _Split], names: list[str], labels: list[str] | None) -> list[int]:
    if labels is not None:
        return list(range(len(names)))
    counts = _counts(splits["train"], len(names))
    for split in splits.values():
        split.keep &= np.array([*(count > 0 for count in counts), False])[split.label]
    return sorted((n for n, count in enumerate(counts) if count), key=lambda n: _order(names[n]))


# ------------------------------------------------------------------ words


def _key(value: str) -> str:
    """The same for values that differ by case, spaces or the way of writing a character, and for 1 and 1.0."""
    key = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return key.partition(".")[0] if len(key) <= 20 and INTEGER.fullmatch(key) else key


def _is_number(value: str) -> bool:
    return len(value) <= 40 and NUMBER.fullmatch(value) is not None


def _is_date(value: str) -> bool:
    return len(value) <= 40 and DATE.fullmatch(value) is not None


def _order(name: str) -> tuple:
    return (0, float(name), name) if re.fullmatch(r"[-+]?\d+(\.\d+)?", name) else (1, 0.0, name)


def _unique(columns: list[str]) -> list[str]:
    seen: Counter = Counter()
    result = []
    for name in columns:
        result.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return result


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:160].split(". ")[0].rstrip(".") or type(error).__name__
