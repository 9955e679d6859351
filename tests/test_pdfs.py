"""takehome/pdfs.py: PDFs of a folder become a table; what has no text, is locked or damaged is named in a line."""

import csv
import json

import numpy as np
import pytest

pypdf = pytest.importorskip("pypdf", reason="the group `files` is not installed")

import evaluate_model  # noqa: E402
from fine_tune_runs import Run, write_csv  # noqa: E402

from helpers.profiles import ROOT  # noqa: E402
from takehome import pdfs  # noqa: E402
from takehome.errors import InputError  # noqa: E402
from takehome.tables import read_table  # noqa: E402
from takehome.texts import divide, join_groups  # noqa: E402


@pytest.fixture(scope="module")
def made(build_program, tmp_path_factory):
    """The example's PDFs: a folder for each of two kinds, and the same in one folder with a table."""
    folder = tmp_path_factory.mktemp("pdfs")
    build_program("pdfs").write(folder / "folders", documents=24, seed=1)
    return folder / "folders"


def rows_of(table):
    return [(row["text"], table.labels[row["label"]]) for row in table.dataset]


def copy(path, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())


def test_folders_are_classes_and_the_text_is_what_was_written(made, build_program):
    table = read_table(made)
    assert table.labels == ["financial", "legal", "medical"] and table.remarks == []
    written = {text for text, _ in build_program("pdfs").texts(documents=24, seed=1)}
    assert len(table.dataset) == 24
    assert {" ".join(text.split()) for text, _ in rows_of(table)} == written


def test_a_table_beside_them_names_the_classes(made, tmp_path):
    files = sorted(made.glob("*/*.pdf"))
    for file in files[:10]:
        copy(file, tmp_path / "in" / file.name)
    rows = [(file.name if n % 2 else file.stem, "ab"[n % 2], n) for n, file in enumerate(files[:9])]
    write_csv(tmp_path / "in" / "labels.csv", [*rows, ("gone.pdf", "a", 0)], ("document", "label", "pages"))
    table = read_table(tmp_path / "in")
    assert [label for _, label in rows_of(table)] == [label for _, label, _ in rows]
    assert table.remarks == [
        "Not there: gone.pdf, which the table names.",
        f"Not read: {files[9].name}, which the table does not name.",
    ]


def scan(path):
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(path)


def locked(path, source, password):
    writer = pypdf.PdfWriter(clone_from=source)
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    writer.write(path)


def test_scans_locked_and_broken_files_are_named_and_left_out(made, tmp_path):
    files = sorted(made.glob("*/*.pdf"))
    for file in files:
        copy(file, tmp_path / file.parent.name / file.name)
    scan(tmp_path / "legal" / "scan.pdf")
    locked(tmp_path / "legal" / "locked.pdf", files[0], "secret")
    (tmp_path / "medical" / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing")
    (tmp_path / "medical" / "half.pdf").write_bytes(files[0].read_bytes()[:300])
    table = read_table(tmp_path)
    assert len(table.dataset) == 24
    assert "1 PDF without text, as scans are: run OCR on it first, left out (scan.pdf)." in table.remarks
    assert "1 PDF locked with a password, left out (locked.pdf)." in table.remarks
    assert sum("damaged" in remark for remark in table.remarks) >= 1
    assert all(remark.isprintable() and len(remark) < 200 for remark in table.remarks)
    named = " ".join(table.remarks)
    assert "broken.pdf" in named and "half.pdf" in named


def test_a_pdf_that_is_locked_for_changes_only_is_read(made, tmp_path):
    source = sorted(made.glob("*/*.pdf"))[0]
    locked(tmp_path / "a.pdf", source, "")
    assert pdfs.read_pdf(tmp_path / "a.pdf") == pdfs.read_pdf(source)


def test_pages_are_rows_and_those_of_a_document_stay_together(build_program, tmp_path):
    """A page of a document in train and another in test would make the test easier than life."""
    program = build_program("pdfs")
    for number in range(20):
        label = "ab"[number % 2]
        words = [f"{label}{number} page of words{n}" for n in range(3 * program.LINES * 3)]  # three pages and more
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number:02d}.pdf").write_bytes(program.pdf(" ".join(words)))
    whole, pages = read_table(tmp_path), read_table(tmp_path, pdf_pages=True)
    by_document = {}
    for row in pages.dataset:
        by_document.setdefault(row["row"], []).append(row["text"])
    assert ["\n".join(texts) for texts in by_document.values()] == [row["text"] for row in whole.dataset]
    assert len(by_document) == 20 and min(map(len, by_document.values())) >= 3
    parts, _ = divide(pages, 1, None, [])
    documents = {name: {row["row"] for row in part.select()} for name, part in parts.items()}
    assert sorted(number for own in documents.values() for number in own) == list(by_document)
    assert all(documents.values())


def test_rows_stay_together_by_way_of_others():
    groups = join_groups(np.array([7, 7, 8, 9, 10, 11]), np.array([1, 2, 2, 3, 3, 4]))
    assert len(set(groups[:3])) == len(set(groups[3:5])) == 1 and len(set(groups)) == 3


def test_without_pypdf_it_says_what_to_install(made, monkeypatch):
    monkeypatch.setattr(pdfs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="PDFs need pypdf: pip install pypdf, or the group `files`"):
        read_table(made)


def test_a_table_that_names_no_pdf_is_one_line(made, tmp_path):
    copy(sorted(made.glob("*/*.pdf"))[0], tmp_path / "a.pdf")
    write_csv(tmp_path / "labels.csv", [("b", "x")], ("file", "label"))
    with pytest.raises(InputError, match="no column of its table names the PDFs \\(file, label\\)"):
        read_table(tmp_path)


def test_a_manual_beside_the_data_changes_nothing(made, tmp_path):
    copy(sorted(made.glob("*/*.pdf"))[0], tmp_path / "manual.pdf")
    write_csv(tmp_path / "data.csv", [(f"A text of its own, number {n}", "ab"[n % 2]) for n in range(10)])
    table = read_table(tmp_path)
    assert len(table.dataset) == 10 and table.labels == ["a", "b"]


def test_from_pdfs_to_a_label_for_a_new_one(made, tmp_path, capsys):
    """The example from end to end: train on a folder, measure, label single PDFs."""
    told = ("--max-steps=4", "--max-length=24", "--per-device-train-batch-size=4")
    run = Run(tmp_path / "model", made, *told, checkpoint=str(ROOT / "data/models/distilbert")).finish()
    assert "24 rows; texts in 'text', labels in 'label'" in run.text
    one = sorted(made.glob("*/*.pdf"))[0]
    told = ["--model", str(run.output), "--output-dir", str(tmp_path / "out")]
    assert evaluate_model.main([*told, "--data", str(one), "--pdf-rows=page"]) == 0, capsys.readouterr().err
    with (tmp_path / "out/predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["predicted"] in ("financial", "legal", "medical")
    assert evaluate_model.main([*told, "--data", str(made)]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))["n"] == 24
