"""Notebooks that passed here and have not changed since are skipped, where `--skip-unchanged` is given.

`make test` gives it, `make test ALL=1` and CI do not. A notebook has changed when its code, the helpers, the data, the
programs that it starts, the installed versions or the profile have. What passed is kept in pytest's cache.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
KEPT = "every-parameter/notebooks-that-passed"


def pytest_addoption(parser):
    parser.addoption("--skip-unchanged", action="store_true", help="skip notebooks that passed here as they are")


def pytest_configure(config):
    if config.getoption("nbval_lax", False):
        config.pluginmanager.register(PassedNotebooks(config), "passed-notebooks")


def files_digest(*folders: Path) -> str:
    """The sha256 of all files below these folders, names and contents, without compiled ones."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def versions() -> list[str]:
    """Python, the system and every installed package with its version."""
    packages = {f"{found.name}=={found.version}" for found in importlib.metadata.distributions()}
    return [platform.python_version(), platform.platform(), *sorted(packages)]


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook, as they stand in its file."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def notebook_digests(root: Path) -> dict[str, str]:
    """For each notebook of the project the sha256 of all that its cells depend on; prose and outputs do not count."""
    always = [files_digest(root / "helpers", root / "data"), versions(), os.environ.get("FINETUNING_PROFILE")]
    programs = files_digest(root / "scripts", root / "takehome")
    digests = {}
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        code = json.dumps([[cell["source"], cell["metadata"]] for cell in code_cells(path)])
        used = [code, always, programs if "scripts/" in code else ""]
        digests[path.relative_to(root).as_posix()] = hashlib.sha256(json.dumps(used).encode()).hexdigest()
    return digests


class PassedNotebooks:
    """Skips the cells of unchanged notebooks, and keeps the digest of each notebook in which every cell has passed."""

    def __init__(self, config):
        self.config, self.passed, self.failed, self.skipped = config, Counter(), set(), set()
        self.digests = notebook_digests(ROOT)
        self.before = config.cache.get(KEPT, {}) if hasattr(config, "cache") else {}

    def is_unchanged(self, name: str) -> bool:
        """Whether a notebook passed here as it is now."""
        return name in self.digests and self.before.get(name) == self.digests[name]

    def pytest_collection_modifyitems(self, items):
        if not self.config.getoption("--skip-unchanged"):
            return
        for item in items:
            if self.is_unchanged(item.nodeid.split("::")[0]):
                item.add_marker(pytest.mark.skip(reason="unchanged since it passed here"))

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::")[0]
        if report.failed:
            self.failed.add(name)
        elif report.skipped:
            self.skipped.add(name)
        elif report.when == "call":
            self.passed[name] += 1

    def pytest_sessionfinish(self):
        if hasattr(self.config, "workerinput") or not hasattr(self.config, "cache"):
            return  # a worker of pytest-xdist: its reports go to the main process
        known = {name: digest for name, digest in self.before.items() if name in self.digests}
        whole = {name for name in self.digests if self.passed[name] == len(code_cells(ROOT / name)) > 0}
        passed = known | {name: self.digests[name] for name in whole}
        self.config.cache.set(KEPT, {name: passed[name] for name in passed if name not in self.failed})

    def pytest_terminal_summary(self, terminalreporter):
        names = sorted(name for name in self.skipped if self.is_unchanged(name))
        if names:
            terminalreporter.write_line(f"Unchanged since they passed here, so not run again: {', '.join(names)}.")
            terminalreporter.write_line("Run them all: make test ALL=1")
