"""Teaches a language model to follow instructions, from a file of conversations.

    python scripts/instruct.py --data talks.jsonl --output-dir outputs/assistant
    python scripts/instruct.py --data talks.jsonl --output-dir outputs/assistant --checkpoint data/models/llama

Each line of the file is a JSON object: {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content":
"…"}]}. Turned into messages, with a word about it: `conversations` with `from` and `value` (ShareGPT), `prompt` with
`completion`, `instruction` with `input` and `output` (Alpaca), and one JSON list of such objects. The loss is on the
answers and on the end of each. A tenth of the conversations is held out, and the program says the loss on their answers
before and after. A checkpoint without a chat template gets one.

Stopped for whatever reason? Run the same command again: it goes on from the last whole checkpoint in OUTPUT.unfinished.

The output holds the model, its tokenizer with the chat template, and metrics.json. It is used so:

    chat = transformers.pipeline("text-generation", "outputs/assistant")
    chat([{"role": "user", "content": "…"}])
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.allocator import keep_freed_memory
from helpers.hub import check_hub
from helpers.machine import device_kind, mixed_precision, use_one_gpu
from takehome.checkpoints import checkpoints, step_of
from takehome.commandline import Parser, number, run_program
from takehome.conversations import IGNORED, Conversations, add_template, encode, end_of_turn, read_conversations
from takehome.errors import InputError
from takehome.models import is_local, load_model
from takehome.settings import evaluation_steps
from takehome.tokenizer import bad_checkpoint, load_tokenizer
from takehome.unfinished import MODEL, find_start, has_ended, refuse_place, unfinished, whole, working_folder

if TYPE_CHECKING:
    from takehome.trainer import WholeTrainer

NAME = Path(__file__).name
CHECKPOINT = "HuggingFaceTB/SmolLM2-135M"
REVISION = "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"


@dataclass(frozen=True)
class Options:
    """The command line."""

    data: Path
    output_dir: Path
    checkpoint: str
    checkpoint_revision: str | None
    max_length: int | None
    num_train_epochs: float
    learning_rate: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    held_out: float
    seed: int
    use_cpu: bool
    overwrite: bool


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """The command line.

    Raises:
        InputError: an option is unknown, missing or out of range.
    """
    parser = Parser(prog=NAME, description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="JSON lines with conversations")
    add("--output-dir", type=Path, required=True, help="directory that the finished model appears in")
    add("--checkpoint", default=CHECKPOINT, help="directory or Hub id of a causal language model (%(default)s)")
    add("--checkpoint-revision", help="commit of a Hub id")
    add("--max-length", type=number(int, 8), help="tokens of a conversation (as many as the model takes, at most 1024)")
    add("--num-train-epochs", type=number(float, 0, 1000, above=True), default=2.0)
    add("--learning-rate", type=number(float, 0, 1, above=True), default=5e-5)
    add("--per-device-train-batch-size", type=number(int, 1, 4096), default=8)
    add("--gradient-accumulation-steps", type=number(int, 1, 4096), default=1)
    add("--held-out", type=number(float, 0, 0.9, above=True), default=0.1, help="share of the conversations")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42)
    add("--use-cpu", action="store_true")
    add("--overwrite", action="store_true", help="replace a finished model, or another run")
    options = vars(parser.parse_args(arguments))
    if options["checkpoint"] == CHECKPOINT and not options["checkpoint_revision"]:
        options["checkpoint_revision"] = REVISION
    options["output_dir"] = Path(os.path.abspath(options["output_dir"].expanduser()))
    return Options(**options)


# --- The conversations ---------------------------------------------------------------------------


def describe(talks: Conversations, encoded: list[dict], kept: list[dict], length: int) -> None:
    """Says what was found, what it was turned into, and what of it is not learned."""
    if columns := [f"{name} ({number:,})" for name, number in talks.columns.items() if name != "messages"]:
        print(f"columns: {'; '.join(columns)} turned into messages")
    out = talks.left_out | {"no answer within the length": len(encoded) - len(kept)}
    out = ", ".join(f"{number:,} with {why}" for why, number in out.items() if number)
    print(f"data: {len(talks.rows):,} conversations" + (f"; left out: {out}" if out else ""))
    if cut := [row for row in kept if row["length"] > length]:
        lost = 1 - sum(row["learned"] for row in kept) / sum(row["answers"] for row in kept)
        print(f"cut: {len(cut):,} are longer than {length} tokens; with their ends go {lost:.1%} of all answer tokens")


def prepare(options: Options, loaded: Any) -> tuple[list[dict], list[dict]]:
    """The conversations to train on, and those held out, as token ids and labels, and what was cut of them.

    Raises:
        InputError: the file cannot be used, or too little of it fits.
    """
    talks = read_conversations(options.data)
    length = min(options.max_length or 1024, loaded.limit)
    encoded = []
    for where, messages in zip(talks.places, talks.rows, strict=True):
        try:
            row = encode(loaded.tokenizer, messages, sys.maxsize)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        answers = sum(label != IGNORED for label in row["labels"])
        short = {name: values[:length] for name, values in row.items()}
        learned = sum(label != IGNORED for label in short["labels"])
        encoded.append(short | {"length": len(row["labels"]), "answers": answers, "learned": learned})
    kept = [row for row in encoded if any(label != IGNORED for label in row["labels"][1:])]
    describe(talks, encoded, kept, length)
    if len(kept) < 2:
        raise InputError(f"{options.data}: no answer begins within {length} tokens: raise --max-length")
    random.Random(options.seed).shuffle(kept)
    held = min(max(1, round(options.held_out * len(kept))), len(kept) - 1)
    inputs = [{name: row[name] for name in ("input_ids", "labels")} for row in kept]
    return inputs[held:], inputs[:held]


# --- The run -------------------------------------------------------------------------------------


def record_of(options: Options, precision: str, train: list[dict]) -> dict[str, Any]:
    """Everything that the run depends on, so that it goes on only as what it was."""
    kept = {name: value for name, value in asdict(options).items() if name not in ("data", "output_dir", "overwrite")}
    digest = hashlib.sha256(json.dumps(train).encode()).hexdigest()
    return kept | {"precision": precision, "rows_digest": digest}


def make_trainer(options: Options, loaded: Any, train: list[dict], held_out: list[dict], work: Path) -> WholeTrainer:
    """A Trainer with the model, in fp32 weights."""
    import numpy as np
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, TrainingArguments, set_seed

    from takehome.trainer import LengthSampler, WholeTrainer

    set_seed(options.seed)
    try:
        model = load_model(AutoModelForCausalLM, options.checkpoint, False, options.checkpoint_revision).model
    except InputError:
        raise
    except Exception as cause:
        raise bad_checkpoint(options.checkpoint, cause) from cause
    device = device_kind(options.use_cpu)
    precision = mixed_precision(device != "cpu", device)
    size = options.per_device_train_batch_size * options.gradient_accumulation_steps
    arguments = TrainingArguments(
        str(work),
        num_train_epochs=options.num_train_epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.per_device_train_batch_size,
        per_device_eval_batch_size=options.per_device_train_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        warmup_steps=0.05,
        weight_decay=0.01,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        prediction_loss_only=True,
        save_steps=evaluation_steps(math.ceil(len(train) / size)),
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        restore_callback_states_from_checkpoint=True,
        seed=options.seed,
    )
    lengths = np.array([len(row["input_ids"]) for row in train])
    return WholeTrainer(
        model,
        arguments,
        DataCollatorForSeq2Seq(loaded.tokenizer),
        train,
        held_out,
        work=work,
        record=record_of(options, precision, train),
        sampler=LengthSampler(lengths, size, options.seed),
        shown={},
    )


def answer_loss(trainer: WholeTrainer, rows: list[dict]) -> float:
    """Nats a token over all answers, which the mean over batches is not."""
    import torch

    model, total, count = trainer.model.eval(), 0.0, 0
    for batch in trainer.get_eval_dataloader(rows):
        batch = {name: values.to(model.device) for name, values in batch.items()}
        with torch.inference_mode(), trainer.compute_loss_context_manager():
            loss = model(**batch).loss.float().item()
        tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
        total, count = total + loss * tokens, count + tokens
    return total / count


def save(trainer: WholeTrainer, tokenizer: Any, end: int, options: Options, metrics: dict) -> None:
    """Writes the model so that a pipeline stops at the end of a turn; all of it appears, or nothing."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    told = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    text = json.dumps({"metrics": metrics, "options": told}, indent=1, sort_keys=True) + "\n"
    with whole(options.output_dir, MODEL) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "metrics.json").write_text(text, encoding="utf-8")


