"""What Trainer and Accelerate cost per step, against a plain loop on the same batches.

    python tools/loop_overhead.py            # the reduced profile's MRPC, 8 rounds of 40 steps each, about a minute
    python tools/loop_overhead.py --rounds 20 --profile my.toml

Every round trains 40 steps with each loop, in changing order, from the same model and on the same rows. The time of a
step is that between the ends of two steps; a round's ratio is that of the medians, and what is shown is the median
over rounds, with the lowest and highest beside it. Run it when the machine has nothing else to do.
"""

import argparse
import math
import statistics
import tempfile
import time
from itertools import islice

from helpers.profiles import load_profile

STEPS, FIRST = 40, 5  # the first steps warm up the caches and are not counted


def prepare(settings):
    """Rows, collator, and functions that make a model, an optimizer and a loader, all the same for each loop."""
    import datasets
    import torch
    import transformers
    from torch.utils.data import DataLoader, RandomSampler

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.checkpoint, revision=settings.checkpoint_revision)
    rows = datasets.load_dataset(settings.dataset, settings.config, revision=settings.revision, split="train")
    rows = rows.select(range(min(len(rows), STEPS * settings.per_device_train_batch_size)))
    columns = tokenizer(rows["sentence1"][:], rows["sentence2"][:], truncation=True, max_length=settings.max_length)
    rows = datasets.Dataset.from_dict({**columns, "labels": rows["label"][:]}).with_format("torch")
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def model():
        transformers.set_seed(settings.seed)
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            settings.checkpoint, revision=settings.checkpoint_revision, num_labels=2
        )

    def optimizer(model):
        matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        made = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        return made, transformers.get_scheduler("linear", made, math.ceil(0.1 * STEPS), STEPS)

    def loader():
        order = torch.Generator().manual_seed(settings.seed)
        sampler = RandomSampler(rows, generator=order)
        return DataLoader(rows, settings.per_device_train_batch_size, sampler=sampler, collate_fn=collate)

    return rows, collate, model, optimizer, loader


def plain(settings, rows, collate, model, optimizer, loader) -> list[float]:
    """The ends of all steps of lesson 05's loop, in seconds, and the losses."""
    import torch

    model, ends, losses = model().train(), [], []
    optimizer, scheduler = optimizer(model)
    for batch in islice(loader(), STEPS):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        ends.append(time.perf_counter())
    return ends, losses


def accelerated(settings, rows, collate, model, optimizer, loader) -> list[float]:
    """The same of lesson 06's loop."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, ends, losses = model().train(), [], []
    optimizer, scheduler = optimizer(model)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader())
    for batch in islice(loader, STEPS):
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        ends.append(time.perf_counter())
    return ends, losses


def by_trainer(settings, rows, collate, model, optimizer, loader) -> list[float]:
    """The same of Trainer, which logs as often as the two others: every step."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    ends = []

    class Clock(TrainerCallback):
        def on_log(self, *args, **kwargs):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            **{name: getattr(settings, name) for name in ("learning_rate", "weight_decay", "seed")},
            **{"warmup_steps": 0.1, "max_steps": STEPS, "logging_steps": 1, "save_strategy": "no"},
            **{"use_cpu": True, "disable_tqdm": True},
        )
        trainer = Trainer(model(), arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return ends[:STEPS], [row["loss"] for row in trainer.state.log_history if "loss" in row]


LOOPS = {"plain": plain, "Accelerate": accelerated, "Trainer": by_trainer}


def measure(settings, rounds: int) -> dict[str, list[float]]:
    """Each loop's median seconds a step, round by round."""
    things, medians = prepare(settings), {name: [] for name in LOOPS}
    names = list(LOOPS)
    for number in range(rounds):
        first, same = None, names[number % 3 :] + names[: number % 3]
        for name in same:
            ends, losses = LOOPS[name](settings, *things)
            first = first or losses
            if max(abs(a - b) for a, b in zip(first, losses, strict=True)) > 1e-6:
                raise SystemExit(f"{name} did not train the same steps, so a comparison would say nothing")
            times = [after - before for before, after in zip(ends[FIRST:], ends[FIRST + 1 :], strict=False)]
            medians[name].append(statistics.median(times))
    return medians


def main() -> None:
    """Prints a table: milliseconds a step, and how much slower than the plain loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    medians = measure(load_profile(options.profile).mrpc, options.rounds)
    print("| loop | ms a step | against plain | lowest and highest round |\n|---|---|---|---|")
    for name, times in medians.items():
        ratios = sorted(time / plain - 1 for time, plain in zip(times, medians["plain"], strict=True))
        middle = statistics.median(ratios)
        print(
            f"| {name} | {1000 * statistics.median(times):.1f} | {middle:+.1%} | {ratios[0]:+.1%} {ratios[-1]:+.1%} |"
        )


if __name__ == "__main__":
    main()
