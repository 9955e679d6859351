"""`measure`: the peak memory of a real run."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

from helpers.memory.report import NOT_SEEN, size_text


@dataclass(frozen=True)
class Measurement:
    """The peak that a real run reached.

    Attributes:
        peak_bytes: the most bytes that tensors held at once.
        seconds: how long the run took, on the CPU with the tracker's own cost.
        device: "cpu" or "cuda".
        result: what the callable returned.
    """

    peak_bytes: int
    seconds: float
    device: str
    result: object = None

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        text = f"peak {size_text(self.peak_bytes)}, measured on {self.device} in {self.seconds:.1f} s"
        return f"{text}\n{NOT_SEEN}" if self.device == "cuda" else text


def measure(step) -> Measurement:
    """Calls `step()` and reports the most memory that tensors held at once while it ran.

    `step` is anything without arguments: one training step, or a whole `trainer.train`. With the model on CUDA it is
    `torch.cuda.max_memory_allocated`, which counts every tensor on the device. On the CPU every tensor operation is
    watched, and each tensor that takes part counts: one that existed before (the model, the optimizer's state) from the
    start, a new one from its creation until it is freed. A tensor that the run never touches does not count, nor does
    work in other processes or threads, such as a DataLoader's workers.
    """
    import torch

    from helpers.memory.tracker import Tracker

    start = time.perf_counter()
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.memory_allocated():  # a GPU alone does not say that it is used
        torch.cuda.reset_peak_memory_stats()
        result = step()
        return Measurement(torch.cuda.max_memory_allocated(), time.perf_counter() - start, "cuda", result)
    existing = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    tracker = Tracker(existing)
    del existing
    with tracker:
        result = step()
    return Measurement(tracker.peak, time.perf_counter() - start, "cpu", result)
