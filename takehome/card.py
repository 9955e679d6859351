"""What there is to know of a fine-tuned classifier, `metrics.json`, and the model card that is written from it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from takehome.errors import one_line
from takehome.forecast import Forecast
from takehome.metrics import Majority, always_the_commonest
from takehome.settings import Settings
from takehome.tasks import Task
from takehome.texts import Facts
from takehome.wording import cell


@dataclass(frozen=True)
class Measured:
    """Of the last start of a run, which may have gone on from a checkpoint: `resumed`."""

    steps: int
    epochs: float
    seconds: float
    resumed: bool
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Results:
    """The content of metrics.json."""

    class_weights: str  # which, and why
    predicted: Forecast
    measured: Measured
    settings: Settings
    test: Any  # all metrics of the task: `Scores`, and so on
    baselines: dict[str, dict[str, float]]  # what simpler ways score on the same rows
    majority_class: Majority | None  # of classes only
    validation: dict[str, float]  # of the best checkpoint, on the rows that chose it: step, loss and metrics
    data: Facts
    log_history: list[dict]  # as Trainer keeps it


@dataclass(frozen=True)
class Guesses:
    """Answers and the model's outputs: for the rows that chose the checkpoint, and for the test rows."""

    validation: tuple[Any, Any] | None  # where thresholds are chosen on them
    test: tuple[Any, Any]


def summarise(
    task: Task,
    facts: Facts,
    settings: Settings,
    guesses: Guesses,
    log_history: list[dict],
    class_weights: str,
    predicted: Forecast,
    measured: Measured,
) -> Results:
    """Puts together what there is to know; thresholds are chosen here, on the validation rows."""
    history = [entry for entry in log_history if not any(key.startswith("test_") for key in entry)]
    metric = f"eval_{task.best}"
    best = max((entry for entry in history if metric in entry), key=lambda entry: entry[metric])
    names = {name: name.removeprefix("eval_") for name in best if name.startswith("eval_")}
    usual = {"runtime", "samples_per_second", "steps_per_second"}
    if guesses.validation:
        task.choose_thresholds(*guesses.validation)
    counts = facts.counts
    classes = task.name == "classification"
    return Results(
        class_weights=class_weights,
        predicted=predicted,
        measured=measured,
        settings=settings,
        test=task.measure(*guesses.test),
        baselines=facts.baselines,
        majority_class=always_the_commonest(facts.labels, counts["train"], counts["test"]) if classes else None,
        validation={"step": best["step"]} | {name: best[key] for key, name in names.items() if name not in usual},
        data=facts,
        log_history=history,
    )


def write_results(folder: Path, task: Task, results: Results, hub: bool) -> None:
    """Writes metrics.json, the figures and the model card; `hub` as for the card."""
    import matplotlib

    from helpers.curves import plot

    matplotlib.use("Agg")
    if drawn := task.picture(results.test):
        name, _, figure = drawn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fonts that lack letters of a label
            figure.savefig(folder / name, dpi=min(120, 3000 / figure.get_figwidth()))
    plot(results.log_history, metric=task.best).savefig(folder / "curves.png", dpi=120)
    (folder / "README.md").write_text(model_card(task, results, hub), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False), encoding="utf-8")


def model_card(task: Task, results: Results, hub: bool) -> str:
    """The README.md of a model.

    Args:
        task: of the run.
        results: of its run.
        hub: whether the checkpoint that was fine-tuned is the id of a model on the Hub.
    """
    base = results.settings.checkpoint
    name = cell(base.split("/")[-1] if hub else os.path.basename(os.path.abspath(base)))  # a path means nothing there
    data, rows, file = results.data, results.data.rows, cell(results.data.file)
    texts = f"texts in the column `{cell(data.text_column)}`"
    if data.pair_column:
        texts = f"pairs of texts in the columns `{cell(data.text_column)}` and `{cell(data.pair_column)}`"
    best, picture = task.shown.get(task.best, task.best), task.picture(results.test)
    return f"""---
{front_matter(task, results, name, base if hub else None)}
---

# {name}, fine-tuned on {file}

{task.purpose()}

```python
{task.usage(data.pair_column is not None)}
```

## Results

{table(compared(task, results))}

{table(task.table(results.test, data.counts["train"]))}

![Loss and {best} while training](curves.png)
{f"![{picture[1]}]({picture[0]})" if picture else ""}

## Data

`{file}`: {texts}, labels in `{cell(data.label_column)}`.
{rows["train"]:,} rows were for training, {rows["validation"]:,} to choose the best checkpoint, {rows["test"]:,} for the
figures above. Texts that are equal but for case, spaces and punctuation are in one of these parts only.

{bullets(map(cell, data.remarks)) or "Nothing had to be repaired."}

## Training

{bullets(training_lines(results, name, best))}

Everything else is in `metrics.json`.

## Limits

{bullets(limits(task, results))}
"""


def compared(task: Task, results: Results) -> list[list[str]]:
    """The headline metrics of the model and of simpler ways, the header first."""
    rows = {"this model": task.headline(results.test)} | {cell(name): own for name, own in results.baselines.items()}
    return [["", *task.shown.values()]] + [
        [name, *(f"{own[key]:.3f}" for key in task.shown)] for name, own in rows.items()
    ]


def front_matter(task: Task, results: Results, name: str, base_model: str | None) -> str:
    """The card's YAML, with the scores on the test rows as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    def score(kind: str, shown: str, value: float) -> EvalResult:
        return EvalResult(
            task_type=task.pipeline,
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
        pipeline_tag=task.pipeline,
        tags=["lora"] if results.settings.lora else None,
        metrics=list(dict.fromkeys(task.kinds.values())),
        model_name=f"{name}-{PurePath(one_line(results.data.file)).stem}",
        eval_results=[
            score(task.kinds[key], task.shown[key], value) for key, value in task.headline(results.test).items()
        ],
    )
    return data.to_yaml()


def table(rows: list[list[str]]) -> str:
    """A table of Markdown, the first row its header; nothing if there are no rows."""
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join([*lines[:1], "|" + "---|" * len(rows[0]), *lines[1:]]) if rows else ""


def training_lines(results: Results, name: str, best: str) -> list[str]:
    """How it was trained."""
    settings, measured = results.settings, results.measured
    return [
        f"{'LoRA adapters, merged,' if settings.lora else 'All parameters'} of {name}, {settings.precision}",
        f"learning rate {settings.learning_rate:g}, {settings.batch_size} rows a step, {measured.steps:,} steps "
        f"({measured.epochs:.3g} epochs), at most {settings.max_length:,} tokens a text",
        *([f"class weights {results.class_weights}"] if results.class_weights else []),
        f"seed {settings.seed}; of all checkpoints, that of step {results.validation['step']:,} is the best by {best} "
        "on the validation rows",
    ]


def limits(task: Task, results: Results) -> list[str]:
    """What a user should not expect."""
    data, test = results.data, results.test
    return [
        f"Measured on {test.n:,} rows of the same data that training did not see. Texts from elsewhere, of another "
        "time or another style, may be harder.",
        task.read(data.max_length, data.cut_share),
        *task.limits(test),
    ]


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
