"""The house: who imports whom, how long a file and a function may be, and that CONTRIBUTING.md draws what is there."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("helpers", "takehome", "scripts", "tools", "site", "tests", "data/build")
PACKAGES = ("helpers", "takehome")  # these are imported by their name; of the other rooms each file is a module
# site/_source and site/_build are made by `make site`
FILES = {
    room: sorted(path for path in (ROOT / room).rglob("*.py") if not {"_source", "_build"} & set(path.parts))
    for room in ROOMS
}
COURSE = [path for room in ROOMS if room not in ("tests", "data/build") for path in FILES[room]]

LONGEST_FUNCTION, LONGEST_FILE, MOST_SKIPS = 60, 400, 10


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def imported(tree):
    """The full names that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def room_of(module):
    """The room that a module is in, or None if it is not ours."""
    first = module.split(".")[0]
    if first in PACKAGES:
        return first
    return next((room for room in ROOMS if room not in PACKAGES and (ROOT / room / f"{first}.py") in FILES[room]), None)


def who_imports_whom():
    """{(room, imported room): [files]}, without what a room imports of itself."""
    found = {}
    for room, files in FILES.items():
        for path in files:
            for other in {room_of(module) for module in imported(tree_of(path))} - {None, room}:
                found.setdefault((room, other), []).append(name_of(path))
    return found


def drawn():
    """The arrows of CONTRIBUTING.md's picture, as pairs of rooms."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)[1]
    names = dict(re.findall(r'^ *(\w+)\["<b>([\w/]+)', picture, re.MULTILINE))
    arrows = re.findall(r"^ *(\w+(?: & \w+)*) --> (\w+(?: & \w+)*)", picture, re.MULTILINE)
    return {(names[a], names[b]) for ones, others in arrows for a in ones.split(" & ") for b in others.split(" & ")}


def test_rooms_import_only_what_is_below_them():
    allowed = {
        "helpers": set(),
        "takehome": {"helpers"},
        "scripts": {"takehome", "helpers"},
        "tools": {"scripts", "takehome", "helpers"},
        "site": {"helpers"},
        "data/build": set(),
        "tests": set(ROOMS),
    }
    wrong = {pair: files for pair, files in who_imports_whom().items() if pair[1] not in allowed[pair[0]]}
    assert wrong == {}


def test_the_picture_draws_what_is_there():
    assert drawn() == {pair for pair in who_imports_whom() if pair[0] != "tests"}


def test_no_program_edits_the_path():
    edits = re.compile(r"sys\.path(?:\.(?:insert|append|extend)|\s*\+?=|\[)|addsitedir")
    found = [name_of(path) for path in COURSE if edits.search(path.read_text(encoding="utf-8"))]
    # The first also runs where nothing is installed; in the other it is a line of a notebook that fetches the course.
    assert found == ["site/build.py", "site/hosted.py"]


def functions(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_file_and_no_function_is_longer_than_a_reader_can_hold():
    long = {}
    for path in COURSE:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LONGEST_FILE:
            long[name_of(path)] = lines
        long |= {f"{name_of(path)}:{name}": size for name, size in functions(path) if size > LONGEST_FUNCTION}
    assert long == {}


def test_few_lines_are_kept_from_the_formatter():
    mark = "fmt: " + "skip"
    lines = [
        f"{name_of(path)}:{number}"
        for path in [path for files in FILES.values() for path in files]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if mark in line
    ]
    assert len(lines) < MOST_SKIPS, lines


@pytest.mark.parametrize(
    "page", ["README.md", "SETUP.md", "INSTRUCTOR.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md"]
)
def test_pages_name_files_that_are_there(page):
    """In links, and where a path stands as code; NN and NAME stand for something else, _build is made."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rooms = "|".join((*ROOMS, "data", "notebooks"))
    named = re.findall(rf"`((?:{rooms})/[\w./-]*)", text) + re.findall(r"\]\((?!https?:)([^)#]+)", text)
    there = [name for name in named if not re.search("NN|NAME|_build", name)]
    assert [name for name in there if not (ROOT / name).exists()] == []


ONE_PLACE = {  # a word of CONTRIBUTING.md's table, and what stands in its file and in no other of the course
    "encoding": "from charset_normalizer",
    "colour": "#0072B2",
    "Hub": "HUB_SECONDS = ",
    "checkpoint": "os.fsync(",
    "card": "ModelCardData(",
    "GPU": "GPU(312e12",
    "family": "class Family",
}


@pytest.mark.parametrize("word", ONE_PLACE)
def test_a_change_has_one_place(word):
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("## One place for each change")[1].split("##")[0]
    (file,) = re.findall(rf"^\|[^|]*\b{word}\b[^|]*\| `([\w./]+)`", table, re.MULTILINE)
    assert [name_of(path) for path in COURSE if ONE_PLACE[word] in path.read_text(encoding="utf-8")] == [file]
