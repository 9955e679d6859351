"""Runs what lesson 07 shows and has no time for: remedies against memorising, over several seeds.

    make benchmark BENCHMARK=remedy_experiments          # some minutes on two cores; goes on if stopped

The runs are made with the lesson's own cells, on its own split. Each seed gives another head and another order; within
a seed all runs share them. The rate and the batch size are the profile's: the lesson's small search chooses them.
Results go into `data/remedy_experiments.json`. A run that stands there is not computed again: remove the file to start
anew.
"""

import argparse
import contextlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from pretraining_experiments import write

from helpers.profiles import ROOT

RESULTS = ROOT / "data" / "remedy_experiments.json"
LESSON = ROOT / "notebooks" / "07_your_own_data.ipynb"
TRAINER = "def new_trainer("  # all cells up to this one, and then:
SPLIT = "splits = {"  # the seed changes after it
CELLS = ("def weighted_loss(", "remedies = {", "def on_a_quarter(")
FIRST_SEED, SEEDS = 42, 3


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


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns all results, those computed before among them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    args.results = args.results.resolve()
    os.environ["FINETUNING_PROFILE"], os.environ["MPLBACKEND"] = "reduced", "agg"
    results = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
    for number in range(args.seeds):
        if results and min(map(len, results.values())) > number:
            continue
        with contextlib.chdir(LESSON.parent), contextlib.redirect_stdout(io.StringIO()):  # where its paths begin
            names = lesson(FIRST_SEED + number)
        for name in names["remedies"]:
            runs = results.setdefault(name, [])
            if len(runs) <= number:
                reached, _ = names["on_a_quarter"](name)
                runs.append({key: round(float(value), 4) for key, value in reached.items()})
                write(results, args.results)
                print(f"seed {FIRST_SEED + number}: {name} {runs[-1]}", flush=True)
    return results


if __name__ == "__main__":
    main()
