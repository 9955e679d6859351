"""How good and how fast fine_tune.py is beside the recipe of most tutorials, on a table of classes.

    python tools/plain_recipe.py --data reviews.csv --checkpoint data/models/distilbert --seeds 3

The plain recipe is transformers' Trainer in float32: every text is padded to the longest of all, 3 epochs at 5e-5,
batches of 16 rows, an evaluation after each epoch, the best of them kept. fine_tune.py takes its defaults. Each runs in
a process of its own, in changing order, on the same rows. Seconds are those of the whole process; seconds of the
processor beside them, which other programs disturb less.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
ROWS, EPOCHS, RATE = 16, 3, 5e-5


@dataclass(frozen=True)
class Result:
    """Of one process: what it scored on the test rows, and what it took."""

    accuracy: float
    seconds: float
    processor_seconds: float


def train(data: str, checkpoint: str, seed: int, folder: Path) -> float:
    """Trains by the plain recipe on the rows that fine_tune.py takes with this seed; returns the test accuracy."""
    import transformers
    from datasets import Dataset

    from takehome.models import load_model
    from takehome.texts import Source, prepare
    from takehome.tokenizer import load_tokenizer

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    loaded = load_tokenizer(checkpoint)
    facts = prepare(Source(data, task="classification"), loaded, folder, seed=seed, max_length=min(512, loaded.limit))
    splits = {name: Dataset.from_file(str(folder / f"{name}.arrow")) for name in facts.rows}
    longest = max(max(split["length"][:]) for split in splits.values())

    def pad(rows: list[dict]) -> dict:
        return collate([{name: row[name] for name in row if name != "length"} for row in rows])

    collate = transformers.DataCollatorWithPadding(loaded.tokenizer, padding="max_length", max_length=longest)
    transformers.set_seed(seed)
    made = transformers.AutoModelForSequenceClassification
    model = load_model(made, checkpoint, new_head=True, num_labels=len(facts.labels)).model
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    told = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        seed=seed,
        use_cpu=True,
        learning_rate=RATE,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=ROWS,
        per_device_eval_batch_size=ROWS,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
    given = model, told, pad, splits["train"], splits["validation"]
    trainer = transformers.Trainer(*given, compute_metrics=accuracy)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer.predict(splits["test"]).metrics["test_accuracy"]


def accuracy(found) -> dict[str, float]:
    """Of `Trainer`'s predictions [rows, classes]."""
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def timed(command: list[str], result: Path) -> Result:
    """Runs a program that writes its test accuracy into a JSON file."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begin, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Result(json.loads(result.read_text("utf-8"))["test"]["accuracy"], seconds, used)


def compare(data: str, checkpoint: str, seed: int, folder: Path) -> tuple[Result, Result, dict[str, float]]:
    """fine_tune.py's result, the plain recipe's, and the accuracy of the baselines on the same test rows."""
    told = ["--data", data, "--checkpoint", checkpoint]
    ours, plain = folder / f"ours-{seed}", folder / f"plain-{seed}"
    commands = {
        ours: [str(SCRIPTS / "fine_tune.py"), *told, "--seed", str(seed), "--output-dir", str(ours), "--use-cpu"],
        plain: [__file__, *told, "--train", str(plain), "--seed", str(seed)],
    }
    order = [ours, plain] if seed % 2 == 0 else [plain, ours]
    results = {place: timed([sys.executable, *commands[place]], place / "metrics.json") for place in order}
    simpler = json.loads((ours / "metrics.json").read_text("utf-8"))["baselines"]
    return results[ours], results[plain], {name: scores["accuracy"] for name, scores in simpler.items()}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; prints a row for each seed, and what came out in the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    # the plain recipe in a process of its own
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.train:
        args.train.mkdir(parents=True)
        score = train(args.data, args.checkpoint, args.seed, args.train)
        (args.train / "metrics.json").write_text(json.dumps({"test": {"accuracy": score}}), "utf-8")
        return
    print("seed  fine_tune.py           plain recipe           seconds  processor  simpler ways")
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            ours, plain, simpler = compare(args.data, args.checkpoint, seed, Path(folder))
            pairs.append((ours, plain))
            own = "".join(f"{100 * r.accuracy:5.1f} % in {r.seconds:6.0f} s    " for r in (ours, plain))
            ratios = f"{plain.seconds / ours.seconds:6.2f}   {plain.processor_seconds / ours.processor_seconds:6.2f}   "
            others = ", ".join(f"{name} {100 * score:.1f} %" for name, score in simpler.items())
            print(f"{seed:<4}{own}{ratios}{others}", flush=True)
    ours, plain = (fmean(pair[which].accuracy for pair in pairs) for which in (0, 1))
    faster = median(plain.seconds / ours.seconds for ours, plain in pairs)
    print(f"fine_tune.py {100 * ours:.1f} %, plain recipe {100 * plain:.1f} %; {faster:.2f} times as fast")


if __name__ == "__main__":
    main()
