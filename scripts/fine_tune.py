"""Fine-tunes a classifier of texts on a file of your own, and writes down how good it is.

    python scripts/fine_tune.py --data reviews.csv --output outputs/reviews
    python scripts/fine_tune.py --data reviews.csv --output outputs/reviews --checkpoint data/models/distilbert
    accelerate launch --num_processes 2 scripts/fine_tune.py --data reviews.csv --output outputs/reviews

The data is a CSV, TSV, JSON-lines or Parquet file, a directory, or a data set on the Hub; its columns are found when
they are obvious. Before it trains, the program says what it found and what the run will take.

Stopped for whatever reason? Run the same command again: it goes on from the last checkpoint in OUTPUT.unfinished.
OUTPUT appears at the end, whole: the model and its tokenizer, which `pipeline("text-classification", OUTPUT)` loads,
metrics.json, curves.png, confusion_matrix.png, and a model card, README.md.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import sys
import time
import warnings
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
from evaluate_model import draw_confusion_matrix, measure

from helpers.allocator import keep_freed_memory
from helpers.profiles import check_hub
from takehome.card import model_card
from takehome.errors import InputError, one_line
from takehome.texts import Facts, Source, bad_checkpoint, column, describe, load_tokenizer, prepare

NAME = "fine_tune.py"
CHECKPOINT = "distilbert/distilbert-base-uncased"
REVISION = "12040accade4e8a0f71eabdb258fecc2e7e948be"
# The wider a model, the smaller the steps that it bears: (hidden width up to, full fine-tuning, LoRA).
LEARNING_RATES = [(256, 1e-3, 3e-3), (512, 1e-4, 5e-4), (1023, 5e-5, 3e-4), (math.inf, 2e-5, 1e-4)]
# Not compared when a run goes on: where things are, and what changes nothing about the result.
MAY_CHANGE = ("data", "output", "resume", "overwrite", "lock")
# How the operating system, Arrow, safetensors and torch say that the disk is full, or a file as long as it may be
FULL_DISK = re.compile(r"No space left|File too large|quota exceeded|os error (27|28)\b|inline_container", re.I)
MAIN, WORLD = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", 1))


def say(topic: str, text: str) -> None:
    if MAIN:
        print(f"{topic:<12}{text}", flush=True)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    def number(kind, low, high=math.inf, above=False):
        def parse(text: str):
            value = kind(text)
            if not (low < value if above else low <= value) or not value <= high:
                bounds = f"{'above' if above else 'at least'} {low}" + (f", at most {high}" if high < math.inf else "")
                raise argparse.ArgumentTypeError(f"{text} is out of range: {bounds}")
            return value

        parse.__name__ = "whole number" if kind is int else "number"
        return parse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise InputError(f"{message} (--help lists all options)")

    count, share = number(int, 1), number(float, 0, 1)
    p = Parser(prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="file, directory or Hub id")
    p.add_argument("--text-column", help="found if one column is obvious")
    p.add_argument("--label-column", help="found if one column is obvious")
    p.add_argument("--dataset-config", help="of a data set on the Hub")
    p.add_argument("--dataset-revision")
    p.add_argument("--max-train-samples", type=count, help="train on so many rows only, drawn at random")
    p.add_argument("--output", type=Path, required=True, help="directory that the finished model appears in")
    p.add_argument("--resume", action="store_true", help="insist on going on, which happens anyway if there is a start")
    p.add_argument("--overwrite", action="store_true", help="replace a finished model, or another run")
    model = p.add_argument_group("model")
    model.add_argument("--checkpoint", help=f"Hub id or directory; by default {CHECKPOINT}")
    model.add_argument("--checkpoint-revision")
    model.add_argument("--max-length", type=number(int, 4), help="tokens of a text; by default 95 %% of them fit")
    model.add_argument("--lora", action="store_true", help="train LoRA adapters only, and merge them at the end")
    model.add_argument("--lora-rank", type=count, default=16)
    model.add_argument("--lora-alpha", type=number(float, 0, above=True), default=32.0)
    train = p.add_argument_group("training, named as in TrainingArguments")
    train.add_argument("--num-train-epochs", type=number(float, 0, 1000, True), help="by default 3; few rows: to 10")
    train.add_argument("--max-steps", type=count, help="stop after so many steps, whatever the epochs")
    train.add_argument("--learning-rate", type=number(float, 0, 0.1, True), help="by default by the model's width")
    train.add_argument("--per-device-train-batch-size", type=count, default=16)
    train.add_argument("--gradient-accumulation-steps", type=count, default=1)
    train.add_argument("--warmup-steps", type=number(float, 0), default=0.1, help="below 1: a share of all steps")
    train.add_argument("--weight-decay", type=share, default=0.01)
    train.add_argument("--eval-steps", type=count, help="by default an epoch, or equal parts of it of at most 500")
    train.add_argument("--early-stopping-patience", type=number(int, 0), default=3, help="in evaluations; 0: never")
    train.add_argument("--class-weights", choices=["auto", "balanced", "sqrt", "none"], default="auto",
                       help="auto: sqrt if a class has over 3 times the rows of another, else none")  # fmt: skip
    train.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="by default on GPUs that compute in it")
    train.add_argument("--activation-checkpointing", action="store_true")
    train.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=42)
    train.add_argument("--use-cpu", action="store_true")
    args = p.parse_args(arguments)
    if args.checkpoint is None:
        args.checkpoint, args.checkpoint_revision = CHECKPOINT, args.checkpoint_revision or REVISION
    args.output = Path(os.path.abspath(args.output.expanduser()))
    return args


# --- The output directory ------------------------------------------------------------------------


def unfinished(output: Path) -> Path:
    return output.with_name(output.name + ".unfinished")


def check_output(args: argparse.Namespace) -> None:
    """Refuses a place that holds something else, and makes the directory of the unfinished run."""
    output, work = args.output, unfinished(args.output)
    try:
        if output.is_file() or os.path.ismount(output):
            raise InputError(f"--output {output} is a file or a mount point: name a new directory")
        if output.is_dir() and any(output.iterdir()):
            if not {"metrics.json", "config.json"} <= {path.name for path in output.iterdir()}:
                raise InputError(f"--output {output} holds other things: name a new directory")
            if not args.overwrite:
                raise InputError(f"--output {output} holds a finished model: name another, or add --overwrite")
        if args.resume and not find_checkpoint(work):
            raise InputError(f"--resume: {work} holds no checkpoint to go on from: leave --resume away to begin")
        work.mkdir(parents=True, exist_ok=True)
        args.lock = lock(work)
        clear(work)  # what a kill left
    except OSError as cause:
        raise InputError(f"--output {output} cannot be written ({cause.strerror}): name another directory") from cause


def lock(work: Path) -> int | None:
    """Keeps a second run out of the same directory until the process ends."""
    with contextlib.suppress(ImportError):  # Windows has no such locks
        import fcntl

        descriptor = os.open(work, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise InputError(f"another run writes to {work}: wait for it, or name another --output") from cause
        return descriptor


def is_whole(path: Path) -> bool:
    """False for a checkpoint that was not written to its end, which is the state of Trainer."""
    try:
        return not path.name.startswith("checkpoint-") or bool(json.loads((path / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


def find_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [path for path in work.glob("checkpoint-*") if is_whole(path)]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def clear(work: Path) -> Path | None:
    """Removes what is not whole, everything if no checkpoint is; returns the newest checkpoint."""
    newest = find_checkpoint(work)
    for path in work.glob("*"):
        if newest is None or path.name == "final" or not is_whole(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return newest


# --- Model and training --------------------------------------------------------------------------


def build_model(args, tokenizer, facts: Facts):
    """The checkpoint with a new head, and adapters if --lora."""
    import torch
    from transformers import AutoModelForSequenceClassification

    names = facts.labels
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            args.checkpoint, revision=args.checkpoint_revision, dtype=torch.float32, num_labels=len(names),
            id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
            problem_type="single_label_classification", ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as cause:
        raise bad_checkpoint(args.checkpoint, cause) from cause
    model.config.pad_token_id = tokenizer.pad_token_id
    if args.lora:
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated")  # peft 0.21 asks for it
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        kinds = {name: type(module) for name, module in model.base_model.named_modules()}
        targets = {name for name, kind in kinds.items() if kind in (torch.nn.Linear, Conv1D)}
        prefix = model.base_model_prefix
        model = get_peft_model(model, LoraConfig(
            task_type="SEQ_CLS", r=args.lora_rank, lora_alpha=args.lora_alpha, lora_dropout=0.0,
            target_modules=sorted({f"{prefix}.{name}" for name in targets}),
            modules_to_save=[n for n, m in model.named_children() if n != prefix and list(m.parameters())],
            fan_in_fan_out=Conv1D in kinds.values(),
        ))  # fmt: skip
    return model


def choose_epochs(args, rows: int, classes: int) -> float:
    """3 epochs, or up to 10 while that makes fewer than 500 steps, or 60 a class: few rows need more than one look."""
    steps = math.ceil(rows / (args.per_device_train_batch_size * args.gradient_accumulation_steps * WORLD))
    return args.num_train_epochs or max(3, min(10, math.ceil(max(500, 60 * classes) / steps)))


def class_weights(args, counts: list[int]):
    """Weight of each class [classes] or None, and why.

    "balanced" lets every class weigh the same, which can cost much accuracy where there are many. Its square root is
    between that and none: with MiniLM on 10,000 synopses of Debian packages in 77 classes of 13 to 2,896 rows, accuracy
    and macro-F1 after 5 epochs were 53 and 36 % (balanced, fp32), 62 and 34 % (sqrt, bf16), 61 and 26 % (none, bf16).
    """
    counts = np.maximum(counts, 1)
    ratio = counts.max() / counts.min()
    kind = ("sqrt" if ratio > 3 else "none") if args.class_weights == "auto" else args.class_weights
    because = f"the largest class has {ratio:.1f} times the rows of the smallest"
    if kind == "none":
        return None, f"none: {because}"
    weights = np.minimum((counts.sum() / (len(counts) * counts)) ** (0.5 if kind == "sqrt" else 1), 10)
    return weights, f"{kind}, {weights.min():.2f} to {weights.max():.2f}: {because}"


class LengthSampler:
    """Orders rows so that those of a step are of like length; the order depends on seed and epoch alone."""

    def __init__(self, lengths: np.ndarray, step_rows: int, seed: int):
        self.lengths, self.step_rows, self.seed, self.epoch = lengths, step_rows, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        rng, size = np.random.default_rng([self.seed, self.epoch]), self.step_rows
        rows = rng.permutation(len(self))
        window = np.arange(len(rows)) // (50 * size)  # sorted among so many steps: grouped, and still random
        rows = rows[np.lexsort([self.lengths[rows], window])]
        whole = len(rows) // size * size
        steps = rng.permutation(rows[:whole].reshape(-1, size))
        return map(int, np.concatenate([steps.ravel(), rng.permutation(rows[whole:])]))


def time_step(model, first, batches, bf16: bool) -> float:
    """Seconds of forward and backward pass, the mean of some batches after `first`; the model stays as it was."""
    import torch

    device, seconds = next(model.parameters()).device, []
    model.train()
    with torch.random.fork_rng():
        for batch in [first, *batches]:
            start = time.perf_counter()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = model(**batch.to(device)).loss
            loss.backward()
            loss.item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    model.zero_grad()
    return sum(seconds[1:]) / len(batches)


def predict_memory(model, args, length: int, bf16: bool, device: str) -> int | None:
    """Bytes that a step takes at its longest; None if the architecture cannot be followed."""
    from helpers.memory import estimate, trace

    settings = dict(
        per_device_train_batch_size=args.per_device_train_batch_size, sequence_length=length, padded=True,
        task="sequence-classification", precision="bf16" if bf16 else "fp32", device=device,
        activation_checkpointing=args.activation_checkpointing,
    )  # fmt: skip
    if not args.lora:
        try:
            return estimate(model.config, num_gpus=WORLD, **settings).peak_bytes
        except ValueError:  # no closed form for this architecture
            pass
    try:
        return trace(model, **settings).peak_bytes
    except Exception:
        return None


def make_trainer(args, work: Path, model, tokenizer, splits: dict, weights, settings: dict):
    import torch
    from sklearn.metrics import accuracy_score, f1_score
    from tqdm import tqdm
    from transformers import DataCollatorWithPadding, EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    rows, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    sampler = LengthSampler(column(splits["train"], "length"), rows * accumulation * WORLD, args.seed)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    class Progress(TrainerCallback):
        interrupted, bar, before = False, None, signal.getsignal(signal.SIGINT)

        def on_train_begin(self, arguments, state, control, **_):
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", disable=not MAIN, mininterval=1
            )
            if WORLD == 1:  # several processes would have to agree on the step to stop after
                signal.signal(signal.SIGINT, self.interrupt)

        def interrupt(self, *_):
            self.interrupted = True
            signal.signal(signal.SIGINT, self.before)
            self.bar.write("interrupted  stopping after this step; Ctrl-C again stops at once")

        def on_epoch_begin(self, arguments, state, control, **_):
            sampler.epoch = int(state.epoch or 0)

        def on_step_end(self, arguments, state, control, **_):
            self.bar.update(state.global_step - self.bar.n)
            control.should_save |= self.interrupted

        def on_save(self, arguments, state, control, **_):
            if self.interrupted:
                raise KeyboardInterrupt

        def on_log(self, arguments, state, control, logs, **_):
            if "loss" in logs:
                self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
                if not math.isfinite(logs["loss"]):
                    raise InputError(
                        f"the loss of step {state.global_step} is {logs['loss']}: lower --learning-rate "
                        f"(it is {arguments.learning_rate:g})"
                    )

        def on_evaluate(self, arguments, state, control, metrics, **_):
            if MAIN and state.global_step:
                self.bar.write(f"step {state.global_step:<7}validation loss {metrics['eval_loss']:.4f}, macro-F1 "
                               f"{metrics['eval_macro_f1']:.4f}, accuracy {metrics['eval_accuracy']:.4f}")  # fmt: skip

        def close(self):
            if self.bar is not None:
                self.bar.close()
                signal.signal(signal.SIGINT, self.before)

    class TextTrainer(Trainer):
        def _get_train_sampler(self, dataset=None):
            return sampler  # transformers' own one draws another order after a resume

    def loss(outputs, labels, num_items_in_batch=None):
        given = None if weights is None else weights.to(outputs.logits.device)
        losses = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, given, reduction="none")
        return losses.sum() / (num_items_in_batch or len(labels))

    def metrics(predicted):
        guesses = predicted.predictions.argmax(-1)
        score = f1_score(predicted.label_ids, guesses, average="macro", labels=np.unique(predicted.label_ids))
        return {"accuracy": accuracy_score(predicted.label_ids, guesses), "macro_f1": score}

    progress = Progress()
    callbacks = [progress]
    if args.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
    try:
        arguments = TrainingArguments(
            output_dir=str(work), seed=args.seed, use_cpu=settings["device"] == "cpu", bf16=settings["bf16"],
            learning_rate=settings["learning_rate"], warmup_steps=args.warmup_steps, weight_decay=args.weight_decay,
            num_train_epochs=settings["num_train_epochs"], max_steps=args.max_steps or -1,
            per_device_train_batch_size=rows, per_device_eval_batch_size=2 * rows,
            gradient_accumulation_steps=accumulation, activation_checkpointing=args.activation_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False} if args.activation_checkpointing else None,
            eval_strategy="steps", eval_steps=settings["eval_steps"], save_steps=settings["eval_steps"],
            save_total_limit=2, load_best_model_at_end=True, metric_for_best_model="macro_f1",
            logging_steps=max(1, settings["steps"] // 60), logging_nan_inf_filter=False, disable_tqdm=True,
            restore_callback_states_from_checkpoint=True,
            accelerator_config={"use_configured_state": True},  # the processes have met already
        )  # fmt: skip
    except ValueError as cause:
        raise InputError(one_line(cause)) from cause
    trainer = TextTrainer(
        model, arguments, DataCollatorWithPadding(tokenizer), splits["train"], splits["validation"], tokenizer,
        compute_loss_func=loss, compute_metrics=metrics, callbacks=callbacks,
        preprocess_logits_for_metrics=lambda logits, _: logits[0] if isinstance(logits, tuple) else logits,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # there is one bar, ours
    return trainer, progress


# --- What is kept --------------------------------------------------------------------------------


def write_output(args, work: Path, model, tokenizer, results: dict) -> None:
    """Makes the whole output beside its place and renames it: it is there complete, or not at all."""
    import matplotlib

    from helpers.curves import plot

    matplotlib.use("Agg")
    final, old = work / "final", args.output.with_name(args.output.name + ".old")
    final.mkdir()
    model.save_pretrained(final)
    tokenizer.save_pretrained(final)
    figure = draw_confusion_matrix(results["test"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fonts that lack letters of a label
        figure.savefig(final / "confusion_matrix.png", dpi=min(120, 3000 / figure.get_figwidth()))
    plot(results["log_history"], metric="macro_f1").savefig(final / "curves.png", dpi=120)
    card = model_card(results, args.checkpoint, hub=not Path(args.checkpoint).exists())
    (final / "README.md").write_text(card, encoding="utf-8")
    (final / "metrics.json").write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    for path in final.iterdir():
        path.chmod(0o644)  # safetensors are written for the owner alone
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if args.output.exists() and any(args.output.iterdir()):  # --overwrite
        shutil.rmtree(old, ignore_errors=True)
        args.output.rename(old)
    elif args.output.exists():
        args.output.rmdir()
    final.rename(args.output)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


# --- The run -------------------------------------------------------------------------------------


def decide(args, facts: Facts, device: str) -> dict:
    """Everything that the result depends on: what was told, and the defaults that depend on data, model and device."""
    import torch

    rows = facts.rows["train"]
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * WORLD
    epochs, steps_per_epoch = choose_epochs(args, rows, len(facts.labels)), math.ceil(rows / batch)
    steps = args.max_steps or math.ceil(steps_per_epoch * epochs)
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    rates = next(rates for most, *rates in LEARNING_RATES if facts.width <= most)
    return {name: value for name, value in vars(args).items() if name not in MAY_CHANGE} | {
        "learning_rate": args.learning_rate or rates[args.lora],
        "num_train_epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "steps": steps,
        "eval_steps": min(steps, args.eval_steps or math.ceil(steps_per_epoch / math.ceil(steps_per_epoch / 500))),
        "batch_size": batch,
        "bf16": bool(bf16 if args.bf16 is None else args.bf16),
        "device": device,
        "max_length": facts.max_length,
        "processes": WORLD,
        "rows_digest": facts.digest,
    }


def find_start(args, work: Path, settings: dict) -> Path | None:
    """The checkpoint to go on from, if there is one and it belongs to this run."""
    checkpoint = find_checkpoint(work)
    saved = json.loads((work / "run.json").read_text()) if checkpoint else settings
    differ = [f"{key} was {saved.get(key)}, is {value}" for key, value in settings.items() if saved.get(key) != value]
    if differ and not args.overwrite:
        raise InputError(f"{work} is another run ({'; '.join(differ)}): run its own command, name another --output, or "
                         "add --overwrite")  # fmt: skip
    return None if differ else checkpoint


def announce(args, facts: Facts, settings: dict, trainer, why: str) -> dict:
    """Says what the run will take; returns it: steps, seconds, bytes of a step."""
    model, train, device = trainer.model, trainer.train_dataset, settings["device"]
    order, size = np.argsort(column(train, "length")), args.per_device_train_batch_size
    warm_up = 1 if device == "cpu" and not args.activation_checkpointing else 1 / 2  # the longest, where it must fit
    starts = [int(share * max(0, len(train) - size)) for share in (warm_up, 1 / 6, 1 / 2, 5 / 6)]
    inputs = train.remove_columns("length")
    first, *batches = [trainer.data_collator([inputs[int(i)] for i in order[start : start + size]]) for start in starts]
    seconds = time_step(model, first, batches, settings["bf16"]) * (4 / 3 if args.activation_checkpointing else 1)
    steps, evaluations = settings["steps"], math.ceil(settings["steps"] / settings["eval_steps"])
    evaluated = evaluations * facts.rows["validation"] + facts.rows["test"]  # forward only: a third of a step
    seconds *= steps * args.gradient_accumulation_steps + evaluated / WORLD / size / 3
    memory = predict_memory(model, args, facts.max_length, settings["bf16"], "cuda" if device == "cuda" else "cpu")

    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    epochs, width = steps / settings["steps_per_epoch"], facts.width
    rate = "as told" if args.learning_rate else f"the default for a width of {width}" + " with LoRA" * args.lora
    if device != "cuda" and (peak := peak_memory(False)):  # so far, without the two averages that AdamW keeps
        beside = f"; about {(peak + 8 * trained) / 1e9:.2f} GB with Python and the libraries"
    else:
        beside = ""
    say("model", f"{args.checkpoint}: {total:,} parameters, {trained:,} trained, {'bf16' * settings['bf16'] or 'fp32'}")
    say("rate", f"learning rate {settings['learning_rate']:g}, {rate}")
    say("weights", f"class weights {why}")
    say(
        "training",
        f"{steps:,} steps of {settings['batch_size']} rows, {epochs:.3g} epoch{'s' * (epochs != 1)}"
        f"{f', {WORLD} processes' * (WORLD > 1)}; validation every {settings['eval_steps']:,} steps",
    )
    say("memory", f"{memory / 1e9:.2f} GB for the longest step, predicted{beside}" if memory else "not predicted")
    say("time", f"about {duration(seconds)}, from {len(batches)} timed steps")
    return {"steps": steps, "seconds": seconds, "step_memory_bytes": memory}  # fmt: skip


def summarise(facts: Facts, settings: dict, trainer, guesses) -> dict:
    """What was measured, for metrics.json."""
    import torch

    history = [entry for entry in trainer.state.log_history if not any(key.startswith("test_") for key in entry)]
    best = max((entry for entry in history if "eval_macro_f1" in entry), key=lambda entry: entry["eval_macro_f1"])
    probabilities = torch.tensor(guesses.predictions).float().softmax(-1).numpy()
    test = measure(guesses.label_ids, probabilities.argmax(-1), probabilities.max(-1), facts.labels)
    common = int(np.argmax(facts.counts["train"]))
    share, present = facts.counts["test"][common] / test["n"], np.count_nonzero(facts.counts["test"])
    return {
        "settings": settings,
        "test": test,
        "majority_class": {"label": facts.labels[common], "accuracy": share,
                           "macro_f1": float(2 * share / (1 + share) / present)},
        "validation": {"step": best["step"]} | {key: best[f"eval_{key}"] for key in ("loss", "accuracy", "macro_f1")},
        "data": asdict(facts),
        "log_history": history,
    }  # fmt: skip


def train(args: argparse.Namespace) -> None:
    for kind in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{kind}") == "true":
            raise InputError(f"{kind} is not for this program: launch it with plain data parallelism (DDP)")
    if not (Path(args.checkpoint).exists() and Path(args.data).exists()):
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there
    work = unfinished(args.output)
    if MAIN:
        check_output(args)
        shutil.rmtree(work / "data", ignore_errors=True)
        source = Source(args.data, args.text_column, args.label_column, args.dataset_config, args.dataset_revision)
        facts = prepare(
            source, load_tokenizer(args.checkpoint, args.checkpoint_revision, args.max_length), work / "data",
            seed=args.seed, max_length=args.max_length, max_train_samples=args.max_train_samples,
        )  # fmt: skip
        for line in describe(facts, args.data, args.max_length):
            say(*line)

    import torch
    import transformers
    from accelerate import PartialState
    from datasets import Dataset

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would tell of kernels that are not needed here
    use_cpu = args.use_cpu or not torch.accelerator.is_available()
    processes = PartialState(cpu=use_cpu, timeout=timedelta(hours=6))  # where the others wait for the data
    facts = Facts.load(work / "data")
    settings = decide(args, facts, processes.device.type)
    checkpoint = find_start(args, work, settings)
    processes.wait_for_everyone()
    if MAIN:
        (work / "run.json").write_text(json.dumps(settings))
        for path in work.glob("checkpoint-*") if checkpoint is None else []:
            shutil.rmtree(path)

    tokenizer = load_tokenizer(args.checkpoint, args.checkpoint_revision, args.max_length).tokenizer
    tokenizer.model_max_length = facts.max_length  # so that whoever loads it reads as much as training did
    transformers.set_seed(args.seed)  # the new head is drawn here
    model = build_model(args, tokenizer, facts)
    splits = {name: Dataset.from_file(str(work / "data" / f"{name}.arrow")) for name in facts.rows}
    for name in ("validation", "test"):
        splits[name] = splits[name].select(np.argsort(column(splits[name], "length"), kind="stable"))
    weights, why = class_weights(args, facts.counts["train"])
    trainer, progress = make_trainer(args, work, model, tokenizer, splits, weights, settings)
    predicted = announce(args, facts, settings, trainer, why)
    if checkpoint:
        say("resuming", f"{checkpoint}")

    keep_freed_memory()
    start = time.perf_counter()
    try:
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.close()
    guesses = trainer.predict(splits["test"])
    if MAIN:
        seconds, peak = time.perf_counter() - start, peak_memory(settings["device"] == "cuda")
        measured = {"steps": result.global_step, "epochs": result.global_step / settings["steps_per_epoch"],
                    "seconds": seconds, "resumed": bool(checkpoint), "peak_memory_bytes": peak}  # fmt: skip
        results = {"class_weights": why, "predicted": predicted, "measured": measured}
        results |= summarise(facts, settings, trainer, guesses)
        model = trainer.accelerator.unwrap_model(trainer.model)
        write_output(args, work, model.merge_and_unload() if args.lora else model, tokenizer, results)
        test, lazy = results["test"], results["majority_class"]
        say("took", duration(seconds) + (f", peak memory {peak / 1e9:.2f} GB" if peak else ""))
        say("test", f"accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f} on {test['n']:,} rows; always "
                    f"{lazy['label']!r}: {lazy['accuracy']:.4f}, {lazy['macro_f1']:.4f}")  # fmt: skip
        if test["macro_f1"] <= lazy["macro_f1"] + 0.01:
            say("", "It learned nothing: try another --learning-rate, more --num-train-epochs, or look at the data.")
        say("done", f"{args.output}: model, tokenizer, metrics.json, curves.png, confusion_matrix.png, README.md")
    processes.wait_for_everyone()


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else \
        f"{seconds / 3600:.1f} h"  # fmt: skip


def peak_memory(cuda: bool) -> int | None:
    """Bytes: what torch held at most on a GPU, what the process held at most without one."""
    import torch

    if cuda:
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(ImportError):  # Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def main(arguments: list[str] | None = None) -> int:
    args, stopped = None, False
    try:
        args = parse_arguments(arguments)
        train(args)
        return 0
    except InputError as error:
        code, said = 2, str(error)
    except KeyboardInterrupt:
        code, said, stopped = 130, "interrupted", True
    except Exception as error:
        code, stopped = 2, bool(FULL_DISK.search(str(error)))
        if stopped:
            free = shutil.disk_usage(args.output.parent).free / 1e6
            said = f"{args.output} could not be written, {free:,.0f} MB are free: make room"
        elif type(error).__name__ == "OutOfMemoryError":
            said = ("out of memory: halve --per-device-train-batch-size and double --gradient-accumulation-steps, "
                    "shorten --max-length, or add --activation-checkpointing")  # fmt: skip
        else:
            raise
    if MAIN and hasattr(args, "lock"):
        work = unfinished(args.output)
        kept = clear(work)
        if kept is None:
            work.rmdir()
        if stopped:
            said += f"; the same command goes on after step {kept.name.split('-')[1]}" if kept else "; nothing is kept"
    if MAIN:
        print(f"{NAME}: {said}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
