"""What this machine has, what is missing, and which profile suits it: `make doctor`.

Also `python -m helpers.doctor`, or this file alone with any Python 3.8 or newer: it needs nothing installed. The
report is plain text for a bug report; the home directory and the user's name are left out of it.

Exit code 1 when the lessons cannot run as tested: Python is too old, a package that pyproject.toml asks for is missing
or has another version than constraints.txt says, or torch does not import. Otherwise 0: another version of a package
that is only a dependency of those, no GPU or no network are reported, not errors.
"""

from __future__ import annotations

import gc
import getpass
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "full-finetuning"
OLDEST_PYTHON = (3, 11)
HUB_SECONDS = 2.5  # for everything: name lookup, connection and answer
GB = 1e9

# What the profiles ask for, in bytes; tests/test_doctor.py holds them against helpers.memory.
FULL_GPU = 8 * GB  # fine-tuning with the published settings
FULL_GPU_PRETRAINING = 24 * GB  # and lesson 03's batch of 12 x 1,024 tokens
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
        if gpu_memory < FULL_GPU_PRETRAINING:
            note = f"; lesson 03 needs {FULL_GPU_PRETRAINING / GB:.0f} GB or a smaller per_device_train_batch_size"
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


def ask_hub(endpoint: str, seconds: float = HUB_SECONDS) -> tuple[bool, str]:
    """Asks the Hub for a model's entry, within `seconds` whatever the name lookup, proxy or server does."""
    answer = []

    def ask():
        started = time.perf_counter()
        try:
            url = endpoint.rstrip("/") + "/api/models/openai-community/gpt2"
            with urllib.request.urlopen(url, timeout=seconds) as response:
                response.read(1)
            answer.append((True, f"answers in {time.perf_counter() - started:.1f} s"))
        except urllib.error.HTTPError as error:
            answer.append((False, f"answers with an error, HTTP {error.code}"))
        except Exception as error:  # whatever goes wrong here is a finding
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            answer.append((False, f"does not answer ({reason})"))

    thread = threading.Thread(target=ask, daemon=True)  # a lookup in progress cannot be stopped, only left behind
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else (False, f"no answer within {seconds} s")


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cgroup(name: str) -> list[str]:
    """The values of a cgroup file from this process's group up to the root (version 2), as in a container."""
    group = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = Path("/sys/fs/cgroup") / group.strip("/")
    values = [_read(place / name) for place in (folder, *folder.parents) if str(place).startswith("/sys/fs/cgroup")]
    return [value for value in values if value]


def memory() -> tuple[float, float, float]:
    """Total, free and container limit in bytes; 0 for what cannot be found out."""
    total = free = 0.0
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = float(line.split()[1]) * 1024
        elif line.startswith("MemAvailable:"):
            free = float(line.split()[1]) * 1024
    if not total:
        try:  # macOS, Windows
            import psutil

            total, free = float(psutil.virtual_memory().total), float(psutil.virtual_memory().available)
        except ImportError:
            pass
    limits = [float(value) for value in _cgroup("memory.max") if value.isdigit()]
    version_1 = _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if version_1.isdigit() and float(version_1) < total:
        limits.append(float(version_1))
    limit = min(limits, default=0.0)
    if limit:
        used = [float(value) for value in _cgroup("memory.current")[:1] if value.isdigit()]
        free = min(free, limit - sum(used)) if free else limit - sum(used)
    return total, free, limit


def cores() -> tuple[int, float]:
    """Cores of the machine, and how many this process may use (affinity and container quota)."""
    every = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(every)
    for quota, period in (value.split() for value in _cgroup("cpu.max")):
        if quota.isdigit():
            usable = min(usable, int(quota) / int(period))
    return every, usable


def matmul_speed(torch, dtype, size: int = 512, seconds: float = 0.1) -> float:
    """Floating-point operations a second of a square matrix product on the CPU, 2 n^3 each; the best of several."""
    a = torch.ones(size, size, dtype=dtype)
    best, started = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best


def folder_size(folder: Path, seconds: float = 2) -> tuple[float, bool]:
    """Bytes of all files under a folder, links not followed, and whether the time sufficed to see them all."""
    total, deadline = 0.0, time.perf_counter() + seconds
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
        if time.perf_counter() > deadline:
            return total, False
    return total, True


def caches() -> list[Path]:
    """Where Hugging Face's libraries keep downloads, as its documentation orders the environment variables."""
    general = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    home = Path(os.environ.get("HF_HOME") or general).expanduser()
    places = [home]
    for variable in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        place = Path(os.environ.get(variable) or home).expanduser()
        if not any(place == known or known in place.parents for known in places):
            places.append(place)
    return places


