"""helpers.doctor: right about packages, quick when the Hub hangs, alive without torch, silent about the user."""

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from helpers import doctor, hub, machine
from helpers.doctor import GB, compare, hub_line, pins, private, recommend, required, same_version
from helpers.hub import ask_hub

ROOT = Path(__file__).resolve().parent.parent


def run_doctor(*options, **environment):
    command = [sys.executable, *options, "-m", "helpers.doctor"]
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=settings, cwd=ROOT, timeout=60)


@pytest.fixture
def silent_server():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("machine", "profile", "because"),
    [
        (dict(gpu_memory=80 * GB, memory=200 * GB, disk=500 * GB, hub=True), "full", "80 GB"),
        (
            dict(gpu_memory=12 * GB, memory=30 * GB, disk=500 * GB, hub=True),
            "full",
            "lessons 03, 12 and 13 want up to 26 GB",
        ),
        (dict(gpu_memory=80 * GB, memory=200 * GB, disk=500 * GB, hub=False), "reduced", "Hub does not answer"),
        (dict(gpu_memory=4 * GB, memory=16 * GB, disk=100 * GB, hub=True), "laptop", "4.0 GB"),
        (dict(gpu_memory=80 * GB, memory=60 * GB, disk=15 * GB, hub=True), "laptop", "20 GB of free disk"),
        (dict(memory=16 * GB, disk=100 * GB, hub=True), "laptop", "CUDA"),
        (dict(memory=3 * GB, disk=100 * GB, hub=True), "reduced", "3.0 GB of memory"),
        (dict(memory=0, disk=100 * GB, hub=True), "reduced", "unknown"),
        (dict(memory=16 * GB, disk=5 * GB, hub=True), "reduced", "disk"),
    ],
)
def test_recommends_a_profile_with_its_reason(machine, profile, because):
    name, reason = recommend(**machine)
    assert name == profile
    assert because in reason


def test_setup_says_what_the_doctor_asks_for():
    page = (ROOT / "SETUP.md").read_text(encoding="utf-8")
    assert f"{doctor.LAPTOP_MEMORY / GB:.0f} GB of free memory" in page
    gpu, large = doctor.FULL_GPU / GB, doctor.FULL_GPU_LARGE / GB
    assert f"GPU with {gpu:.0f} GB ({large:.0f} GB for lessons 03, 12 and 13)" in page
    rows = re.findall(r"^\| (\d\d(?: to \d\d)?) \|.*\| ([\d.]+) GB \|$", page, re.MULTILINE)
    assert dict(rows) == {lesson: f"{step_of('full', name, 'cuda') / GB:.1f}" for lesson, name in LESSONS.items()}


def test_recommended_profiles_exist():
    profiles = tomllib.loads((ROOT / "helpers" / "profiles.toml").read_text(encoding="utf-8"))
    assert {"reduced", "laptop", "full"} <= profiles.keys()


