"""Measures a saved classifier on labelled texts, or labels texts with it.

    python scripts/evaluate_model.py --model outputs/reviews --data test.csv
    python scripts/evaluate_model.py --model outputs/reviews --data new.csv --output outputs/new

With labels in the file, the directory --output gets

    metrics.json            accuracy, macro-F1, per class precision, recall and F1, expected calibration error
    confusion_matrix.png    which class is taken for which
    mistakes.csv            wrong predictions, the most confident first
    suspicious.csv          all rows, the likeliest wrong labels first: worth reading if the model never saw them

and without labels predictions.csv. The file is a CSV, TSV, JSONL or Parquet file, a directory or a Hub data set; of a
directory with splits, test is taken, or validation. Labels are matched with the model's by name.
"""

import argparse
import contextlib
import csv
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from helpers.allocator import keep_freed_memory
from helpers.profiles import check_hub
from takehome.errors import InputError
from takehome.tables import read_table

NAME = Path(__file__).name
WINDOW = 1000  # rows that are tokenised at a time and sorted by length
CALIBRATION_BINS = 15
ANNOTATED_CLASSES = 20  # up to so many the counts are written into the confusion matrix


class Refusal(Exception):
    """What the user has to change, in one line."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of a saved classifier, or a Hub id")
    parser.add_argument("--data", required=True, help="file, directory, or Hub data set")
    parser.add_argument("--text-column", help="found when obvious")
    parser.add_argument("--label-column", help="found when obvious; without labels the texts are labelled")
    parser.add_argument("--no-labels", action="store_true", help="label the texts, whatever columns there are")
    parser.add_argument("--output", type=Path, default=Path("outputs/evaluate_model"), help="directory to write to")
    parser.add_argument("--per-device-eval-batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, help="tokens of a text that are read; default: as in training")
    options = parser.parse_args(arguments)
    for name in ("per_device_eval_batch_size", "max_length"):
        if (getattr(options, name) or 1) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    return options


# ------------------------------------------------------------------ model


def load_classifier(place: str, max_length: int | None):
    """Model, tokenizer and the number of tokens to read; on a GPU if there is one.

    Raises:
        Refusal: no such directory, no classifier in it, or damaged weights.
    """
    path = Path(place)
    if path.is_dir():
        if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
            raise Refusal(f"{place}: holds an adapter only; merge it into its model with peft's merge_and_unload")
        if not (path / "config.json").exists():
            raise Refusal(f"{place}: holds no config.json; give the directory that save_pretrained wrote")
        if not list(path.glob("*.safetensors")):
            raise Refusal(f"{place}: holds no .safetensors file; save the model with save_pretrained once more")
    elif path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", place) or path.parent.is_dir():
        raise Refusal(f"{place}: no such directory; give one that a training program wrote")
    else:
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            place, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # each part raises its own
        said = " ".join(str(error).split())[:160].split(". ")[0]
        todo = "save it again" if path.is_dir() else "check the id and the network"
        raise Refusal(f"{place}: cannot be loaded as a classifier ({said}); {todo}") from error
    if report["missing_keys"]:
        raise Refusal(f"{place}: has no trained classification head ({model.config.model_type}); fine-tune it first")
    if tokenizer.pad_token_id is None:  # GPT-2 and the like
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    longest = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    longest = min(longest, tokenizer.model_max_length)
    if max_length is not None and max_length > longest:
        raise Refusal(f"--max-length {max_length}: this model takes {longest} tokens at most")
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kept = getattr(getattr(tokenizer, "backend_tokenizer", None), "truncation", None) or {"max_length": 512}
    trained = training_data(place).get("max_length", kept["max_length"])
    return model.eval().to(device), tokenizer, max_length or min(longest, trained)


def training_data(place: str) -> dict:
    """What fine_tune.py noted: the columns and the tokens that were read; empty if it was another program."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        saved = json.loads((Path(place) / "metrics.json").read_text("utf-8"))
        return saved["settings"] | saved.get("data", {})
    return {}


def class_names(model) -> list[str]:
    """Names of the classes by id; a model that was saved without names has LABEL_0 …, which stand for 0 …"""
    names = [model.config.id2label[n] for n in range(model.config.num_labels)]
    return [str(n) for n in range(len(names))] if names == [f"LABEL_{n}" for n in range(len(names))] else names


