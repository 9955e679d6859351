"""Everything that a fine-tuned classifier depends on: what was told, and what follows from data, model and device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# The wider a model, the smaller the steps that it bears: (hidden width up to, full fine-tuning, LoRA).
LEARNING_RATES = [(256, 1e-3, 3e-3), (512, 1e-4, 5e-4), (1023, 5e-5, 3e-4), (math.inf, 2e-5, 1e-4)]


@dataclass(frozen=True)
class Settings:
    """All that a run depends on; it is in each of its checkpoints and in metrics.json."""

    checkpoint: str
    checkpoint_revision: str | None
    task: str
    text_column: str
    pair_column: str | None
    label_column: str
    rows_digest: str  # of all texts and labels
    max_train_samples: int | None
    max_length: int  # tokens
    lora: bool
    lora_rank: int
    lora_alpha: float
    num_train_epochs: float
    max_steps: int | None  # as told
    steps: int  # optimizer steps of the run, unless it stops early
    steps_per_epoch: int
    learning_rate: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    processes: int
    batch_size: int  # rows of an optimizer step, of all processes together
    warmup_steps: float
    weight_decay: float
    eval_steps: int
    early_stopping_patience: int
    class_weights: str
    device: str
    bf16: bool | None  # None until it is known which is faster
    activation_checkpointing: bool
    seed: int
    fp16: bool = False  # on a GPU that has no bf16

    @property
    def precision(self) -> str:
        """Of the weights and of what is computed."""
        half = "bf16" if self.bf16 else "fp16" if self.fp16 else ""
        return f"fp32 weights, {half} autocast" if half else "fp32"


def learning_rate(width: int, lora: bool) -> float:
    """The rate that models of this hidden width bear."""
    full, adapters = next(rates for most, *rates in LEARNING_RATES if width <= most)
    return adapters if lora else full


def choose_epochs(rows: int, classes: int, batch_size: int) -> int:
    """3 epochs, or up to 10 while that makes fewer than 500 steps, or 60 a class: few rows need more than one look."""
    steps = math.ceil(rows / batch_size)
    return max(3, min(10, math.ceil(max(500, 60 * classes) / steps)))


def evaluation_steps(steps_per_epoch: int) -> int:
    """Steps from one evaluation to the next: an epoch, or equal parts of it of at most 500."""
    return math.ceil(steps_per_epoch / math.ceil(steps_per_epoch / 500))


def class_weights(kind: str, counts: list[int]) -> tuple[np.ndarray | None, str]:
    """The weight of each class in the loss [classes], or None; and why.

    "balanced" lets every class weigh the same, which can cost much accuracy where there are many. Its square root is
    between that and none: with MiniLM on 10,000 synopses of Debian packages in 77 classes of 13 to 2,896 rows, accuracy
    and macro-F1 after 5 epochs were 53 and 36 % (balanced, fp32), 62 and 34 % (sqrt, bf16), 61 and 26 % (none, bf16).

    Args:
        kind: balanced, sqrt, none, or auto: sqrt if a class has over 3 times the rows of another, else none.
        counts: training rows [classes].
    """
    counts = np.maximum(counts, 1)
    ratio = counts.max() / counts.min()
    if kind == "auto":
        kind = "sqrt" if ratio > 3 else "none"
    because = f"the largest class has {ratio:.1f} times the rows of the smallest"
    if kind == "none":
        return None, f"none: {because}"
    power = 0.5 if kind == "sqrt" else 1
    weights = np.minimum((counts.sum() / (len(counts) * counts)) ** power, 10)
    return weights, f"{kind}, {weights.min():.2f} to {weights.max():.2f}: {because}"
