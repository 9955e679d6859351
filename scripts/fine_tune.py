"""Fine-tunes a model on texts of your own, and writes down how good it is.

    python scripts/fine_tune.py --data reviews.csv --output-dir outputs/reviews
    python scripts/fine_tune.py --data reviews.csv --output-dir outputs/reviews --checkpoint data/models/distilbert
    accelerate launch --num_processes 2 scripts/fine_tune.py --data reviews.csv --output-dir outputs/reviews

The data is a CSV, TSV, JSON-lines, Parquet or Excel file, packed or not, a directory, or a data set on the Hub. Its
columns are found when they are obvious, and so is the task:

    classification    a class for each text
    pairs             a class for each pair of texts
    multi-label       several labels a text: a list, one 0/1 column a label, or a separator, as in a;b
    regression        a score for each text
    tokens            entities: CoNLL columns, or JSON lines with tags or spans
    questions         the answer to a question, marked in a text: SQuAD's JSON, or question, context and answers

Before it trains, the program says what it found and what the run will take.

Stopped for whatever reason? Run the same command again: it goes on from the last whole checkpoint in OUTPUT.unfinished.
OUTPUT appears at the end, whole: the model and its tokenizer, which transformers' `pipeline` loads, metrics.json,
curves.png, a picture of the test rows, and a model card, README.md.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.allocator import keep_freed_memory
from helpers.hub import check_hub
from helpers.machine import device_kind, mixed_precision, use_one_gpu
from takehome import forecast
from takehome.accelerator import on_main
from takehome.card import Guesses, Measured, Results, summarise, write_results
from takehome.checkpoints import checkpoints, seal, step_of
from takehome.classifier import add_adapters, begin_head, build_model
from takehome.commandline import Parser, number, run_program
from takehome.errors import InputError, one_line
from takehome.forecast import Forecast, peak_memory
from takehome.models import is_local
from takehome.settings import Settings, choose_epochs, class_weights, evaluation_steps, learning_rate
from takehome.tasks import TASKS, Task
from takehome.tasks.task import column
from takehome.telling import describe, plan_lines, result_lines
from takehome.texts import Facts, Source, prepare
from takehome.tokenizer import LoadedTokenizer, bad_checkpoint, load_tokenizer, save_tokenizer
from takehome.tracking import add_report_to, check_report_to, finish_tracking, place_tracking
from takehome.unfinished import (
    MODEL,
    begin_data,
    find_start,
    has_ended,
    read_record,
    refuse_place,
    unfinished,
    whole,
    working_folder,
)

if TYPE_CHECKING:
    from takehome.trainer import TextTrainer

NAME = "fine_tune.py"
CHECKPOINT = "distilbert/distilbert-base-uncased"
REVISION = "12040accade4e8a0f71eabdb258fecc2e7e948be"
MAIN, WORLD = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", 1))


@dataclass(frozen=True)
class Options:
    """The command line; None stands for a default that depends on data, model or device."""

    data: str
    task: str | None
    text_column: str | None
    pair_column: str | None
    label_column: str | None
    dataset_config: str | None
    dataset_revision: str | None
    encoding: str | None
    pdf_rows: str
    max_train_samples: int | None
    output_dir: Path
    report_to: str
    resume: bool
    overwrite: bool
    checkpoint: str
    checkpoint_revision: str | None
    max_length: int | None
    lora: bool
    lora_rank: int
    lora_alpha: float
    num_train_epochs: float | None
    max_steps: int | None
    learning_rate: float | None
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    warmup_steps: float
    weight_decay: float
    eval_steps: int | None
    early_stopping_patience: int
    class_weights: str
    bf16: bool | None
    activation_checkpointing: bool
    seed: int
    use_cpu: bool


def say(topic: str, text: str) -> None:
    if MAIN:
        print(f"{topic:<12}{one_line(text, 10_000)}", flush=True)


def note(text: str) -> None:
    say("", text)


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """The command line.

    Raises:
        InputError: an option is unknown, missing or out of range.
    """
    count, share = number(int, 1), number(float, 0, 1)
    p = Parser(prog=NAME, description=__doc__)
    p.add_argument("--data", required=True, help="file, directory or Hub id")
    p.add_argument("--task", choices=[*TASKS, "pairs"], help="found if it is obvious")
    p.add_argument("--text-column", help="found if one column is obvious")
    p.add_argument("--pair-column", help="of the second text of a pair")
    p.add_argument("--label-column", help="found if one column is obvious; several, with commas between: one a label")
    p.add_argument("--dataset-config", help="of a data set on the Hub")
    p.add_argument("--dataset-revision")
    p.add_argument("--encoding", help="of files of text, such as cp1251; found out, and said if it is not UTF-8")
    p.add_argument("--pdf-rows", choices=["document", "page"], default="document", help="what a row is, of PDFs")
    p.add_argument("--max-train-samples", type=count, help="train on so many rows only, drawn at random")
    p.add_argument("--output-dir", type=Path, required=True, help="directory that the finished model appears in")
    add_report_to(p)
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
    kinds, why = ["auto", "balanced", "sqrt", "none"], "auto: sqrt if a class has over 3 times the rows of another"
    train.add_argument("--class-weights", choices=kinds, default="auto", help=why)
    train.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="by default where it is faster")
    train.add_argument("--activation-checkpointing", action="store_true")
    train.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=42)
    train.add_argument("--use-cpu", action="store_true")
    args = p.parse_args(arguments)
    if args.checkpoint is None:
        args.checkpoint, args.checkpoint_revision = CHECKPOINT, args.checkpoint_revision or REVISION
    args.output_dir = Path(os.path.abspath(args.output_dir.expanduser()))
    check_report_to(args.report_to)
    return Options(**vars(args))


# --- Before the run ------------------------------------------------------------------------------


def prepare_data(options: Options, loaded: LoadedTokenizer, work: Path) -> None:
    """Reads and tokenises the data into a folder below `work`, and says what was found."""
    pairs = options.task == "pairs"
    columns = options.text_column, options.label_column
    source = Source(
        options.data,
        *(*columns, options.dataset_config, options.dataset_revision, options.encoding),
        task="classification" if pairs else options.task,
        pair_column=options.pair_column,
        pairs=pairs,
        pdf_pages=options.pdf_rows == "page",
    )
    folder = begin_data(work)
    facts = prepare(
        source,
        loaded,
        folder,
        seed=options.seed,
        max_length=options.max_length,
        max_train_samples=options.max_train_samples,
    )
    seal(folder)
    for topic, text in describe(facts, options.data, options.max_length):
        say(topic, text)


def decide(options: Options, facts: Facts, device: str) -> Settings:
    """Everything that the result depends on: what was told, and the defaults that depend on data, model and device."""
    batch_size = options.per_device_train_batch_size * options.gradient_accumulation_steps * WORLD
    epochs = options.num_train_epochs or choose_epochs(facts.windows["train"], len(facts.labels), batch_size)
    steps_per_epoch = math.ceil(facts.windows["train"] / batch_size)
    steps = options.max_steps or math.ceil(steps_per_epoch * epochs)
    on_gpu = mixed_precision(device == "cuda", device)
    decided = dict(
        task=facts.task,
        text_column=facts.text_column,
        pair_column=facts.pair_column,
        label_column=facts.label_column,
        rows_digest=facts.digest,
        max_length=facts.max_length,
        num_train_epochs=epochs,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        learning_rate=options.learning_rate or learning_rate(facts.width, options.lora),
        processes=WORLD,
        batch_size=batch_size,
        eval_steps=min(steps, options.eval_steps or evaluation_steps(steps_per_epoch)),
        device=device,
        bf16=(None if device == "cpu" else on_gpu == "bf16") if options.bf16 is None else options.bf16,
        fp16=options.bf16 is None and on_gpu == "fp16",
    )
    told = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name not in decided}
    return Settings(**told, **decided)


# --- The run -------------------------------------------------------------------------------------


def run(options: Options) -> None:
    """Makes the output; the main process alone writes, and speaks."""
    for kind in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{kind}") == "true":
            raise InputError(f"{kind} is not for this program: launch it with plain data parallelism (DDP)")
    if not (is_local(options.checkpoint) and is_local(options.data)):
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there
    if not MAIN:
        train(options)
        return
    try:
        refuse_place(options.output_dir, MODEL, options.overwrite)
        work = unfinished(options.output_dir)
        if options.resume and not checkpoints(work):
            raise InputError(f"--resume: {work} holds no checkpoint to go on from: leave --resume away to begin")
    except InputError as error:
        raise InputError(f"--output-dir: {error}") from error
    loaded = load_tokenizer(options.checkpoint, options.checkpoint_revision, options.max_length)
    with working_folder(work, note):
        prepare_data(options, loaded, work)
        train(options)


def train(options: Options) -> None:
    """Trains on the data that was prepared, measures, and writes the output."""
    import transformers
    from accelerate import PartialState

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would tell of kernels that are not needed here
    use_one_gpu()
    use_cpu = device_kind(options.use_cpu) == "cpu"
    processes = PartialState(cpu=use_cpu, timeout=timedelta(hours=6))  # where the others wait for the data
    if MAIN:
        place_tracking(options.report_to, options.output_dir)
    work = unfinished(options.output_dir)
    facts = Facts.load(work / "data")
    settings = decide(options, facts, processes.device.type)
    checkpoint = on_main(processes, find_start, work, asdict(settings), options.overwrite, note)
    if checkpoint and settings.bf16 is None:
        settings = replace(settings, bf16=read_record(checkpoint)["bf16"])

    keep_freed_memory()  # before steps are timed, so that they are those of the run
    transformers.set_seed(options.seed)  # the new head is drawn here
    task = facts.make_task()
    trainer, predicted, why = build(options, facts, task, settings, work)
    settings = trainer.settings
    if checkpoint:
        say("resuming", f"{checkpoint}{': its training was over' if has_ended(checkpoint) else ''}")

    begin = time.perf_counter()
    trainer.run(checkpoint)
    guesses = Guesses(trainer.guess(trainer.eval_dataset) if task.chooses else None, trainer.guess(trainer.test_rows))
    steps = trainer.state.global_step
    measured = Measured(
        steps=steps,
        epochs=steps / settings.steps_per_epoch,
        seconds=time.perf_counter() - begin,
        resumed=checkpoint is not None,
        peak_memory_bytes=peak_memory(settings.device == "cuda"),
    )
    if MAIN:
        history = trainer.state.log_history
        results = summarise(task, facts, settings, guesses, history, why, predicted, measured)
        finish_tracking(options.report_to)
        write_output(options, task, trainer, results)
        for topic, text in result_lines(task, results):
            say(topic, text)
        say(
            "done", f"{options.output_dir}: {', '.join(sorted(path.name for path in options.output_dir.glob('[!.]*')))}"
        )
    processes.wait_for_everyone()


def build(
    options: Options, facts: Facts, task: Task, settings: Settings, work: Path
) -> tuple[TextTrainer, Forecast, str]:
    """Model and data, ready to train; says what the run will take. Returns the trainer, that, and why these weights."""
    from accelerate import PartialState
    from datasets import Dataset

    from takehome.trainer import TextTrainer

    told = options.checkpoint, options.checkpoint_revision
    tokenizer = load_tokenizer(*told, options.max_length, words=task.name == "tokens").tokenizer
    tokenizer.model_max_length = facts.max_length  # so that whoever loads it reads as much as training did
    try:
        loaded = build_model(*told, task, tokenizer.pad_token_id)
    except Exception as cause:  # each part of the libraries raises its own
        raise bad_checkpoint(options.checkpoint, cause) from cause
    splits = {name: Dataset.from_file(str(work / "data" / f"{name}.arrow")) for name in facts.windows}
    begin_head(loaded, task.begin(splits["train"]))
    lora = (options.lora_rank, options.lora_alpha, task.adapters)
    model = add_adapters(loaded.model, *lora) if options.lora else loaded.model
    for name in ("validation", "test"):
        splits[name] = splits[name].select(np.argsort(column(splits[name], "length"), kind="stable"))
    weights, why = None, ""
    if task.name == "classification":
        weights, why = class_weights(options.class_weights, facts.counts["train"])
    elif options.class_weights not in ("auto", "none"):
        raise InputError(f"--class-weights {options.class_weights}: there are no classes in {task.name}; leave it away")
    loss = task.loss(weights)
    batches = forecast.sample_batches(splits["train"], task.collator(tokenizer), settings)
    if settings.bf16 is None:
        settings = replace(settings, bf16=on_main(PartialState(), forecast.faster_in_bf16, model, batches, loss))
    trainer = TextTrainer(model, tokenizer, splits, task, weights, settings, work, options.report_to)
    evaluated = forecast.evaluated_rows(settings, facts.windows["validation"], facts.windows["test"])
    predicted = forecast.predict(trainer.model, batches, loss, evaluated, settings)
    for topic, text in plan_lines(
        options.checkpoint, facts, trainer, predicted, why, options.learning_rate is not None
    ):
        say(topic, text)
    if loaded.new:
        say("new", f"{', '.join(loaded.new)}: not in the checkpoint, drawn at random")
    return trainer, predicted, why


def write_output(options: Options, task: Task, trainer: TextTrainer, results: Results) -> None:
    """Makes the whole output beside its place: it is there complete, or not at all."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.merge_and_unload() if options.lora else model
    task.finish(model)
    with whole(options.output_dir, MODEL) as folder:
        model.save_pretrained(folder)
        save_tokenizer(trainer.processing_class, folder)
        write_results(folder, task, results, hub=not is_local(options.checkpoint))
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors are written for the owner alone


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; what the user has to change is told in one line."""
    options: list[Options] = []

    def program() -> None:
        options.append(parse_arguments(arguments))
        run(options[0])

    return run_program(NAME, program, lambda: options[0].output_dir if options else None, lambda: what_is_kept(options))


def what_is_kept(options: list[Options]) -> str:
    """From where the same command goes on after a stop."""
    left = checkpoints(unfinished(options[0].output_dir)) if options else []
    return f"the same command goes on after step {step_of(left[-1])}" if left else "nothing is kept"


if __name__ == "__main__":
    sys.exit(main())
