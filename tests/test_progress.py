"""helpers/progress.py: a line for long trainings only, which leaves nothing behind."""

import re

import nbformat
import pytest
from execute import _clean_outputs
from transformers import TrainerControl, TrainerState

from helpers import progress as module
from helpers.progress import ProgressLine, progress


def train(line, steps: int, stop: int | None = None) -> None:
    """Calls the callback as a Trainer does; with `stop`, interrupted after so many steps."""
    state, control = TrainerState(max_steps=steps), TrainerControl()
    line.on_train_begin(None, state, control)
    for state.global_step in range(1, steps + 1):
        line.on_step_end(None, state, control)
        line.on_log(None, state, control, logs={"loss": 1 / state.global_step})
        if state.global_step == stop:
            return
    line.on_train_end(None, state, control)


@pytest.fixture
def at_once(monkeypatch):
    """The line appears at the first step, and is drawn at each."""
    monkeypatch.setattr(module, "DELAY", 0)
    make = module.tqdm
    monkeypatch.setattr(module, "tqdm", lambda *a, **k: make(*a, **k | {"mininterval": 0}))


def test_a_short_training_shows_nothing(capsys):
    train(ProgressLine(), 5)
    assert list(progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_a_long_training_tells_steps_time_and_loss_and_goes(capsys, at_once):
    train(ProgressLine(), 4)
    shown = capsys.readouterr().out
    assert re.search(r"3 of 4 steps, \d\d:\d\d left, loss 0.500", shown)
    assert "\n" not in shown and shown.endswith("\r") and not shown.split("\r")[-2].strip()


def test_an_interrupted_training_can_begin_again(capsys, at_once):
    line = ProgressLine()
    train(line, 4, stop=2)
    train(line, 4)
    assert "4 of 4 steps" in capsys.readouterr().out and line.line is None


def test_committed_outputs_keep_nothing_of_it(capsys, at_once):
    print("before")
    train(ProgressLine(), 4)
    text = capsys.readouterr().out
    outputs = [nbformat.v4.new_output("stream", text=text), nbformat.v4.new_output("stream", name="stderr", text="x\r")]
    assert [output.text for output in _clean_outputs(outputs)] == ["before\n"]
