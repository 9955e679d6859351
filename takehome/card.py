"""What there is to know of a fine-tuned classifier, `metrics.json`, and the model card that is written from it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from takehome.errors import one_line
from takehome.forecast import Forecast
from takehome.metrics import Majority, Scores, always_the_commonest, draw_confusion_matrix, measure
from takehome.settings import Settings
from takehome.texts import Facts

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput


@dataclass(frozen=True)
class Measured:
    """Of the last start of a run, which may have gone on from a checkpoint: `resumed`."""

    steps: int
    epochs: float
    seconds: float
    resumed: bool
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Validation:
    """Of the best checkpoint, on the rows that chose it."""

    step: int
    loss: float
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class Results:
    """The content of metrics.json."""

    class_weights: str  # which, and why
    predicted: Forecast
    measured: Measured
    settings: Settings
    test: Scores
    majority_class: Majority
    validation: Validation
    data: Facts
    log_history: list[dict]  # as Trainer keeps it


def summarise(
    facts: Facts,
    settings: Settings,
    guesses: PredictionOutput,
    log_history: list[dict],
    class_weights: str,
    predicted: Forecast,
    measured: Measured,
) -> Results:
    """Puts together what there is to know; `guesses` is what Trainer predicted for the test rows."""
    import torch

    history = [entry for entry in log_history if not any(key.startswith("test_") for key in entry)]
    best = max((entry for entry in history if "eval_macro_f1" in entry), key=lambda entry: entry["eval_macro_f1"])
    probabilities = torch.tensor(guesses.predictions).float().softmax(-1).numpy()
    return Results(
        class_weights=class_weights,
        predicted=predicted,
        measured=measured,
        settings=settings,
        test=measure(guesses.label_ids, probabilities.argmax(-1), probabilities.max(-1), facts.labels),
        majority_class=always_the_commonest(facts.labels, facts.counts["train"], facts.counts["test"]),
        validation=Validation(best["step"], best["eval_loss"], best["eval_accuracy"], best["eval_macro_f1"]),
        data=facts,
        log_history=history,
    )


def write_results(folder: Path, results: Results, hub: bool) -> None:
    """Writes metrics.json, the figures and the model card; `hub` as for the card."""
    import matplotlib

    from helpers.curves import plot

    matplotlib.use("Agg")
    figure = draw_confusion_matrix(results.test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fonts that lack letters of a label
        figure.savefig(folder / "confusion_matrix.png", dpi=min(120, 3000 / figure.get_figwidth()))
    plot(results.log_history, metric="macro_f1").savefig(folder / "curves.png", dpi=120)
    (folder / "README.md").write_text(model_card(results, hub), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False), encoding="utf-8")


def model_card(results: Results, hub: bool) -> str:
    """The README.md of a model.

    Args:
        results: of its run.
        hub: whether the checkpoint that was fine-tuned is the id of a model on the Hub.
    """
    base = results.settings.checkpoint
    name = plain(base.split("/")[-1] if hub else os.path.basename(os.path.abspath(base)))  # a path means nothing there
    data, test, lazy = results.data, results.test, results.majority_class
    file, rows = plain(data.file), data.rows
    return f"""---
{front_matter(results, name, base if hub else None)}
---

# {name}, fine-tuned on {file}

Tells {len(data.labels)} kinds of text apart: {", ".join(map(plain, data.labels))}.

```python
from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/directory")
classify("A text.", truncation=True)
```

## Results

| | accuracy | macro-F1 |
|---|---|---|
| this model | {test.accuracy:.3f} | {test.macro_f1:.3f} |
| always "{plain(lazy.label)}" | {lazy.accuracy:.3f} | {lazy.macro_f1:.3f} |

| label | precision | recall | F1 | test rows | training rows |
|---|---|---|---|---|---|
{class_rows(results)}

![Loss and macro-F1 while training](curves.png)
![Confusion matrix of the test rows](confusion_matrix.png)

## Data

`{file}`: texts in the column `{plain(data.text_column)}`, labels in `{plain(data.label_column)}`.
{rows["train"]:,} rows were for training, {rows["validation"]:,} to choose the best checkpoint, {rows["test"]:,} for the
figures above. Texts that are equal but for case, spaces and punctuation are in one of these parts only.

{bullets(map(plain, data.remarks)) or "Nothing had to be repaired."}

## Training

{bullets(training_lines(results, name))}

Everything else is in `metrics.json`.

## Limits

{bullets(limits(results))}
"""


def front_matter(results: Results, name: str, base_model: str | None) -> str:
    """The card's YAML, with the scores on the test rows as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    def score(kind: str, shown: str, value: float) -> EvalResult:
        return EvalResult(
            task_type="text-classification",
            dataset_type=one_line(results.data.file),
            dataset_name=one_line(results.data.file),
            dataset_split="test",
            metric_type=kind,
            metric_name=shown,
            metric_value=round(value, 4),
        )

    data = ModelCardData(
        base_model=base_model,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["lora"] if results.settings.lora else None,
        metrics=["accuracy", "f1"],
        model_name=f"{name}-{PurePath(one_line(results.data.file)).stem}",
        eval_results=[
            score("accuracy", "accuracy", results.test.accuracy),
            score("f1", "macro-F1", results.test.macro_f1),
        ],
    )
    return data.to_yaml()


def class_rows(results: Results) -> str:
    """The scores of each label, a row of the table each."""
    return "\n".join(
        f"| {plain(name)} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {row.n:,} | {seen:,} |"
        for (name, row), seen in zip(results.test.per_class.items(), results.data.counts["train"], strict=True)
    )


def training_lines(results: Results, name: str) -> list[str]:
    """How it was trained."""
    settings, measured = results.settings, results.measured
    return [
        f"{'LoRA adapters, merged,' if settings.lora else 'All parameters'} of {name}, {settings.precision}",
        f"learning rate {settings.learning_rate:g}, {settings.batch_size} rows a step, {measured.steps:,} steps "
        f"({measured.epochs:.3g} epochs), at most {settings.max_length:,} tokens a text",
        f"class weights {results.class_weights}",
        f"seed {settings.seed}; the best checkpoint by validation macro-F1 is that of step {results.validation.step:,}",
    ]


def limits(results: Results) -> list[str]:
    """What a user should not expect."""
    data, test = results.data, results.test
    lines = [
        f"Measured on {test.n:,} rows of the same data that training did not see. Texts from elsewhere, of another "
        "time or another style, may be harder.",
        f"It reads the first {data.max_length:,} tokens of a text; {data.cut_share:.1%} of the texts are longer.",
        "It always answers with one of its labels, also to a text that has none of them.",
    ]
    if weak := [plain(name) for name, row in test.per_class.items() if row.n and row.f1 < 0.5]:
        lines.append(f"F1 is below 0.5 for {', '.join(weak[:10])}{', …' * (len(weak) > 10)}.")
    if few := sum(row.n < 10 for row in test.per_class.values()):
        lines.append(f"{few} of {len(data.labels)} labels have fewer than 10 test rows: their figures are rough.")
    return lines


def plain(text: str) -> str:
    """A text of the user's on one line of Markdown, also in a table."""
    return one_line(text).replace("|", "\\|")


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
