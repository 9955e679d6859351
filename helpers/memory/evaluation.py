"""`estimate_evaluation`: the memory of `Trainer.evaluate()`, which can be far above that of training.

Trainer keeps the logits of every row until the end, padded to the longest, and for each batch it makes a longer tensor
of those before and the new ones: for a moment it holds them twice. With `eval_accumulation_steps` they move to numpy
arrays in the CPU's memory, where the same happens. Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from helpers.memory.blocks import blocks
from helpers.memory.ends import ends
from helpers.memory.operations import FP32, HALF, Run
from helpers.memory.optimizers import Trained, optimizer_memory
from helpers.memory.reading import check_fit, read_config
from helpers.memory.report import NOT_SEEN, size_text
from helpers.memory.settings import (
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    TASKS,
    Settings,
    check_choice,
    check_count,
    check_switch,
    takes,
)

_LONG = 8  # bytes of a label or of an argmax


@dataclass(frozen=True)
class EvaluationEstimate:
    """What `Trainer.evaluate()` takes. All sizes in bytes.

    Attributes:
        title: what was estimated, in a line.
        kept_bytes: the logits and labels of all rows, once.
        device_bytes: the peak where the model is, tensors alone.
        host_bytes: the peak of numpy arrays in the CPU's memory beside that.
        instants: for each instant its parts; the tensors of the device.
        notes: what the figures assume and do not see.
    """

    title: str
    kept_bytes: int
    device_bytes: int
    host_bytes: int
    instants: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.title, ""]
        for name, parts in self.instants.items():
            named = ", ".join(f"{part} {size_text(size)}" for part, size in parts.items() if size)
            lines.append(f"{name:<14}{size_text(sum(parts.values())):>12}   {named}")
        lines += ["", f"peak {size_text(self.device_bytes)} in tensors, {size_text(self.host_bytes)} in numpy arrays"]
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How `Trainer` evaluates. Each field is a keyword of `estimate_evaluation`.

    Attributes:
        rows: of the data set that is evaluated.
        per_device_eval_batch_size: rows of a batch.
        sequence_length: tokens of the longest row: logits are padded to it.
        task: as in `estimate`.
        precision: as in `estimate`.
        attn_implementation: as in `estimate`.
        padded: whether batches have a padding mask.
        device: "cuda", "cpu" or "mps".
        prediction_loss_only: only the loss is kept, as where Trainer has no `compute_metrics`.
        preprocess_logits_for_metrics: None, or "argmax" for a function that keeps the best word or label alone.
        eval_accumulation_steps: batches after which the logits move to the CPU; None: at the end.
        batch_eval_metrics: metrics are computed batch by batch, and no logits are kept.
        optim: the optimizer whose state is there, where training is evaluated on its way; None: the model alone.
    """

    rows: int
    per_device_eval_batch_size: int
    sequence_length: int
    task: str | None = None
    precision: str = "fp32"
    attn_implementation: str = "sdpa"
    padded: bool = True
    device: str = "cuda"
    prediction_loss_only: bool = False
    preprocess_logits_for_metrics: str | None = None
    eval_accumulation_steps: int | None = None
    batch_eval_metrics: bool = False
    optim: str | None = None

    def __post_init__(self):
        for name in ("rows", "per_device_eval_batch_size", "sequence_length"):
            check_count(name, getattr(self, name))
        if self.eval_accumulation_steps is not None:
            check_count("eval_accumulation_steps", self.eval_accumulation_steps)
        for name in ("padded", "prediction_loss_only", "batch_eval_metrics"):
            check_switch(name, getattr(self, name))
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("device", self.device, DEVICES)
        for name, allowed in (("task", TASKS), ("optim", OPTIMIZERS), ("preprocess_logits_for_metrics", ("argmax",))):
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), allowed)

    @property
    def keeps_logits(self) -> bool:
        return not (self.prediction_loss_only or self.batch_eval_metrics)


@takes(EvaluationSettings)
def estimate_evaluation(config, **settings) -> EvaluationEstimate:
    """Predicts the peak memory of `Trainer.evaluate()`.

    Args:
        config: what `estimate` accepts, of a model type that has a closed form.
        settings: see `EvaluationSettings`.

    Raises:
        ValueError: a setting is nonsense, the model is unknown, or the two do not fit together.
    """
    settings = EvaluationSettings(**settings)
    a = read_config(config)
    task = settings.task or a.default_task
    forward = Settings(
        per_device_train_batch_size=min(settings.per_device_eval_batch_size, settings.rows),
        sequence_length=settings.sequence_length,
        precision=settings.precision,
        attn_implementation=settings.attn_implementation,
        padded=settings.padded,
        device=settings.device,
        optim=settings.optim or "sgd",
    )
    check_fit(a, forward, task)
    run = Run(a, forward, task)
    kept = _kept_rows(run, settings)
    fixed = _fixed(run, settings)
    instants = {
        "last forward": fixed
        | _forward(run)
        | {"kept logits": kept.before_last + kept.moved, "batch before": kept.previous},
        "last joining": fixed | {"kept logits": kept.before_last + kept.moved + kept.batch, "joined": kept.joined},
    }
    instants = {name: {part: math.ceil(size) for part, size in parts.items()} for name, parts in instants.items()}
    notes = ("Not counted: what compute_metrics makes of the logits.",) if settings.keeps_logits else ()
    return EvaluationEstimate(
        title=f"{a.name}, {task}, evaluation of {settings.rows:,} rows in batches of "
        f"{settings.per_device_eval_batch_size} x {settings.sequence_length}, {settings.precision}",
        kept_bytes=kept.all,
        device_bytes=max(sum(parts.values()) for parts in instants.values()),
        host_bytes=kept.host,
        instants=instants,
        notes=(*notes, NOT_SEEN) if run.on_gpu else notes,
    )


