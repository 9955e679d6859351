"""Several labels a text, or none: a yes or no for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.baselines import COUNTER, count_words, fit_labels
from takehome.errors import one_line
from takehome.tasks.classes import listed_counts, weak_labels
from takehome.tasks.task import Task, column
from takehome.wording import cell

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction, PreTrainedModel

FEW = 10  # rows with a label, among those of validation, below which it gets the threshold of all


@dataclass(frozen=True)
class LabelScores:
    """Of one label; `n` is the number of rows that have it."""

    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float | None  # None if no row has it
    n: int


@dataclass(frozen=True)
class SetScores:
    """All metrics of rows with several labels. F1 is over all decisions (micro), and the mean of the labels that have
    rows (macro); mean average precision needs no threshold (scikit-learn's average_precision_score)."""

    n: int
    micro_f1: float
    macro_f1: float
    mean_average_precision: float
    exact_match: float  # share of the rows of which every label is right
    per_label: dict[str, LabelScores]


class Labels(Task):
    name = "multi-label"
    chooses = True
    best = "mean_average_precision"
    shown = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "mean_average_precision": "mean average precision"}  # noqa: RUF012
    kinds = {"micro_f1": "f1", "macro_f1": "f1", "mean_average_precision": "mean_average_precision"}  # noqa: RUF012

    def strata(self, dataset: Dataset) -> np.ndarray:
        """By the rarest label of each row, so that each part gets some of it."""
        labels = column(dataset, "label")
        rarity = np.argsort(np.argsort(-labels.sum(0), kind="stable"))
        return np.where(labels > 0, rarity + 1, 0).max(1)

    def counts(self, answers: np.ndarray) -> list[int]:
        return answers.sum(0).astype(int).tolist()

    def describe(self, counts: list[int]) -> tuple[str, str]:
        return "labels", listed_counts(self.labels, counts)

    def head(self) -> dict[str, Any]:
        return super().head() | {"problem_type": "multi_label_classification"}

    def begin(self, train: Dataset) -> np.ndarray:
        """Without it the first steps push all labels down at once, and few rows may never come further: the slow test
        in tests/test_tasks.py has micro-F1 of 0.81 to 0.94 with it, and of 0.28 to 0.34 without."""
        labels = column(train, "labels")
        share = (labels.sum(0) + 1) / (len(labels) + 2)  # never 0 or 1
        return np.log(share / (1 - share))

    def finish(self, model: PreTrainedModel) -> None:
        model.config.thresholds = [round(value, 4) for value in self.thresholds]

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """Binary cross-entropy, the mean over labels and rows of a step."""
        import torch

        def loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
            entropy = torch.nn.functional.binary_cross_entropy_with_logits
            losses = entropy(outputs.logits.float(), labels.float(), reduction="none")
            return losses.sum() / (num_items_in_batch or labels.numel())

        return loss

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        """F1 at one threshold for all labels, the best for these rows."""
        labels, outputs = predicted.label_ids, predicted.predictions
        each = average_precisions(labels, outputs)
        _, micro = best_threshold(labels.ravel(), odds(outputs).ravel())
        return {
            "micro_f1": micro,
            "mean_average_precision": float(np.mean([v for v in each if v is not None] or [0.0])),
        }

    def choose_thresholds(self, answers: np.ndarray, outputs: np.ndarray) -> None:
        """For each label the threshold with the best F1 on these rows; where few have it, that of all labels."""
        probabilities = odds(outputs)
        common, _ = best_threshold(answers.ravel(), probabilities.ravel())
        self.thresholds = [
            best_threshold(answers[:, n], probabilities[:, n])[0] if answers[:, n].sum() >= FEW else common
            for n in range(len(self.labels))
        ]

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Which labels a row gets [rows, labels]."""
        return odds(outputs) >= np.array(self.thresholds or [0.5] * len(self.labels))

    def measure(self, answers: np.ndarray, outputs: np.ndarray) -> SetScores:
        return self.score(answers, self.decide(outputs), average_precisions(answers, outputs))

    def worst(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        wrong = np.where(answers > 0, -outputs, outputs).astype(np.float64)
        return np.logaddexp(0, wrong).sum(1)

    def is_wrong(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return (self.decide(outputs) != (answers > 0)).any(1)

    def show_answers(self, answers: np.ndarray) -> list[str]:
        return [";".join(name for name, yes in zip(self.labels, row, strict=True) if yes > 0) for row in answers]

    def show_outputs(self, outputs: np.ndarray, texts: list[str]) -> dict[str, list]:
        each = {f"probability of {name}": own for name, own in zip(self.labels, odds(outputs).T, strict=True)}
        shown = {name: [f"{value:.4f}" for value in own] for name, own in each.items()}
        return {"predicted": self.show_answers(self.decide(outputs))} | shown

    def score(self, answers: np.ndarray, guesses: np.ndarray, precisions: list[float | None]) -> SetScores:
        from sklearn.metrics import f1_score, precision_recall_fscore_support

        columns = precision_recall_fscore_support(answers, guesses, average=None, zero_division=0)
        thresholds = self.thresholds or [0.5] * len(self.labels)
        rows = zip(self.labels, thresholds, *columns, precisions, strict=True)
        each = {
            name: LabelScores(float(t), float(p), float(r), float(f), average, int(n))
            for name, t, p, r, f, n, average in rows
        }
        there = [row for row in each.values() if row.n]
        return SetScores(
            n=len(answers),
            micro_f1=float(f1_score(answers, guesses, average="micro", zero_division=0)),
            macro_f1=float(np.mean([row.f1 for row in there] or [0.0])),
            mean_average_precision=float(np.mean([row.average_precision for row in there] or [0.0])),
            exact_match=float((answers == guesses).all(1).mean()),
            per_label=each,
        )

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        known, checked, asked = (column(part, "label") for part in (train, validation, test))
        share = known.mean(0)
        always = np.tile(share >= min(0.5, share.max()), (len(asked), 1))
        lazy = self.score(asked, always, [float(own) if own else None for own in asked.mean(0)])
        names = ", ".join(name for name, given in zip(self.labels, always[0], strict=True) if given)
        features = count_words(train, [validation, test], len(self.labels))
        outputs = fit_labels(features[0], known, features[1:])
        other = Labels(self.labels)
        other.choose_thresholds(checked, outputs[0])
        return {
            f"always {one_line(names, 40)!r}": self.headline(lazy),
            COUNTER: self.headline(other.measure(asked, outputs[1])),
        }

    def purpose(self) -> str:
        return f"Gives a text any of {len(self.labels)} labels, or none: {', '.join(map(cell, self.labels))}."

    def usage(self, pair: bool) -> str:
        code = super().usage(pair).replace("classify(", "found = classify(")
        code = code.replace("truncation=True", "truncation=True, top_k=None")
        return (
            f"{code}\nconfig = classify.model.config\n"
            "thresholds = dict(zip(config.id2label.values(), config.thresholds))\n"
            '[label["label"] for label in found if label["score"] >= thresholds[label["label"]]]'
        )

    def table(self, scores: SetScores, train: list[int]) -> list[list[str]]:
        header = ["label", "threshold", "precision", "recall", "F1", "average precision", "test rows", "training rows"]
        rows = [header]
        for (name, row), seen in zip(scores.per_label.items(), train, strict=True):
            values = [row.threshold, row.precision, row.recall, row.f1]
            average = "" if row.average_precision is None else f"{row.average_precision:.3f}"
            rows.append([cell(name), *(f"{v:.3f}" for v in values), average, f"{row.n:,}", f"{seen:,}"])
        return rows

    def picture(self, scores: SetScores) -> tuple[str, str, Figure]:
        return "labels.png", "F1 of each label on the test rows", draw_labels(scores)

    def limits(self, scores: SetScores) -> list[str]:
        lines = ["The thresholds were chosen on validation rows: where labels are rarer or commoner, choose others."]
        return lines + weak_labels(scores.per_label)

    def report(self, scores: SetScores) -> str:
        lines = [f"{'label':<32} {'threshold':>9} {'precision':>9} {'recall':>9} {'F1':>9} {'rows':>9}"]
        for name, row in scores.per_label.items():
            values = f"{row.threshold:>9.3f} {row.precision:>9.3f} {row.recall:>9.3f} {row.f1:>9.3f} {row.n:>9,}"
            lines.append(f"{one_line(name, 32):<32} {values}")
        head = "   ".join(f"{shown} {getattr(scores, name):.4f}" for name, shown in self.shown.items())
        return "\n".join([*lines, "", f"rows {scores.n:,}   {head}   all labels right {scores.exact_match:.4f}"])


def odds(logits: np.ndarray) -> np.ndarray:
    """Probabilities of yes."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def average_precisions(labels: np.ndarray, outputs: np.ndarray) -> list[float | None]:
    """Of each label; None where no row has it."""
    from sklearn.metrics import average_precision_score

    columns = zip(labels.T, outputs.T, strict=True)
    return [float(average_precision_score(own, output)) if own.any() else None for own, output in columns]


