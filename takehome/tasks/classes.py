"""One class a text, or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.baselines import COUNTER, count_words, fit_classes
from takehome.errors import one_line
from takehome.metrics import Scores, always_the_commonest, draw_confusion_matrix, measure, report
from takehome.tasks.task import Task, column
from takehome.wording import cell

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of classes [rows, classes]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


class Classes(Task):
    name = "classification"
    best = "macro_f1"
    shown = {"accuracy": "accuracy", "macro_f1": "macro-F1"}  # noqa: RUF012
    kinds = {"accuracy": "accuracy", "macro_f1": "f1"}  # noqa: RUF012

    def strata(self, dataset: Dataset) -> np.ndarray:
        return column(dataset, "label")

    def counts(self, answers: np.ndarray) -> list[int]:
        return np.bincount(answers, minlength=len(self.labels)).tolist()

    def describe(self, counts: list[int]) -> tuple[str, str]:
        return "classes", listed_counts(self.labels, counts)

    def head(self) -> dict[str, Any]:
        return super().head() | {"problem_type": "single_label_classification"}

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """Cross-entropy, summed over the rows of a step and divided by their number."""
        import torch

        given = None if weights is None else torch.tensor(weights, dtype=torch.float32)

        def loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
            own = None if given is None else given.to(outputs.logits.device)
            losses = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, own, reduction="none")
            return losses.sum() / (num_items_in_batch or len(labels))

        return loss

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        """Macro-F1 is the mean over the classes that have rows."""
        from sklearn.metrics import accuracy_score, f1_score

        guesses, labels = predicted.predictions.argmax(-1), predicted.label_ids
        score = f1_score(labels, guesses, average="macro", labels=np.unique(labels))
        return {"accuracy": accuracy_score(labels, guesses), "macro_f1": score}

    def measure(self, answers: np.ndarray, outputs: np.ndarray) -> Scores:
        probabilities = softmax(outputs)
        return measure(answers, probabilities.argmax(-1), probabilities.max(-1), self.labels)

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        known, asked = column(train, "label"), column(test, "label")
        lazy = always_the_commonest(self.labels, self.counts(known), self.counts(asked))
        found = {f"always {lazy.label!r}": {"accuracy": lazy.accuracy, "macro_f1": lazy.macro_f1}}
        features = count_words(train, [test], len(self.labels))
        outputs = fit_classes(features[0], known, features[1], len(self.labels))
        return found | {COUNTER: self.headline(self.measure(asked, outputs))}

    def purpose(self) -> str:
        return f"Tells {len(self.labels)} kinds of text apart: {', '.join(map(cell, self.labels))}."

    def table(self, scores: Scores, train: list[int]) -> list[list[str]]:
        rows = [["label", "precision", "recall", "F1", "test rows", "training rows"]]
        for (name, row), seen in zip(scores.per_class.items(), train, strict=True):
            rows.append(
                [cell(name), *(f"{v:.3f}" for v in (row.precision, row.recall, row.f1)), f"{row.n:,}", f"{seen:,}"]
            )
        return rows

    def picture(self, scores: Scores) -> tuple[str, str, Figure]:
        return "confusion_matrix.png", "Confusion matrix of the test rows", draw_confusion_matrix(scores)

    def limits(self, scores: Scores) -> list[str]:
        lines = ["It always answers with one of its labels, also to a text that has none of them."]
        return lines + weak_labels(scores.per_class)

    def report(self, scores: Scores) -> str:
        return report(scores)


def listed_counts(names: list[str], counts: list[int]) -> str:
    """Names with their rows, the commonest first; of many only the ends."""
    named = [f"{one_line(names[i], 60)} {counts[i]:,}" for i in np.argsort(-np.array(counts), kind="stable")]
    if len(named) > 12:
        named = [*named[:5], "…", *named[-5:]]
    return f"{len(names)}: {', '.join(named)}"


def weak_labels(each: dict[str, Any]) -> list[str]:
    """Which labels are found badly, and how many are measured on few rows."""
    lines = []
    if weak := [cell(name) for name, row in each.items() if row.n and row.f1 < 0.5]:
        lines.append(f"F1 is below 0.5 for {', '.join(weak[:10])}{', …' * (len(weak) > 10)}.")
    if few := sum(row.n < 10 for row in each.values()):
        lines.append(f"{few} of {len(each)} labels have fewer than 10 test rows: their figures are rough.")
    return lines
