"""Writes PDFs to try fine_tune.py with: letters and papers by the documents' grammar, in a folder for each class.

    python data/build/pdfs.py --output my_pdfs                  a dozen, in three folders
    python data/build/pdfs.py --output my_pdfs --documents 300  more, of which a model can learn something

A PDF is written here object by object, so that there is nothing to install: a page has lines of text in Helvetica.
"""

import argparse
import textwrap
from pathlib import Path

from grammar import Grammar, Random, Writer

CLASSES = ("financial", "legal", "medical")
COLUMNS, LINES = 80, 48  # of a page


def texts(documents: int, seed: int) -> list[tuple[str, str]]:
    """(text, class) of documents, no text twice, as many of each class."""
    grammar, rng = Grammar("common", "documents"), Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < documents:
        label = CLASSES[len(rows) % len(CLASSES)]
        rows.setdefault(" ".join(Writer(grammar, rng).write(f"{{facts}}{{{label}}}").split()), label)
    return list(rows.items())


def pdf(text: str) -> bytes:
    """A PDF of a text: its pages, their contents, and the font."""
    lines = textwrap.wrap(text, COLUMNS, break_on_hyphens=False)
    pages = [lines[start : start + LINES] for start in range(0, len(lines), LINES)]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, own in enumerate(pages):
        shown = b"\n".join(b"(" + _escaped(line) + b") Tj T*" for line in own)
        content = b"BT /F1 11 Tf 14 TL 60 780 Td\n" + shown + b"\nET"
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * n} 0 R "
        objects.append(page.encode() + b"/Resources << /Font << /F1 3 0 R >> >> >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream")
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    end += f"<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + end.encode()


def _escaped(line: str) -> bytes:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252", "replace")


def write(folder: Path, documents: int, seed: int = 40) -> None:
    for number, (text, label) in enumerate(texts(documents, seed), 1):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{label}-{number:03d}.pdf").write_bytes(pdf(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=12)
    options = parser.parse_args()
    write(options.output, options.documents)
    print(f"{options.documents} PDFs in {options.output}")


if __name__ == "__main__":
    main()
