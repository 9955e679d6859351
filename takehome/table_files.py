"""Finds the files of a table, or its data set on the Hub, and opens each as the kind of file that it is.

    from takehome.table_files import open_splits
    sheet = open_splits(Place("reviews.csv"), folder, remarks)["train"]
    sheet.columns, next(sheet.records)     # names; where a row stood, and its values as they were read

takehome.tables makes texts and labels of them.
"""

import contextlib
import itertools
import json
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.hub_errors import explain
from takehome.encodings import KNOWN, Encoding, find_encoding, lines
from takehome.errors import InputError, one_line
from takehome.packed import PACKED, is_packed, told_as, unpack
from takehome.pdfs import find_pdfs, is_about, open_pdfs
from takehome.text_files import looks_like_json, read_csv, read_json
from takehome.values import BATCH_ROWS, Records, Sheet, words
from takehome.wording import counted, first_sentence, listed

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")  # of the files of a directory
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "validation", "eval": "validation", "test": "test", "testing": "test"}
UNLABELLED = {"unsup", "unsupervised", "unlabeled", "unlabelled"}
# What a file is by its first bytes, when it is no table that can be read, and what to do with it.
EXCEL, UNPACK = "save it as CSV UTF-8", "unpack it, and give the file inside"
FOREIGN = {
    b"PK\3\4": ("an Excel or zip file", "unpack it, or save it as CSV UTF-8"),
    b"\xd0\xcf\x11\xe0": ("an Excel file", EXCEL),
    b"\x1f\x8b": ("packed", UNPACK),
    b"BZh": ("packed", UNPACK),
    b"\xfd7zXZ\0": ("packed", UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed", UNPACK),
    b"7z\xbc\xaf": ("packed", UNPACK),
    b"Rar!": ("packed", UNPACK),
    b"%PDF": ("a PDF", "save its table as CSV UTF-8"),
    b"{\\rtf": ("an RTF document", "save its table as CSV UTF-8"),
    b"\x89PNG": ("a picture", "give a table of texts"),
    b"\xff\xd8\xff": ("a picture", "give a table of texts"),
    b"SQLite format 3": ("an SQLite database", "export its table as CSV"),
    b"\x89HDF": ("an HDF5 file", "save it as CSV or Parquet"),
    b"\x93NUMPY": ("a NumPy file", "save it as CSV or Parquet"),
    b"ARROW1": ("an Arrow or Feather file", "save it as Parquet"),
    b"ORC": ("an ORC file", "save it as Parquet"),
    b"version https://git-lfs": ("a pointer of Git LFS and not the file itself", "fetch it with git lfs pull"),
}
PICKLE = re.compile(rb"\x80[\x02-\x05][\x80-\xff\x00-\x08(}\]c]", re.DOTALL)
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype|<html|<head|<body|<table|<\?xml|<!--)", re.I)


@dataclass(frozen=True)
class Place:
    """Where a table is: the arguments of `takehome.tables.read_table` that say so."""

    path: str | Path
    config: str | None = None  # of a data set on the Hub, or of a directory laid out like one
    revision: str | None = None  # of a data set on the Hub
    encoding: str | None = None  # of files of text; found out by default
    pdf_pages: bool = False  # of PDFs a row for each page, not for each document


# ------------------------------------------------------------------ directories and the Hub


def open_splits(place: Place, folder: Path, remarks: list[str]) -> dict[str, Sheet]:
    """The table of each split: "train" and, if the data has them, "validation" and "test".

    Args:
        place: a file, a directory or the id of a data set on the Hub.
        folder: for temporary files.
        remarks: gets a sentence for each repair; those of a file are complete when its records are read.

    Raises:
        InputError: there is no such file, or none that can be read.
    """
    path = Path(place.path).expanduser()
    if not str(place.path).strip():
        raise InputError("no path was given; name a file, a directory or a data set on the Hub")
    if path.is_dir():
        card = path / "README.md"  # of a data set laid out as on the Hub
        declared = card.read_bytes()[:20_000] if card.is_file() else b""
        if place.config or (declared.startswith(b"---") and (b"configs:" in declared or b"dataset_info:" in declared)):
            return _hub(place, str(path.resolve()), folder, remarks)
        return _directory(path, place.encoding, folder, remarks, place.pdf_pages)
    if path.is_symlink() and not path.exists():
        raise InputError(f"{place.path}: is a link to {path.readlink()}, which is not there; give the file itself")
    if path.is_file() and is_packed(path, SUFFIXES):
        return _unpacked(path, place.encoding, folder, remarks, place.pdf_pages)
    if path.is_file() and path.suffix.lower() == ".pdf":
        return {"train": open_pdfs(path, [path], None, remarks, place.pdf_pages)}
    if path.exists():
        return {"train": _file(path, place.encoding, folder, remarks)}
    hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(place.path)) and not path.parent.exists()
    if hub_id and path.suffix not in (*SUFFIXES, *PACKED, ".txt"):
        return _hub(place, str(place.path), folder, remarks)
    near = [file.name for file in path.parent.glob("*") if _is_table(file)] if path.parent.is_dir() else []
    there = f"; {path.parent} has {listed(sorted(near), 8)}" if near else "; check the path"
    raise InputError(f"{place.path}: no such file or directory{there}")


