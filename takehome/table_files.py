"""Opens files of rows as other people make them: their columns, and a stream of their rows, repaired where possible.

    from takehome.table_files import open_splits
    columns, records = open_splits("reviews.csv", folder, None, None, remarks)["train"]
    row, values = next(records)        # where it stood, and its values as they were read

takehome.tables makes texts and labels of them.
"""

import contextlib
import csv
import io
import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from takehome.errors import InputError

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")  # of the files of a directory
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "validation", "eval": "validation", "test": "test", "testing": "test"}
UNLABELLED = {"unsup", "unsupervised", "unlabeled", "unlabelled"}
# Names that columns of texts and of labels usually have; a later line counts only if no name of the first is there.
TEXT_NAMES = """\
text sentence review content body message comment tweet post description document narrative utterance question query \
abstract article sms email mail passage transcript transcription complaint statement
title headline subject summary name"""
LABEL_NAMES = """\
label class category target sentiment intent polarity emotion topic y gold annotation
type tag kind genre rating star score overall priority department section product subject group code"""
TEXT_NAMES = [set(line.split()) for line in TEXT_NAMES.splitlines()]
LABEL_NAMES = [set(line.split()) for line in LABEL_NAMES.splitlines()]
NUMBER = re.compile(r"[-+]?(\d[\d ,_']*)?[.,]?\d+([eE][-+]?\d+)?\s?%?")
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,]+\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?"
    r"|(\w{3,9}[ ,]+)?(\d{1,2} \w{3,9}\.?|\w{3,9}\.? \d{1,2})[ ,]+(\d{2}:\d{2}:\d{2} \S+ )?\d{4}"
)
MAX_RECORD = 64_000_000  # characters that an open quote may swallow before we call it a mistake
BATCH_ROWS = 1000  # in memory at a time


Records = Iterator[tuple[int, list]]
Source = tuple[list[str], Records]


# ------------------------------------------------------------------ directories and the Hub


def open_splits(path, folder: Path, config: str | None, revision: str | None, remarks: list[str]) -> dict[str, Source]:
    """Columns and records of each split: "train" and, if the data has them, "validation" and "test".

    Args:
        path: a file, a directory or the id of a data set on the Hub.
        folder: for temporary files.
        config, revision: of a data set on the Hub, or of a directory laid out like one.
        remarks: gets a sentence for each repair; those of a file are complete when its records are read.

    Raises:
        InputError: there is no such file, or none that can be read.
    """
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
    raise InputError(f"{path}: no such file or directory{there}")


def _directory(place: Path, remarks: list[str]) -> dict[str, Source]:
    folders = {sub: _split_of(sub.name) for sub in sorted(place.iterdir()) if sub.is_dir()}
    splits = {split: _text_files(sub, remarks) for sub, split in folders.items() if split and _class_folders(sub)}
    if splits:
        return _with_train(place, splits)
    if _class_folders(place):
        return {"train": _text_files(place, remarks)}
    files = _tables(place)
    if len(files) == 1:
        return {"train": _file(files[0], remarks)}
    found: dict[str | None, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.stem) or SPLITS.get(file.parent.name.lower()), []).append(file)
    if not files:
        raise InputError(f"{place}: holds no CSV, TSV, JSONL or Parquet file and no class directories of .txt files")
    if None in found:
        names = ", ".join(str(file.relative_to(place)) for file in files[:8])
        raise InputError(f"{place}: which file? It holds {names}; name one, or call them train, validation and test")
    return _with_train(place, {split: _chain(group, remarks) for split, group in found.items()})


