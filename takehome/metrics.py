"""How good a classifier is: accuracy, macro-F1, per class, calibration, and who is taken for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from takehome.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CALIBRATION_BINS = 15
ANNOTATED_CLASSES = 20  # up to so many the counts are written into the confusion matrix


@dataclass(frozen=True)
class ClassScores:
    """Of one class; `n` is the number of its rows."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """`counts[i][j]` rows of class i were taken for class j."""

    labels: list[str]
    counts: list[list[int]]
    rows_are: str = "labels of the file"


@dataclass(frozen=True)
class Scores:
    """All metrics of labelled rows; macro-F1 is the mean over the classes that have rows."""

    n: int
    accuracy: float
    majority_class_accuracy: float
    macro_f1: float
    expected_calibration_error: float
    per_class: dict[str, ClassScores]
    confusion_matrix: ConfusionMatrix


@dataclass(frozen=True)
class Majority:
    """What it scores to answer always with the commonest label of the training rows."""

    label: str
    accuracy: float
    macro_f1: float


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins of equal width.

    Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3. Both arrays have shape [rows].
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - correct, minlength=bins)  # rows times gap, bin by bin
    return float(np.abs(gaps).sum() / len(confidence))


def measure(labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, names: list[str]) -> Scores:
    """Compares predictions with labels.

    Args:
        labels, predicted: class ids [rows].
        confidence: probability of the predicted class [rows].
        names: of the classes, by id.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    ids = range(len(names))
    columns = precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=ids)
    each = [ClassScores(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*columns, strict=True)]
    _, _, f1, rows = columns
    return Scores(
        n=len(labels),
        accuracy=float((labels == predicted).mean()),
        majority_class_accuracy=float(matrix.sum(1).max() / len(labels)),
        macro_f1=float(f1[rows > 0].mean()),
        expected_calibration_error=calibration_error(confidence, labels == predicted),
        per_class=dict(zip(names, each, strict=True)),
        confusion_matrix=ConfusionMatrix(names, matrix.tolist()),
    )


def always_the_commonest(names: list[str], train: list[int], test: list[int]) -> Majority:
    """Scores of the answer that needs no model.

    Args:
        names: of the classes, by id.
        train, test: rows of each class [classes].
    """
    common = int(np.argmax(train))
    share = test[common] / sum(test)
    return Majority(names[common], share, float(2 * share / (1 + share) / np.count_nonzero(test)))


def report(scores: Scores) -> str:
    """The metrics for a terminal."""
    lines = [f"{'class':<32} {'precision':>9} {'recall':>9} {'F1':>9} {'rows':>9}"]
    for name, row in scores.per_class.items():
        shown = f"{row.precision:>9.3f} {row.recall:>9.3f} {row.f1:>9.3f} {row.n:>9,}"
        lines.append(f"{one_line(name, 32):<32} {shown}")
    names = [one_line(name) for name in scores.confusion_matrix.labels]
    lines += ["", f"rows {scores.n:,}   accuracy {scores.accuracy:.4f}   macro-F1 {scores.macro_f1:.4f}"]
    lines += [f"always the commonest class: accuracy {scores.majority_class_accuracy:.4f}"]
    lines += [f"expected calibration error {scores.expected_calibration_error:.4f}"]
    counts = np.array(scores.confusion_matrix.counts)
    np.fill_diagonal(counts, 0)
    for place in np.argsort(-counts, axis=None, kind="stable")[:3]:
        true, predicted = divmod(int(place), len(names))
        if counts[true, predicted]:
            lines.append(f"{counts[true, predicted]:,} times {names[true]!r} was taken for {names[predicted]!r}")
    return "\n".join(lines)


def draw_confusion_matrix(scores: Scores) -> Figure:
    """A row for each label of the file, a column for each prediction, colours for shares of the row."""
    from matplotlib.colors import Normalize, PowerNorm
    from matplotlib.figure import Figure

    counts = np.array(scores.confusion_matrix.counts)
    names = [one_line(name, 30) for name in scores.confusion_matrix.labels]
    names = [name.replace("$", r"\$") for name in names]  # or matplotlib takes it for mathematics
    many = len(names) > ANNOTATED_CLASSES
    size = 3 + (0.2 if many else 0.6) * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1) if many else Normalize(0, 1))
    turned = many or max(map(len, names)) > 6
    font = {"fontsize": 8 if many else 10}
    axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0, **font)
    axes.set_yticks(range(len(names)), names, **font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label of the file")
    axes.set_title(f"{scores.n:,} rows, accuracy {scores.accuracy:.1%}, macro-F1 {scores.macro_f1:.3f}")
    if many:
        _draw_grid(axes, len(names))
    else:
        _write_counts(axes, counts, shares)
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.6)
    return figure


def _draw_grid(axes: Axes, classes: int) -> None:
    """Lines for the eye to follow."""
    axes.set_xticks(np.arange(classes) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for true, predicted in np.ndindex(counts.shape):
        colour = "w" if shares[true, predicted] > 0.5 else "k"
        axes.text(predicted, true, f"{counts[true, predicted]:,}", ha="center", va="center", color=colour)
