"""scripts/mrpc_accelerate.py and scripts/launch/: the same losses however it is launched, resumable, clear refusals."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mrpc_accelerate as script
import program_run
import psutil
import pytest
import warm
import yaml
from small_models import write_small_model

from takehome import launching
from takehome.accelerator import layer_classes
from takehome.checkpoints import checkpoints

ROOT = Path(__file__).resolve().parent.parent
SCRIPT, LAUNCH = ROOT / "scripts" / "mrpc_accelerate.py", ROOT / "scripts" / "launch"
STEPS = 24  # two epochs and a part of the third


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """160 pairs and a small model, ten steps an epoch; `dropout.toml` is the same with dropout 0.1."""
    folder = tmp_path_factory.mktemp("profile")
    small = "[mrpc]\nmax_train_samples = 160\nmax_eval_samples = 50\nper_device_eval_batch_size = 8\n"
    for name, dropout in (("small", 0.0), ("dropout", 0.1)):
        chances = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        model = write_small_model(folder / name, "bert", **chances)
        profile = f'inherits = "reduced"\n{small}checkpoint = "{model}"\n'
        (folder / f"{name}.toml").write_text(profile, encoding="utf-8")
    return folder / "small.toml"


def options(profile, *more):
    return ["--profile", str(profile), "--max-steps", str(STEPS), *map(str, more)]


class Run(program_run.Run):
    """The program, started in one or two processes that are forked from a warm one."""

    def __init__(self, profile, folder, *words, processes=1, change=None):
        super().__init__("mrpc_accelerate", folder, *options(profile), *words, processes=processes, change=change)

    @property
    def results(self) -> dict:
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    @property
    def weights(self) -> bytes:
        return (self.folder / "model" / "model.safetensors").read_bytes()


def start(*words):
    """The script in a process of its own, as its users start it, one thread for each of its workers."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(run: subprocess.Popen) -> dict[int, psutil.Process]:
    """The processes that a launch has started so far, by their ranks."""
    found = [worker for launcher in psutil.Process(run.pid).children() for worker in launcher.children()]
    with contextlib.suppress(psutil.Error):  # one that is just beginning or ending
        return {int(worker.environ()["RANK"]): worker for worker in found if "RANK" in worker.environ()}
    return {}


def bars(printed: str) -> int:
    """How many progress bars have begun, at the first step or at that where a run went on."""
    first = re.search(r"from step (\d+)", printed)
    return len(re.findall(rf"\| {first[1] if first else 0}/{STEPS} \[", printed))


def largest_difference(one, other):
    return max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True))


@pytest.fixture(scope="module")
def alone(profile, tmp_path_factory):
    """What one process gets, with whole batches of 16."""
    results = Run(profile, tmp_path_factory.mktemp("alone") / "run").finish().results
    assert len(results["losses"]) == STEPS and [row["step"] for row in results["epochs"]] == [10, 20, 24]
    return results


@pytest.fixture(scope="module")
def straight(profile, tmp_path_factory):
    """A run with dropout that nobody interrupts."""
    return Run(profile.with_name("dropout.toml"), tmp_path_factory.mktemp("straight") / "run").finish()


def assert_nothing_happened(run, straight):
    assert run.results == straight.results  # losses to the last bit
    assert run.weights == straight.weights
    assert not [path for path in run.folder.iterdir() if "draft" in path.name or "-old" in path.name]


def test_accumulation_is_the_whole_batch(profile, alone, tmp_path):
    halves = ("--per-device-train-batch-size", 8, "--gradient-accumulation-steps", 2)
    assert largest_difference(Run(profile, tmp_path / "run", *halves).finish().results, alone) < 1e-5


def test_accumulation_counts_rows(alone, tmp_path, profile):
    """156 rows: the last step of an epoch is a batch of 8 and one of 4, which 12 at once must equal."""
    uneven = tmp_path / "uneven.toml"
    uneven.write_text(f'inherits = "{profile}"\n[mrpc]\nmax_train_samples = 156\n', encoding="utf-8")
    halves = ("--per-device-train-batch-size", 8, "--gradient-accumulation-steps", 2)
    whole, parts = Run(uneven, tmp_path / "whole"), Run(uneven, tmp_path / "parts", *halves)
    whole, parts = whole.finish().results, parts.finish().results
    assert largest_difference(parts, whole) < 1e-5
    assert largest_difference(parts, alone) > 1e-3  # other rows, other losses


def test_two_processes_and_one_bar(profile, alone, tmp_path):
    """As torchrun and a DDP file start them."""
    run = Run(profile, tmp_path / "run", "--per-device-train-batch-size=8", processes=2).finish()
    assert run.results["processes"] == 2 and run.results["kind"] == "DDP"
    assert largest_difference(run.results, alone) < 1e-5
    assert run.results["epochs"] == alone["epochs"]  # 50 rows in batches of 8 on two processes: none counts twice
    assert run.text.count("2 process(es)") == 1 and bars(run.text) == 1


