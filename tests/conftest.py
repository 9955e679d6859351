"""What the tests share: the order in which they begin, and the programs that build the data."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The modules that take longest, so that they begin first and no core waits for them at the end.
FIRST = ()


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session")
def build_program():
    """Imports a program of data/build by its name; they import each other from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "data" / "build")
        yield importlib.import_module