def _unpacked(
    path: Path, told: str | None, folder: Path, remarks: list[str], pdf_pages: bool = False
) -> dict[str, Sheet]:
    """The tables of a packed file; messages name it, and not where it was unpacked."""

    def named(records: Records) -> Records:
        with told_as(path, there):
            yield from records

    there = unpack(path, folder, SUFFIXES, remarks)
    with told_as(path, there):
        if there.is_dir():
            splits = _directory(there, told, folder, remarks, pdf_pages)
        else:
            splits = {"train": _file(there, told, folder, remarks)}
    return {name: Sheet(sheet.columns, named(sheet.records)) for name, sheet in splits.items()}


def _directory(place: Path, told: str | None, folder: Path, remarks: list[str], pdf_pages: bool) -> dict[str, Sheet]:
    if (pdfs := find_pdfs(place)) and not _class_folders(place):
        found = _tables(place)
        tables = [table for table in found if is_about(_file(table, told, folder, []), pdfs)]
        if len(tables) > 1:
            raise InputError(
                f"{place}: which table names the PDFs? It holds {listed(t.name for t in tables)}; leave one"
            )
        if tables or not found:  # else the tables are the data
            table = _file(tables[0], told, folder, remarks) if tables else None
            return {"train": open_pdfs(place, pdfs, table, remarks, pdf_pages)}
    folders = {sub: _split_of(sub.name) for sub in sorted(place.iterdir()) if sub.is_dir()}
    splits = {split: _text_files(sub, told, remarks) for sub, split in folders.items() if split and _class_folders(sub)}
    if splits:
        return _with_train(place, splits)
    if _class_folders(place):
        return {"train": _text_files(place, told, remarks)}
    files = _tables(place)
    if len(files) == 1:
        return {"train": _file(files[0], told, folder, remarks)}
    found: dict[str | None, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.stem) or SPLITS.get(file.parent.name.lower()), []).append(file)
    if not files:
        raise InputError(f"{place}: holds no CSV, TSV, JSONL or Parquet file and no class directories of .txt files")
    if None in found:
        names = listed((str(file.relative_to(place)) for file in files), 8)
        raise InputError(f"{place}: which file? It holds {names}; name one, or call them train, validation and test")
    return _with_train(place, {split: _chain(group, told, folder, remarks) for split, group in found.items()})


def _tables(place: Path) -> list[Path]:
    """Files of tables, up to two directories down: what is deeper is no data set, and a disk would take long."""
    found = [file for depth in ("*", "*/*", "*/*/*") for file in place.glob(depth) if _is_table(file)]
    files = sorted(file for file in found if not file.is_dir())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]