def test_killed_process_is_named_and_the_run_resumes(profile, alone, tmp_path):
    """FSDP2 on two processes; one is killed after a checkpoint. The second start goes on and ends where it should."""
    folder, workers = tmp_path / "run", {}
    words = options(profile, "--output-dir", folder, "--config-file", LAUNCH / "fsdp2_cpu.yaml")
    words += ["--per-device-train-batch-size", 8]
    run = start(*words, "--save-steps", 2)
    deadline = time.monotonic() + 300
    while not (folder / "checkpoint-2").exists():
        assert run.poll() is None and time.monotonic() < deadline
        workers = workers if len(workers) == 2 else workers_of(run)
        time.sleep(0.01)
    workers[1].kill()
    _, errors = run.communicate(timeout=300)
    line = "mrpc_accelerate.py: process 1 was ended by signal 9 (often: out of memory)"
    assert (run.returncode, errors) == (2, f"{line} (all messages: {folder / 'launch.log'})\n")
    assert not (folder / "results.json").exists()

    resumed = start(*words, "--resume")
    printed, errors = resumed.communicate(timeout=300)
    assert (resumed.returncode, errors) == (0, "") and "FSDP2, from step" in printed
    assert printed.count("2 process(es)") == 1 and bars(printed) == 1
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert largest_difference(results, alone) < 1e-5 and results["epochs"] == alone["epochs"]
    for part, whole in alone["memory"][0].items():
        assert all(0.45 < memory[part] / whole < 0.55 for memory in results["memory"]), part


# ------------------------------------------------------------------ stopped, and gone on


def kill_before_the_model() -> None:
    """In the program's process: it is killed between its last checkpoint and its model."""
    script.save_model = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def test_killed_between_its_last_checkpoint_and_its_model(profile, straight, tmp_path):
    profile = profile.with_name("dropout.toml")
    run = Run(profile, tmp_path / "run", change=(kill_before_the_model,))
    run.wait()
    assert run.statuses == [-signal.SIGKILL] and not (run.folder / "model").exists()
    assert_nothing_happened(Run(profile, run.folder).finish(), straight)
    assert "is finished: checkpoint-24" in Run(profile, run.folder).refusal()
    assert (
        "belongs to another configuration (max_steps was 24, is 10)"
        in Run(profile, run.folder, "--max-steps=10").refusal()
    )
    fewer = Run(profile, run.folder, "--max-steps=10", "--overwrite").finish()
    assert fewer.results["losses"][0] == straight.results["losses"][0] and fewer.results["step"] == 10
    assert [path.name for path in checkpoints(run.folder)] == ["checkpoint-10"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_signals_end_a_step_and_lose_nothing(profile, straight, tmp_path):
    """Ctrl-C, SIGTERM and SIGHUP, one after the other, in the same run."""
    profile, steps = profile.with_name("dropout.toml"), []
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name)
        run = Run(profile, tmp_path / "run", change=(program_run.slow_steps, 0.1))
        run.wait(until=lambda run=run: f"to step {STEPS}" in run.text and f"/{STEPS} [" in run.text)
        run.send(number)
        assert run.statuses == [128 + number], run.text
        said = next(line for line in run.text.splitlines() if line.startswith("stopped after step"))
        steps.append(int(said.split()[3].rstrip(";")))
        assert checkpoints(run.folder)[-1].name == f"checkpoint-{steps[-1]}" and "Traceback" not in run.text
        assert not (run.folder / "results.json").exists()
    assert steps == sorted(steps) and steps[0] > 0
    assert_nothing_happened(Run(profile, run.folder).finish(), straight)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_reaches_the_processes_through_the_launcher(profile, alone, tmp_path):
    folder = tmp_path / "run"
    words = options(profile, "--output-dir", folder, "--config-file", LAUNCH / "ddp_cpu.yaml", "--save-steps", 2)
    words += ["--per-device-train-batch-size", 8]
    run = start(*words)
    while not checkpoints(folder):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    printed, errors = run.communicate(timeout=300)
    assert (run.returncode, errors) == (128 + signal.SIGTERM, "") and "stopped after step" in printed
    again = start(*words)
    printed, errors = again.communicate(timeout=300)
    assert (again.returncode, errors) == (0, "") and "from step" in printed
    assert largest_difference(json.loads((folder / "results.json").read_text(encoding="utf-8")), alone) < 1e-5


