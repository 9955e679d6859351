"""What this machine has for training: memory, cores, disk, speed, and the device that is computed on.

Standard library only, Python 3.8 or newer; torch is asked only by those that say something of devices.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path


def read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _groups() -> list[Path]:
    """The folders of this process's control group and of those above it (version 2), as in a container."""
    group = next((line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = Path("/sys/fs/cgroup") / group.strip("/")
    return [place for place in (folder, *folder.parents) if place.as_posix().startswith("/sys/fs/cgroup")]


def _reclaimable(statistics: str) -> float:
    """Bytes of a control group that the system gives back when they are wanted: files that it keeps at hand."""
    values = dict(line.split() for line in statistics.splitlines() if len(line.split()) == 2)
    keys = ("inactive_file", "active_file", "slab_reclaimable")
    return sum(float(values.get(f"total_{key}", values.get(key, 0))) for key in keys)  # total_: version 1


def memory() -> tuple[float, float, float]:
    """Total, free and container limit in bytes; 0 for what cannot be found out. What can be given back is free."""
    total = free = 0.0
    for line in read("/proc/meminfo").splitlines():
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
    version_1 = Path("/sys/fs/cgroup/memory")
    files = [(folder, "memory.max", "memory.current") for folder in _groups()]
    limits = []
    for folder, limit, used in [*files, (version_1, "memory.limit_in_bytes", "memory.usage_in_bytes")]:
        limit, used = read(folder / limit), read(folder / used)
        if limit.isdigit() and (folder != version_1 or float(limit) < total):  # version 1 has a limit always
            limits.append(float(limit))
            left = limits[-1] - max(0.0, float(used or 0) - _reclaimable(read(folder / "memory.stat")))
            free = min(free, left) if free else left
    return total, free, min(limits, default=0.0)


def cores() -> tuple[int, float]:
    """Cores of the machine, and how many this process may use (affinity and container quota)."""
    every = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(every)
    for quota, period in (read(folder / "cpu.max").split() or ("max", "") for folder in _groups()):
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


def disk_free(folder: Path) -> int:
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def cannot_write(folder: Path) -> str:
    """Why nothing can be saved in a folder, or in the nearest above it that is there; empty if it can."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=str(place)) as file:
            file.write(b" " * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def device_kind(use_cpu: bool = False) -> str:
    """The device that everything here computes on: "cuda", "mps" or "cpu". `use_cpu` is what profile or user say.

    MPS is taken only if a forward pass there gives what the CPU gives; else a warning says that it does not.
    """
    import torch

    if use_cpu:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and _agrees_with_cpu("mps") else "cpu"


@functools.cache
def _agrees_with_cpu(kind: str) -> bool:
    """Whether the logits of a small transformer, with padding, are on this device those of the CPU."""
    try:
        difference = (_small_forward(kind) - _small_forward("cpu")).abs().max().item()
        said = f"its logits differ by {difference:.1e} from the CPU's"
        if difference < 1e-3:  # a wrong kernel is off by far more, a NaN is not below
            return True
    except RuntimeError as error:  # an operation that is missing there
        said = str(error).splitlines()[0]
    warnings.warn(f"{kind} cannot be relied on here, so the CPU is taken: {said}", stacklevel=3)
    return False


def _small_forward(kind: str):
    """Logits [rows x tokens, words] of a random transformer on one device, always the same weights and inputs."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = torch.nn.Embedding(100, 64)
        layer = torch.nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
        ids = torch.randint(100, (4, 16))
    padding = torch.arange(16) >= torch.tensor([[16], [9], [12], [5]])
    words, layer = words.to(kind), layer.to(kind)
    with torch.no_grad():  # in training mode: another implementation takes over where that is off
        hidden = layer(words(ids.to(kind)), src_key_padding_mask=padding.to(kind))
        return (hidden @ words.weight.T).cpu()[~padding]


def mixed_precision(wanted: bool, device: str) -> str:
    """What to compute in: "bf16", "fp16" or "no", as Accelerate names it, in whatever precision the weights are.

    Args:
        wanted: whether half precision is asked for, as in a profile's `bf16`.
        device: see `device_kind`.

    Returns:
        On a GPU "bf16" where it has instructions for that, else "fp16" (T4, V100). On a CPU "bf16" where it has them;
        others would be slower than in fp32. On MPS "no".
    """
    import torch

    if not wanted:
        return "no"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"


def use_one_gpu() -> None:
    """Hides all GPUs but one from this process and its children, before torch asks for them.

    With several, `Trainer` would wrap the model in `torch.nn.DataParallel` by itself: each step takes the rows of
    several, so there are fewer steps and other losses. CUDA_VISIBLE_DEVICES is the way that its documentation names.
    Processes that a launcher started keep theirs: each takes one anyway.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
