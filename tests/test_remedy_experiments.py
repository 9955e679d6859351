"""The runs that lesson 07 shows from a file: all are there, and the lesson has the cells that they are made with."""

import json

import pytest
import remedy_experiments as experiments
from lesson_runs import SEEDS


def test_the_stored_results_hold_every_remedy_of_the_lesson_on_every_seed():
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in json.loads(experiments.LESSON.read_text(encoding="utf-8"))["cells"]]
    (remedies,) = (source for source in sources if "remedies = {" in source)
    assert set(stored) == set(experiments.RUNS) and all(f'"{name}": ' in remedies for name in stored)
    assert {len(runs) for runs in stored.values()} == {SEEDS}


@pytest.mark.parametrize("part", [experiments.TRAINER, experiments.SPLIT, *experiments.CELLS])
def test_the_lesson_has_each_cell_that_the_runs_need_once(part):
    cells = json.loads(experiments.LESSON.read_text(encoding="utf-8"))["cells"]
    assert sum(part in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") == 1


@pytest.mark.slow
def test_the_runs_of_a_seed_give_the_stored_losses_again(tmp_path):
    found = experiments.main(["--seeds", "1", "--results", str(tmp_path / "again.json")])
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    for name, runs in found.items():
        assert runs[0]["validation loss"] == pytest.approx(stored[name][0]["validation loss"], abs=0.1), name
