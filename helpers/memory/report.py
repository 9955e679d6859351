"""What the predictions look like: sizes in words, the table of an estimate, and its picture. Needs no torch."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from helpers.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW

NOT_SEEN = "Not seen: kernel workspaces, allocator fragmentation and the CUDA context (often 0.5 to 2 GB together)."

COLOURS = {
    "weights": BLUE,
    "optimizer state": ORANGE,
    "batch": GREY,
    "weights in half precision": SKY,
    "gradients": GREEN,
    "activations": VERMILLION,
    "temporaries": PURPLE,
    "gathered, buckets": YELLOW,
    "reference model": BLACK,
}


def unit_of(size: float) -> tuple[float, str]:
    """The bytes and the name of the unit that suits `size` bytes."""
    return next((pair for pair in ((1e9, "GB"), (1e6, "MB")) if size >= pair[0]), (1e3, "kB"))


def size_text(size: float) -> str:
    """`size` bytes in a unit that suits them; a dash for none."""
    scale, unit = unit_of(size)
    return f"{size / scale:,.2f} {unit}" if size else "-"


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training step takes on one device. All sizes in bytes.

    Attributes:
        title: what was estimated, in a line.
        parameters, trainable_parameters: of the whole model, on all devices together.
        weights, gradients, optimizer_state, activations, batch: full size of each part on this device. They do not
            all exist at once: do not add them up.
        instants: for each instant of the step, its parts in bytes.
        notes: what the figures assume and do not see.
        source: "closed form" or "trace".
    """

    title: str
    parameters: int
    trainable_parameters: int
    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    batch: int
    instants: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    source: str = "closed form"

    @property
    def peak_instant(self) -> str:
        """The instant of the step with the largest total."""
        return max(self.instants, key=lambda name: sum(self.instants[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """The parts that are alive at the peak; they add up to `peak_bytes`."""
        return self.instants[self.peak_instant]

    @property
    def peak_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def peak_gb(self) -> float:
        """Peak in GB of 1e9 bytes."""
        return self.peak_bytes / 1e9

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for parts in self.instants.values() for name, size in parts.items() if size))
        width = max(len(name) for name in [*names, "total"]) + 2
        columns = list(self.instants)
        lines = [self.title, "", " " * width + "".join(f"{column:>16}" for column in columns)]
        for name in names:
            cells = "".join(f"{size_text(self.instants[column].get(name, 0)):>16}" for column in columns)
            lines.append(f"{name:<{width}}{cells}")
        totals = {column: sum(self.instants[column].values()) for column in columns}
        lines.append(f"{'total':<{width}}" + "".join(f"{size_text(totals[column]):>16}" for column in columns))
        lines += ["", f"peak {size_text(self.peak_bytes)}, at: {self.peak_instant}", *self.notes]
        return "\n".join(lines)

    def plot(self, ax=None):
        """Draws one stacked bar for each instant of the step and returns the axes; the tallest bar is the peak."""
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(9, 0.6 * len(self.instants) + 1.4), layout="constrained")[1]
        instants = list(self.instants)[::-1]
        scale, unit = unit_of(self.peak_bytes)
        left = dict.fromkeys(instants, 0.0)
        for part, colour in COLOURS.items():
            sizes = [self.instants[name].get(part, 0) / scale for name in instants]
            if any(sizes):
                ax.barh(instants, sizes, left=list(left.values()), color=colour, label=part, edgecolor="white")
                left = {name: left[name] + size for name, size in zip(instants, sizes, strict=True)}
        ax.axvline(self.peak_bytes / scale, color="#333333", linestyle=":", linewidth=1)
        notes = [textwrap.fill(note, 64) for note in self.notes]
        label = f"memory in {unit}; dotted: the peak, {size_text(self.peak_bytes)}"
        ax.set_xlabel("\n".join([label, *notes]), fontsize=9)
        ax.set_title(self.title, fontsize=10)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax
