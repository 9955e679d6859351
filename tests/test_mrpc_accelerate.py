"""scripts/mrpc_accelerate.py and scripts/launch/: the same losses however it is launched, resumable, clear refusals."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCRIPT, LAUNCH = ROOT / "scripts" / "mrpc_accelerate.py", ROOT / "scripts" / "launch"
STEPS = 24  # two epochs and a part of the third

spec = importlib.util.spec_from_file_location("mrpc_accelerate", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """160 pairs, ten steps an epoch; `dropout.toml` is the same with dropout 0.1."""
    folder = tmp_path_factory.mktemp("profile")
    small = "[mrpc]\nmax_train_samples = 160\nmax_eval_samples = 50\nper_device_eval_batch_size = 8\n"
    model = shutil.copytree(ROOT / "data" / "models" / "bert", folder / "bert")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (model / "config.json").write_text(json.dumps(config))
    (folder / "dropout.toml").write_text(f'inherits = "reduced"\n{small}checkpoint = "{model}"\n')
    (folder / "small.toml").write_text(f'inherits = "reduced"\n{small}')
    return folder / "small.toml"


@pytest.fixture
def fresh_state():
    """Accelerate keeps one state a process, and the script's is to be new in each test."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def options(profile, folder, *more):
    return ["--profile", str(profile), "--output_dir", str(folder), "--max_train_steps", str(STEPS), *map(str, more)]


def start(*words):
    """The script in a process of its own, one thread for each of its workers."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_this_process(profile, folder, *more):
    script.train(script.parse_arguments(options(profile, folder, *more)))
    return json.loads((folder / "results.json").read_text())


def largest_difference(one, other):
    return max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True))


@pytest.fixture(scope="module")
def alone(profile, tmp_path_factory):
    """What one process gets, with whole batches of 16."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    results = in_this_process(profile, tmp_path_factory.mktemp("alone"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert len(results["losses"]) == STEPS and [row["step"] for row in results["epochs"]] == [10, 20, 24]
    return results


