"""The log of a run, a line of JSON for each step, which a killed run leaves whole."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from takehome.checkpoints import sync, write_file
from takehome.errors import InputError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Log:
    """One line of JSON for each step. What a killed run wrote after its last checkpoint is taken back."""

    def __init__(self, accelerator: Accelerator, path: Path, step: int):
        self.accelerator, self.path, self.file = accelerator, path, None
        if accelerator.is_main_process:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
            write_file(path, "".join(f"{line}\n" for line in lines if 0 <= step_of(line) <= step))
            self.file = path.open("a", encoding="utf-8")

    def write(self, step: int, **values) -> None:
        if self.file:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            values.pop("position", None)
            self.accelerator.log(values, step=step)

    def sync(self) -> None:
        if self.file:
            sync(self.path)


def step_of(line: str) -> int:
    """The step of a line of the log; -1 if it is none."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1


class Losses:
    """Losses of the steps that are not in the log yet: on the device, which is waited for only now and then."""

    def __init__(self, log: Log, step_tokens: int):
        self.log, self.step_tokens = log, step_tokens
        self.waiting: list[tuple[int, torch.Tensor, float, dict]] = []
        self.restart()

    def restart(self) -> None:
        """Leaves out of the speed what was not training."""
        self.begin = time.perf_counter()

    def add(self, step: int, loss: torch.Tensor, learning_rate: float, position: dict) -> None:
        self.waiting.append((step, loss, learning_rate, position))

    def write(self) -> tuple[float, float]:
        """Writes them into the log; returns the last one, of all processes, and tokens per second.

        Raises:
            InputError: a loss is not finite.
        """
        import torch

        means = self.log.accelerator.reduce(torch.stack([loss for _, loss, _, _ in self.waiting]), "mean").tolist()
        speed = len(means) * self.step_tokens / (time.perf_counter() - self.begin)
        for (step, _, rate, position), loss in zip(self.waiting, means, strict=True):
            self.log.write(step, loss=loss, learning_rate=rate, tokens_per_second=round(speed), position=position)
        self.waiting.clear()
        if not math.isfinite(loss):
            raise InputError(f"loss {loss} at step {step}: lower --learning-rate, or lengthen the warm-up")
        return loss, speed
