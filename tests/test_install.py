"""The install: what pyproject.toml, constraints.txt, the Makefile, the README and CI say about it agrees."""

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.doctor import pins, required

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
needs_make = pytest.mark.skipif(not shutil.which("make") or sys.platform == "win32", reason="needs make and a shell")


def make(*arguments, **options):
    return subprocess.run(["make", *arguments], capture_output=True, text=True, timeout=60, **options)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_groups_pin_what_constraints_pin():
    lines = [line for lines in tomllib.loads(PYPROJECT)["dependency-groups"].values() for line in lines]
    group = dict(re.match(r"([\w.-]+)==([\w.*]+)", line).groups() for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in group.items()}
    tested = pins(CONSTRAINTS)
    assert pinned == {name: tested.get(name) for name in pinned}
    assert group["torch"] == "2.13.*"  # the build, CPU or GPU, is the platform's


def test_everything_that_is_installed_for_the_group_is_pinned():
    """Follows the requirements of the installed packages, so a package that comes in unpinned is found."""
    import importlib.metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    tested, seen, waiting = pins(CONSTRAINTS), set(), required(PYPROJECT)
    while waiting:
        name = waiting.pop()
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):  # torch's own, pinned by torch
            continue
        seen.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    assert len(seen) > 100
    assert seen - tested.keys() == set()


def test_constraints_have_each_package_once_and_sorted():
    names = [line.split("==")[0].lower() for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    assert names == sorted(set(names))


@needs_make
def test_help_is_the_default_and_every_target_it_names_exists():
    shown = make("-C", str(ROOT)).stdout
    targets = re.findall(r"^make ([\w-]+) ", shown, re.MULTILINE)
    assert set(targets) == set(re.search(r"^\.PHONY: help (.*)$", read("Makefile"), re.MULTILINE)[1].split())
    for target in targets:
        assert make("-C", str(ROOT), "--dry-run", target).returncode == 0, target


def test_ci_runs_the_commands_of_the_readme():
    in_readme = re.findall(r"^make [\w-]+$", read("README.md"), re.MULTILINE)
    in_ci = re.findall(r"^make [\w-]+$", read(".ci/run"), re.MULTILINE)
    assert in_readme == ["make lab", "make test"]
    assert in_ci == ["make install-full-finetuning", "make test", "make test-browser"]
    assert re.search(r"^lab: \$\(STAMP\)$", read("Makefile"), re.MULTILINE)  # what `make lab` does first
    assert re.search(r"^install-full-finetuning: \$\(STAMP\)$", read("Makefile"), re.MULTILINE)


@pytest.fixture
def project(tmp_path):
    """The Makefile in a folder with a space in its name, where nothing is installed."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@needs_make
def test_a_missing_python_is_named(project):
    outcome = make("lab", "PYTHON=python-not-there", cwd=project)
    assert outcome.returncode != 0
    assert "There is no 'python-not-there' here" in outcome.stderr
    assert "PYTHON=python3.12" in outcome.stderr


def stand_in(folder, answer):
    """A shell script that stands in for Python: `answer` is what it does with `-c CODE`."""
    script = folder / "python-stand-in"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\n{answer}\n', encoding="utf-8")
    script.chmod(0o755)
    return f"PYTHON={script}"


@needs_make
def test_an_old_python_is_refused_with_its_version(project):
    outcome = make("test", stand_in(project, "exit 1"), cwd=project)
    assert outcome.returncode != 0
    assert "Python 3.11 to 3.14 is needed" in outcome.stderr
    assert "is Python 3.9.1" in outcome.stderr
    assert not (project / ".venv").exists()


@needs_make
def test_a_python_without_venv_says_what_to_install(project):
    answer = 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac'
    outcome = make("test", stand_in(project, answer), cwd=project)
    assert outcome.returncode != 0
    assert "sudo apt install python3-venv" in outcome.stderr


@needs_make
def test_the_second_install_does_nothing_until_the_versions_change(project):
    stamp = project / ".venv" / ".full-finetuning-installed"
    assert "pip install" in make("--dry-run", "install-full-finetuning", cwd=project).stdout
    stamp.parent.mkdir()
    stamp.touch()
    assert "pip install" not in make("--dry-run", "install-full-finetuning", cwd=project).stdout
    later = stamp.stat().st_mtime + 10

    os.utime(project / "constraints.txt", (later, later))
    assert "-c constraints.txt --group full-finetuning" in make("--dry-run", "lab", cwd=project).stdout


@pytest.fixture
def installed(project):
    """The same folder, where Python is a script that notes its arguments; its status is $TESTS or $NOTEBOOKS."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    script = '#!/bin/sh\necho "$*" >> calls\ncase "$*" in *--nbval-lax*) exit $NOTEBOOKS;; *) exit $TESTS;; esac\n'
    python.write_text(script, encoding="utf-8")
    python.chmod(0o755)
    (project / ".venv" / ".full-finetuning-installed").touch()
    return project


def make_test(folder, *words, tests=0, notebooks=0, **environment):
    """Runs `make test` where CI is unset; returns the outcome and the two calls of pytest."""
    ours = ("CI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # the last three where `make test` itself runs this test
    plain = {name: value for name, value in os.environ.items() if name not in ours}
    given = plain | {"TESTS": str(tests), "NOTEBOOKS": str(notebooks)} | environment
    outcome = make("test", *words, cwd=folder, env=given)
    return outcome, (folder / "calls").read_text(encoding="utf-8").splitlines()


@needs_make
@pytest.mark.parametrize(("tests", "notebooks"), [(0, 0), (1, 0), (0, 1), (2, 1), (1, 3)])
def test_both_halves_run_and_the_worse_decides(installed, tests, notebooks):
    outcome, calls = make_test(installed, tests=tests, notebooks=notebooks)
    assert [" tests " in call for call in calls] == [True, False] and " notebooks " in calls[1]
    assert bool(outcome.returncode) == bool(tests or notebooks)
    said = "\n".join(outcome.stdout.splitlines()[-2:])
    for half, status in {"tests": tests, "notebooks": notebooks}.items():
        assert f"{half}: failed (pytest's status {status}, above)" in said if status else f"{half}: passed" in said
    worse = max(tests, notebooks)
    assert not worse or f"Error {worse}" in outcome.stderr


@needs_make
def test_ci_and_a_reader_who_asks_run_every_notebook(installed):
    usual = make_test(installed)[1]
    assert "--skip-unchanged" not in usual[0] and "--skip-unchanged" in usual[1]
    for words, environment in ((("ALL=1",), {}), ((), {"CI": "true"})):
        assert "--skip-unchanged" not in make_test(installed, *words, **environment)[1][-1]
    assert re.search(r"^export CI=true$", read(".ci/run"), re.MULTILINE)


def test_importing_helpers_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import helpers; print(*set(sys.modules) - before)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split() == ["helpers"]


def test_helpers_do_not_import_heavy_libraries():
    """Each module and package of helpers leaves torch, transformers and matplotlib to the functions that need them."""
    modules = ", ".join(f"helpers.{module.name}" for module in pkgutil.iter_modules([ROOT / "helpers"]))
    code = f"import sys, {modules}; print(*sys.modules.keys() & {{'torch', 'transformers', 'matplotlib', 'datasets'}})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == ""
