"""What fine_tune.py says of a run: before it begins what it will take, and at its end what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from takehome.card import Results
from takehome.errors import printable
from takehome.forecast import Forecast, duration
from takehome.tasks import Task
from takehome.texts import Facts

if TYPE_CHECKING:
    from takehome.trainer import TextTrainer

MUCH_UNKNOWN = 0.05  # so large a share of unknown tokens is said


def describe(facts: Facts, data: str, max_length: int | None) -> list[tuple[str, str]]:
    """What was found, in lines of (topic, text); `data` and `max_length` as the user gave them."""
    strange = (
        f"{facts.unknown_share:.0%} of the tokens are unknown to the checkpoint's tokenizer, or single bytes: take "
    )
    strange += "a checkpoint that was pretrained on texts of this kind, such as a multilingual one"
    total = np.sum(list(facts.counts.values()), axis=0).astype(int).tolist()
    texts = f"{facts.text_column!r} and {facts.pair_column!r}" if facts.pair_column else repr(facts.text_column)
    task, chosen = facts.make_task(), "95 % of the texts fit"
    if facts.max_length >= min(facts.limit, task.longest):
        chosen = "the model's limit" if facts.max_length >= facts.limit else "the usual window"
    chosen = "as told" if max_length else chosen
    windows = ", ".join(f"{name} {n:,}" for name, n in facts.windows.items())
    return [
        (
            "data",
            f"{printable(data)}: {sum(facts.rows.values()):,} rows; texts in {texts}, labels in {facts.label_column!r}",
        ),
        *(("", remark) for remark in facts.remarks),
        ("task", facts.task),
        task.describe(total),
        ("split", ", ".join(f"{name} {n:,}" for name, n in facts.rows.items()) + "; equal texts stay together"),
        (
            "length",
            f"median {facts.tokens_median:.0f} tokens, 95 % have at most {facts.tokens_95:.0f}; "
            f"--max-length {facts.max_length} ({chosen}) {task.tell_length(facts.cut_share)}",
        ),
        *([("windows", windows)] if facts.reading else []),
        *([("", strange)] if facts.unknown_share > MUCH_UNKNOWN else []),
    ]


def plan_lines(
    checkpoint: str, facts: Facts, trainer: TextTrainer, predicted: Forecast, weights: str, told_rate: bool
) -> list[tuple[str, str]]:
    """What the run will take, in lines of (topic, text).

    Args:
        checkpoint: as the user gave it.
        facts: of the data.
        trainer: ready to train.
        predicted: what it will take.
        weights: of the classes, and why; empty if there are no classes.
        told_rate: whether the user gave the learning rate.
    """
    settings, parameters = trainer.settings, list(trainer.model.parameters())
    total, trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    default = f"the default for a width of {facts.width}{' with LoRA' if settings.lora else ''}"
    epochs = settings.steps / settings.steps_per_epoch
    processes = f", {settings.processes} processes" if settings.processes > 1 else ""
    lines = [
        ("model", f"{checkpoint}: {total:,} parameters, {trained:,} trained, {settings.precision}"),
        ("rate", f"learning rate {settings.learning_rate:g}, {'as told' if told_rate else default}"),
        *([("weights", f"class weights {weights}")] if weights else []),
        (
            "training",
            f"{settings.steps:,} steps of {settings.batch_size} rows, {epochs:.3g} "
            f"{'epoch' if epochs == 1 else 'epochs'}{processes}; validation every {settings.eval_steps:,} steps",
        ),
    ]
    if (warm_up := settings.warmup_steps) >= settings.steps:
        told = f"--warmup-steps {warm_up:g} is as long as the run"
        lines.append(("", f"{told}: the rate rises to its end and never falls; take fewer"))
    said = "not predicted"
    if predicted.step_memory_bytes:
        said = f"{predicted.step_memory_bytes / 1e9:.2f} GB for the longest step, predicted"
        if settings.device != "cuda":
            said += f"; about {predicted.memory_bytes / 1e9:.2f} GB with Python and the libraries"
    return [*lines, ("memory", said), ("time", f"about {duration(predicted.seconds)}, from 3 timed steps")]


def result_lines(task: Task, results: Results) -> list[tuple[str, str]]:
    """What came out, in lines of (topic, text)."""
    measured, headline = results.measured, task.headline(results.test)
    memory, predicted = measured.peak_memory_bytes, results.predicted
    held = f"{memory / 1e9:.2f} GB held at most" if memory else "not measured"
    held += f"; predicted {predicted.memory_bytes / 1e9:.2f} GB" if predicted.memory_bytes else ""
    said = ", ".join(f"{called} {headline[name]:.4f}" for name, called in task.shown.items())
    took = duration(measured.seconds) + ("" if measured.resumed else f"; predicted {duration(predicted.seconds)}")
    lines = [("took", took), ("memory", held), ("test", f"{said} on {results.test.n:,} rows")]
    for name, own in results.baselines.items():
        lines.append(("", f"{name}: {', '.join(f'{own[key]:.4f}' for key in task.shown)}"))
    advice = advise(headline[task.best], {name: own[task.best] for name, own in results.baselines.items()})
    return [*lines, ("", advice)] if advice else lines


def advise(score: float, baselines: dict[str, float]) -> str:
    """What to try where the model is no better than a baseline; empty otherwise. The first one looks at no text."""
    lazy, *others = baselines.items()
    if score <= lazy[1] + 0.01:
        return "It learned nothing: try another --learning-rate, more --num-train-epochs, or look at the data."
    if better := [name for name, other in others if other > score]:
        return (
            f"{better[0]}: better than the model. Try more --num-train-epochs or a larger --checkpoint, or take that."
        )
    return ""
