"""Reads texts and their labels from files that other people made, repairs what can be repaired, and says so.

    from takehome.tables import read_table
    table = read_table("reviews.csv")
    table.dataset                 # datasets.Dataset with columns text, label and row, memory-mapped
    table.labels                  # ["negative", "positive"]
    table.remarks                 # ["3 rows without a label left out (rows 4, 9, 12)."]

A file is read as a stream and written to an Arrow file, so a large one needs no more memory than a small one.
"""

import errno
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from takehome.cleaning import (
    Split,
    drop_lost_classes,
    drop_repeated,
    drop_single,
    examine,
    nothing_left,
    nothing_or_class,
    settle_labels,
    settle_scores,
    settle_sets,
)
from takehome.columns import Raw, Wanted, choose_text, stage, write_arrow
from takehome.errors import InputError, printable
from takehome.forms import CLASSES, LABELS, SCORE, Form, find_form, find_pair, remark_pair
from takehome.packed import UNPACKED
from takehome.question_files import QUESTIONS, are_questions, read_questions
from takehome.scratch import scratch_folder
from takehome.table_files import Place, open_splits
from takehome.values import order
from takehome.wording import listed

if TYPE_CHECKING:
    import datasets


@dataclass
class Table:
    """Texts, with their labels if there are any.

    Attributes:
        path: what was read.
        dataset: `datasets.Dataset`, memory-mapped: "text" (string), "label" (ClassLabel) when labelled, "row" (int64),
            where it stood: in a CSV the row as a spreadsheet counts (the header is row 1), in JSON lines the line, of
            PDFs the number of the PDF, which its pages share.
        text_column, label_column: the columns that were read, as the file names them.
        labels: names of the classes, in the order of their ids: sorted, numbers by value; empty without labels.
        remarks: each repair and each thing worth knowing, one sentence each, in the order found.
        splits: what the data has beside its training split: "validation", "test" or both, with the same columns. Texts
            that also stand in one of them were left out of `dataset`.
        task: what the labels are: "classification", "multi-label" ("label" holds 0 or 1 for each of `labels`) or
            "regression" ("label" is a number, and there are no `labels`); None without labels. Of "questions" the
            columns are question, context, answers, start and row: see takehome/question_files.py.
        pair_column: of a second text ("pair"), if there is one; of the contexts of questions.
    """

    path: Path | str
    dataset: "datasets.Dataset"
    text_column: str
    label_column: str | None
    labels: list[str]
    remarks: list[str]
    splits: dict[str, "datasets.Dataset"] = field(default_factory=dict)
    task: str | None = "classification"
    pair_column: str | None = None


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
    encoding: str | None = None,
    pdf_pages: bool = False,
    task: str | None = CLASSES,
    pair_column: str | None = None,
    pairs: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> Table:
    """Reads a table of texts.

    Args:
        path: a CSV, TSV, JSON-lines or Parquet file; a directory with one such file, with train, validation (dev, val)
            and test, or with a directory of .txt files for each class; or the id of a data set on the Hub.
        text_column, label_column: columns to read; found by name, then by content, if there is one obvious candidate.
        labelled: False reads texts only; None reads labels if there is a column of them.
        labels: names of the classes that are known, in the order of their ids, for instance those of a model; any other
            label is an error. Without it, the classes are those of the training split.
        usual: names of columns that come first where there are any, such as those that a model was trained on.
        training: leave out what would harm training: repeated texts, texts with contradicting labels, classes with a
            single row. A row without a text or a label is left out in any case.
        config, revision: of a data set on the Hub, or of a directory laid out like one.
        encoding: of files of text; by default it is found out, and said if it is not UTF-8.
        pdf_pages: of PDFs a row for each page, not for each document.
        task: "classification", "multi-label", "regression" or "questions"; None finds out where it is obvious.
        pair_column, pairs: a second text for each row, in this column; insist on two columns of texts.
        cache_dir: where the Arrow file is written; by default in a temporary directory that goes with the process.

    Raises:
        InputError: the data cannot be read or makes no table of texts; nothing is left behind.
    """
    wanted = Wanted(text_column, label_column, labelled, labels, usual, training, task, pair_column, pairs)
    remarks: list[str] = []
    try:
        with scratch_folder(cache_dir) as folder:
            sheets = open_splits(Place(path, config, revision, encoding, pdf_pages), folder, remarks)
            if task == QUESTIONS or (task is None and are_questions(sheets["train"])):
                return _questions(path, sheets, folder, wanted, remarks)
            raws = {name: stage(sheet, folder / f"{name}.raw", remarks) for name, sheet in sheets.items()}
            table = _build(path, raws, folder, wanted, remarks)
            _tidy(folder, *(raw.file for raw in raws.values()))
            return table
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = cache_dir or "the temporary directory"
            said = f"no space left in {place} for a copy; make room" + ("" if cache_dir else ", or set TMPDIR")
        else:
            which = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
            said = f"{error.strerror or error}{which}; check the file and its rights"
        raise InputError(f"{path}: {said}") from error


