"""The program scripts/fine_tune.py in processes of its own, for tests.

They are forked from a warm one: a real process, killed with a real signal, that starts in a moment.
"""

import csv
import json
import math
import os
import sys
import time
from pathlib import Path

import fine_tune
import pytest
import warm
from program_run import prepare

from helpers.profiles import ROOT

MODEL = str(ROOT / "data/models/distilbert")
DOCUMENTS = ROOT / "data/documents.csv"
SHORT = ("--num-train-epochs=2", "--eval-steps=4", "--max-length=64")

posix = pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals")


def child(arguments, output, file_size, disk, slow, diverge, pictures):
    """Runs the program in a forked process.

    Args:
        arguments: of the command line.
        output: file that gets what it says.
        file_size: bytes that a file may have.
        disk: (folder, bytes): a disk of that size is mounted there.
        slow: seconds that each step takes at least.
        diverge: whether the loss is no number.
        pictures: whether figures are drawn; else their files are there, and empty.
    """
    prepare({"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}, output)
    from takehome import tasks, trainer

    if slow:
        order = trainer.LengthSampler.__iter__
        trainer.LengthSampler.__iter__ = lambda self: (time.sleep(slow / 16) or row for row in order(self))
    if diverge:
        tasks.TASKS["classification"].loss = lambda *_: lambda outputs, labels, **_: outputs.logits.sum() * math.nan
    if not pictures:
        from matplotlib.figure import Figure

        Figure.savefig = lambda self, path, **_: Path(path).touch()
    if file_size:
        warm.limit_files(file_size)
    if disk:
        warm.mount_disk(*disk)
    code = 1
    try:
        code = fine_tune.main(arguments)
    finally:
        if disk:
            folder = Path(disk[0])
            print("left behind:", sorted(str(path.relative_to(folder)) for path in folder.rglob("*")), flush=True)
        sys.stdout.flush()
        os._exit(code)


class Run:
    """The program, started in a process of its own."""

    begin = 0

    def __init__(
        self,
        output,
        data,
        *arguments,
        checkpoint=MODEL,
        file_size=0,
        disk=None,
        slow=0.0,
        diverge=False,
        pictures=False,
    ):
        self.output = Path(output)
        self.log = self.output.parent.with_name(f"{self.output.parent.name}-{self.output.name}.log")
        self.begin = len(self.text)  # what an earlier run into the same place said
        told = ["--data", str(data), "--output-dir", str(output), "--checkpoint", checkpoint, *arguments]
        given = (told, self.log, file_size, disk, slow, diverge, pictures)
        self.process = warm.context.Process(target=child, args=given, daemon=True)
        self.process.start()

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8", errors="replace")[self.begin :] if self.log.exists() else ""

    @property
    def work(self) -> Path:
        return fine_tune.unfinished(self.output)

    @property
    def metrics(self) -> dict:
        return json.loads((self.output / "metrics.json").read_text("utf-8"))

    def wait(self, until=None, seconds=300) -> None:
        end = time.monotonic() + seconds
        while self.process.is_alive() and not (until and until()):
            assert time.monotonic() < end, f"still running after {seconds} s:\n{self.text}"
            time.sleep(0.01)

    def finish(self, code: int = 0) -> "Run":
        self.wait()
        self.process.join()
        assert self.process.exitcode == code, self.text
        return self

    def refusal(self, code: int = 2) -> str:
        """Waits for the program to refuse; returns its only line on it."""
        self.finish(code)
        assert "Traceback" not in self.text, self.text
        (line,) = [line for line in self.text.splitlines() if line.startswith("fine_tune.py: ")]
        return line


def write_csv(path: Path, rows, header=("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def documents() -> list[list[str]]:
    """Texts and labels."""
    with DOCUMENTS.open(encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def write_small(folder: Path) -> Path:
    """160 rows of all six classes."""
    return write_csv(folder / "small.csv", documents()[::4][:160])


def same_model(run: Run, whole: Run) -> bool:
    left, right = run.metrics, whole.metrics
    assert left["test"] == right["test"]
    assert left["validation"] == right["validation"]
    return (run.output / "model.safetensors").read_bytes() == (whole.output / "model.safetensors").read_bytes()


def refused(capsys, *arguments: str) -> str:
    """Runs the program here; returns the one line that it says."""
    assert fine_tune.main(list(arguments)) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]