def kill_and_compare(profile, folder, kills, seed, straight) -> int:
    """Kills a run at random moments, lets it come to its end, and compares; returns how often it was killed."""
    profile = profile.with_name("dropout.toml")
    slow = (program_run.slow_steps, 0.05)
    killed = program_run.kill_at_random_moments(
        lambda: Run(profile, folder, "--save-steps=2", change=slow), "process(es)", 2.0, kills, seed
    )
    run = Run(profile, folder, "--save-steps=2")
    assert run.statuses == [0] or "is finished" in run.refusal()
    assert_nothing_happened(run, straight)
    return killed


def test_killed_at_random_moments(profile, straight, tmp_path):
    kill_and_compare(profile, tmp_path / "run", 3, 0, straight)


@pytest.mark.slow
def test_twenty_kills(profile, straight, tmp_path):
    killed = number = 0
    while killed < 20:
        killed += kill_and_compare(profile, tmp_path / str(number), 4, number, straight)
        number += 1
    print(f"\n{killed} kills of {number} runs, all came to the same end")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(profile, straight, tmp_path):
    profile = profile.with_name("dropout.toml")
    run = Run(profile, tmp_path / "run", "--save-steps=2", change=(program_run.slow_steps, 0.1))
    run.wait(until=lambda: checkpoints(run.folder))
    assert run.kill()
    refused = Run(profile, run.folder, change=(warm.limit_files, 1_000_000))
    assert "could not be written, what was there is untouched" in refused.refusal() and checkpoints(run.folder)
    assert_nothing_happened(Run(profile, run.folder).finish(), straight)


@pytest.mark.skipif(
    not importlib.util.find_spec("tensorboard"), reason="TensorBoard is not installed: the group `tracking`"
)
def test_tensorboard_shows_losses_and_metrics(profile, tmp_path):
    run = Run(profile, tmp_path / "run", "--report-to=tensorboard").finish()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run.folder / "tracking/mrpc_accelerate")).Reload()
    losses = [(event.step, event.value) for event in shown.Scalars("loss")]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    assert [value for _, value in losses] == pytest.approx(run.results["losses"])
    assert [event.value for event in shown.Scalars("eval_accuracy")] == pytest.approx(
        [epoch["accuracy"] for epoch in run.results["epochs"]]
    )


def test_a_second_run_is_kept_out(profile, tmp_path):
    first = Run(profile, tmp_path / "run")
    first.wait(until=lambda: "process(es)" in first.text)
    second = Run(profile, tmp_path / "run")
    second.wait()
    if second.statuses == [0]:  # it was the first
        first, second = second, first
    assert "another run writes to" in second.refusal()
    first.finish()
    assert first.results["step"] == STEPS


# ------------------------------------------------------------------ refusals, before anything is started


