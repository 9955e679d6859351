"""The runs that lesson 09 shows from a file: all are there, and the lesson has the cells that they are made with."""

import json

import adapter_experiments as experiments
import pytest
from lesson_runs import SEEDS


def test_the_stored_results_hold_every_run_on_every_seed():
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    assert set(stored) == set(experiments.RUNS)
    assert {len(runs) for runs in stored.values()} == {SEEDS}


def test_the_lesson_has_the_cell_with_which_the_runs_end_their_preparation():
    cells = json.loads(experiments.LESSON.read_text(encoding="utf-8"))["cells"]
    assert sum(experiments.LAST_CELL in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") == 1


@pytest.mark.slow
def test_the_runs_of_a_seed_give_the_stored_losses_again(tmp_path):
    found = experiments.main(["--seeds", "1", "--results", str(tmp_path / "again.json")])
    stored = json.loads(experiments.RESULTS.read_text(encoding="utf-8"))
    for name, runs in found.items():
        assert runs[0]["eval_loss"] == pytest.approx(stored[name][0]["eval_loss"], abs=0.1), name