def instruct(options: Options) -> None:
    """From the file to a model that answers."""
    keep_freed_memory()
    use_one_gpu()
    if not is_local(options.checkpoint):
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there
    try:
        refuse_place(options.output_dir, MODEL, options.overwrite)
    except InputError as error:
        raise InputError(f"--output-dir: {error}") from error
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    loaded = load_tokenizer(options.checkpoint, options.checkpoint_revision)
    made = add_template(loaded.tokenizer)
    end = end_of_turn(loaded.tokenizer)
    shown = loaded.tokenizer.decode([end])
    print(f"template: {'a plain one of ours' if made else 'that of the checkpoint'}; a turn ends with {shown}")
    train, held_out = prepare(options, loaded)
    with working_folder(unfinished(options.output_dir), print):
        trainer = make_trainer(options, loaded, train, held_out, unfinished(options.output_dir))
        save(trainer, loaded.tokenizer, end, options, learn(options, trainer, held_out))
    print(f"written to {options.output_dir}")


def learn(options: Options, trainer: WholeTrainer, held_out: list[dict]) -> dict[str, float]:
    """Trains, from the last checkpoint on if there is one, and says the loss on answers held out."""
    rows, batch = len(trainer.train_dataset), trainer.sampler.step_rows
    steps = math.ceil(math.ceil(rows / batch) * options.num_train_epochs)
    start = find_start(trainer.work, trainer.record, options.overwrite, print)
    if start:
        print(f"resuming: {start}{': its training was over' if has_ended(start) else ''}")
    print(f"training: {rows:,} conversations, {steps:,} steps; {len(held_out):,} held out", flush=True)
    before = answer_loss(trainer, held_out)
    trainer.run(start)
    after = answer_loss(trainer, held_out)
    if not math.isfinite(after):
        raise InputError("the loss is no number any more: lower --learning-rate")
    print(f"loss on the answers held out: {before:.3f} before, {after:.3f} after (nats a token)")
    if after >= before:
        print("It did not fall: more conversations, or another --learning-rate.")
    return {"loss_before": before, "loss_after": after, "steps": steps}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; what the user has to change is told in one line."""
    options: list[Options] = []

    def run():
        options.append(parse_arguments(arguments))
        instruct(options[0])

    return run_program(NAME, run, lambda: options[0].output_dir if options else None, lambda: what_is_kept(options))


def what_is_kept(options: list[Options]) -> str:
    """From where the same command goes on after a stop."""
    left = checkpoints(unfinished(options[0].output_dir)) if options else []
    return f"the same command goes on after step {step_of(left[-1])}" if left else "nothing is kept"


if __name__ == "__main__":
    sys.exit(main())