@dataclass(frozen=True)
class _Kept:
    """Bytes of logits and labels.

    Attributes:
        all: of all rows, once.
        batch: of one batch.
        previous: of the batch before, which Trainer still holds beside the joined ones during the next forward pass.
        moved: of the first that became arrays, which on the CPU are the same memory.
        before_last, joined: on the device, before the last batch is joined to them, and the result.
        host: the peak of numpy arrays.
    """

    all: int
    batch: int
    previous: int
    moved: int
    before_last: int
    joined: int
    host: int


def _labels_of_a_row(run: Run) -> int:
    return {"sequence-classification": 1, "question-answering": 2}.get(run.task, run.length)  # 2: start and end


def _bytes_of_a_row(run: Run, settings: EvaluationSettings) -> tuple[int, int, int]:
    """Bytes of a row's logits on the device and in numpy, and of its labels."""
    length, a = run.length, run.a
    per_token = run.task != "sequence-classification"
    vectors = length if per_token else 1
    labels = _LONG * _labels_of_a_row(run)
    if settings.preprocess_logits_for_metrics == "argmax":
        best = _labels_of_a_row(run)  # as many as there are labels: one a text, a token or an end of an answer
        return _LONG * best, _LONG * best, labels
    numbers = vectors * (a.vocab_size if run.generates else a.num_labels)
    if a.family.role == "encoder-decoder":
        numbers += length * a.hidden_size  # Trainer takes the encoder's output for a prediction, too
    # Trainer's autocast gives its outputs in fp32, and numpy has no bf16
    return numbers * (HALF if settings.precision == "pure-bf16" else FP32), numbers * FP32, labels


def _kept_rows(run: Run, settings: EvaluationSettings) -> _Kept:
    logits, in_numpy, labels = _bytes_of_a_row(run, settings)
    rows, batch = settings.rows, min(settings.per_device_eval_batch_size, settings.rows)
    if not settings.keeps_logits:
        return _Kept(0, 0 if settings.prediction_loss_only else batch * (logits + labels), 0, 0, 0, 0, 0)
    chunk = min((settings.eval_accumulation_steps or math.ceil(rows / batch)) * batch, rows)
    last = rows % batch or batch
    before = chunk - (last if chunk == rows else batch)
    moves = chunk < rows
    # What a joining holds: the tensors before, the new one, and the result; the first batch needs none
    joined = chunk * logits if before else 0
    if moves:  # the last joining of arrays
        last_chunk = rows % chunk or chunk
        old, new = (
            rows - last_chunk,
            last_chunk if run.settings.device != "cpu" else 0,
        )  # the CPU's arrays are its tensors
        host = max((old + new + rows) * in_numpy + old * labels, rows * in_numpy + (old + new + rows) * labels)
    else:
        host = rows * (in_numpy + labels) if run.settings.device != "cpu" else 0
    return _Kept(
        all=rows * (logits + labels),
        batch=(chunk - before) * (logits + labels),
        previous=batch * (logits + labels) if before > batch else 0,  # one alone is the kept one
        moved=chunk * (logits + labels) if moves and run.settings.device == "cpu" else 0,
        before_last=before * (logits + labels),
        joined=joined,
        host=host,
    )


def _fixed(run: Run, settings: EvaluationSettings) -> dict[str, float]:
    """Weights, the optimizer's state and the batch."""
    a, width = run.a, run.weight_bytes
    state = 0.0
    if settings.optim:
        trained = Trained(a.all_shapes(run.task), (a.vocab_size, a.embedding_size), width, run.on_gpu)
        state, _ = optimizer_memory(settings.optim, trained)
    labels = _labels_of_a_row(run) * run.settings.per_device_train_batch_size
    batch = _LONG * (run.tokens * (1 + run.padded) + labels)
    return {"weights": a.parameters(run.task) * width, "optimizer state": state, "batch": batch}


def _forward(run: Run) -> dict[str, float]:
    """The most that a forward pass without gradients holds: within a block, or in the head."""
    of_blocks, of_ends = blocks(run), ends(run)
    casts = (of_blocks.casts + of_ends.casts) * run.autocast  # autocast keeps them until the forward pass ends
    return {"weights in half precision": casts, "temporaries": max(of_ends.logits_forward, _within_a_block(run))}


def _within_a_block(run: Run) -> float:
    """Bytes: the widest branch, and the copies of the residual stream that Python still holds."""
    a, e = run.a, run.activation_bytes
    wide = 3 if a.gated else 2  # tensors within the MLP
    if a.unfused_gelu and not a.gated:
        wide = 4  # x, 0.5 x, and two on the way to the tanh
    attention = e * 2 * (a.query_width + 2 * a.key_value_width)
    if run.attention == "eager":
        attention += 3 * FP32 * a.num_attention_heads * run.length
    copies = 3 if a.family.norms == "stream" else 4 + bool(a.learned_positions)
    return run.tokens * (copies * run.residual + max(wide * e * a.intermediate_size, attention) + run.mask)
