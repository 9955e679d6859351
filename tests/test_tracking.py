"""--report-to: the curves of a run in TensorBoard, in Weights & Biases without a network; what is not installed."""

import importlib.util
import os
from pathlib import Path

import pytest
import warm
from fine_tune_runs import MODEL, fine_tune, refused, write_small

from helpers.profiles import ROOT
from takehome import tracking


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def run(folder: Path, tracker: str, **environment) -> Path:
    """A run of four steps that reports to a tracker; returns where that wrote."""
    told = ["--data", write_small(folder), "--output-dir", folder / "model", "--checkpoint", MODEL, "--use-cpu"]
    told += ["--max-steps=4", "--eval-steps=2", "--max-length=16", f"--report-to={tracker}"]
    around = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    done = warm.run_program(ROOT / "scripts/fine_tune.py", *told, environment=around)
    assert done.status == 0, done.output
    assert "Traceback" not in done.output
    assert not (folder / "model.unfinished").exists()
    return folder / "model.tracking"


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard", "trackio"])
def test_what_is_not_installed_is_one_line(tracker, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    told = ["--data", "a.csv", "--output-dir", str(tmp_path / "model"), f"--report-to={tracker}"]
    assert f"--report-to {tracker}: not installed; SETUP.md says how" in refused(capsys, *told)
    assert fine_tune.parse_arguments(["--data", "a.csv", "--output-dir", str(tmp_path)]).report_to == "none"


@pytest.mark.skipif(not installed("tensorboard"), reason="TensorBoard is not installed: the group `tracking`")
def test_tensorboard_gets_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = run(tmp_path, "tensorboard")
    (file,) = place.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    assert {"train/loss", "eval/loss", "eval/macro_f1"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("eval/macro_f1")] == [2, 4]


@pytest.mark.skipif(not installed("wandb"), reason="Weights & Biases is not installed: SETUP.md says how")
@pytest.mark.parametrize("program", ["fine_tune.py", "pretrain_gpt2.py"])
def test_weights_and_biases_without_an_account_is_one_line(program, tmp_path):
    nobody = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    around = nobody | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    told = ["--output-dir", tmp_path / "model", "--report-to=wandb", "--use-cpu", "--max-steps=2"]
    if program == "fine_tune.py":
        told += ["--data", write_small(tmp_path), "--checkpoint", MODEL, "--max-length=16"]
    done = warm.run_program(ROOT / "scripts" / program, *told, environment=around)
    assert done.status == 2, done.output
    assert "Traceback" not in done.output
    assert "--report-to wandb: No API key configured" in done.output
    assert "WANDB_MODE=offline keeps the curves on this machine" in done.output


@pytest.mark.skipif(not installed("wandb"), reason="Weights & Biases is not installed: SETUP.md says how")
def test_weights_and_biases_works_without_a_network(tmp_path):
    place = run(tmp_path, "wandb", WANDB_MODE="offline")
    (folder,) = place.glob("wandb/offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    assert b"eval/macro_f1" in file.read_bytes()