def _tables(place: Path) -> list[Path]:
    files = [file for file in sorted(place.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]


def _split_of(name: str) -> str | None:
    return next((SPLITS[word] for word in words(name) if word in SPLITS), None)


def _with_train(place, splits: dict) -> dict:
    if "train" not in splits:
        raise InputError(f"{place}: has {', '.join(splits)} and no train; name the file to read instead")
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _class_folders(place: Path) -> dict[str, list[Path]]:
    """The texts in each folder, if two folders or more have any: files in .txt, or without an ending and no table."""
    folders = [sub for sub in sorted(place.iterdir()) if sub.is_dir() and not sub.name.startswith(".")]
    endings = [r"\.txt"] if _tables(place) else [r"\.txt", r"(\.\w{10,})?"]  # SpamAssassin's mails end in a digest
    for ending in endings:
        classes = {
            sub.name: [file for file in sorted(sub.iterdir()) if re.fullmatch(ending, file.suffix) and file.is_file()]
            for sub in folders
        }
        if len(classes := {name: files for name, files in classes.items() if files}) > 1:
            return classes
    return {}


def _text_files(place: Path, remarks: list[str]) -> Source:
    classes = _class_folders(place)
    for name in UNLABELLED & set(classes):
        remarks.append(f"Not read: {place / name}.")
        del classes[name]

    def records() -> Records:
        foreign: list[str] = []
        for row, (name, file) in enumerate(((name, file) for name, group in classes.items() for file in group), 1):
            encoding, errors = "cp1252", "replace"
            with contextlib.suppress(InputError):  # one text in another script must not cost all the others
                encoding, errors = _encoding(file, [])
            if encoding == "cp1252":
                foreign.append(f"{name}/{file.name}")
            yield row, [file.read_text(encoding, errors).replace("\0", ""), name]
        if foreign:
            which = f"{listed(foreign[:3])}{', …' * (len(foreign) > 3)}"
            remarks.append(f"{counted(len(foreign), 'file')} not UTF-8 and read as Windows-1252 ({which}).")

    return ["text", "label"], records()


def _chain(files: list[Path], remarks: list[str]) -> Source:
    parts = [_file(file, remarks) for file in files]
    for file, (columns, _) in zip(files, parts, strict=True):
        if columns != parts[0][0]:
            raise InputError(
                f"{file}: its columns {listed(columns)} are not {listed(parts[0][0])} as in {files[0].name}"
            )
    if len(parts) == 1:
        return parts[0]
    return parts[0][0], ((row, values) for row, (_, values) in enumerate(itertools.chain(*(p[1] for p in parts)), 1))


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
        raise InputError(f"{path}: cannot be loaded as a data set ({first_sentence(error)}); {todo}") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    splits = {SPLITS[split]: data for split, data in found.items() if split in SPLITS}
    if len(found) == 1:
        splits = {"train": next(iter(found.values()))}
    elif ignored := [split for split in found if split not in SPLITS]:
        remarks.append(f"Not read: {', '.join(ignored)}.")

    def source(data) -> Source:
        names = {key: feature.names for key, feature in data.features.items() if hasattr(feature, "names")}
        return data.column_names, _rows(data.iter(BATCH_ROWS), names)

    return _with_train(path, {split: source(data) for split, data in splits.items()})


def _parquet(path: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    @contextlib.contextmanager
    def whole():
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            said = first_sentence(error)
            raise InputError(f"{path}: not a whole Parquet file ({said}); copy or write it again") from error

    def records(names: dict[str, list[str]]) -> Records:
        with whole():
            yield from _rows((batch.to_pydict() for batch in file.iter_batches(BATCH_ROWS)), names)

    with whole():
        file = pq.ParquetFile(path)
    names = {}
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        names = {key: feature["names"] for key, feature in features.items() if feature.get("_type") == "ClassLabel"}
    return file.schema_arrow.names, records(names)


def _rows(batches: Iterable[dict[str, list]], names: dict[str, list[str]]) -> Records:
    """Rows of batches by column, with the names of classes for their numbers."""

    def named(value, names: list[str]):
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None  # -1: a hidden label

    row = 0
    for batch in batches:
        columns = [[named(v, names[key]) for v in values] if key in names else values for key, values in batch.items()]
        for values in zip(*columns, strict=True):
            row += 1
            yield row, list(values)


# ------------------------------------------------------------------ files of text


def _file(path: Path, remarks: list[str]) -> Source:
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise InputError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    if head.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return _parquet(path)
    kinds = {b"PK\3\4": "an Excel or zip file", b"\x1f\x8b": "packed", b"\xd0\xcf\x11\xe0": "an Excel file"}
    for magic, kind in kinds.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {kind}; unpack it, or save it as CSV UTF-8")
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _json(path, remarks)
    return _csv(path, remarks)


def _encoding(path: Path, remarks: list[str]) -> tuple[str, str]:
    """The encoding of a text file and what to do with bytes that do not fit: by its BOM, else by reading it once."""
    with path.open("rb") as file:
        head = file.read(65536)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            remarks.append(f"{path.name} is UTF-16 and was read as that.")
            return "utf-16", "replace"
        nuls = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
        if max(nuls) > 0.4:
            if min(nuls) > 0.2:
                raise InputError(f"{path}: is not text; save the table as CSV UTF-8")
            encoding = "utf-16-le" if nuls[1] > nuls[0] else "utf-16-be"
            remarks.append(f"{path.name} is {encoding.upper()} without a mark that says so, and was read as that.")
            return encoding, "replace"
        file.seek(0)
        reader = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        line, damaged, foreign, first, nul = 1, 0, 0, 0, 0
        while chunk := reader.read(1 << 20):
            nul += chunk.count("\0")
            if not chunk.isascii():
                bad = re.findall("[\udc80-\udcff]", chunk)
                damaged += len(bad)
                foreign += len(re.findall("[^\0-\x7f\udc80-\udcff]", chunk))
                if bad and not first:
                    first = line + chunk[: chunk.index(bad[0])].count("\n")
            line += chunk.count("\n")
    if head.startswith(b"\xef\xbb\xbf"):
        remarks.append(f"{path.name} begins with a byte-order mark (BOM), which is left out.")
    if nul:
        remarks.append(f"{counted(nul, 'NUL byte')} in {path.name} left out.")
    if not damaged:
        return "utf-8-sig", "strict"
    if damaged > foreign:  # a text in UTF-8 would have more characters that fit than bytes that do not
        if damaged > path.stat().st_size / 5:  # too many for a language of Latin letters
            raise InputError(f"{path}: not UTF-8 (line {first}), and not in Latin letters; save it as UTF-8")
        remarks.append(f"{path.name} is not UTF-8 (line {first}) and was read as Windows-1252 (Latin-1).")
        return "cp1252", "replace"
    remarks.append(f"{counted(damaged, 'byte')} in {path.name} not UTF-8 (first in line {first}) and read as \ufffd.")
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
    for line in itertools.islice(_lines(path, encoding, errors), 1000):
        sample.append(line)
        if (size := size + len(line)) > 2_000_000:
            break
    told = re.fullmatch(r"sep=(.)\s*", sample[0] if sample else "")  # Excel's own way of saying it
    sample = sample[1:] if told else sample
    delimiter = told[1] if told else _delimiter(sample, expected)
    if delimiter not in (expected, "\x1f"):
        name = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}.get(delimiter, repr(delimiter))
        remarks.append(f"The columns of {path.name} are separated by {name}.")
    fields = [record for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if any(record)]
    if not fields:
        raise InputError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    header = _has_header(fields)
    columns = [name.strip() for name in fields[0]] if header else [f"column {n}" for n in range(1, len(fields[0]) + 1)]
    if not header:
        remarks.append(f"{path.name} has no header: its columns are called {listed(columns)}.")
    columns = unique([name or f"Unnamed: {n}" for n, name in enumerate(columns)])
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
        return len(words(first[0])) <= 2
    if any(group for names in (TEXT_NAMES, LABEL_NAMES) for group in by_name(first, names)[::2]):
        return True
    if any(is_number(cell) or is_date(cell) for cell in first):
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

    reader, row, line, quotes, broken, rows, wrong = start(), 0, 0, [], [], 0, 0
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
                raise InputError(
                    f"{path}, row {row} (line {line + 1}): a quotation mark opens and never closes, or stands alone; "
                    'close it, or write it twice ("") inside a quoted text'
                ) from error
            quotes.append(row)
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
            wrong = wrong or len(fields)
            broken.append(row)
            continue
        yield row, (fields + [None] * width)[:width]
    if quotes:
        found = f"{counted(len(quotes), 'row')} of {path.name} ({rows_named(quotes)})"
        remarks.append(f"Stray quotation marks in {found} taken as text.")
    if len(broken) > rows / 10:
        raise InputError(
            f"{path}, row {broken[0]}: {wrong} fields where the header has {width}, and so in {len(broken):,} "
            f"of {rows:,} rows; put quotation marks round each text that holds {delimiter!r}"
        )
    if broken:
        found = f"{counted(len(broken), 'row')} of {path.name} with too many fields"
        remarks.append(f"{found} left out ({rows_named(broken)}).")


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
    first = next((line for line in _lines(path, encoding, errors) if line.strip()), "").strip()
    lines = path.suffix.lower() != ".json" or re.match(r'\{\s*"([^"\\]|\\.)*"\s*:\s*[^\s\[{]', first)

    def objects() -> Records:
        if lines:
            numbered = enumerate(_lines(path, encoding, errors), 1)
            parsed = ((number, _loads(path, number, line)) for number, line in numbered if line.strip())
        else:
            try:
                parsed = enumerate(_json_rows(json.loads(path.read_text(encoding, errors).replace("\0", ""))), 1)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path}: not JSON of rows ({error}); correct it, or write one object a line"
                ) from error
        for number, value in parsed:
            if not isinstance(value, dict):
                form = '{"text": "…", "label": "…"}'
                raise InputError(f"{path}, line {number}: not an object such as {form}; write one a line")
            yield number, value

    columns = list(dict.fromkeys(name for _, value in objects() for name in value))
    return columns, ((number, [value.get(name) for name in columns]) for number, value in objects())