def _is_table(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES or (file.suffix.lower() != ".zip" and is_packed(file, SUFFIXES))


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


def _text_files(place: Path, told: str | None, remarks: list[str]) -> Sheet:
    classes = _class_folders(place)
    for name in UNLABELLED & set(classes):
        remarks.append(f"Not read: {place / name}.")
        del classes[name]

    def records() -> Records:
        foreign: dict[str, list[str]] = {}
        for row, (name, file) in enumerate(((name, file) for name, group in classes.items() for file in group), 1):
            found = Encoding("cp1252", "replace")
            with contextlib.suppress(InputError):  # one text in another script must not cost all the others
                found = find_encoding(file, told, [])
            if found.name in KNOWN and not told:
                foreign.setdefault(found.name, []).append(f"{name}/{file.name}")
            yield row, ["".join(lines(file, found)), name]
        for encoding, files in foreign.items():
            which = f"{listed(files[:3])}{', …' * (len(files) > 3)}"
            remarks.append(f"{counted(len(files), 'file')} not UTF-8 and read as {KNOWN[encoding].name} ({which}).")

    if told:
        find_encoding(place, told, [])  # there is such an encoding
    return Sheet(["text", "label"], records())


def _chain(files: list[Path], told: str | None, folder: Path, remarks: list[str]) -> Sheet:
    parts = [_file(file, told, folder, remarks) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.columns != parts[0].columns:
            raise InputError(
                f"{file}: its columns {listed(part.columns)} are not {listed(parts[0].columns)} as in {files[0].name}; "
                "give all parts the same, or name one file"
            )
    if len(parts) == 1:
        return parts[0]
    chained = itertools.chain.from_iterable(part.records for part in parts)
    return Sheet(parts[0].columns, ((row, values) for row, (_, values) in enumerate(chained, 1)))


def _hub(place: Place, name: str, folder: Path, remarks: list[str]) -> dict[str, Sheet]:
    import datasets

    local = Path(name).is_absolute()
    quiet = local and not datasets.are_progress_bars_disabled()
    cache, revision = (str(folder / "hub"), None) if local else (None, place.revision)
    if quiet:
        datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, place.config, revision=revision, cache_dir=cache)
    except Exception as error:
        raise InputError(f"{one_line(explain(error, str(place.path)), 600)}; or give a file") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    splits = {SPLITS[split]: data for split, data in found.items() if split in SPLITS}
    if len(found) == 1:
        splits = {"train": next(iter(found.values()))}
    elif ignored := [split for split in found if split not in SPLITS]:
        remarks.append(f"Not read: {', '.join(ignored)}.")

    def sheet(data) -> Sheet:
        columns = data.column_names
        batches = ([batch[name] for name in columns] for batch in data.iter(BATCH_ROWS))
        inner = [getattr(feature, "feature", feature) for feature in data.features.values()]
        return Sheet(columns, _rows(batches, {n: f.names for n, f in enumerate(inner) if hasattr(f, "names")}))

    return _with_train(place.path, {split: sheet(data) for split, data in splits.items()})


# ------------------------------------------------------------------ files


def _file(path: Path, told: str | None, folder: Path, remarks: list[str]) -> Sheet:
    if path.is_file() and is_packed(path, SUFFIXES):
        return _unpacked(path, told, folder, remarks)["train"]
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise InputError(f"{path}: is {kind}, which cannot be read twice; save its rows as a file, and give that")
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise InputError(f"{path}: the file is empty; write a header, for instance text,label, and rows below it")
    for magic, (kind, todo) in FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {kind}; {todo}")
    if PICKLE.match(head):
        raise InputError(f"{path}: is a pickle, which may run programs when it is opened; save it as CSV or Parquet")
    if PAGE.match(head):
        raise InputError(f"{path}: is a web page or XML; save its table as CSV UTF-8")
    suffix = path.suffix.lower()
    if head.startswith(b"PAR1") or suffix == ".parquet":
        return _parquet(path)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return read_json(path, told, remarks)
    if looks_like_json(head):
        remarks.append(f"{path.name} is JSON, and was read as that.")
        return read_json(path, told, remarks)
    return read_csv(path, told, remarks)


def _parquet(path: Path) -> Sheet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    @contextlib.contextmanager
    def whole():
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            said = first_sentence(error)
            raise InputError(f"{path}: not a whole Parquet file ({said}); copy or write it again") from error
        except (ValueError, OverflowError) as error:  # a text that is not UTF-8, a date beyond the calendar
            said = first_sentence(error)
            raise InputError(f"{path}: holds a value that cannot be read ({said}); write it as a text") from error

    def records(names: dict[int, list[str]]) -> Records:
        with whole():
            batches = file.iter_batches(BATCH_ROWS)
            yield from _rows(([column.to_pylist() for column in batch.columns] for batch in batches), names)

    with whole():
        file = pq.ParquetFile(path)
    columns, names = file.schema_arrow.names, {}
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        inner = {key: feature.get("feature", feature) for key, feature in features.items()}
        labels = {key: feature["names"] for key, feature in inner.items() if feature.get("_type") == "ClassLabel"}
        names = {n: labels[name] for n, name in enumerate(columns) if name in labels}
    return Sheet(columns, records(names))


def _rows(batches: Iterable[list[list]], names: dict[int, list[str]]) -> Records:
    """Rows of batches, each a list of columns; numbers of classes in a column become names, if it has any."""

    def named(value, names: list[str]):
        if isinstance(value, list):  # several labels, or a tag for each word
            return [named(own, names) for own in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None  # -1: a hidden label

    row = 0
    for batch in batches:
        columns = [[named(v, names[n]) for v in values] if n in names else values for n, values in enumerate(batch)]
        for values in zip(*columns, strict=True):
            row += 1
            yield row, list(values)
