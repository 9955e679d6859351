"""Unpacks a table that came packed, .csv.gz, .zip or .xlsx, into a folder, and lets errors name the file that came.

from takehome.packed import is_packed, unpack
there = unpack(Path("reviews.csv.gz"), folder)    # folder/reviews.csv
"""

import bz2
import contextlib
import csv
import gzip
import importlib.util
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from takehome.errors import InputError, one_line
from takehome.wording import listed

STREAMS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
UNPACKED = "unpacked"  # the folder below the one for temporary files
PACKED = (*STREAMS, ".zip", ".xlsx")
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


def is_packed(path: Path, inside: tuple[str, ...]) -> bool:
    """Whether a file's name says that it is a packed table; `inside` are the endings of tables.

    The name decides: a packed file that is called .csv is a mistake that somebody should hear of.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in STREAMS:
        return len(suffixes) > 1 and suffixes[0] in inside
    return bool(suffixes) and suffixes[-1] in PACKED


def unpack(path: Path, folder: Path, inside: tuple[str, ...], remarks: list[str]) -> Path:
    """Writes what a packed file holds below a folder; returns the table, or the folder of several.

    Args:
        path: of the packed file.
        folder: for what is unpacked.
        inside: endings of what is taken out of a .zip.
        remarks: gets a sentence if a part is not read.

    Raises:
        InputError: it is damaged, locked with a password, has no table in it, or its reader is not installed.
    """
    (folder / UNPACKED).mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder / UNPACKED))
    suffix = path.suffix.lower()
    try:
        if suffix == ".xlsx":
            return _workbook(path, place, remarks)
        if suffix == ".zip":
            return _archive(path, place, inside)
        there = place / path.stem
        with STREAMS[suffix](path) as source, there.open("wb") as target:
            shutil.copyfileobj(source, target)
        return there
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, and not of what is packed
            raise
        raise InputError(f"{path}: cannot be unpacked ({one_line(error, 100)}); copy it again, or unpack it") from error


def _archive(path: Path, place: Path, inside: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(info.filename) for info in archive.infolist() if not info.is_dir()]
        if out := next((name for name in names if name.is_absolute() or ".." in name.parts), None):
            raise InputError(f"{path}: holds {one_line(out, 60)}, a name that leads out of it; unpack it")
        hidden = [name for name in names if any(part.startswith((".", "__MACOSX")) for part in name.parts)]
        kept = [name for name in names if name.suffix.lower() in (*inside, ".txt") and name not in hidden]
        if not any(name.suffix.lower() in inside for name in kept) and len({name.parent for name in kept}) < 2:
            raise InputError(f"{path}: no table in it ({listed(map(str, names), 5) or 'it is empty'}); unpack it")
        size, free = sum(info.file_size for info in archive.infolist()), shutil.disk_usage(place).free
        if size > free:
            raise InputError(f"{path}: unpacked it is {size / 1e6:,.0f} MB, {free / 1e6:,.0f} are free; unpack it")
        for name in kept:
            there = place / name
            there.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(str(name)) as source, there.open("wb") as target:
                shutil.copyfileobj(source, target)
    tables = [name for name in kept if name.suffix.lower() in inside]
    if len(kept) == 1:
        return place / tables[0]
    inner = list(place.iterdir())
    return inner[0] if len(inner) == 1 else place  # most archives hold one folder


def _workbook(path: Path, place: Path, remarks: list[str]) -> Path:
    """The first sheet of a workbook that has rows, as CSV."""
    if not importlib.util.find_spec("openpyxl"):
        raise InputError(f"{path}: an Excel file: pip install openpyxl, or save it as CSV UTF-8")
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # not a workbook: zip files, XML and styles each fail in their own way
        raise InputError(
            f"{path}: not an Excel file that can be read ({one_line(error, 100)}); save it as CSV UTF-8"
        ) from error
    there, names = place / f"{path.stem}.csv", list(book.sheetnames)
    with contextlib.closing(book):
        for name in names:
            with there.open("w", encoding="utf-8", newline="") as file:
                rows = ([_cell(value) for value in row] for row in book[name].iter_rows(values_only=True))
                csv.writer(file).writerows(row for row in rows if any(row))
            if there.stat().st_size:
                if others := [other for other in names if other != name]:
                    remarks.append(f"Of {path.name} the sheet {name!r} is read, and not {listed(others, 5)}.")
                return there
    raise InputError(f"{path}: has no rows; write a header, for instance text and label, and rows below it")


def _cell(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


@contextlib.contextmanager
def told_as(path: Path, unpacked: Path) -> Iterator[None]:
    """Within `with`, an error about what was unpacked names the file that came."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(unpacked), str(path))) from error