def test_accumulation_is_the_whole_batch(profile, alone, tmp_path, fresh_state):
    halves = ("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 2)
    assert largest_difference(in_this_process(profile, tmp_path, *halves), alone) < 1e-5


def test_accumulation_counts_rows(alone, tmp_path, profile, fresh_state):
    """156 rows: the last step of an epoch is a batch of 8 and one of 4, which 12 at once must equal."""
    uneven = tmp_path / "uneven.toml"
    uneven.write_text(f'inherits = "{profile}"\n[mrpc]\nmax_train_samples = 156\n')
    whole = in_this_process(uneven, tmp_path / "whole")
    halves = ("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 2)
    parts = in_this_process(uneven, tmp_path / "parts", *halves)
    assert largest_difference(parts, whole) < 1e-5
    assert largest_difference(parts, alone) > 1e-3  # other rows, other losses


def test_two_processes_and_one_bar(profile, alone, tmp_path):
    words = options(profile, tmp_path, "--config_file", LAUNCH / "ddp_cpu.yaml", "--per_device_train_batch_size", 8)
    run = start(*words)
    printed, errors = run.communicate(timeout=300)
    assert (run.returncode, errors) == (0, "")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["processes"] == 2 and results["kind"] == "DDP"
    assert largest_difference(results, alone) < 1e-5
    assert results["epochs"] == alone["epochs"]  # 50 rows in batches of 8 on two processes: none counts twice
    assert printed.count("2 process(es)") == 1 and printed.count(f"{STEPS}/{STEPS} [") == 1


def test_killed_process_is_named_and_the_run_resumes(profile, alone, tmp_path):
    """FSDP2 on two processes; one is killed after a checkpoint. The second start goes on and ends where it should."""
    words = options(profile, tmp_path, "--config_file", LAUNCH / "fsdp2_cpu.yaml", "--per_device_train_batch_size", 8)
    run = start(*words, "--checkpointing_steps", 4)
    deadline = time.monotonic() + 300
    while not (tmp_path / "checkpoint-4").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    launcher = psutil.Process(run.pid).children()[0]
    worker = next(w for w in launcher.children() if w.environ()["RANK"] == "1")
    worker.kill()
    _, errors = run.communicate(timeout=300)
    log = tmp_path / "launch.log"
    line = "mrpc_accelerate.py: process 1 was ended by signal 9 (often: out of memory)"
    assert (run.returncode, errors) == (1, f"{line} (all messages: {log})\n")
    assert not (tmp_path / "results.json").exists()

    again = start(*words)
    assert again.wait(300) == 1 and "add --resume_from_checkpoint or --overwrite_output_dir" in again.stderr.read()
    resumed = start(*words, "--resume_from_checkpoint")
    printed, errors = resumed.communicate(timeout=300)
    assert (resumed.returncode, errors) == (0, "") and "FSDP2, from step" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert largest_difference(results, alone) < 1e-5 and results["epochs"] == alone["epochs"]
    for part, whole in alone["memory"][0].items():
        assert all(0.45 < memory[part] / whole < 0.55 for memory in results["memory"]), part


def test_resumed_with_dropout_as_if_nothing_had_happened(profile, tmp_path, monkeypatch, fresh_state):
    dropout = profile.with_name("dropout.toml")
    straight = in_this_process(dropout, tmp_path / "straight", "--checkpointing_steps", 3)
    save = script.save_checkpoint

    def interrupted(accelerator, folder, state):
        save(accelerator, folder, state)
        if state["step"] == 12:  # in the middle of the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(script, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_this_process(dropout, tmp_path / "cut", "--checkpointing_steps", 3)
    monkeypatch.setattr(script, "save_checkpoint", save)
    resumed = in_this_process(dropout, tmp_path / "cut", "--checkpointing_steps", 3, "--resume_from_checkpoint")
    assert resumed["losses"] == straight["losses"] and resumed["epochs"] == straight["epochs"]
    with pytest.raises(script.Refusal, match="is finished"):
        in_this_process(dropout, tmp_path / "again", "--max_train_steps", 10)
        in_this_process(dropout, tmp_path / "again", "--max_train_steps", 10, "--resume_from_checkpoint")


def test_checkpoints_are_whole_or_absent(tmp_path):
    class Accelerator:
        is_main_process, power = True, True

        def wait_for_everyone(self):
            pass

        def save_state(self, folder):
            Path(folder).mkdir()
            Path(folder, "model").write_text("first half")
            if not self.power:
                raise KeyboardInterrupt
            Path(folder, "model").write_text("first half, second half")

    accelerator = Accelerator()
    script.save_checkpoint(accelerator, tmp_path, {"step": 9})
    script.save_checkpoint(accelerator, tmp_path, {"step": 10})
    accelerator.power = False
    with contextlib.suppress(KeyboardInterrupt):
        script.save_checkpoint(accelerator, tmp_path, {"step": 11})
    assert script.last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert (tmp_path / "checkpoint-10" / "model").read_text().endswith("second half")
    accelerator.power = True
    script.save_checkpoint(accelerator, tmp_path, {"step": 11})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-11"]


# ------------------------------------------------------------------ refusals, before anything is started


def refusal(monkeypatch, capsys, *words):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys, "argv", ["mrpc_accelerate.py", *map(str, words)])
    assert script.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("mrpc_accelerate.py: ") and said.count("\n") == 1
    return said


def changed(tmp_path, name, **changes):
    file = tmp_path / name
    file.write_text(yaml.safe_dump(yaml.safe_load((LAUNCH / name).read_text()) | changes))
    return file


def test_launch_file_asks_for_what_is_not_here(monkeypatch, capsys, tmp_path):
    import torch

    def said(file, *words):
        return refusal(monkeypatch, capsys, "--output_dir", tmp_path / "out", "--config_file", file, *words)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpus = tmp_path / "gpus.toml"
    on_gpus.write_text('inherits = "reduced"\nuse_cpu = false\n')
    assert "ddp.yaml asks for 2 GPUs on this machine, which has 1; for CPUs take a *_cpu.yaml" in said(
        LAUNCH / "ddp.yaml", "--profile", on_gpus
    )
    assert "asks for GPUs, the profile for the CPU" in said(LAUNCH / "fsdp2.yaml")
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    assert "asks for DeepSpeed, which is not installed" in said(LAUNCH / "zero2_cpu.yaml")
    assert "asks for fp16 on a CPU" in said(changed(tmp_path, "ddp_cpu.yaml", mixed_precision="fp16"))
    assert "distributed_type must be one of MULTI_GPU, FSDP, DEEPSPEED" in said(
        changed(tmp_path, "ddp_cpu.yaml", distributed_type="MULTI_CPU")
    )
    assert "several machines need --main_process_ip" in said(LAUNCH / "ddp_cpu.yaml", "--num_machines", 2)
    assert "cannot read" in said(tmp_path / "none.yaml") and not (tmp_path / "out").exists()


def test_port_is_taken(monkeypatch, capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ("--output_dir", tmp_path, "--config_file", LAUNCH / "ddp_cpu.yaml", "--main_process_port", port)
        assert f"port {port} is taken by another program" in refusal(monkeypatch, capsys, *words)
    assert script._port_is_free(port)


def test_failure_in_training_is_one_line_with_the_traceback_kept(monkeypatch, capsys, tmp_path, profile, fresh_state):
    broken = tmp_path / "broken.toml"
    (tmp_path / "bert").mkdir()
    broken.write_text(f'inherits = "{profile}"\n[mrpc]\ncheckpoint = "{tmp_path / "bert"}"\n')
    said = refusal(monkeypatch, capsys, *options(broken, tmp_path / "out"))
    assert "Error: " in said and "traceback-0.txt" in said
    assert "Traceback" in (tmp_path / "out" / "traceback-0.txt").read_text()


def test_first_failure_is_told():
    log = (
        "mrpc_accelerate.py: process 1 of 2: RuntimeError: Connection closed by peer (see a)\n"
        "mrpc_accelerate.py: process 0 of 2: ValueError: no such column (see b)\n"
        "Failures:\n  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 12)\n"
        "Root Cause (first observed failure):\n  rank      : 0 (local_rank: 0)\n  exitcode  : 1 (pid: 11)\n"
    )
    assert script.what_failed(log) == "process 0 of 2: ValueError: no such column (see b)"
    assert script.what_failed("warning\nConnectionError: port 1\n") == "ConnectionError: port 1"


def test_options_for_the_launcher_are_not_for_the_script():
    words = ["--config_file", "a", "--output_dir", "--num_processes=2", "b", "--num_machines", "--max_train_steps"]
    assert script._without(words, ["--config_file", "--num_processes"]) == [words[2], *words[4:]]


@pytest.mark.parametrize("kind, layer", [("bert", "BertLayer"), ("distilbert", "TransformerBlock")])
def test_fsdp_gathers_the_layers_of_the_profiles_model(kind, layer):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(ROOT / "data/models" / kind))
    assert script.layer_classes(model) == [layer]


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
    words = options(profile, tmp_path, "--config_file", LAUNCH / "zero2_cpu.yaml", "--per_device_train_batch_size", 8)
    run = start(*words)
    _, errors = run.communicate(timeout=900)
    assert (run.returncode, errors) == (0, "")
    assert largest_difference(json.loads((tmp_path / "results.json").read_text()), alone) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_machines_on_loopback(profile, alone, tmp_path, launcher):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    words = options(profile, tmp_path, "--per_device_train_batch_size", 8)
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    machines = []
    for rank in (0, 1):
        where = f"--num_processes 2 --num_machines 2 --machine_rank {rank} --main_process_ip 127.0.0.1"
        by_file = [str(SCRIPT), "--config_file", str(LAUNCH / "ddp_cpu.yaml"), *where.split()]
        meeting = f"--nnodes 2 --nproc_per_node 1 --rdzv_id a --rdzv_backend c10d --rdzv_endpoint 127.0.0.1:{port}"
        command = {
            "accelerate": [*by_file, "--main_process_port", str(port)],
            "torchrun": ["-m", "torch.distributed.run", *meeting.split(), str(SCRIPT)],
        }
        machines.append(subprocess.Popen([sys.executable, *command[launcher], *words], env=env))
    assert [machine.wait(600) for machine in machines] == [0, 0]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["processes"] == 2 and largest_difference(results, alone) < 1e-5
