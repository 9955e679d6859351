"""What an optimizer keeps between steps, and what it holds for a moment within one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Shape = tuple[int, ...]

EIGHT_BIT_FROM = 4096  # elements; bitsandbytes leaves smaller tensors in fp32
EIGHT_BIT_BLOCK = 256  # elements that share a scale


@dataclass(frozen=True)
class Trained:
    """What an optimizer works on.

    Attributes:
        shapes: the parameters in the order in which they are updated.
        table: shape of the token table and the head, which Muon leaves to AdamW.
        width: bytes of a number of a gradient.
        on_gpu: whether the GPU's kernels do the work.
    """

    shapes: list[Shape]
    table: Shape
    width: int
    on_gpu: bool

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    def largest_pair(self, of_this: float, of_the_one_before: float) -> float:
        """Most temporaries of a loop that still holds the previous parameter's while it works on the next."""
        sizes = self.sizes
        pairs = zip(sizes, [0, *sizes], strict=False)
        return max(of_this * size + of_the_one_before * before for size, before in pairs)


def optimizer_memory(optim: str, trained: Trained) -> tuple[float, float]:
    """Bytes of the optimizer's state, and the most bytes of temporaries within `step()`."""
    if optim == "adamw_torch":  # torch's own choice
        optim = "adamw_torch_foreach" if trained.on_gpu else "adamw_torch_forloop"
    return _OPTIMIZERS[optim](trained)


def _sgd(trained: Trained) -> tuple[float, float]:
    return 0, 0


def _adamw_fused(trained: Trained) -> tuple[float, float]:
    return 2 * trained.width * sum(trained.sizes), 0


def _adamw_foreach(trained: Trained) -> tuple[float, float]:
    return 2 * trained.width * sum(trained.sizes), trained.width * sum(trained.sizes)


def _adamw_for_loop(trained: Trained) -> tuple[float, float]:
    width = trained.width
    return 2 * width * sum(trained.sizes), trained.largest_pair(2 * width, width)


def _adamw_8bit(trained: Trained) -> tuple[float, float]:
    in_eight_bits = sum(size for size in trained.sizes if size >= EIGHT_BIT_FROM)
    in_fp32 = sum(trained.sizes) - in_eight_bits
    state = in_eight_bits * 2 * (1 + 4 / EIGHT_BIT_BLOCK) + 8 * in_fp32  # two bytes an element, two fp32 scales a block
    # On the CPU bitsandbytes computes in fp32: two states, the gradient, a root, a quotient; of half precision a copy
    temporaries = 20 if trained.width == 4 else 24
    return state, 0 if trained.on_gpu else temporaries * max(trained.sizes)


def _muon(trained: Trained) -> tuple[float, float]:
    """One momentum for matrices, AdamW for the rest. Its iteration runs in bf16."""
    shapes = [shape for shape in trained.shapes if len(shape) == 2 and shape != trained.table]
    matrices = [(rows * columns, min(rows, columns) ** 2) for rows, columns in shapes]
    state = trained.width * (2 * sum(trained.sizes) - sum(size for size, _ in matrices))
    copies = 8 if trained.width == 4 else 4
    return state, max((copies * size + 4 * square for size, square in matrices), default=0)


def _adafactor(trained: Trained) -> tuple[float, float]:
    """A sum for each row and column of a matrix, one for each element of a vector; fp32 copies of the rest."""
    copies = 8 if trained.width == 4 else 16
    return 4 * sum(sum(shape) for shape in trained.shapes), trained.largest_pair(copies, 4)


_OPTIMIZERS: dict[str, Callable[[Trained], tuple[float, float]]] = {
    "sgd": _sgd,
    "adamw_torch_fused": _adamw_fused,
    "adamw_torch_foreach": _adamw_foreach,
    "adamw_torch_forloop": _adamw_for_loop,
    "adamw_8bit": _adamw_8bit,
    "muon": _muon,
    "adafactor": _adafactor,
}