def _tidy(folder: Path, *files: Path) -> None:
    """Removes copies that were made on the way."""
    for file in files:
        file.unlink()
    for made in ("hub", UNPACKED):
        shutil.rmtree(folder / made, ignore_errors=True)


def _questions(path, sheets: dict, folder: Path, wanted: Wanted, remarks: list[str]) -> Table:
    done, (question, context, answers) = read_questions(path, sheets, folder, wanted, remarks)
    _tidy(folder)
    remarks = [printable(remark) for remark in remarks]
    return Table(path, done.pop("train"), question, answers, [], remarks, done, QUESTIONS, context)


def _build(path, raws: dict[str, Raw], folder: Path, wanted: Wanted, remarks: list[str]) -> Table:
    import datasets

    texts, form = _choose_columns(path, raws, wanted, remarks)
    classes = form is not None and form.task == CLASSES
    nothing = nothing_or_class(raws["train"].columns[form.name], wanted, form.name, remarks) if classes else set()
    splits = {}
    for name, raw in raws.items():
        where = f" of {name}" if len(raws) > 1 else ""
        splits[name] = examine(path, raw, where, texts, form, nothing, remarks)
    names, answers = _settle(path, splits, form, wanted, remarks)
    if wanted.training:
        _clean(path, splits, form, wanted, names, remarks)
    train = splits["train"]
    if train.rows.empty:
        raise InputError(nothing_left(path, train))
    features = datasets.Features({name: datasets.Value("string") for name in ("text", "pair")[: len(texts)]})
    if classes:
        ids = range(len(names)) if wanted.labels else sorted(set(train.rows.label), key=lambda n: order(names[n]))
        if len(ids) < 2 and wanted.labels is None:
            raise InputError(
                f"{path}: column {form.name!r} has one class only ({names[ids[0]]!r}); add rows of another"
            )
        places = {old: new for new, old in enumerate(ids)}
        names, answers = [names[n] for n in ids], [places.get(n) for n in range(len(names))]
        features["label"] = datasets.ClassLabel(names=names)
    elif form:
        value = datasets.Value("float32")
        features["label"] = datasets.List(value) if form.task == LABELS else value
    features["row"] = datasets.Value("int64")
    done = {}
    for name, split in splits.items():
        file = folder / f"{name}.arrow"
        write_arrow(file, features.arrow_schema, split.texts(texts, answers))
        done[name] = datasets.Dataset.from_file(str(file), split=name)
    remarks = [printable(remark) for remark in remarks]
    pair = texts[1] if len(texts) > 1 else None
    task, label = (form.task, form.name) if form else (None, None)
    return Table(path, done.pop("train"), texts[0], label, names, remarks, done, task, pair)


def _choose_columns(path, raws: dict[str, Raw], wanted: Wanted, remarks: list[str]) -> tuple[list[str], Form | None]:
    raw = raws["train"]
    if not raw.rows:
        raise InputError(f"{path}: has no rows; write at least two rows for each class")
    if pair := find_pair(path, raw, wanted):
        texts = list(pair)
        remark_pair(pair, remarks)
    else:
        texts = [choose_text(path, raw, wanted, remarks)]
    form = None if wanted.labelled is False else find_form(path, raw, texts, wanted, remarks)
    for name, raw in list(raws.items()):
        if lost := [text for text in texts if text not in raw.columns and raw.rows]:
            raise InputError(f"{path}: {name} has no column {lost[0]!r} as train has; rename it, or leave {name} out")
        lost = [column for column in (form.columns if form else ()) if column not in raw.columns and raw.rows]
        if lost:
            others = [own for own, c in raw.columns.items() if own not in texts and c.looks_like_labels(raw.rows)]
            if others:  # else it is a competition's test, whose labels are kept back
                said = f"{name} has no column {lost[0]!r} as train has, but {others[0]!r}"
                raise InputError(f"{path}: {said}; rename it, or leave {name} out")
            remarks.append(f"Not read: {name}, which has no column {lost[0]!r} (it has {listed(raw.columns, 5)}).")
            raws.pop(name).file.unlink()
    return texts, form


def _settle(path, splits: dict[str, Split], form: Form | None, wanted: Wanted, remarks: list[str]):
    """The names of the classes or labels, and what each number of a label in the splits stands for, if not itself."""
    if form is None:
        return [], None
    if form.task == SCORE:
        return [], settle_scores(splits, remarks)
    if form.task == CLASSES:
        return settle_labels(path, splits, form.name, wanted, remarks), None
    names, answers = settle_sets(splits, wanted, remarks)
    if len(names) < 2 and wanted.labels is None:
        raise InputError(
            f"{path}: column {form.name!r} has {len(names)} labels of two rows or more; add rows, or labels"
        )
    return names, answers


def _clean(path, splits: dict[str, Split], form: Form | None, wanted: Wanted, names, remarks: list[str]) -> None:
    """Leaves out what would harm training."""
    drop_repeated(splits, remarks)
    if form is not None and form.task == CLASSES and wanted.labels is None:
        drop_single(path, splits["train"], form.name, names, remarks)
        if not splits["train"].rows.empty:
            drop_lost_classes(splits, names, remarks)
