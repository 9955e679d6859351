"""`measure`: the peak memory of a real run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
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


def measure(step: Callable[[], object]) -> Measurement:
    """Calls `step()` and reports the most memory that tensors held at once while it ran.

    `step` is anything without arguments: one training step, or a whole `trainer.train`. Each tensor that takes part
    counts: one that existed before (the model, the optimizer's state) from the start, a new one from its creation until
    it is freed. What stood in memory before and the run never touches does not count: models of earlier cells, say.

    With anything on CUDA it is the allocator's peak, `torch.cuda.max_memory_allocated`, reset before the run, less what
    stood on the GPU before and was not touched. On the CPU every tensor operation is watched; work in other processes
    or threads, such as a DataLoader's workers, is not seen.
    """
    import torch

    from helpers.memory.tracker import Touched, Tracker

    start = time.perf_counter()
    gc.collect()
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    existing = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    if before:  # a GPU alone does not say that it is used
        touched = Touched(tensor for tensor in existing if _on_this_gpu(tensor))
        del existing
        torch.cuda.reset_peak_memory_stats()
        with touched:
            result = step()
        peak = torch.cuda.max_memory_allocated() - max(0, before - touched.size)
        return Measurement(peak, time.perf_counter() - start, "cuda", result)
    tracker = Tracker(existing)
    del existing
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with tracker:
        result = step()
    if torch.cuda.is_initialized() and (peak := torch.cuda.max_memory_allocated()):  # the step itself moved to the GPU
        return Measurement(peak, time.perf_counter() - start, "cuda", result)
    return Measurement(tracker.peak, time.perf_counter() - start, "cpu", result)


def _on_this_gpu(tensor) -> bool:
    import torch

    return tensor.is_cuda and tensor.get_device() == torch.cuda.current_device()
