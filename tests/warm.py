"""Processes that start in a moment: forked from one that has imported the heavy libraries already.

They are real processes: they can be killed, limited, and given an environment of their own. Forking is for Linux: on
macOS a forked process may not use the system's BLAS, which torch does, and Windows cannot fork. There each process
is a fresh interpreter: slower, the same in all else.
"""

import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PRELOADED = [
    *("torch", "torch.utils.checkpoint", "accelerate", "datasets", "evaluate", "tqdm", "psutil", "sklearn.metrics"),
    *("transformers.trainer", "transformers.models.bert.modeling_bert", "transformers.models.gpt2.modeling_gpt2"),
    *("transformers.models.distilbert.modeling_distilbert", "transformers.models.gpt2.tokenization_gpt2"),
    *("matplotlib.pyplot", "nbformat", "helpers.memory", "helpers.flops", "helpers.curves", "takehome.trainer"),
    "tests.warmed_up",  # by its name from the project's folder, where pytest is started
]
CAN_FORK = sys.platform == "linux" and "forkserver" in multiprocessing.get_all_start_methods()

context = multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")
if CAN_FORK:
    context.set_forkserver_preload(PRELOADED)


@dataclass
class Outcome:
    """How a process ended: its exit status, and everything that it wrote to stdout and stderr."""

    status: int
    output: str


def run(function, *arguments, environment: dict | None = None, timeout: float = 300) -> Outcome:
    """Calls a function of a module in a process of its own, and waits for the end."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = context.Process(target=_call, args=(output, dict(environment or os.environ), function, arguments))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"still running after {timeout} s:\n{output.read_text(encoding='utf-8')}")
        return Outcome(process.exitcode, output.read_text(encoding="utf-8", errors="replace"))


def run_program(
    path: Path, *words, folder: Path | str = ".", environment: dict | None = None, timeout: float = 300
) -> Outcome:
    """Runs a Python program with these words of its command line, as `cd folder; python path words` would."""
    return run(_as_main, folder, str(path), *map(str, words), environment=environment, timeout=timeout)


def write_to(output: Path) -> None:
    """From now on, stdout and stderr of this process are appended to a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def limit_files(size: int) -> None:
    """This process cannot write a file of more bytes than this; it gets an error, as on a full disk. Not on Windows."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def mount_disk(folder: Path, size: int) -> None:
    """Mounts an empty disk of so many bytes, which this process alone sees; ends it with 77 where that is not allowed.

    Linux only.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespaces = 0x00020000 | (0 if os.geteuid() == 0 else 0x10000000)  # mounts, and users if not root
    if libc.unshare(new_namespaces) or libc.mount(b"none", b"/", None, 0x44000, None):  # private, recursively
        os._exit(77)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()):
        os._exit(77)


def _call(output: Path, environment: dict, function, arguments: tuple) -> None:
    os.environ.clear()
    os.environ.update(environment)
    write_to(output)
    function(*arguments)


def _as_main(folder: Path | str, path: str, *words: str) -> None:
    os.chdir(folder)
    sys.argv = [path, *words]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")
