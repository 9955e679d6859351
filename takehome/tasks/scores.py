"""A number for a text, or a pair of texts: a score, or stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from takehome.baselines import COUNTER, count_words, fit_score
from takehome.tasks.task import Task, column

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import EvalPrediction, PreTrainedModel


@dataclass(frozen=True)
class Scale:
    """Of the scores of the training rows."""

    mean: float
    deviation: float
    least: float
    most: float
    stars: bool  # whether all are whole numbers, at most eleven of them


@dataclass(frozen=True)
class ScoreScores:
    """How far predictions are from scores. R² is the share of the variance that is explained; 0 is what the mean of
    these rows would get."""

    n: int
    rmse: float
    mae: float
    r2: float
    pearson: float
    spearman: float
    rounded_accuracy: float | None  # for stars: how often the rounded prediction is right
    points: list[list[float]]  # score and prediction of up to 1,000 rows


def scale_of(scores: np.ndarray) -> Scale:
    """What the scores of training rows are like."""
    deviation = float(scores.std()) or 1.0
    stars = bool((scores == scores.round()).all() and len(np.unique(scores)) <= 11)
    return Scale(float(scores.mean()), deviation, float(scores.min()), float(scores.max()), stars)


class Scores(Task):
    """The head learns scores less their mean, in deviations, as heads learn best; `finish` writes both into it."""

    shift, factor = 0.0, 1.0  # of a finished model
    name = "regression"
    best = "r2"
    shown = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "spearman": "Spearman"}  # noqa: RUF012
    kinds = {"rmse": "rmse", "mae": "mae", "r2": "r_squared", "spearman": "spearmanr"}  # noqa: RUF012

    def strata(self, dataset: Dataset) -> np.ndarray:
        """Tenths of the rows by score."""
        scores = column(dataset, "label")
        return np.searchsorted(np.unique(np.quantile(scores, np.linspace(0.1, 0.9, 9))), scores)

    def counts(self, answers: np.ndarray) -> list[int]:
        return []

    def describe(self, counts: list[int]) -> tuple[str, str]:
        s = self.scale
        return "scores", f"{s.least:g} to {s.most:g}, mean {s.mean:.3g}, standard deviation {s.deviation:.3g}"

    def head(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def look_at(self, model: PreTrainedModel) -> None:
        """A head without a bias, such as GPT-2's, cannot be shifted: its scores are only divided."""
        head = last_linear(model)
        s = asdict(self.scale)
        if head.bias is None:
            s |= {"mean": 0.0, "deviation": (s["mean"] ** 2 + s["deviation"] ** 2) ** 0.5}
        self.shift, self.factor = s["mean"], s["deviation"]

    def finish(self, model: PreTrainedModel) -> None:
        import torch

        head = last_linear(model)
        with torch.no_grad():
            head.weight.mul_(self.factor)
            if head.bias is not None:
                head.bias.mul_(self.factor).add_(self.shift)

    def loss(self, weights: np.ndarray | None) -> Callable[..., torch.Tensor]:
        """The squared error in deviations, the mean over the rows of a step."""

        def loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
            wanted = (labels.float() - self.shift) / self.factor
            squared = (outputs.logits.float().squeeze(-1) - wanted) ** 2
            return squared.sum() / (num_items_in_batch or len(labels))

        return loss

    def outputs(self, predictions: np.ndarray) -> np.ndarray:
        return predictions.reshape(len(predictions)).astype(np.float64) * self.factor + self.shift

    def validate(self, predicted: EvalPrediction) -> dict[str, float]:
        scores = self.measure(predicted.label_ids, self.outputs(predicted.predictions))
        return {"r2": scores.r2, "rmse": scores.rmse, "spearman": scores.spearman}

    def measure(self, answers: np.ndarray, outputs: np.ndarray) -> ScoreScores:
        answers, outputs = np.asarray(answers, np.float64).ravel(), np.asarray(outputs, np.float64).ravel()
        error, variance = outputs - answers, float(answers.var())
        stars = self.scale is not None and self.scale.stars
        chosen = np.linspace(0, len(answers) - 1, min(1000, len(answers))).astype(int)
        return ScoreScores(
            n=len(answers),
            rmse=float(np.sqrt((error**2).mean())),
            mae=float(np.abs(error).mean()),
            r2=1 - float((error**2).mean()) / variance if variance else 0.0,
            pearson=correlation(answers, outputs),
            spearman=correlation(ranks(answers), ranks(outputs)),
            rounded_accuracy=float((outputs.round() == answers).mean()) if stars else None,
            points=np.stack([answers[chosen], outputs[chosen]], 1).round(6).tolist(),
        )

    def worst(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return np.abs(outputs - answers)

    def is_wrong(self, answers: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return np.full(len(answers), True)  # more or less

    def show_answers(self, answers: np.ndarray) -> list[str]:
        return [f"{value:.6g}" for value in answers]

    def show_outputs(self, outputs: np.ndarray, texts: list[str]) -> dict[str, list]:
        return {"predicted": [f"{value:.4f}" for value in outputs]}

    def baselines(self, train: Dataset, validation: Dataset, test: Dataset) -> dict[str, dict[str, float]]:
        known, asked = column(train, "label"), column(test, "label")
        features = count_words(train, [test], 1)
        return {
            f"always the mean, {known.mean():.3g}": self.headline(
                self.measure(asked, np.full(len(asked), known.mean()))
            ),
            COUNTER: self.headline(self.measure(asked, fit_score(features[0], known, features[1]))),
        }

    def purpose(self) -> str:
        return f"Predicts a number; in training it was {self.scale.least:g} to {self.scale.most:g}."

    def table(self, scores: ScoreScores, train: list[int]) -> list[list[str]]:
        rounded = scores.rounded_accuracy
        own = [] if rounded is None else [["the rounded prediction is the score", f"{rounded:.1%} of the rows"]]
        return [["on the test rows", ""], ["Pearson's correlation", f"{scores.pearson:.3f}"], *own]

    def picture(self, scores: ScoreScores) -> tuple[str, str, Figure]:
        return "predictions.png", "Prediction and score of test rows", draw_points(scores)

    def limits(self, scores: ScoreScores) -> list[str]:
        return ["It answers any text with a number, and may leave the range of the scores that it learned from."]

    def report(self, scores: ScoreScores) -> str:
        head = "   ".join(f"{shown} {getattr(scores, name):.4f}" for name, shown in self.shown.items())
        rounded = scores.rounded_accuracy
        more = "" if rounded is None else f"   rounded right {rounded:.4f}"
        return f"rows {scores.n:,}   {head}   Pearson {scores.pearson:.4f}{more}"


def last_linear(model: PreTrainedModel) -> torch.nn.Linear:
    """The layer that gives the score."""
    import torch

    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1][-1]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, 0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 1e-12 else 0.0


def draw_points(scores: ScoreScores) -> Figure:
    """A point for each row: its score and what was predicted."""
    from matplotlib.figure import Figure

    from helpers.palette import COLOURS

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes, points = figure.subplots(), np.array(scores.points)
    axes.scatter(points[:, 0], points[:, 1], s=12, alpha=0.5, color=COLOURS[0])
    ends = [points.min(), points.max()]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    axes.set_xlabel("score of the file")
    axes.set_ylabel("predicted")
    axes.set_title(f"{scores.n:,} rows, RMSE {scores.rmse:.3g}, Spearman {scores.spearman:.3f}")
    return figure
