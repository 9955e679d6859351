"""What lessons 04 to 06 say about sizes, trackers and devices, against what the course and the libraries do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.profiles import load_profile

ROOT = Path(__file__).resolve().parent.parent
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("0[456]_*.ipynb"))}


def cells(lesson, kind):
    """The sources of a lesson's cells of one kind."""
    found = json.loads(LESSONS[lesson].read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


@pytest.mark.parametrize(("profile", "row"), [("full", "MRPC"), ("reduced", "our own pairs")])
def test_lesson_04_states_the_sizes_of_its_splits(profile, row):
    import pyarrow.parquet as parquet

    prose = "\n".join(cells("04", "markdown"))
    stated = re.search(rf"^\| {row}[^|]*\|([^|]+)\|([^|]+)\|([^|]+)\|", prose, re.MULTILINE).groups()
    settings = load_profile(profile).tables["mrpc"]
    sizes = settings.max_train_samples, settings.max_eval_samples, settings.max_test_samples
    assert [int(number.replace(",", "")) for number in stated] == list(sizes)
    if profile == "reduced":
        for split, size in zip(("train", "validation", "test"), sizes, strict=True):
            assert size <= parquet.read_metadata(next((ROOT / "data/glue/mrpc").glob(f"{split}-*"))).num_rows


def test_the_trackers_that_lesson_04_names_are_known_to_trainer():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    prose = "\n".join(cells("04", "markdown"))
    named = re.findall(r'^\| \[[^|]+\| `"(\w+)"` \|', prose, re.MULTILINE)
    assert {"tensorboard", "wandb", "trackio"} <= set(named) <= set(INTEGRATION_TO_CALLBACK)


TRACKED = """
import sys
import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels):
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


rows = [{"x": torch.tensor(float(i)), "labels": torch.tensor(2.0 * i)} for i in range(8)]
quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
arguments = TrainingArguments("outputs", report_to=sys.argv[1], max_steps=3, logging_steps=1, **quiet)
Trainer(Model(), arguments, train_dataset=rows).train()
"""


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_installed_keeps_the_log_on_this_machine(tracker, tmp_path):
    pytest.importorskip(tracker)
    own = {"WANDB_MODE": "offline", "HF_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", TRACKED, tracker]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    marks = {"tensorboard": "tfevents", "wandb": ".wandb", "trackio": "trackio"}
    assert any(marks[tracker] in path.as_posix() for path in written), written


@pytest.mark.parametrize("lesson", LESSONS)
def test_one_question_decides_the_device_and_weights_are_kept_in_fp32(lesson):
    """A lesson's loop and Trainer compute on the same device, and a bf16 checkpoint is not trained as it is."""
    code = "\n\n".join(cells(lesson, "code"))
    assert "torch.device(profile.device)" in code
    assert not re.search(r"is_available\(|\"mps\"", code)
    for call in re.findall(r"(?:TrainingArguments|Accelerator)\((?:[^()]|\([^()]*\))*\)", code):
        own_program = "cpu=True" in call  # two processes, on any machine
        assert own_program or "profile.use_cpu" in call or re.search(r"\*\*(common|recipe)\b", call), call
    assert code.count("profile.use_cpu") >= 1
    loads = re.findall(r"AutoModelFor\w+\.from_pretrained\(((?:[^()]|\([^()]*\))*)\)", code)
    assert loads
    for arguments in loads:
        fp32 = "dtype=torch.float32" in arguments or "**stored" in arguments
        assert fp32 or "outputs/" in arguments, arguments  # what the lesson itself saved, in fp32
    if "**stored" in code:
        assert re.search(r'stored = checkpoint \| \{"dtype": torch\.float32\}', code)
