"""Runs what lesson 07 shows and has no time for: remedies against memorising, over several seeds.

    make benchmark BENCHMARK=remedy_experiments          # some minutes on two cores; goes on if stopped

The runs are made with the lesson's own cells, on its own split. Each seed gives another head and another order; within
a seed all runs share them. The rate and the batch size are the profile's: the lesson's small search chooses them.
Results go into `data/remedy_experiments.json`. A run that stands there is not computed again: remove the file to start
anew.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

from lesson_runs import LessonRuns

from helpers.profiles import ROOT

RESULTS = ROOT / "data" / "remedy_experiments.json"
LESSON = ROOT / "notebooks" / "07_your_own_data.ipynb"
TRAINER = "def new_trainer("  # all cells up to this one, and then:
SPLIT = "splits = {"  # the seed changes after it
CELLS = ("def weighted_loss(", "remedies = {", "def on_a_quarter(")
RUNS = ("as it is", "dropout 0.3, decay 0.1", "class weights")  # names of the lesson's `remedies`


def lesson(seed: int) -> dict:
    """The names that the lesson's cells define, with another seed."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    last = next(number for number, source in enumerate(sources) if TRAINER in source)
    names = {"display": print}
    for source in sources[: last + 1] + [source for source in sources[last + 1 :] if any(c in source for c in CELLS)]:
        exec(source, names)
        if SPLIT in source:
            names["settings"] = replace(names["settings"], seed=seed)
        if TRAINER in source:
            keys = ("learning_rate", "per_device_train_batch_size")
            names["best"] = SimpleNamespace(hyperparameters={key: getattr(names["settings"], key) for key in keys})
    return names


def run(names: dict, name: str) -> dict[str, float]:
    """Losses, accuracy and macro-F1 of one run with a remedy."""
    reached, _ = names["on_a_quarter"](name)
    return {key: round(float(value), 4) for key, value in reached.items()}


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns all results, those computed before among them."""
    return LessonRuns(LESSON, RESULTS, RUNS, lesson, run).main(__doc__, arguments)


if __name__ == "__main__":
    main()
