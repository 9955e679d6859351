"""Measures a saved model on labelled texts, or labels texts with it, whatever task it was trained for.

    python scripts/evaluate_model.py --model outputs/reviews --data test.csv
    python scripts/evaluate_model.py --model outputs/reviews --data new.csv --output-dir outputs/new

With labels in the file, the directory --output-dir gets

    metrics.json            accuracy, macro-F1, per class precision, recall and F1, expected calibration error
    confusion_matrix.png    which class is taken for which
    mistakes.csv            wrong predictions, the most confident first
    suspicious.csv          all rows, the likeliest wrong labels first: worth reading if the model never saw them

(of several labels a text, scores, entities, questions: metrics.json, a picture, mistakes.csv and predictions.csv), and
without labels predictions.csv. The file is a CSV, TSV, JSONL or Parquet file, a directory or a Hub data set; of a
directory with splits, test is taken, or validation. Labels are matched with the model's by name. What an earlier
evaluation wrote there is replaced, unless somebody changed it or put something beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from takehome.commandline import Parser, number, run_program
from takehome.entity_files import WORD, looks_marked, read_entities
from takehome.errors import InputError, explain_limits, one_line, out_of_memory
from takehome.metrics import draw_confusion_matrix, measure, report
from takehome.predictions import WINDOW, columns_of, write_answers, write_rows
from takehome.question_files import NAMES
from takehome.reading import ANSWERS, answer_questions
from takehome.saved_models import Classifier, load_classifier, training_data
from takehome.table_files import Place
from takehome.tables import Table, read_table
from takehome.tasks.classes import softmax
from takehome.unfinished import refuse_place, whole
from takehome.windows import cut_into_windows, vote

if TYPE_CHECKING:
    from datasets import Dataset

NAME = Path(__file__).name
KIND = "evaluation"


@dataclass(frozen=True)
class Options:
    """The command line."""

    model: str
    data: str
    text_column: str | None
    pair_column: str | None
    label_column: str | None
    encoding: str | None
    pdf_rows: str
    no_labels: bool
    output_dir: Path
    per_device_eval_batch_size: int
    max_length: int | None
    windows: bool


@dataclass(frozen=True)
class Predictions:
    """Of each row: the class, its probability, and the probability of the label that the file gives [rows]."""

    classes: np.ndarray
    confidence: np.ndarray
    own: np.ndarray


def say(text: str) -> None:
    print(one_line(text, 10_000), flush=True)


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """The command line.

    Raises:
        InputError: an option is unknown, missing or out of range.
    """
    parser = Parser(prog=NAME, description=__doc__)
    parser.add_argument("--model", required=True, help="directory of a saved classifier, or a Hub id")
    parser.add_argument("--data", required=True, help="file, directory, or Hub data set")
    parser.add_argument("--text-column", help="found when obvious")
    parser.add_argument("--pair-column", help="of the second text of a pair; as in training")
    parser.add_argument("--label-column", help="found when obvious; without labels the texts are labelled")
    parser.add_argument("--encoding", help="of files of text, such as cp1251; found out, and said if it is not UTF-8")
    parser.add_argument("--pdf-rows", choices=["document", "page"], default="document", help="what a row is, of PDFs")
    parser.add_argument("--no-labels", action="store_true", help="label the texts, whatever columns there are")
    default = Path("outputs/evaluate_model")
    parser.add_argument("--output-dir", type=Path, default=default, help=f"directory to write to; by default {default}")
    parser.add_argument("--per-device-eval-batch-size", type=number(int, 1), default=32)
    parser.add_argument("--max-length", type=number(int, 1), help="tokens of a text that are read; as in training")
    parser.add_argument("--windows", action="store_true", help="read long texts to their end, in parts that vote")
    args = parser.parse_args(arguments)
    args.output_dir = Path(os.path.abspath(args.output_dir.expanduser()))
    return Options(**vars(args))


# ------------------------------------------------------------------ model


def say_cut(classifier: Classifier, dataset: Dataset) -> None:
    """Says how many texts are longer than what the model reads, of up to 2,000 of them."""
    longest, sample = classifier.max_length, dataset.select(range(min(2000, len(dataset))))
    cut = 0
    for batch in sample.iter(100):
        batch = {key: values for key, values in batch.items() if key in ("text", "pair")}
        encoded = classifier.make_task().encode(classifier.tokenizer, batch, longest, truncation=False)
        cut += sum(len(ids) > longest for ids in encoded["input_ids"])
    if cut:
        of = "the first " if len(sample) < len(dataset) else ""
        say(f"{cut:,} of {of}{len(sample):,} texts are longer than the {longest:,} tokens that are read, and cut there")


def predict(classifier: Classifier, dataset: Dataset, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices of rows, the model's outputs [rows, labels]); rows of similar length share a batch."""
    import torch
    from tqdm.auto import tqdm

    model, tokenizer = classifier.model, classifier.tokenizer
    with tqdm(total=len(dataset), unit=" texts", mininterval=1) as bar:
        for start in range(0, len(dataset), WINDOW):
            window = {key: values for key, values in dataset[start : start + WINDOW].items() if key in ("text", "pair")}
            encoded = classifier.make_task().encode(tokenizer, window, classifier.max_length)
            firsts = encoded.pop("first", None)  # which tokens begin a word, where words are labelled
            order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                rows = {key: [values[n] for n in chosen] for key, values in encoded.items()}
                batch = tokenizer.pad(rows, return_tensors="pt").to(model.device)
                try:
                    with torch.inference_mode():
                        logits = model(**batch).logits
                except torch.OutOfMemoryError as error:
                    raise InputError(f"out of GPU memory: --per-device-eval-batch-size below {batch_size}") from error
                outputs = logits.float().cpu().numpy()
                if firsts:
                    tags = outputs.argmax(-1)
                    outputs = [own[: len(firsts[n])][firsts[n]] for n, own in zip(chosen, tags, strict=True)]
                yield start + chosen, outputs
                bar.update(len(chosen))


