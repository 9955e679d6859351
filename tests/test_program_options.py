"""The options of the programs for several processes: what is out of range is one line, at once, and changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from program_run import listing

ROOT = Path(__file__).resolve().parent.parent

BOTH = {
    "--max-steps": ["-1", "0", "1.5", "nan", "x", ""],
    "--gradient-accumulation-steps": ["0", "-1", "1e3"],
    "--per-device-train-batch-size": ["0", "-3", "99999999999"],
    "--save-steps": ["0", "-1"],
    "--save-total-limit": ["0"],
    "--profile": ["nobody", "/nowhere.toml"],
    "--max_steps": ["3"],  # the old spelling
    "--max-step": ["3"],  # shortened
}
PRETRAINING = {
    "--learning-rate": ["nan", "inf", "0", "-1", "1e400", "fast"],
    "--muon-learning-rate": ["nan", "0"],
    "--seed": ["-1", "4294967296", "1.0"],
    "--dropout": ["2", "nan", "-0.1", "1"],
    "--config-overrides": [
        *("n_layer=0", "n_layer=-1", "n_layer", "n_layer=", "n_layer:2", "n_layer=2.5", "n_layer=two", "n_layer=²"),
        *("layers=2", "n_embd=1000001", "use_cache=2", "n_layer=2;n_head=2", "n_layer=\x1b[31m2"),
    ],
    "--warmup-steps": ["-5", "nan", "1000000"],
    "--weight-decay": ["-1", "nan", "2"],
    "--max-grad-norm": ["0", "-1", "nan"],
    "--sequence-length": ["0", "-1", "10000000"],
    "--validation-documents": ["0"],
    "--shuffle-buffer": ["0"],
    "--max-document-characters": ["0"],
    "--logging-steps": ["0"],
    "--eval-steps": ["0"],
    "--optim": ["sgd"],
    "--mixed-precision": ["fp8"],
    "--report-to": ["wandb"],
}
LAUNCHING = {
    "--num-processes": ["0", "-2", "two"],
    "--num-machines": ["0"],
    "--machine-rank": ["-1"],
    "--main-process-port": ["0", "65536"],
    "--config-file": ["/nowhere.yaml"],
    "--output_dir": ["x"],
    "--checkpointing_steps": ["3"],
}
PROGRAMS = {"pretrain_gpt2": BOTH | PRETRAINING, "mrpc_accelerate": BOTH | LAUNCHING}
CASES = [(name, f"{key}={v}") for name, options in PROGRAMS.items() for key, values in options.items() for v in values]

# Calls the programs one after the other where torch was never imported.
DRIVER = """
import contextlib, importlib, io, json, sys
sys.path.insert(0, sys.argv[1])
sys.modules["wandb"] = None  # as where it is not installed
for name, words in json.load(sys.stdin):
    said, status = io.StringIO(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = importlib.import_module(name).main(words)
    print(json.dumps([status, said.getvalue(), "torch" in sys.modules]), flush=True)
"""


def call(cases: list[tuple[str, list[str]]]) -> list[tuple[int, str, bool]]:
    """Exit status, what was said, and whether torch was imported, of each call."""
    told = json.dumps(cases)
    command = [sys.executable, "-c", DRIVER, str(ROOT / "scripts")]
    environment = os.environ | {"FINETUNING_PROFILE": "reduced", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, input=told, capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def is_one_line(name: str, said: str) -> bool:
    return said.startswith(f"{name}.py: ") and said.endswith("\n") and said[:-1].isprintable()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    before = listing(folder)
    found = call([(name, [f"--output-dir={folder / 'out'}", word]) for name, word in CASES])
    assert listing(folder) == before  # a wrong option makes no folder
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_an_option_out_of_range_is_one_line_that_names_it(outcomes, case):
    name, word = case
    status, said, torch_imported = outcomes[case]
    option = word.partition("=")[0]
    assert status == 2 and is_one_line(name, said), said
    assert option in said or option in ("--profile", "--config-file"), said
    assert not torch_imported


def places(folder: Path) -> dict[str, Path]:
    """Where nobody can write a run, or where somebody else's things are."""
    (folder / "file").write_text("mine", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("mine", encoding="utf-8")
    (folder / "link").symlink_to(folder / "full")
    for name in ("checkpoint-3", "model", "model.old", "checkpoint-best"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "weights").write_text("mine", encoding="utf-8")
    return {
        "/": Path("/"),
        "file": folder / "file",
        "below a file": folder / "file" / "below",
        "full": folder / "full",
        "link": folder / "link",
        "models": folder / "models",
        "system": Path("/proc/nowhere"),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="other paths")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_place_that_is_not_ours_stays_as_it_is(name, tmp_path):
    there = places(tmp_path)
    before = listing(tmp_path)
    flags = ([], ["--overwrite"], ["--resume"])
    cases = [(name, [f"--output-dir={path}", *more]) for path in there.values() for more in flags]
    for (_, words), (status, said, torch_imported) in zip(cases, call(cases), strict=True):
        assert status == 2 and is_one_line(name, said) and "--output-dir" in said, (words, said)
        assert not torch_imported
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_to_go_on_from(name, tmp_path):
    ((status, said, torch_imported),) = call([(name, [f"--output-dir={tmp_path / 'new'}", "--resume"])])
    assert status == 2 and is_one_line(name, said) and "--resume: " in said and not torch_imported
