"""What this machine has, what is missing, and which profile suits it: `make doctor`.

Also `python -m helpers.doctor` or `python helpers/doctor.py`, with any Python from 3.8: it needs nothing installed. The
report is plain text for a bug report; the home directory and the user's name are left out of it.

Exit code 1 when the lessons cannot run as tested: Python is too old, a package that pyproject.toml asks for is missing
or has another version than constraints.txt says, torch does not import, or there is nowhere to save. Otherwise 0: that
nothing is installed yet, another version of a package that is only a dependency of those, no GPU or no network are
reported, not errors.
"""

from __future__ import annotations

import gc
import getpass
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__" and not __package__:  # run as a file, which does not find `helpers`
    sys.exit(subprocess.call([sys.executable, "-m", "helpers.doctor"], cwd=str(ROOT)))

from helpers.hub import Answer, ask_hub, said_offline  # noqa: E402
from helpers.machine import caches, cannot_write, cores, disk_free, folder_size, matmul_speed, memory, read  # noqa: E402

GROUP = "full-finetuning"
OLDEST_PYTHON = (3, 11)
INSTALL = "make install-full-finetuning (other ways: SETUP.md)"
GB = 1e9

# What the profiles ask for, in bytes; tests/test_doctor.py holds them against helpers.memory.
FULL_GPU = 10 * GB  # fine-tuning with the published settings
FULL_GPU_LARGE = 26 * GB  # pretraining GPT-2 (lesson 03), and answers of half a billion parameters (12 and 13)
LAPTOP_MEMORY = 8 * GB
LAPTOP_DISK, FULL_DISK = 10 * GB, 20 * GB  # downloads and checkpoints


def recommend(*, gpu_memory: float = 0, memory: float = 0, disk: float = 0, hub: bool = False) -> tuple[str, str]:
    """Chooses the profile for a machine.

    Args:
        gpu_memory: of the largest CUDA GPU that torch can use, in bytes; 0 without one.
        memory: free for this process, in bytes; 0 when unknown.
        disk: free where downloads go, in bytes.
        hub: whether the Hugging Face Hub answers.

    Returns:
        The profile's name and the reason, one sentence.
    """
    if not hub:
        return "reduced", "the Hub does not answer, and this profile needs no network"
    if gpu_memory >= FULL_GPU and disk >= FULL_DISK:
        note = ""
        if gpu_memory < FULL_GPU_LARGE:
            wanted = f"{FULL_GPU_LARGE / GB:.0f} GB, or a smaller per_device_train_batch_size"
            note = f"; lessons 03, 12 and 13 want up to {wanted}"
        return "full", f"a GPU with {gpu_memory / GB:.0f} GB and the Hub are there{note}"
    if disk < LAPTOP_DISK:
        return "reduced", f"less than {LAPTOP_DISK / GB:.0f} GB of disk are free for models and data from the Hub"
    if memory < LAPTOP_MEMORY:
        free = f"{memory / GB:.1f} GB" if memory else "an unknown amount"
        return "reduced", f"{free} of memory is free, real models on a CPU want {LAPTOP_MEMORY / GB:.0f} GB"
    if gpu_memory >= FULL_GPU:
        return "laptop", f"the GPU would do for full, but that wants {FULL_DISK / GB:.0f} GB of free disk"
    if gpu_memory:
        return "laptop", f"the GPU's {gpu_memory / GB:.1f} GB are less than the {FULL_GPU / GB:.0f} GB that full wants"
    return "laptop", "the Hub answers and the memory suffices for small real models; full wants a CUDA GPU"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_REQUIREMENT = re.compile(
    r"""^(?P<name>[\w.-]+) \s* (?P<version>[^;]*?) \s*
    (?:; \s* sys_platform \s* (?P<op>[=!]=) \s* ["'](?P<os>\w+)["'])?$""",
    re.VERBOSE,
)


def _requirement(line: str) -> tuple[str, str] | None:
    """Name and version of a requirement; None when its `sys_platform` marker names another system.

    Raises:
        ValueError: a form that the project's files do not use.
    """
    match = _REQUIREMENT.match(line.split(" #")[0].strip())
    if not match:
        raise ValueError(f"cannot read the requirement {line!r}: only name, version and sys_platform are understood")
    if match["op"] and (sys.platform == match["os"]) != (match["op"] == "=="):
        return None
    return _normal(match["name"]), match["version"]