def predict(model, tokenizer, dataset, max_length: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices of rows, probabilities of shape (rows, classes)); rows of similar length share a batch."""
    import torch
    from tqdm.auto import tqdm

    with tqdm(total=len(dataset), unit=" texts", mininterval=1) as bar:
        for start in range(0, len(dataset), WINDOW):
            encoded = tokenizer(dataset[start : start + WINDOW]["text"], truncation=True, max_length=max_length)
            order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                rows = {key: [values[n] for n in chosen] for key, values in encoded.items()}
                batch = tokenizer.pad(rows, return_tensors="pt").to(model.device)
                try:
                    with torch.inference_mode():
                        logits = model(**batch).logits
                except torch.OutOfMemoryError as error:
                    raise Refusal(f"out of GPU memory: --per-device-eval-batch-size below {batch_size}") from error
                yield start + chosen, logits.float().softmax(dim=-1).cpu().numpy()
                bar.update(len(chosen))


# ------------------------------------------------------------------ measures


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins of equal width.

    Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3. Both arrays have shape (rows,).
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - correct, minlength=bins)  # rows times gap, bin by bin
    return float(np.abs(gaps).sum() / len(confidence))


def measure(labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, names: list[str]) -> dict:
    """All metrics of a labelled file; `labels` and `predicted` hold class ids, shape (rows,).

    Macro-F1 is the mean over the classes that the file has.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    ids = range(len(names))
    scores = precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=ids)
    return {
        "n": len(labels),
        "accuracy": float((labels == predicted).mean()),
        "majority_class_accuracy": float(matrix.sum(1).max() / len(labels)),
        "macro_f1": float(scores[2][scores[3] > 0].mean()),
        "expected_calibration_error": calibration_error(confidence, labels == predicted),
        "per_class": {
            name: dict(zip(("precision", "recall", "f1", "n"), (*map(float, values[:3]), int(values[3])), strict=True))
            for name, *values in zip(names, *scores, strict=True)
        },
        "confusion_matrix": {"labels": names, "rows_are": "labels of the file", "counts": matrix.tolist()},
    }


def report(metrics: dict) -> str:
    """The metrics for a terminal."""
    lines = [f"{'class':<32} {'precision':>9} {'recall':>9} {'F1':>9} {'rows':>9}"]
    for name, row in metrics["per_class"].items():
        shown = f"{row['precision']:>9.3f} {row['recall']:>9.3f} {row['f1']:>9.3f} {row['n']:>9,}"
        lines.append(f"{name[:32]:<32} {shown}")
    counts = np.array(metrics["confusion_matrix"]["counts"])
    names, total = metrics["confusion_matrix"]["labels"], metrics["n"]
    lines += ["", f"rows {total:,}   accuracy {metrics['accuracy']:.4f}   macro-F1 {metrics['macro_f1']:.4f}"]
    lines += [f"always the commonest class: accuracy {metrics['majority_class_accuracy']:.4f}"]
    lines += [f"expected calibration error {metrics['expected_calibration_error']:.4f}"]
    np.fill_diagonal(counts, 0)
    for place in np.argsort(-counts, axis=None, kind="stable")[:3]:
        true, predicted = divmod(int(place), len(names))
        if counts[true, predicted]:
            lines.append(f"{counts[true, predicted]:,} times {names[true]!r} was taken for {names[predicted]!r}")
    return "\n".join(lines)


def draw_confusion_matrix(metrics: dict):
    """A matplotlib Figure: a row for each label of the file, a column for each prediction, shares of the row."""
    from matplotlib.colors import Normalize, PowerNorm
    from matplotlib.figure import Figure

    counts, names = np.array(metrics["confusion_matrix"]["counts"]), metrics["confusion_matrix"]["labels"]
    names = [name if len(name) <= 30 else name[:29] + "…" for name in names]
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
    axes.set_title(f"{metrics['n']:,} rows, accuracy {metrics['accuracy']:.1%}, macro-F1 {metrics['macro_f1']:.3f}")
    if many:  # lines to follow by eye
        axes.set_xticks(np.arange(len(names)) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(names)) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.4)
        axes.tick_params(which="minor", length=0)
    else:
        for true, predicted in np.ndindex(counts.shape):
            dark = shares[true, predicted] > 0.5
            axes.text(
                predicted, true, f"{counts[true, predicted]:,}", ha="center", va="center", color="w" if dark else "k"
            )
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.6)
    return figure


