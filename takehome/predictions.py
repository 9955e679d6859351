"""Writes what a model made of rows, as tables that spreadsheets open as they are meant."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from takehome.tasks import Task

WINDOW = 1000  # rows in memory at a time


def spreadsheet_safe(cell):
    """Text that a spreadsheet would take for a formula, with an apostrophe before it; all else as it is."""
    risky = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    return f"'{cell}" if risky and not re.fullmatch(r"[-+]?\d+([.,]\d+)?", cell) else cell


def write_rows(path: Path, header: list[str], rows: Iterable[tuple]) -> None:
    """A CSV that spreadsheets open as it is meant, row by row."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([spreadsheet_safe(cell) for cell in row] for row in rows)


def columns_of(dataset: Dataset) -> list[str]:
    """Where a row stood, and its texts."""
    return [name for name in ("row", "text", "pair", "question", "context") if name in dataset.column_names]


def write_answers(folder: Path, dataset: Dataset, task: Task, outputs: np.ndarray, answers: Any | None) -> None:
    """predictions.csv; with answers also metrics.json, a picture, and mistakes.csv with the worst first."""
    header = list(task.show_outputs(outputs[:0], []))

    def rows(order: np.ndarray, labelled: bool) -> Iterator[tuple]:
        for start in range(0, len(order), WINDOW):
            chosen = order[start : start + WINDOW]
            batch = dataset[chosen]
            columns = [batch[name] for name in columns_of(dataset)]
            columns += [task.show_answers(answers[chosen])] if labelled else []
            yield from zip(*columns, *task.show_outputs(outputs[chosen], batch.get("text")).values(), strict=True)

    names = columns_of(dataset)
    write_rows(folder / "predictions.csv", [*names, *header], rows(np.arange(len(dataset)), False))
    if answers is None:
        return
    scores, far = task.measure(answers, outputs), task.worst(answers, outputs)
    wrong = np.flatnonzero(task.is_wrong(answers, outputs))
    order = wrong[np.argsort(-far[wrong], kind="stable")]
    write_rows(folder / "mistakes.csv", [*names, "label", *header], rows(order, True))
    if drawn := task.picture(scores):
        drawn[2].savefig(folder / drawn[0], dpi=120)
    text = json.dumps({"task": task.name} | asdict(scores), indent=1, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", "utf-8")
    print(task.report(scores))