def best_threshold(answers: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """The threshold with the best F1, in the middle between two probabilities, and that F1."""
    order = np.argsort(-probabilities, kind="stable")
    sorted_answers, sorted_values = answers[order] > 0, probabilities[order]
    right = np.cumsum(sorted_answers)
    f1 = 2 * right / (np.arange(1, len(right) + 1) + max(1, right[-1]))
    last = np.append(sorted_values[1:] < sorted_values[:-1], True)  # equal probabilities are on one side
    best = int(np.argmax(np.where(last, f1, -1)))
    following = sorted_values[best + 1] if best + 1 < len(sorted_values) else 0.0
    return float((sorted_values[best] + following) / 2), float(f1[best])


def draw_labels(scores: SetScores) -> Figure:
    """A bar for each label: its F1, the commonest first."""
    from matplotlib.figure import Figure

    from helpers.palette import COLOURS

    each = sorted(scores.per_label.items(), key=lambda pair: pair[1].n)[-40:]
    figure = Figure(figsize=(7, 1.5 + 0.28 * len(each)), layout="constrained")
    axes = figure.subplots()
    names = [one_line(name, 30).replace("$", r"\$") for name, _ in each]
    bars = axes.barh(
        [f"{name} ({row.n:,})" for name, (_, row) in zip(names, each, strict=True)], [row.f1 for _, row in each]
    )
    for bar in bars:
        bar.set_color(COLOURS[0])
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1 at the label's threshold (rows in brackets)")
    axes.set_title(f"{scores.n:,} rows, micro-F1 {scores.micro_f1:.3f}, macro-F1 {scores.macro_f1:.3f}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
