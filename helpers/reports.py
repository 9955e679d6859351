"""What a fine-tuned classifier of texts is worth: its figures, its confusion matrix, its model card.

results = score(true_ids, predicted_ids, ["negative", "positive"], majority=0)
draw_confusion(results["test"]["confusion_matrix"], ["negative", "positive"], "confusion_matrix.png")
"""

from __future__ import annotations

import os
import warnings


def score(truth, predicted, labels: list[str], majority: int) -> dict:
    """Metrics of predictions, beside those of always giving the same answer.

    Args:
        truth, predicted: class ids [rows].
        labels: name of each class.
        majority: id of the class that was most frequent in training.

    Returns:
        "test" (rows, accuracy, macro_f1 over the classes that occur, per_class, confusion_matrix with a row for each
        true class) and "majority_class" (label, accuracy, macro_f1).

    Raises:
        ValueError: there is nothing to score, or the lengths differ.
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score

    truth, predicted, ids = np.asarray(truth), np.asarray(predicted), range(len(labels))
    if not len(truth) or len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} labels and {len(predicted)} predictions: there must be as many, and some")

    def both(guesses) -> dict:
        macro = f1_score(truth, guesses, average="macro", labels=np.unique(truth), zero_division=0)
        return {"accuracy": float(accuracy_score(truth, guesses)), "macro_f1": float(macro)}

    report = classification_report(truth, predicted, labels=ids, output_dict=True, zero_division=0)
    rows = [report[str(i)] for i in ids]
    per_class = {
        name: {
            "precision": row["precision"],
            "recall": row["recall"],
            "f1": row["f1-score"],
            "rows": int(row["support"]),
        }
        for name, row in zip(labels, rows, strict=True)
    }
    matrix = confusion_matrix(truth, predicted, labels=ids).tolist()
    return {
        "test": {"rows": len(truth), **both(predicted), "per_class": per_class, "confusion_matrix": matrix},
        "majority_class": {"label": labels[majority], **both(np.full(len(truth), majority))},
    }


def draw_confusion(matrix, labels: list[str], path: str | os.PathLike) -> None:
    """Draws counts [true classes, predicted classes], shaded by their share of the true class, into a PNG file."""
    import numpy as np
    from matplotlib.figure import Figure

    matrix, n = np.asarray(matrix), len(labels)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(18, 3.2 + 0.45 * n)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    ax = figure.subplots()
    figure.colorbar(ax.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the true class", shrink=0.7)
    short = [name if len(name) <= 24 else name[:23] + "…" for name in labels]
    size = 9 if n <= 20 else max(3, 180 / n)
    ax.set_xticks(range(n), short, rotation=90, fontsize=size, parse_math=False)
    ax.set_yticks(range(n), short, fontsize=size, parse_math=False)
    ax.set(xlabel="predicted", ylabel="true")
    if n <= 20:  # there is room for the numbers
        for i, j in np.ndindex(n, n):
            ax.text(j, i, matrix[i, j], ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fonts that lack letters of a label
        figure.savefig(path, dpi=120)


def model_card(results: dict, base_model: str, hub: bool) -> str:
    """The README.md of a model, written from the metrics.json of scripts/fine_tune.py.

    Args:
        results: the content of metrics.json.
        base_model: the checkpoint that was fine-tuned.
        hub: whether it is the id of a model on the Hub.
    """
    import yaml

    data, settings, measured = results["data"], results["settings"], results["measured"]
    test, lazy, rows, labels = results["test"], results["majority_class"], data["rows"], data["labels"]
    front = {"library_name": "transformers", "pipeline_tag": "text-classification", "metrics": ["accuracy", "f1"]}
    front |= {"base_model": base_model} if hub else {}
    base_model = base_model if hub else os.path.basename(os.path.abspath(base_model))  # a path says nothing to others
    front |= {"tags": ["lora"]} if settings["lora"] else {}

    def plain(text) -> str:
        return " ".join(str(text).split()).replace("|", "\\|")

    def bullets(lines) -> str:
        return "\n".join(f"- {line}" for line in lines)

    table = "\n".join(
        f"| {plain(name)} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
        f"| {row['rows']:,} | {seen:,} |"
        for (name, row), seen in zip(test["per_class"].items(), data["counts"]["train"], strict=True)
    )
    limits = [
        f"Measured on {test['rows']:,} rows of the same data that training did not see. Texts from elsewhere, of "
        "another time or another style, may be harder.",
        f"It reads the first {data['max_length']:,} tokens of a text; {data['cut_share']:.1%} of the texts are longer.",
        "It always answers with one of its labels, also to a text that has none of them.",
    ]
    if weak := [plain(name) for name, row in test["per_class"].items() if row["rows"] and row["f1"] < 0.5]:
        limits.append(f"F1 is below 0.5 for {', '.join(weak[:10])}{', …' * (len(weak) > 10)}.")
    if few := sum(row["rows"] < 10 for row in test["per_class"].values()):
        limits.append(f"{few} of {len(labels)} labels have fewer than 10 test rows: their figures are rough.")
    training = [
        f"{'LoRA adapters, merged' if settings['lora'] else 'All parameters'} of {plain(base_model)}",
        f"learning rate {settings['learning_rate']:g}, {settings['batch_size']} rows a step, {measured['steps']:,} "
        f"steps ({measured['epochs']:.3g} epochs), at most {data['max_length']:,} tokens a text",
        f"class weights {results['class_weights']}",
        f"seed {settings['seed']}; the best checkpoint by validation macro-F1 is that of step "
        f"{results['validation']['step']:,}",
    ]
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {plain(base_model.split("/")[-1])}, fine-tuned on {plain(data["file"])}

Tells {len(labels)} kinds of text apart: {", ".join(map(plain, labels))}.

```python
from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/directory")
classify("A text.", truncation=True, max_length={data["max_length"]})
```

## Results

| | accuracy | macro-F1 |
|---|---|---|
| this model | {test["accuracy"]:.3f} | {test["macro_f1"]:.3f} |
| always "{plain(lazy["label"])}" | {lazy["accuracy"]:.3f} | {lazy["macro_f1"]:.3f} |

| label | precision | recall | F1 | test rows | training rows |
|---|---|---|---|---|---|
{table}

![Loss and macro-F1 while training](curves.png)
![Confusion matrix of the test rows](confusion_matrix.png)

## Data

`{data["file"]}`: texts in the column `{data["text_column"]}`, labels in `{data["label_column"]}`.
{rows["train"]:,} rows were for training, {rows["validation"]:,} to choose the best checkpoint, {rows["test"]:,} for the
figures above. Texts that are equal but for case, spaces and punctuation are in one of these parts only.

{bullets(map(plain, data["remarks"])) or "Nothing had to be repaired."}

## Training

{bullets(training)}

Everything else is in `metrics.json`.

## Limits

{bullets(limits)}
"""