# The table of the profile that each lesson takes its largest step from
LESSONS = {
    **{"01": "concepts", "02": "imdb", "03": "openwebtext", "04 to 06": "mrpc", "07": "documents"},
    **{"08": "conll2003", "09": "lora", "10": "domain", "11": "squad", "12": "instructions", "13": "preferences"},
}
LARGE = ["openwebtext", "instructions", "preferences"]
TASKS = {"openwebtext": "causal-lm", "domain": "causal-lm", "instructions": "causal-lm", "preferences": "causal-lm"}
TASKS |= {"conll2003": "token-classification", "squad": "question-answering"}
SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
SMOLLM2 |= {"num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True}
SMOLLM2 |= {"max_position_embeddings": 8192}  # SmolLM2-135M, as its config.json says


def step_of(profile, name, device):
    """Bytes of a training step on one table of a profile, its reference model included."""
    from helpers.memory import estimate, estimate_preferences
    from helpers.profiles import load_profile

    table = load_profile(profile).tables[name]
    checkpoint = table.checkpoint.removesuffix("-Instruct")
    return (estimate_preferences if name == "preferences" else estimate)(
        SMOLLM2 if checkpoint.endswith("SmolLM2-135M") else checkpoint,
        per_device_train_batch_size=table.per_device_train_batch_size,
        sequence_length=getattr(table, "block_size", None) or table.max_length,
        task=TASKS.get(name, "sequence-classification"),
        precision="bf16" if table.bf16 else "fp32",
        padded=True,
        device=device,
    ).peak_bytes


@pytest.mark.parametrize(
    ("profile", "tables", "device", "limit"),
    [
        ("full", [name for name in LESSONS.values() if name not in LARGE], "cuda", doctor.FULL_GPU),
        ("full", LARGE, "cuda", doctor.FULL_GPU_LARGE),
        ("laptop", LESSONS.values(), "cpu", doctor.LAPTOP_MEMORY),
    ],
)
def test_what_a_profile_asks_for_is_what_its_lessons_take(profile, tables, device, limit):
    peaks = {name: step_of(profile, name, device) for name in tables}
    besides = 2 * GB  # CUDA context and workspaces, or the libraries on a CPU
    assert max(peaks.values()) + besides <= limit, peaks
    assert 3 * (max(peaks.values()) + besides) > limit, f"{limit / GB} GB asks for far too much: {peaks}"


def test_a_wrong_and_a_missing_package_are_named():
    tested = {"torch": "2.13.*", "transformers": "5.23.0", "idna": "3.20"}
    found = {"transformers": "5.22.1", "idna": "3.19"}
    problems, remarks = compare(tested, ["torch", "transformers"], found)
    assert problems == ["missing: torch", "other version than tested: transformers 5.22.1 (tested: 5.23.0)"]
    assert remarks == ["idna 3.19 (tested: 3.20)"]


def test_every_build_of_the_tested_version_will_do():
    assert same_version("2.13.0+cpu", "2.13.*")
    assert same_version("2.13.1+cu130", "2.13.*")
    assert same_version("5.23.0", "5.23.0")
    assert not same_version("2.130.0", "2.13.*")
    assert not same_version("5.23.0.dev1", "5.23.0")


def test_markers_choose_by_system(monkeypatch):
    text = '# comment\nsoupsieve==2.10  # why\nappnope==1.0.0; sys_platform == "darwin"\n'
    monkeypatch.setattr(sys, "platform", "linux")
    assert pins(text) == {"soupsieve": "2.10"}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert pins(text) == {"soupsieve": "2.10", "appnope": "1.0.0"}
    with pytest.raises(ValueError, match="python_version"):
        pins('overrides==7.7.0; python_version < "3.12"')


def test_this_environment_is_as_tested():
    needed = required((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    problems, _ = compare(pins((ROOT / "constraints.txt").read_text(encoding="utf-8")), needed, doctor.installed())
    assert "torch" in needed
    assert problems == []


def test_a_hub_that_never_answers_is_given_up(silent_server):
    answer = ask_hub(silent_server, seconds=0.3)
    assert not hub_line(answer)[0]
    assert "0.3 s" in answer.reason or "timed out" in answer.reason


def test_a_hub_that_drips_is_given_up():
    """Each byte comes within the socket's time-out, the answer never does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def drip():
            connection, _ = listener.accept()
            with connection:
                while not done.wait(0.1):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        assert ask_hub(f"http://127.0.0.1:{listener.getsockname()[1]}", seconds=0.5).reason == "no answer within 0.5 s"
        assert dripping.is_alive()  # it would have gone on
        done.set()


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (200, b'{"id": "openai-community/gpt2"}', True, "answers in"),
        (404, b"", True, "answers in"),  # a mirror that lacks the model: the profiles accept it too
        (503, b"{}", False, "does not answer (HTTP 503)"),
    ],
)
def test_a_hub_that_answers(status, body, expected, words):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        reachable, text = hub_line(ask_hub(f"http://127.0.0.1:{server.server_port}/"))
    assert reachable is expected
    assert words in text


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "nonsense"])
def test_a_hub_that_cannot_be_there(endpoint):
    reachable, text = hub_line(ask_hub(endpoint))
    assert not reachable
    assert text.startswith("does not answer (")


def test_the_whole_report_with_a_hanging_hub(silent_server):
    """As a reader runs it, and with the marks of a person all around."""
    home = Path.home()
    outcome = run_doctor(HF_HUB_OFFLINE="", HF_ENDPOINT=silent_server, HF_HOME=str(home / "hub"), NO_PROXY="127.0.0.1")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stderr == ""
    assert re.search(rf"^Hub .*({hub.HUB_SECONDS} s|timed out)", outcome.stdout, re.MULTILINE)
    assert re.search(r"^Profile +reduced: ", outcome.stdout, re.MULTILINE)
    assert re.search(r"^bf16 .*fp32 \d+, bf16 \d+ GFLOP/s", outcome.stdout, re.MULTILINE)
    assert f"{Path('~') / 'hub'}" in outcome.stdout
    assert str(home) not in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) <= 100
    assert outcome.stdout.isascii()


def test_without_any_package():
    """`-E -s -S` leaves the standard library alone: nothing else is there. That is no error of `make`."""
    outcome = run_doctor("-E", "-s", "-S")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stderr == ""
    assert "Packages  not installed yet: make install-full-finetuning" in outcome.stdout
    assert "bf16      not measured: needs torch" in outcome.stdout
    assert "Profile   reduced" in outcome.stdout
    assert "Not installed yet: make install-full-finetuning" in outcome.stdout.splitlines()[-1]
    assert "Problem" not in outcome.stdout and "other version" not in outcome.stdout


def test_it_runs_as_a_file_from_anywhere(tmp_path):
    command = [sys.executable, "-S", str(ROOT / "helpers" / "doctor.py")]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert outcome.stdout.startswith("Every Parameter, doctor") and outcome.stderr == ""


def test_a_missing_package_is_a_problem_and_a_foreign_python_is_not_installed_yet(monkeypatch):
    found = doctor.installed()
    monkeypatch.setattr(doctor, "_import_torch", lambda found, problems: None)
    for keep, installed in ((lambda name: name != "seqeval", True), (lambda name: name < "f", False)):
        monkeypatch.setattr(doctor, "installed", lambda keep=keep: {name: found[name] for name in found if keep(name)})
        report = doctor.Report()
        doctor._packages(report)
        assert report.installed is installed
        assert report.problems == (["missing: seqeval"] if installed else [])


def test_a_torch_that_does_not_import_is_a_problem(tmp_path):
    (tmp_path / "torch.py").write_text(
        "raise OSError('libcudart.so.13: cannot open shared object file')\n", encoding="utf-8"
    )
    outcome = run_doctor(PYTHONPATH=str(tmp_path))
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert "Problem: torch does not import: libcudart.so.13" in outcome.stdout


def test_an_nvidia_gpu_that_torch_cannot_use_is_shown(tmp_path):
    if os.name != "posix":
        pytest.skip("the stand-in for nvidia-smi is a shell script")
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB'\n", encoding="utf-8")
    command.chmod(0o755)
    outcome = run_doctor("-E", "-s", "-S", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "GPU       NVIDIA L4, 23034 MiB (torch is missing)" in outcome.stdout


def no_room(*arguments, **options):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_folder_where_nothing_can_be_saved_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not there yet" / "cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    assert doctor._places() == [] and not any(tmp_path.iterdir())
    monkeypatch.setattr(machine.tempfile, "TemporaryFile", no_room)
    here, cache = doctor._places()
    assert (
        here == "nothing can be saved in this folder, as lessons do (Read-only file system): copy it to one of your own"
    )
    assert "cache (Read-only file system): set HF_HOME to a folder of your own" in cache
    monkeypatch.setattr(doctor.tempfile, "gettempdir", no_room)
    assert "set TMPDIR" in doctor._places()[2]


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    command = [sys.executable, "-E", "-s", "-S", "-m", "helpers.doctor"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        outcome = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
    assert outcome.returncode == 1
    assert outcome.stderr == "doctor: the report could not be written: No space left on device\n"


def test_home_and_user_are_left_out(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    text = "/home/ada/.cache, /scratch/ada/hub, /home/adam/x, no /scratch/adamant, radar"
    assert private(text) == "~/.cache, /scratch/USER/hub, /home/adam/x, no /scratch/adamant, radar"


def test_a_container_limit_counts_as_the_memory(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB",
        "/proc/self/cgroup": "0::/box",
        "/sys/fs/cgroup/box/memory.max": "8000000000",
        "/sys/fs/cgroup/box/memory.current": "7000000000",
        "/sys/fs/cgroup/box/memory.stat": "anon 2500000000\nactive_file 1500000000\ninactive_file 2400000000\n"
        "slab_reclaimable 100000000\nworkingset_refault_anon 0",  # files at hand are given back when wanted
        "/sys/fs/cgroup/memory.max": "max",
        "/sys/fs/cgroup/box/cpu.max": "150000 100000",
    }
    monkeypatch.setattr(machine, "read", lambda path: files.get(Path(path).as_posix(), ""))
    total, free, limit = machine.memory()
    assert (total, free, limit) == (64000000 * 1024, 5e9, 8e9)
    assert machine.cores()[1] == min(1.5, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1.5)


def test_the_limit_of_version_1_and_of_a_group_above(monkeypatch):
    meminfo = {"/proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB"}
    old = {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "8000000000",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "7000000000",
        "/sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 4000000000",
    }
    above = {
        "/proc/self/cgroup": "0::/room/seat",
        "/sys/fs/cgroup/room/seat/memory.max": "max",
        "/sys/fs/cgroup/room/seat/memory.current": "1",
        "/sys/fs/cgroup/room/memory.max": "8000000000",
        "/sys/fs/cgroup/room/memory.current": "3000000000",
    }
    for files in (old, above):
        monkeypatch.setattr(machine, "read", lambda path, files=files: (meminfo | files).get(Path(path).as_posix(), ""))
        assert machine.memory() == (64000000 * 1024, 5e9, 8e9)


def test_cache_size_and_its_time_limit(tmp_path, monkeypatch):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(b"x" * 1000)
    try:
        (tmp_path / "link").symlink_to(tmp_path / "blobs" / "a")
    except OSError:
        pytest.skip("no links on this system")
    size, complete = machine.folder_size(tmp_path)
    assert 1000 <= size < 1500  # the link counts as itself, not as the file again
    assert complete
    assert machine.folder_size(tmp_path, seconds=-1)[1] is False
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path.parent / "elsewhere"))
    assert machine.caches() == [tmp_path, tmp_path.parent / "elsewhere"]