def pins(constraints: str) -> dict[str, str]:
    """The version of each package in the text of a constraints file that applies to this system."""
    lines = [line for line in constraints.splitlines() if line.strip() and not line.startswith("#")]
    found = [_requirement(line) for line in lines]
    return {name: version.replace("==", "") for name, version in filter(None, found)}


def required(pyproject: str) -> list[str]:
    """The packages of the group full-finetuning in the text of a pyproject.toml; none before Python 3.11."""
    try:
        import tomllib
    except ImportError:
        return []
    found = [_requirement(line) for line in tomllib.loads(pyproject)["dependency-groups"][GROUP]]
    return [name for name, _ in filter(None, found)]


def installed() -> dict[str, str]:
    """Every installed distribution and its version."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_normal(name), distribution.version)
    return found


def same_version(version: str, pin: str) -> bool:
    """Whether an installed version fits a pin such as `5.23.0` or `2.13.*`; a build such as `+cpu` does not matter."""
    public = version.split("+")[0]
    return (public + ".").startswith(pin[:-1]) if pin.endswith(".*") else public == pin


def compare(tested: dict[str, str], needed: list[str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """Compares what is installed with what was tested.

    Returns:
        Problems (a needed package is missing or different) and remarks (a dependency is different).
    """
    missing = [name for name in needed if name not in found]
    different = [name for name, pin in tested.items() if name in found and not same_version(found[name], pin)]
    texts = {name: f"{name} {found[name]} (tested: {tested[name]})" for name in different}
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"other version than tested: {text}" for name, text in texts.items() if name in needed]
    return problems, [text for name, text in texts.items() if name not in needed]


def private(text: str) -> str:
    """Takes the home directory and the user's name, where it is part of a path, out of a text."""
    homes = {str(Path.home()), os.path.realpath(Path.home())} - {"/", ""}
    for home in sorted(homes, key=len, reverse=True):
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(r"(?<=[\\/])" + re.escape(user) + r"(?![\w.-])", "USER", text)


def _import_torch(found: dict[str, str], problems: list[str]):
    if "torch" not in found:
        return None
    gc.disable()  # what the import makes stays: looking for garbage in it, now and at the exit, takes a second
    try:
        import torch

        return torch
    except Exception as error:  # a broken build raises OSError, ImportError and others
        problems.append(f"torch does not import: {(str(error).splitlines() or [type(error).__name__])[0]}")
        return None
    finally:
        gc.freeze()
        gc.enable()


def _gpu(torch) -> tuple[list[str], float]:
    """Lines about the GPUs, and the memory in bytes of the largest that torch can use through CUDA."""
    if torch is not None and torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        lines = [f"{device.name}, {device.total_memory / GB:.1f} GB, {bf16}" for device in devices]
        return lines, max(device.total_memory for device in devices)
    if torch is not None and torch.backends.mps.is_available():
        return [f"Apple MPS, up to {torch.mps.recommended_max_memory() / GB:.1f} GB of the machine's memory"], 0
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=3, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ["none"], 0
    why = "torch is missing" if torch is None else f"this torch ({torch.__version__}) cannot use it: SETUP.md, PyTorch"
    return [f"{line} ({why})" for line in shown.splitlines()] or ["none"], 0


def _places() -> list[str]:
    """The places where lessons save and nothing can be saved, one sentence each."""
    problems = []
    if reason := cannot_write(ROOT / "notebooks"):
        problems.append(f"nothing can be saved in this folder, as lessons do ({reason}): copy it to one of your own")
    for cache in caches():
        if reason := cannot_write(cache):
            problems.append(f"nothing can be saved in {cache} ({reason}): set HF_HOME to a folder of your own")
    try:
        tempfile.gettempdir()
    except OSError:
        problems.append("there is no temporary directory with room: make some, or set TMPDIR to a folder that has it")
    return problems


