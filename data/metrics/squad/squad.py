"""Exact match and F1 of answers for `evaluate.load("<this directory>", "squad")` and "squad_v2", without a network.

The results have the keys and values of the Hub's metrics `squad` and `squad_v2`: all in percent. For "squad_v2" each
prediction has a `no_answer_probability`; the `best_` figures say what the best threshold for it would have been.
"""

import datasets
import evaluate

from helpers.answers import best, best_threshold, exact, f1


def percent(numbers) -> float:
    numbers = list(numbers)
    return 100 * sum(numbers) / len(numbers)


CONFIGURATIONS = {"squad": {}, "squad_v2": {"no_answer_probability": datasets.Value("float32")}}


class Squad(evaluate.Metric):
    """Exact match and F1 of marked answers; with questions that have none, both for either kind, too."""

    def _info(self):
        if self.config_name not in CONFIGURATIONS:
            raise ValueError(
                f"squad has no configuration {self.config_name!r} here; choose squad or squad_v2 (some questions have "
                'no answer), as in evaluate.load(path, "squad_v2")'
            )
        text, numbers = datasets.Value("string"), datasets.List(datasets.Value("int32"))
        answers = {"text": datasets.List(text), "answer_start": numbers}
        prediction = {"id": text, "prediction_text": text} | CONFIGURATIONS[self.config_name]
        return evaluate.MetricInfo(
            description="Exact match and F1 of answers that were marked in a text.",
            citation="Rajpurkar et al. 2016, arXiv:1606.05250; Rajpurkar, Jia and Liang 2018, arXiv:1806.03822",
            inputs_description="predictions: id, prediction_text, for squad_v2 also no_answer_probability; "
            "references: id, answers with the lists text and answer_start",
            features=datasets.Features({"predictions": prediction, "references": {"id": text, "answers": answers}}),
            reference_urls=["https://rajpurkar.github.io/SQuAD-explorer/"],
        )

    def _compute(self, predictions, references, no_answer_threshold=1.0):
        said = {row["id"]: row for row in predictions}
        unanswered = [row["id"] for row in references if row["id"] not in said]
        if unanswered:
            raise ValueError(
                f"no prediction for {len(unanswered)} of the references, the first with id {unanswered[0]}"
            )
        pairs = [(said[row["id"]], row["answers"]["text"]) for row in references]
        scores = {
            name: [best(score, prediction["prediction_text"], answers) for prediction, answers in pairs]
            for name, score in (("exact", exact), ("f1", f1))
        }
        if self.config_name == "squad":
            return {"exact_match": percent(scores["exact"]), "f1": percent(scores["f1"])}
        rows = [
            (prediction["prediction_text"], prediction["no_answer_probability"], bool("".join(answers)))
            for prediction, answers in pairs
        ]
        return _with_unanswerable(scores, rows, no_answer_threshold)


def _with_unanswerable(scores: dict[str, list[float]], rows: list[tuple], threshold: float) -> dict[str, float]:
    """Scores of all, of those with an answer and of those without, and what the best threshold would give."""
    counted = {
        name: [float(not has) if p > threshold else score for score, (_, p, has) in zip(every, rows, strict=True)]
        for name, every in scores.items()
    }
    result = {name: percent(every) for name, every in counted.items()} | {"total": len(rows)}
    for kind, wanted in (("HasAns", True), ("NoAns", False)):
        places = [place for place, (*_, has) in enumerate(rows) if has is wanted]
        if places:
            result |= {f"{kind}_{name}": percent(every[place] for place in places) for name, every in counted.items()}
            result[f"{kind}_total"] = len(places)
    for name, every in scores.items():
        result[f"best_{name}"], result[f"best_{name}_thresh"] = best_threshold(every, rows)
    return result