def predict_outputs(classifier: Classifier, dataset: Dataset, batch_size: int) -> np.ndarray:
    """The model's outputs for all rows [rows, labels], or [rows] for scores."""
    if classifier.task == "questions":
        return answer_all(classifier, dataset, batch_size)
    if classifier.task == "tokens":
        found = np.empty(len(dataset), object)
        for indices, outputs in predict(classifier, dataset, batch_size):
            for n, own in zip(indices, outputs, strict=True):
                found[n] = np.pad(own, (0, len(dataset[int(n)]["text"].split(" ")) - len(own)))  # O for what was cut
        return found
    found = np.zeros((len(dataset), classifier.model.config.num_labels), np.float32)
    for indices, outputs in predict(classifier, dataset, batch_size):
        found[indices] = outputs
    return classifier.make_task().outputs(found)


def answer_all(classifier: Classifier, dataset: Dataset, batch_size: int) -> np.ndarray:
    """What the model answers to all questions [rows]; texts are read in windows, some rows at a time."""
    from tqdm.auto import tqdm

    found, reading = np.empty(len(dataset), ANSWERS), classifier.make_task().reading
    with tqdm(total=len(dataset), unit=" questions", mininterval=1) as bar:
        for start in range(0, len(dataset), 100):
            batch = dataset.select_columns(["question", "context"])[start : start + 100]
            told = classifier.model, classifier.tokenizer, batch, reading, batch_size
            found[start : start + 100] = answer_questions(*told)
            bar.update(len(batch["question"]))
    return found


def predict_rows(classifier: Classifier, dataset: Dataset, options: Options) -> np.ndarray:
    """The model's outputs for all rows, of long texts by the vote of their windows if that is asked for."""
    size = options.per_device_eval_batch_size
    if not options.windows:
        if classifier.task != "questions":  # which are read in windows anyway
            say_cut(classifier, dataset)
        return predict_outputs(classifier, dataset, size)
    parts, owner = cut_into_windows(dataset, classifier.tokenizer, classifier.max_length)
    outputs, said = vote(predict_outputs(classifier, parts, size), owner, len(dataset))
    say(said)
    return outputs


def choose_classes(outputs: np.ndarray, labels: np.ndarray | None) -> Predictions:
    """The predictions for all rows; `labels` are the class ids that the file gives [rows], or None."""
    probabilities = softmax(outputs)
    own = np.zeros(len(outputs)) if labels is None else probabilities[np.arange(len(outputs)), labels]
    return Predictions(probabilities.argmax(axis=1), probabilities.max(axis=1), own)


# ------------------------------------------------------------------ files


def rows_in_order(
    order: np.ndarray, dataset: Dataset, names: list[str], predictions: Predictions, labelled: bool
) -> Iterator[tuple]:
    """Yields row number, text, label if there is one, prediction and confidence of each row in `order` [rows]."""
    for start in range(0, len(order), WINDOW):
        chosen = order[start : start + WINDOW]
        batch = dataset[chosen]
        columns = [batch[name] for name in columns_of(dataset)]
        if labelled:
            columns.append([names[n] for n in batch["label"]])
        columns.append([names[n] for n in predictions.classes[chosen]])
        columns.append([f"{value:.4f}" for value in predictions.confidence[chosen]])
        yield from zip(*columns, strict=True)


def write_predictions(folder: Path, dataset: Dataset, names: list[str], predictions: Predictions) -> None:
    """predictions.csv, and how often each class was predicted."""
    rows = rows_in_order(np.arange(len(dataset)), dataset, names, predictions, labelled=False)
    write_rows(folder / "predictions.csv", [*columns_of(dataset), "predicted", "confidence"], rows)
    counts = np.bincount(predictions.classes, minlength=len(names)).tolist()
    for name, count in zip(names, counts, strict=True):
        print(f"{one_line(name, 32):<32} {count:>9,}")