def _json_rows(value) -> list:
    """The objects of a JSON file that is one value: a list of them, the same under a name, or a list a column."""
    import pandas as pd

    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
    if isinstance(only, list):
        return only
    return pd.DataFrame(value, dtype=object).to_dict("records") if isinstance(value, dict) else [value]


def _loads(path: Path, number: int, line: str):
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{path}, line {number}: not valid JSON ({said}); correct or delete the line") from error


# ------------------------------------------------------------------ names and numbers


def rows_named(rows: list[int]) -> str:
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:5]))}{', …' if len(rows) > 5 else ''}"


def by_name(columns: Iterable[str], groups: list[set[str]]) -> list[list[str]]:
    """For each group of names the columns called so, then, for each, those with such a word in their name."""
    parts = {name: words(name) for name in columns}
    exact = [[name for name, own in parts.items() if "".join(own) in group] for group in groups]
    partly = [[name for name, own in parts.items() if group.intersection(own)] for group in groups]
    return [exact[0], partly[0], exact[1], partly[1]]


def words(name: str) -> list[str]:
    parts = re.split(r"[\W_\d]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return [word if word == "class" else word.removesuffix("s") for word in parts if word]


def is_number(value: str) -> bool:
    return len(value) <= 40 and NUMBER.fullmatch(value) is not None


def is_date(value: str) -> bool:
    return len(value) <= 40 and DATE.fullmatch(value) is not None


def unique(columns: list[str]) -> list[str]:
    earlier = [columns[:n].count(name) for n, name in enumerate(columns)]
    return [f"{name}.{count}" if count else name for name, count in zip(columns, earlier, strict=True)]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:160].split(". ")[0].rstrip(".") or type(error).__name__
