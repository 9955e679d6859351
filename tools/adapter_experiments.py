"""Runs what lesson 09 shows and has no time for: LoRA with other ranks, layers and relatives, over several seeds.

    make benchmark BENCHMARK=adapter_experiments          # some minutes on two cores; goes on if stopped

The runs are made with the lesson's own cells, up to the one that defines its trainer. Each seed gives another split of
the documents, another head and another order; within a seed all runs share them. Results go into
`data/adapter_experiments.json`. A run that stands there is not computed again: remove the file to start anew.
"""

import json
from dataclasses import replace

from lesson_runs import LessonRuns

from helpers.profiles import ROOT

RESULTS = ROOT / "data" / "adapter_experiments.json"
LESSON = ROOT / "notebooks" / "09_lora_and_qlora.ipynb"
LAST_CELL = "def new_trainer("
RATE = 3  # times the profile's rate: the best of the lesson's sweep
RUNS = {
    "rank 8": {},
    "rank 1": {"rank": 1},
    "rank 8, one layer": {"one_layer": True},
    "rank 64, α 8": {"rank": 64, "lora_alpha": 8},
    "rank 64, α 8, rsLoRA": {"rank": 64, "lora_alpha": 8, "use_rslora": True},
    "rank 8, DoRA": {"use_dora": True},
}


def lesson(seed: int) -> dict:
    """The names that the lesson's cells define, with another seed."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    names = {"display": print}
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        exec(source, names)
        if "settings" in names and names["settings"].seed != seed:
            names["settings"] = replace(names["settings"], seed=seed)
        if LAST_CELL in source:
            return names
    raise LookupError(f"{LESSON.name} has no cell with {LAST_CELL!r}")


def run(names: dict, name: str) -> dict[str, float]:
    """Validation loss and accuracy of one run with LoRA."""
    options = dict(RUNS[name])
    if options.pop("one_layer", False):
        options["layers"] = names["LINEAR"][:1]
    trainer = names["new_trainer"](names["build"]("lora", **options), RATE * names["settings"].learning_rate)
    trainer.train()
    found = trainer.evaluate()
    return {key: round(found[key], 4) for key in ("eval_loss", "eval_accuracy")}


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns all results, those computed before among them."""
    return LessonRuns(LESSON, RESULTS, RUNS, lesson, run).main(__doc__, arguments)


if __name__ == "__main__":
    main()
