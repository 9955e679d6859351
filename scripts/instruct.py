"""Teaches a language model to follow instructions, from a file of conversations.

    python scripts/instruct.py --data talks.jsonl --output-dir outputs/assistant
    python scripts/instruct.py --data talks.jsonl --output-dir outputs/assistant --checkpoint data/models/llama

Each line of the file is a JSON object: {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content":
"…"}]}. The loss is on the answers and on the end of each. A tenth of the conversations is held out, and the program
says the loss on their answers before and after. A checkpoint without a chat template gets one.

The output holds the model, its tokenizer with the chat template, and metrics.json. It is used so:

    chat = transformers.pipeline("text-generation", "outputs/assistant")
    chat([{"role": "user", "content": "…"}])
"""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.allocator import keep_freed_memory
from helpers.hub import check_hub
from helpers.machine import device_kind, mixed_precision, use_one_gpu
from takehome.commandline import Parser, number, run_program
from takehome.conversations import IGNORED, add_template, encode, end_of_turn, read_conversations
from takehome.errors import InputError
from takehome.models import is_local, load_model
from takehome.tokenizer import bad_checkpoint, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

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


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """The command line.

    Raises:
        InputError: an option is unknown, missing or out of range, or the output is not empty.
    """
    parser = Parser(prog=NAME, description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="JSON lines with messages")
    add("--output-dir", type=Path, required=True, help="a directory that is not there yet")
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
    options = vars(parser.parse_args(arguments))
    if options["checkpoint"] == CHECKPOINT and not options["checkpoint_revision"]:
        options["checkpoint_revision"] = REVISION
    if options["output_dir"].exists() and (not options["output_dir"].is_dir() or any(options["output_dir"].iterdir())):
        raise InputError(f"--output-dir {options['output_dir']}: is there already and not empty; name another")
    return Options(**options)


def prepare(options: Options, loaded: Any) -> tuple[list[dict], list[dict]]:
    """Token ids and labels of the conversations to train on, and of those held out."""
    rows = read_conversations(options.data)
    length = min(options.max_length or 1024, loaded.limit)
    encoded = [encode(loaded.tokenizer, messages, length) for messages in rows]
    kept = [row for row in encoded if any(label != IGNORED for label in row["labels"][1:])]
    if len(kept) < 2:
        raise InputError(f"{options.data}: no answer begins within {length} tokens: raise --max-length")
    cut = sum(len(row["input_ids"]) == length for row in kept)
    print(f"data: {len(rows):,} conversations, {cut:,} cut at {length} tokens, {len(rows) - len(kept):,} left out")
    random.Random(options.seed).shuffle(kept)
    held = min(max(1, round(options.held_out * len(kept))), len(kept) - 1)
    return kept[held:], kept[:held]


def make_trainer(options: Options, loaded: Any, train: list[dict], held_out: list[dict]) -> Trainer:
    """A Trainer with the model, in fp32 weights."""
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from helpers.progress import ProgressLine

    set_seed(options.seed)
    try:
        model = load_model(AutoModelForCausalLM, options.checkpoint, False, options.checkpoint_revision).model
    except InputError:
        raise
    except Exception as cause:
        raise bad_checkpoint(options.checkpoint, cause) from cause
    device = device_kind(options.use_cpu)
    precision = mixed_precision(device != "cpu", device)
    settings = TrainingArguments(
        options.output_dir,
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
        save_strategy="no",
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        seed=options.seed,
    )
    collate = DataCollatorForSeq2Seq(loaded.tokenizer)
    trainer = Trainer(model, settings, collate, train, held_out, callbacks=[ProgressLine()])
    trainer.remove_callback(PrinterCallback)
    return trainer


def answer_loss(trainer: Trainer, rows: list[dict]) -> float:
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


def save(model: PreTrainedModel, tokenizer: Any, end: int, options: Options, metrics: dict) -> None:
    """Writes the model so that a pipeline stops at the end of a turn."""
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    told = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    text = json.dumps({"metrics": metrics, "options": told}, indent=1, sort_keys=True) + "\n"
    (options.output_dir / "metrics.json").write_text(text, encoding="utf-8")


def instruct(options: Options) -> None:
    """From the file to a model that answers."""
    keep_freed_memory()
    use_one_gpu()
    if not is_local(options.checkpoint):
        check_hub()  # before the libraries are imported: they would wait long for a Hub that is not there
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    loaded = load_tokenizer(options.checkpoint, options.checkpoint_revision)
    made = add_template(loaded.tokenizer)
    end = end_of_turn(loaded.tokenizer)
    shown = loaded.tokenizer.decode([end])
    print(f"template: {'a plain one of ours' if made else 'that of the checkpoint'}; a turn ends with {shown}")
    train, held_out = prepare(options, loaded)
    trainer = make_trainer(options, loaded, train, held_out)
    batch = options.per_device_train_batch_size * options.gradient_accumulation_steps
    steps = math.ceil(math.ceil(len(train) / batch) * options.num_train_epochs)
    print(f"training: {len(train):,} conversations, {steps:,} steps; {len(held_out):,} held out", flush=True)
    before = answer_loss(trainer, held_out)
    trainer.train()
    after = answer_loss(trainer, held_out)
    if not math.isfinite(after):
        raise InputError("the loss is no number any more: lower --learning-rate")
    print(f"loss on the answers held out: {before:.3f} before, {after:.3f} after (nats a token)")
    if after >= before:
        print("It did not fall: more conversations, or another --learning-rate.")
    save(trainer.model, loaded.tokenizer, end, options, {"loss_before": before, "loss_after": after, "steps": steps})
    print(f"written to {options.output_dir}")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; what the user has to change is told in one line."""
    options: list[Options] = []

    def run():
        options.append(parse_arguments(arguments))
        instruct(options[0])

    return run_program(NAME, run, lambda: options[0].output_dir if options else None, lambda: "nothing was saved")


if __name__ == "__main__":
    sys.exit(main())