def _disk_free(folder: Path) -> int:
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


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


def _import_torch(needed: list[str], found: dict[str, str], problems: list[str]):
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


def examine() -> tuple[list[tuple[str, str]], list[str]]:
    """Looks at everything.

    Returns:
        Rows (title, text) of the report, and the problems.
    """
    rows, problems = [], []
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    question = None if offline else ThreadPoolExecutor(1).submit(ask_hub, endpoint)  # asked while we look at the rest
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        problems.append("Python {}.{} or newer is needed, this is {}".format(*OLDEST_PYTHON, version))
    inside = "in the project's .venv" if Path(sys.prefix).resolve() == ROOT / ".venv" else "not the project's .venv"
    rows += [("Python", f"{version}, {inside}"), ("System", platform.platform())]

    tested, needed, found = pins(_read(ROOT / "constraints.txt")), [], installed()
    if (ROOT / "pyproject.toml").exists():
        needed = required(_read(ROOT / "pyproject.toml"))
    package_problems, remarks = compare(tested, needed, found)
    problems += package_problems
    have = [f"{name} {found[name]}" for name in needed if name in found]
    rows.append(("Packages", ", ".join(have) if have else "none of the course's packages"))
    if not tested:
        rows.append(("", "constraints.txt is not there: versions not compared"))
    elif remarks:
        rows.append(("", "dependencies other than tested: " + ", ".join(remarks)))
    elif not package_problems and needed:
        rows.append(("", "all as tested"))
    torch = _import_torch(needed, found, problems)

    every, usable = cores()
    rows.append(("CPU", f"{every} cores" + (f", {usable:g} of them for this process" if usable < every else "")))
    if torch is None:
        rows.append(("bf16", "not measured: needs torch"))
    else:
        fp32, bf16 = (matmul_speed(torch, dtype) for dtype in (torch.float32, torch.bfloat16))
        verdict = "worth using" if bf16 > 1.1 * fp32 else "no gain on this CPU"
        speeds = f"fp32 {fp32 / GB:.0f}, bf16 {bf16 / GB:.0f} GFLOP/s"
        rows.append(("bf16", f"matrix product on {torch.get_num_threads()} threads: {speeds}: {verdict}"))

    total, free, limit = memory()
    text = f"{total / GB:.1f} GB, {free / GB:.1f} GB free" if total else "unknown (needs psutil on this system)"
    rows.append(("Memory", text + (f", container limit {limit / GB:.1f} GB" if limit else "")))
    gpus, gpu_memory = _gpu(torch)
    rows += [("GPU" if i == 0 else "", text) for i, text in enumerate(gpus)]

    for i, cache in enumerate(caches()):
        size, complete = folder_size(cache)
        text = f"{'' if complete else 'more than '}{size / GB:.2f} GB in {cache}"
        rows.append(("HF cache" if i == 0 else "", text if cache.exists() else f"nothing yet at {cache}"))
    disk, cache_disk = _disk_free(ROOT), min(map(_disk_free, caches()))
    rows.append(("Disk", f"{disk / GB:.0f} GB free here, {cache_disk / GB:.0f} GB at the cache"))

    hub, text = question.result() if question else (False, "not asked: HF_HUB_OFFLINE is set")
    rows.append(("Hub", text + (" (as HF_ENDPOINT says)" if "HF_ENDPOINT" in os.environ else "")))

    name, reason = recommend(gpu_memory=gpu_memory, memory=free, disk=cache_disk, hub=hub)
    chosen = os.environ.get("FINETUNING_PROFILE")
    rows.append(("Profile", f"{name}: {reason}" + (f" (FINETUNING_PROFILE says {chosen})" if chosen else "")))
    return rows, problems


def main() -> int:
    """Prints the report; returns 1 when the lessons cannot run as tested, else 0."""
    rows, problems = examine()
    lines = ["Every Parameter, doctor", ""]
    for title, text in rows:
        lines += textwrap.wrap(
            text, 100, initial_indent=f"{title:<10}", subsequent_indent=" " * 10, break_on_hyphens=False
        )
    lines.append("")
    if problems:
        for text in problems:
            lines += textwrap.wrap(f"Problem: {text}", 100, subsequent_indent=" " * 10, break_on_hyphens=False)
        lines.append("To mend it: make install-full-finetuning (other ways: SETUP.md)")
    else:
        lines.append("No problem found.")
    print(private("\n".join(lines)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
