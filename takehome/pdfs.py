"""Reads PDFs as a table: a text for each, with the class that its folder says, or what a table beside them says.

Text is what pypdf finds in the file. A scan holds pictures of text, which need OCR first; it is named and left out.
"""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from takehome.errors import InputError, one_line
from takehome.values import Records, Sheet, unique
from takehome.wording import counted, listed

FEW = 20  # letters, below which a PDF counts as one without text


def find_pdfs(place: Path) -> list[Path]:
    """The PDFs of a folder, up to two folders down."""
    found = [file for depth in ("*", "*/*", "*/*/*") for file in place.glob(depth) if file.suffix.lower() == ".pdf"]
    shown = [file for file in found if not any(p.startswith(".") for p in file.relative_to(place).parts)]
    return sorted(file for file in shown if file.is_file())


def open_pdfs(place: Path, files: list[Path], table: Sheet | None, remarks: list[str], pages: bool = False) -> Sheet:
    """The texts of PDFs, with their labels if there are any.

    Args:
        place: the folder, or the one PDF.
        files: the PDFs in it.
        table: of a file in the folder that names the PDFs and their labels; without it, their folders are the classes.
        remarks: gets a sentence on what is left out; complete when the records are read.
        pages: a row for each page with a text, all with the number of their PDF, instead of a row for each PDF.

    Raises:
        InputError: pypdf is not installed, or the table does not name the files.
    """
    if not importlib.util.find_spec("pypdf"):
        raise InputError(f"{place}: PDFs need pypdf: pip install pypdf, or the group `files`")
    if table:
        return _by_table(place, files, table, remarks, pages)
    folders = {file.parent for file in files}
    if len(folders) > 1:
        rows = ((file, [file.parent.name]) for file in files)
        return Sheet(["text", "label", "file"], _records(place, rows, remarks, pages))
    return Sheet(["text", "file"], _records(place, ((file, []) for file in files), remarks, pages))


def is_about(table: Sheet, files: list[Path]) -> bool:
    """Whether a table is there to name the PDFs beside it; it may be the data, and a PDF its manual. Reads it."""
    names = {name.lower() for file in files for name in (file.name, file.stem)}
    rows, named = 0, 0
    for _, values in table.records:
        rows += 1
        named += any(str(value).rpartition("/")[2].lower() in names for value in values if value is not None)
    return named > 0 or len(files) >= rows / 2


def _by_table(place: Path, files: list[Path], table: Sheet, remarks: list[str], pages: bool) -> Sheet:
    """The columns of the table beside the texts; its column of file names is found by what it holds."""
    by_name: dict[str, Path] = {}
    for file in files:
        by_name |= {name.lower(): file for name in (file.name, file.stem, file.relative_to(place).as_posix())}
    rows = [[None if value is None else str(value).strip() for value in values] for _, values in table.records]

    def named(column: int) -> int:
        return sum((row[column] or "").lower() in by_name for row in rows)

    column = max(range(len(table.columns)), key=named, default=None)
    if column is None or not named(column):
        raise InputError(
            f"{place}: no column of its table names the PDFs ({listed(table.columns)}); add their file names"
        )
    kept = [n for n in range(len(table.columns)) if n != column]
    pairs = [(by_name.get((row[column] or "").lower()), row) for row in rows]
    if lost := [row[column] or "" for file, row in pairs if file is None]:
        remarks.append(f"Not there: {listed(lost, 5)}, which the table names.")
    if others := sorted({file.name for file in files} - {file.name for file, _ in pairs if file}):
        remarks.append(f"Not read: {listed(others, 5)}, which the table does not name.")
    found = ((file, [row[n] for n in kept]) for file, row in pairs if file)
    columns = unique(["text", *(table.columns[n] for n in kept), "file"])
    return Sheet(columns, _records(place, found, remarks, pages))


def _records(place: Path, rows: Iterator[tuple[Path, list]], remarks: list[str], by_page: bool) -> Records:
    """(number of the PDF, text, the values of the row, file) of each PDF, or page, that has a text."""
    left_out: dict[str, list[str]] = {}
    for number, (file, values) in enumerate(rows, 1):
        pages, wrong = read_pdf(file)
        if wrong:
            left_out.setdefault(wrong, []).append(file.name)
            continue
        for text in filter(has_text, pages) if by_page else [clean("\n".join(pages))]:
            yield number, [text, *values, file.relative_to(place).as_posix() if file != place else file.name]
    for wrong, names in left_out.items():
        remarks.append(f"{counted(len(names), 'PDF')} {wrong}, left out ({listed(names, 5)}).")


def read_pdf(file: Path) -> tuple[list[str], str]:
    """The texts of a PDF's pages, or what is wrong with it, in a few words."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of each small fault that it passes over
    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not _opened(reader.decrypt):
            return [], "locked with a password"
        pages = [clean(page.extract_text() or "") for page in reader.pages]
    except Exception as error:  # a damaged PDF fails in as many ways as there are parts of one
        kind = "locked with a password" if "crypt" in str(error).lower() else f"damaged ({one_line(error, 40)})"
        return [], kind
    if not has_text("".join(pages)):
        return [], "without text, as scans are: run OCR on it first"
    return pages, ""


def clean(text: str) -> str:
    """Words divided at the end of a line are put together, and lines lose what cannot be seen."""
    text = re.sub(r"(\w)-\n(?=[a-z])", r"\1", text)
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text).replace("\x00", "").strip()


def has_text(text: str) -> bool:
    return sum(letter.isalnum() for letter in text) >= FEW


def _opened(decrypt: Callable[[str], int]) -> bool:
    """Many PDFs are locked for changes only, and open without a password."""
    with contextlib.suppress(Exception):
        return bool(decrypt(""))
    return False