def refusal(monkeypatch, capsys, *words):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert script.main([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mrpc_accelerate.py: ") and said.count("\n") == 1
    return said


def changed(tmp_path, name, **changes):
    file = tmp_path / name
    file.write_text(
        yaml.safe_dump(yaml.safe_load((LAUNCH / name).read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )
    return file


def test_launch_file_asks_for_what_is_not_here(monkeypatch, capsys, tmp_path):
    import torch

    def said(file, *words):
        return refusal(monkeypatch, capsys, "--output-dir", tmp_path / "out", "--config-file", file, *words)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpus = tmp_path / "gpus.toml"
    on_gpus.write_text('inherits = "reduced"\nuse_cpu = false\n', encoding="utf-8")
    assert "ddp.yaml asks for 2 GPUs on this machine, which has 1; for CPUs take a *_cpu.yaml" in said(
        LAUNCH / "ddp.yaml", "--profile", on_gpus
    )
    assert "asks for GPUs, the profile for the CPU" in said(LAUNCH / "fsdp2.yaml")
    monkeypatch.setattr(launching.importlib.util, "find_spec", lambda name: None)
    assert "asks for DeepSpeed, which is not installed" in said(LAUNCH / "zero2_cpu.yaml")
    assert "asks for fp16 on a CPU" in said(changed(tmp_path, "ddp_cpu.yaml", mixed_precision="fp16"))
    assert "distributed_type must be one of MULTI_GPU, FSDP, DEEPSPEED" in said(
        changed(tmp_path, "ddp_cpu.yaml", distributed_type="MULTI_CPU")
    )
    assert "several machines need --main-process-ip" in said(LAUNCH / "ddp_cpu.yaml", "--num-machines", 2)
    assert "cannot read" in said(tmp_path / "none.yaml") and not (tmp_path / "out").exists()


def test_port_is_taken(monkeypatch, capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ("--output-dir", tmp_path, "--config-file", LAUNCH / "ddp_cpu.yaml", "--main-process-port", port)
        assert f"port {port} is taken by another program" in refusal(monkeypatch, capsys, *words)
    assert launching.port_is_free(port)


def test_a_checkpoint_that_is_none_is_told(monkeypatch, capsys, tmp_path, profile):
    broken = tmp_path / "broken.toml"
    (tmp_path / "bert").mkdir()
    broken.write_text(f'inherits = "{profile}"\n[mrpc]\ncheckpoint = "{tmp_path / "bert"}"\n', encoding="utf-8")
    assert f"{tmp_path / 'bert'} cannot be loaded" in Run(broken, tmp_path / "out").refusal()


def fail() -> None:
    """In the program's process: something that nobody thought of."""
    script.mean_loss = lambda *_: {}["unthought"]


def test_failure_in_training_is_one_line_with_the_traceback_kept(tmp_path, profile):
    run = Run(profile, tmp_path / "out", change=(fail,))
    said = run.refusal(status=1)  # not the user's to change
    assert "KeyError: " in said and "traceback-0.txt" in said
    assert "Traceback" in (tmp_path / "out" / "traceback-0.txt").read_text(encoding="utf-8")


def test_first_failure_is_told():
    log = (
        "mrpc_accelerate.py: process 1 of 2: RuntimeError: Connection closed by peer (see a)\n"
        "mrpc_accelerate.py: process 0 of 2: ValueError: no such column (see b)\n"
        "Failures:\n  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 12)\n"
        "Root Cause (first observed failure):\n  rank      : 0 (local_rank: 0)\n  exitcode  : 1 (pid: 11)\n"
    )
    assert launching.what_failed(log, "mrpc_accelerate.py") == "process 0 of 2: ValueError: no such column (see b)"
    assert (
        launching.what_failed("warning\nConnectionError: port 1\n", "mrpc_accelerate.py") == "ConnectionError: port 1"
    )


def test_options_for_the_launcher_are_not_for_the_script():
    words = ["--config-file", "a", "--output-dir", "b", "--num-processes=2", "--max-steps", "3", "--num-machines", "1"]
    given, own = launching.launch_parser().parse_known_args(words)
    assert own == ["--output-dir", "b", "--max-steps", "3"]
    assert launching.launch_options(given).numbers() == {"num_processes": 2, "num_machines": 1}


@pytest.mark.parametrize("kind, layer", [("bert", "BertLayer"), ("distilbert", "TransformerBlock")])
def test_fsdp_gathers_the_layers_of_the_profiles_model(kind, layer):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(ROOT / "data/models" / kind))
    assert layer_classes(model) == [layer]


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_files_are_accelerates(path):
    """Accelerate reads each file without a complaint, for two processes, on the devices that its name says."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(path))
    assert config.use_cpu == path.stem.endswith("_cpu") and config.num_processes == 2
    words = ["--config_file", str(path), str(SCRIPT)]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    kind = path.stem.removesuffix("_cpu")
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == (
        kind == "ddp",
        kind == "fsdp2",
        kind == "zero2",
    )


# ------------------------------------------------------------------ slow: DeepSpeed, and two machines on this one


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")
def test_zero2(profile, alone, tmp_path):
    folder = tmp_path / "run"
    words = options(profile, "--output-dir", folder, "--config-file", LAUNCH / "zero2_cpu.yaml", "--save-steps", 9)
    for _ in range(2):
        run = start(*words, "--per-device-train-batch-size", 8)
        _, errors = run.communicate(timeout=900)
        assert (run.returncode, errors) == (0, "")
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert largest_difference(results, alone) < 1e-5
        (folder / "results.json").unlink()  # the second time it goes on from the checkpoint before the last
        shutil.rmtree(checkpoints(folder)[-1])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_machines_on_loopback(profile, alone, tmp_path, launcher):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    words = options(profile, "--output-dir", tmp_path / "run", "--per-device-train-batch-size", 8)
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    machines = []
    for rank in (0, 1):
        where = f"--num_processes 2 --num_machines 2 --machine_rank {rank} --main_process_ip 127.0.0.1"
        by_file = [str(SCRIPT), "--config-file", str(LAUNCH / "ddp_cpu.yaml"), *where.replace("_", "-").split()]
        meeting = f"--nnodes 2 --nproc_per_node 1 --rdzv_id a --rdzv_backend c10d --rdzv_endpoint 127.0.0.1:{port}"
        command = {
            "accelerate": [*by_file, "--main-process-port", str(port)],
            "torchrun": ["-m", "torch.distributed.run", *meeting.split(), str(SCRIPT)],
        }
        machines.append(subprocess.Popen([sys.executable, *command[launcher], *words], env=env))
    assert [machine.wait(600) for machine in machines] == [0, 0]
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["processes"] == 2 and largest_difference(results, alone) < 1e-5
