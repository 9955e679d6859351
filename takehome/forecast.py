"""What a run will take, found out before it begins: seconds from timed steps, bytes from helpers.memory."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from takehome.settings import Settings
from takehome.tasks import TASKS
from takehome.tasks.task import column

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import BatchEncoding

    Loss = Callable[..., torch.Tensor]  # of a task: (outputs, labels)


@dataclass(frozen=True)
class Forecast:
    """What was predicted of a run; None if the architecture's memory cannot be followed.

    Attributes:
        steps: of the optimizer.
        seconds: of the whole run.
        step_memory_bytes: tensors of the longest step.
        memory_bytes: the same on a GPU; without one what the process will hold at most, Python and the libraries too.
    """

    steps: int
    seconds: float
    step_memory_bytes: int | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Batches:
    """A first batch to warm up with, and three that stand for short, middling and long rows."""

    first: BatchEncoding
    timed: list[BatchEncoding]


def sample_batches(train: Dataset, collate: Callable[[list], BatchEncoding], settings: Settings) -> Batches:
    """Batches of the training rows (input_ids, labels, length), as `collate` makes them."""
    order, size = np.argsort(column(train, "length")), settings.per_device_train_batch_size
    roomy = settings.device == "cpu" and not settings.activation_checkpointing
    warm_up = 1 if roomy else 1 / 2  # the longest, where it must fit
    starts = [int(share * max(0, len(train) - size)) for share in (warm_up, 1 / 6, 1 / 2, 5 / 6)]
    inputs = train.remove_columns([name for name in ("length", "owner") if name in train.column_names])
    first, *timed = [collate([inputs[int(i)] for i in order[start : start + size]]) for start in starts]
    return Batches(first, timed)


def predict(model: torch.nn.Module, batches: Batches, loss: Loss, evaluated: int, settings: Settings) -> Forecast:
    """Times some steps, and works out the rest.

    Args:
        model: with its weights, on its device.
        batches: to time.
        loss: of a step.
        evaluated: rows that are read without training, in the whole run.
        settings: of the run.
    """
    step = predict_memory(model, settings)
    optimizer, update = time_update(model)  # its averages stay while steps are timed, as in the run
    seconds = time_step(model, batches, loss, settings.bf16, settings.fp16)
    memory = step if settings.device == "cuda" or step is None else predict_process(model)
    del optimizer
    if settings.activation_checkpointing:
        seconds *= 4 / 3  # the timed steps do without
    forward = evaluated / settings.processes / settings.per_device_train_batch_size / 3  # a third of a step
    seconds *= settings.steps * settings.gradient_accumulation_steps + forward
    seconds += settings.steps * update
    if settings.device == "cuda":  # the timed steps are no part of the run
        import torch

        torch.cuda.reset_peak_memory_stats()
    return Forecast(settings.steps, seconds, step, memory)


def time_step(model: torch.nn.Module, batches: Batches, loss: Loss, bf16: bool, fp16: bool = False) -> float:
    """Seconds of forward and backward pass, the mean of the timed batches; the model stays as it was."""
    import torch

    device, seconds = next(model.parameters()).device, []
    half = torch.float16 if fp16 else torch.bfloat16
    model.train()
    with torch.random.fork_rng():
        for batch in [batches.first, *batches.timed]:
            start = time.perf_counter()
            inputs = dict(batch.to(device))
            labels = inputs.pop("labels")
            with torch.autocast(device.type, dtype=half, enabled=bf16 or fp16):
                value = loss(model(**inputs), labels)
            value.backward()
            value.item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    model.zero_grad()
    return sum(seconds[1:]) / len(batches.timed)


def time_update(model: torch.nn.Module) -> tuple[torch.optim.Optimizer, float]:
    """An optimizer with its averages, and the seconds of its step. With a learning rate of zero the weights stay, to
    the last bit."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)  # as Trainer takes it
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its averages
    start = time.perf_counter()
    optimizer.step()
    trained[0].sum().item()  # waits for a GPU
    seconds = time.perf_counter() - start
    model.zero_grad()
    return optimizer, seconds


def faster_in_bf16(model: torch.nn.Module, batches: Batches, loss: Loss) -> bool:
    """Whether a CPU computes a step clearly faster in bf16; asked only of those that have instructions for it."""
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return time_step(model, batches, loss, bf16=True) < 0.8 * time_step(model, batches, loss, bf16=False)


def predict_memory(model: torch.nn.Module, settings: Settings) -> int | None:
    """Bytes that a step takes at its longest; None if the architecture cannot be followed."""
    from helpers.memory import estimate, trace

    step = dict(
        per_device_train_batch_size=settings.per_device_train_batch_size,
        sequence_length=settings.max_length,
        padded=True,
        task=TASKS[settings.task].memory,
        precision="bf16" if settings.bf16 else "fp16" if settings.fp16 else "fp32",
        device="cuda" if settings.device == "cuda" else "cpu",
        activation_checkpointing=settings.activation_checkpointing,
    )
    if not settings.lora:
        with contextlib.suppress(ValueError):  # no closed form for this architecture
            return estimate(model.config, num_gpus=settings.processes, **step).peak_bytes
    try:
        return trace(model, **step).peak_bytes
    except Exception:  # each architecture that cannot be traced fails in its own way
        return None


def predict_process(model: torch.nn.Module) -> int:
    """Bytes that the process will hold at most: what it held at most while it read the data and timed its steps, and
    the best of the trained weights, which are read again at the end."""
    import psutil

    held = peak_memory(cuda=False) or psutil.Process().memory_info().rss
    return held + sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


def evaluated_rows(settings: Settings, validation: int, test: int) -> int:
    """Rows that are read without training: validation each time, and test once."""
    return math.ceil(settings.steps / settings.eval_steps) * validation + test


def peak_memory(cuda: bool) -> int | None:
    """Bytes: what torch held at most on a GPU, what the process held at most without one; None where nobody tells."""
    if cuda:
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(ImportError):  # Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
