"""What the tests share: the order in which they begin, and the programs that build the data."""

import importlib
import sys
from pathlib import Path

import pytest

from helpers.profiles import load_profile

load_profile("reduced")  # offline, before any library is imported

ROOT = Path(__file__).resolve().parent.parent

# The modules that take longest, so that they begin first and no core waits for them at the end.
FIRST = (
    *("test_hostile_notebooks.py", "test_mrpc_accelerate.py", "test_fine_tune_stops.py", "test_pretrain_gpt2.py"),
    *("test_memory.py", "test_hub.py", "test_platforms.py", "test_stream_faults.py", "test_curves.py"),
    *("test_check_exercises.py", "test_program_checkpoints.py", "test_hub_errors.py", "test_notebooks.py"),
    *("test_tasks.py", "test_entities.py", "test_fine_tune.py", "test_models.py", "test_evaluate_model.py"),
    *("test_memory_families.py", "test_push_to_hub.py", "test_program_options.py"),
)


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session")
def build_program():
    """Imports a program of data/build by its name; they import each other from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "data" / "build")
        yield importlib.import_module


@pytest.fixture
def assert_rebuilds(build_program, tmp_path, monkeypatch):
    """A function that runs a program of data/build and finds the committed folder, or file, in what it wrote."""

    def content(place):
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        return {path.relative_to(place.parent).as_posix(): path.read_bytes() for path in files}

    def check(name, committed):
        output = tmp_path / committed.name
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--output", str(output)])
        build_program(name).main()
        made, there = content(output), content(committed)
        assert made.keys() == there.keys()
        assert [file for file in made if made[file] != there[file]] == [], "run make data"

    return check
