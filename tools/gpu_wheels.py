"""Collects the packages that `make gpu-check` needs on a machine that has torch but no network.

    python tools/gpu_wheels.py gpu-wheels                         # for Python 3.12 on Linux, x86-64
    python tools/gpu_wheels.py gpu-wheels --cuda 130 --there there.txt

What the other machine has already is left out: by default THERE, or the names in a file, one a line, as
`pip list --format=freeze` writes them there. Versions are those of constraints.txt. Carry the folder over, and:

    python3 -m pip install --no-index --no-deps --target gpu-site gpu-wheels/*.whl
    PYTHONPATH=gpu-site make gpu-check
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("transformers", "accelerate", "datasets", "evaluate", "peft", "bitsandbytes", "seqeval", "optuna", "pandas")
NEEDED += ("matplotlib", "scikit-learn", "psutil", "pytest", "nbclient", "nbformat", "ipykernel", "ipywidgets")
NEEDED += ("filelock", "charset-normalizer", "pyyaml", "trl")
# What an image with PyTorch for research usually has, and is large or belongs to torch.
THERE = {
    *(
        "hf-xet",
        "pydantic",
        "pydantic-core",
        "regex",
        "rich",
        "tqdm",
        "typer",
        "pyyaml",
        "pygments",
        "peft",
        "accelerate",
    ),
    *("safetensors", "tokenizers", "sentencepiece", "charset-normalizer", "filelock", "xxhash", "click", "shellingham"),
    *("torch", "triton", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "matplotlib", "pillow", "fonttools"),
    *("contourpy", "kiwisolver", "cycler", "pyparsing", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"),
    *("setuptools", "pip", "packaging", "psutil", "pytest", "pluggy", "iniconfig", "aiohttp", "cuda-bindings"),
    *(
        "joblib",
        "threadpoolctl",
        "python-dateutil",
        "six",
        "typing-extensions",
        "requests",
        "urllib3",
        "certifi",
        "idna",
    ),
}
OURS = {"transformers", "datasets"}  # in the versions of constraints.txt, whatever is there
MOST = 64 * 2**20  # bytes of all wheels together
SYSTEMS = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)  # of manylinux_2_N


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: tuple[str, ...], there: set[str], python: str) -> list[str]:
    """These packages and what they need in turn on Linux, without what is there; as installed here."""
    wanted, found = [normal(name) for name in names], []
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    environment |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix", "extra": ""}
    while wanted:
        name = wanted.pop()
        if name in found or name in there or name.startswith("nvidia-"):
            continue
        found.append(name)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate(environment):
                wanted.append(normal(needed.name))
    return sorted(found)


def pinned() -> dict[str, str]:
    """The version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normal(m[1]): m[2] for line in lines if (m := re.match(r"([\w.-]+)==([^\s;]+)", line))}


def fetch(name: str, version: str, python: str, folder: Path) -> None:
    """Downloads one wheel, or makes it where a pure package comes as source alone.

    Raises:
        SystemExit: there is none for that system.
    """
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    systems = [f"--platform=manylinux_2_{number}_x86_64" for number in SYSTEMS]
    systems += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64", "--platform=any"]
    what = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *systems]
    got = subprocess.run([*pip, "download", *what, "-d", str(folder), f"{name}=={version}"], capture_output=True)
    if got.returncode == 0:
        return
    made = subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", str(folder), f"{name}=={version}"], capture_output=True, text=True
    )
    if made.returncode or not list(folder.glob(f"{name.replace('-', '_')}-*-none-any.whl")):
        raise SystemExit(f"gpu_wheels.py: no wheel of {name}=={version} for Python {python} on Linux, x86-64")


def for_one_cuda(folder: Path, cuda: str) -> None:
    """Leaves of bitsandbytes' wheel only the library for one version of CUDA, such as "130", and that for the CPU."""
    for path in folder.glob("bitsandbytes-*.whl"):
        draft = path.with_suffix(".draft")
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as part:
            for entry in whole.infolist():
                library = re.search(r"libbitsandbytes_(\w+)\.so$", entry.filename)
                if library is None or library[1] in ("cpu", f"cuda{cuda}"):
                    part.writestr(entry, whole.read(entry))
        draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version on the other machine; default: 3.12")
    parser.add_argument("--cuda", help="of torch there, as 130 for 13.0; makes the wheel of bitsandbytes small")
    parser.add_argument("--there", type=Path, help="file that lists what that machine has")
    options = parser.parse_args()
    there = THERE
    if options.there:
        lines = options.there.read_text(encoding="utf-8").splitlines()
        there = {normal(re.split(r"[=@ ]", line)[0]) for line in lines if line.strip()} - OURS
    options.folder.mkdir(parents=True, exist_ok=True)
    versions = pinned()
    for name in closure(NEEDED, there, options.python):
        print(name, versions.get(name, importlib.metadata.version(name)), flush=True)
        fetch(name, versions.get(name, importlib.metadata.version(name)), options.python, options.folder)
    if options.cuda:
        for_one_cuda(options.folder, options.cuda)
    size = sum(path.stat().st_size for path in options.folder.glob("*.whl"))
    print(f"{options.folder}: {len(list(options.folder.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB")
    if size > MOST:
        raise SystemExit(
            f"gpu_wheels.py: more than {MOST // 2**20} MiB; say with --there what the machine has, and --cuda"
        )


if __name__ == "__main__":
    main()