@dataclass
class Report:
    """What the doctor found: rows (title, text), problems, and whether the packages are there, and as tested."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    installed: bool = True
    as_tested: bool = True

    def add(self, title: str, text: str) -> None:
        self.rows.append((title, text))


def examine() -> Report:
    """Looks at everything."""
    report = Report()
    question = None if said_offline() else ThreadPoolExecutor(1).submit(ask_hub)  # asked while we look at the rest
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        report.problems.append("Python {}.{} or newer is needed, this is {}".format(*OLDEST_PYTHON, version))
    inside = "in the project's .venv" if Path(sys.prefix).resolve() == ROOT / ".venv" else "not the project's .venv"
    report.add("Python", f"{version}, {inside}")
    report.add("System", platform.platform())
    report.problems += _places()
    torch = _packages(report)
    _processors(report, torch)

    total, free, limit = memory()
    text = f"{total / GB:.1f} GB, {free / GB:.1f} GB free" if total else "unknown (needs psutil on this system)"
    report.add("Memory", text + (f", container limit {limit / GB:.1f} GB" if limit else ""))
    gpus, gpu_memory = _gpu(torch)
    for i, text in enumerate(gpus):
        report.add("GPU" if i == 0 else "", text)

    for i, cache in enumerate(caches()):
        size, complete = folder_size(cache)
        text = f"{'' if complete else 'more than '}{size / GB:.2f} GB in {cache}"
        report.add("HF cache" if i == 0 else "", text if cache.exists() else f"nothing yet at {cache}")
    disk, cache_disk = disk_free(ROOT), min(map(disk_free, caches()))
    report.add("Disk", f"{disk / GB:.0f} GB free here, {cache_disk / GB:.0f} GB at the cache")

    hub, text = hub_line(question.result() if question else None)
    report.add("Hub", text + (" (as HF_ENDPOINT says)" if os.environ.get("HF_ENDPOINT") else ""))
    name, reason = recommend(gpu_memory=gpu_memory, memory=free, disk=cache_disk, hub=hub)
    chosen = os.environ.get("FINETUNING_PROFILE")
    report.add("Profile", f"{name}: {reason}" + (f" (FINETUNING_PROFILE says {chosen})" if chosen else ""))
    return report


def hub_line(answer: Answer | None) -> tuple[bool, str]:
    """Whether the Hub can be used, and the words for it."""
    if answer is None:
        return False, "not asked: HF_HUB_OFFLINE is set"
    if answer.reason:
        return False, f"does not answer ({answer.reason})"
    return True, f"answers in {answer.seconds:.1f} s"


def _packages(report: Report):
    """Compares the packages with those that were tested; returns torch, or None without it."""
    tested, needed, found = pins(read(ROOT / "constraints.txt")), [], installed()
    if (ROOT / "pyproject.toml").exists():
        needed = required(read(ROOT / "pyproject.toml"))
    have = [f"{name} {found[name]}" for name in needed if name in found]
    report.installed = not needed or len(have) > len(needed) / 2
    if not report.installed:  # what else is here is not what the lessons will use
        report.add("Packages", f"not installed yet: {INSTALL}")
        return None
    problems, remarks = compare(tested, needed, found)
    report.add("Packages", ", ".join(have) if have else "none of the course's packages")
    if not tested:
        report.add("", "constraints.txt is not there: versions not compared")
    elif remarks:
        report.add("", "dependencies other than tested: " + ", ".join(remarks))
    elif not problems and needed:
        report.add("", "all as tested")
    torch = _import_torch(found, problems)
    report.as_tested = not problems
    report.problems += problems
    return torch


def _processors(report: Report, torch) -> None:
    every, usable = cores()
    report.add("CPU", f"{every} cores" + (f", {usable:g} of them for this process" if usable < every else ""))
    if torch is None:
        report.add("bf16", "not measured: needs torch")
        return
    fp32, bf16 = (matmul_speed(torch, dtype) for dtype in (torch.float32, torch.bfloat16))
    verdict = "worth using" if bf16 > 1.1 * fp32 else "no gain on this CPU"
    speeds = f"fp32 {fp32 / GB:.0f}, bf16 {bf16 / GB:.0f} GFLOP/s"
    report.add("bf16", f"matrix product on {torch.get_num_threads()} threads: {speeds}: {verdict}")


def main() -> int:
    """Prints the report; returns 1 when the lessons cannot run as tested, else 0."""
    report = examine()
    lines = ["Every Parameter, doctor", ""]
    for title, text in report.rows:
        lines += textwrap.wrap(
            text, 100, initial_indent=f"{title:<10}", subsequent_indent=" " * 10, break_on_hyphens=False
        )
    lines.append("")
    for text in report.problems:
        lines += textwrap.wrap(f"Problem: {text}", 100, subsequent_indent=" " * 10, break_on_hyphens=False)
    if not report.installed:
        lines.append(f"Not installed yet: {INSTALL}")
    elif not report.as_tested:
        lines.append(f"To mend the packages: {INSTALL}")
    elif not report.problems:
        lines.append("No problem found.")
    return _say(private("\n".join(lines))) or int(bool(report.problems))


def _say(text: str) -> int:
    """Prints a text whatever the console can show; returns 1 if there is no room for it."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        print(text, flush=True)
    except OSError as error:  # a file on a full disk, or a pipe that is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says it again when it ends
        print(f"doctor: the report could not be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