def write_evaluation(
    folder: Path, dataset: Dataset, labels: np.ndarray, classifier: Classifier, predictions: Predictions
) -> None:
    """metrics.json, the confusion matrix, and the rows worth a look; `labels` are class ids [rows]."""
    names, confidence = classifier.names, predictions.confidence
    scores = measure(labels, predictions.classes, confidence, names)
    wrong = np.flatnonzero(predictions.classes != labels)
    # How far the file's label is behind what the model would choose; equal ones by how unlikely it is.
    suspicious = np.lexsort((predictions.own, predictions.own - confidence))
    orders = {"mistakes.csv": wrong[np.argsort(-confidence[wrong], kind="stable")], "suspicious.csv": suspicious}
    for name, order in orders.items():
        rows = rows_in_order(order, dataset, names, predictions, labelled=True)
        write_rows(folder / name, [*columns_of(dataset), "label", "predicted", "confidence"], rows)
    draw_confusion_matrix(scores).savefig(folder / "confusion_matrix.png", dpi=150)
    metrics = asdict(scores) | {"max_length": classifier.max_length}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(report(scores))


# ------------------------------------------------------------------ the program


def read_rows(options: Options, classifier: Classifier) -> Table:
    """The table, with labels if it has any."""
    trained, names = training_data(options.model), classifier.names
    pair = options.pair_column or trained.get("pair_column")
    place = Place(options.data, encoding=options.encoding)
    if classifier.task == "tokens" and not options.no_labels and looks_marked(place):
        return read_entities(place, labels=names)
    if classifier.task == "questions":
        return read_asked(options, trained)
    labelled = True if options.label_column else None  # None: if there is a column of labels
    return read_table(
        options.data,
        options.text_column or (trained.get("text_column") if pair else None),
        options.label_column,
        task="classification" if classifier.task == "tokens" else classifier.task,
        pair_column=pair,
        labelled=False if options.no_labels or classifier.task == "tokens" else labelled,
        labels=None if classifier.task == "regression" else names,
        usual=[trained[name] for name in ("text_column", "label_column") if trained.get(name)],
        training=False,
        encoding=options.encoding,
        pdf_pages=options.pdf_rows == "page",
    )


def read_asked(options: Options, trained: dict) -> Table:
    """Questions and their texts, with answers if the table has them; columns of unusual names as in training."""
    told = [options.text_column, options.pair_column, options.label_column]
    for n, (name, thing) in enumerate(zip(("text_column", "pair_column", "label_column"), NAMES, strict=False)):
        own = trained.get(name)
        told[n] = told[n] or (own if own and own.strip().lower() not in NAMES[thing] else None)
    labelled = False if options.no_labels else True if options.label_column else None
    return read_table(
        options.data,
        told[0],
        None if labelled is False else told[2],
        pair_column=told[1],
        labelled=labelled,
        task="questions",
        training=False,
        encoding=options.encoding,
    )


def read_texts(options: Options, classifier: Classifier) -> tuple[Table, Dataset]:
    """The table, and the rows of it that are looked at."""
    table = read_rows(options, classifier)
    split = next((split for split in ("test", "validation") if split in table.splits), None)
    dataset = table.splits[split] if split else table.dataset
    found = f"labels from {table.label_column!r}" if table.label_column else "no labels: predictions only"
    shown = f"{options.data} ({split})" if split else options.data
    say(f"{shown}: {len(dataset):,} texts from {table.text_column!r}, {found}")
    for remark in table.remarks:
        print(f"  {one_line(remark, 10_000)}")
    if classifier.task == "tokens" and not table.label_column:
        dataset = dataset.map(lambda row: {"text": " ".join(WORD.findall(row["text"])) or "."}, keep_in_memory=True)
    return table, dataset


def evaluate(options: Options) -> None:
    """Reads, predicts, measures, and writes all files."""
    try:
        refuse_place(options.output_dir, KIND, overwrite=True)
    except InputError as error:
        raise InputError(f"--output-dir: {error}") from error
    classifier = load_classifier(options.model, options.max_length)
    table, dataset = read_texts(options, classifier)
    labels = classifier.make_task().answers(dataset) if table.label_column else None
    classes = classifier.task == "classification"
    if options.windows and (classifier.task in ("tokens", "questions") or "pair" in dataset.column_names):
        raise InputError("--windows is for single texts with a label, a score or labels; leave it away")
    try:
        outputs = predict_rows(classifier, dataset, options)
        predictions = choose_classes(outputs, labels) if classes else outputs
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise InputError("out of memory: lower --per-device-eval-batch-size, or give the texts in parts") from error
    try:
        with whole(options.output_dir, KIND) as folder:
            if not classes:
                write_answers(folder, dataset, classifier.make_task(), predictions, labels)
            elif labels is None:
                write_predictions(folder, dataset, classifier.names, predictions)
            else:
                write_evaluation(folder, dataset, labels, classifier, predictions)
    except OSError as error:
        if explain_limits(error, options.output_dir):
            raise
        raise InputError(f"{options.output_dir} cannot be written ({error}): change --output-dir") from error
    written = sorted(path.name for path in options.output_dir.iterdir() if not path.name.startswith("."))
    say(f"wrote {', '.join(written)} to {options.output_dir}")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; what the user has to change is told in one line."""
    options: list[Options] = []

    def program() -> None:
        options.append(parse_arguments(arguments))
        evaluate(options[0])

    return run_program(NAME, program, lambda: options[0].output_dir if options else None, lambda: "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
