"""The model card of a fine-tuned classifier, written from what was measured."""

import os


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
        f"| {plain(name)} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | {row['n']:,} | {seen:,} |"
        for (name, row), seen in zip(test["per_class"].items(), data["counts"]["train"], strict=True)
    )
    limits = [
        f"Measured on {test['n']:,} rows of the same data that training did not see. Texts from elsewhere, of "
        "another time or another style, may be harder.",
        f"It reads the first {data['max_length']:,} tokens of a text; {data['cut_share']:.1%} of the texts are longer.",
        "It always answers with one of its labels, also to a text that has none of them.",
    ]
    if weak := [plain(name) for name, row in test["per_class"].items() if row["n"] and row["f1"] < 0.5]:
        limits.append(f"F1 is below 0.5 for {', '.join(weak[:10])}{', …' * (len(weak) > 10)}.")
    if few := sum(row["n"] < 10 for row in test["per_class"].values()):
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
classify("A text.", truncation=True)
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