# ------------------------------------------------------------------ files


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


@contextlib.contextmanager
def output_directory(path: Path) -> Iterator[Path]:
    """Yields a directory to write to, whose files then appear in `path` together, or not at all.

    Raises:
        Refusal: `path` is a file, or cannot be written.
    """
    if (path / "config.json").exists():
        raise Refusal(f"--output {path}: holds a model, whose metrics.json would be lost; give another directory")
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path))
    except OSError as error:
        raise Refusal(f"--output {path}: cannot be written ({error.strerror}); give another directory") from error
    try:
        yield unfinished
        for file in unfinished.iterdir():
            file.replace(path / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # it stays if something is in it
                path.rmdir()


# ------------------------------------------------------------------ the program


def evaluate(options: argparse.Namespace, output: Path) -> None:
    """Reads, predicts, measures, and writes all files to `output`."""
    model, tokenizer, max_length = load_classifier(options.model, options.max_length)
    names, trained = class_names(model), training_data(options.model)
    table = read_table(
        options.data,
        options.text_column,
        options.label_column,
        labelled=False if options.no_labels else True if options.label_column else None,
        labels=names,
        usual=[trained.get("text_column"), trained.get("label_column")],
        training=False,
    )
    split = next((split for split in ("test", "validation") if split in table.splits), None)
    dataset = table.splits[split] if split else table.dataset
    labelled = table.label_column is not None
    what = f"labels from {table.label_column!r}" if labelled else "no labels: predictions only"
    print(f"{options.data}{f' ({split})' if split else ''}: {len(dataset):,} texts from {table.text_column!r}, {what}")
    for remark in table.remarks:
        print(f"  {remark}")

    predicted, confidence = np.zeros(len(dataset), np.int32), np.zeros(len(dataset), np.float32)
    own = np.zeros(len(dataset), np.float32)  # the probability of the label that the file gives
    labels = dataset.with_format("numpy", columns=["label"])[:]["label"] if labelled else None
    batches = predict(model, tokenizer, dataset, max_length, options.per_device_eval_batch_size)
    for indices, probabilities in batches:
        predicted[indices], confidence[indices] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        if labelled:
            own[indices] = probabilities[np.arange(len(indices)), labels[indices]]

    def rows(order: np.ndarray) -> Iterator[tuple]:
        for start in range(0, len(order), WINDOW):
            chosen = order[start : start + WINDOW]
            batch = dataset[chosen]
            columns = [batch["row"], batch["text"]]
            columns += [[names[n] for n in batch["label"]]] if labelled else []
            columns += [[names[n] for n in predicted[chosen]], [f"{value:.4f}" for value in confidence[chosen]]]
            yield from zip(*columns, strict=True)

    if not labelled:
        everything = rows(np.arange(len(dataset)))
        write_rows(output / "predictions.csv", ["row", "text", "predicted", "confidence"], everything)
        for name, count in zip(names, np.bincount(predicted, minlength=len(names)).tolist(), strict=True):
            print(f"{name[:32]:<32} {count:>9,}")
    else:
        metrics = measure(labels, predicted, confidence, names) | {"max_length": max_length}
        wrong = np.flatnonzero(predicted != labels)
        header = ["row", "text", "label", "predicted", "confidence"]
        write_rows(output / "mistakes.csv", header, rows(wrong[np.argsort(-confidence[wrong], kind="stable")]))
        # how far the file's label is behind what the model would choose; equal ones by how unlikely it is
        write_rows(output / "suspicious.csv", header, rows(np.lexsort((own, own - confidence))))
        draw_confusion_matrix(metrics).savefig(output / "confusion_matrix.png", dpi=150)
        (output / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(report(metrics))
    print(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {options.output}")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 2 after one line that says what to change."""
    options = parse_arguments(arguments)
    try:
        with output_directory(options.output) as output:
            evaluate(options, output)
    except (Refusal, InputError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        said = f"{error.strerror or error}; free some space, or change --output"
        print(f"{NAME}: {options.output}: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{NAME}: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
