"""What the lessons claim must hold on a GPU, too, or be said of the CPU alone: read in their code, without a GPU."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb"))}
CLOCKS = {"seconds", "exact_time", "coarse_time", "to_limit"}  # what lessons call the times that they measure


def code_cells(lesson):
    """The sources of a lesson's cells of code."""
    found = json.loads(LESSONS[lesson].read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


class Device:
    def __init__(self, kind):
        self.type = kind


@pytest.mark.parametrize("lesson", ["05", "06"])
@pytest.mark.parametrize(("kind", "steps"), [("cuda", 20), ("cpu", 1000)])
def test_loops_are_compared_as_far_as_the_device_repeats_itself(lesson, kind, steps):
    """A GPU adds up in changing order, and later steps carry that on: there the first 20 must agree, and loosely."""
    (cell,) = [cell for cell in code_cells(lesson) if "def difference(" in cell]
    known = {"device": Device(kind)}
    exec(cell.split("\nprint(")[0], known)
    for later, expected in ((0, 0.0), (1, 1.0)):
        theirs = [0.5] * (steps - 1) + [0.5 + later] + [9.0] * (kind != "cpu")
        assert known["difference"]([0.5] * len(theirs), theirs) == expected
    assert known["exact"] == (1e-6 if kind == "cpu" else 1e-3)


def names(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def claims(tree, said=frozenset()):
    """Each assertion's comparisons, with all names that it and the `if`s around it know."""
    if isinstance(tree, ast.If):
        said = said | names(tree.test)
    if isinstance(tree, ast.Assert):
        yield [node for node in ast.walk(tree.test) if isinstance(node, ast.Compare)], said | names(tree.test)
    for inner in ast.iter_child_nodes(tree):
        yield from claims(inner, said)


@pytest.mark.parametrize("lesson", LESSONS)
def test_that_one_way_is_faster_is_claimed_of_the_cpu_alone(lesson):
    for cell in code_cells(lesson):
        for compared, known in claims(ast.parse(re.sub(r"(?m)^[%!].*", "", cell))):
            for comparison in compared:
                assert not CLOCKS & names(comparison) or "device" in known, ast.unparse(comparison)


@pytest.mark.parametrize("lesson", LESSONS)
def test_half_precision_is_what_the_device_has(lesson):
    """A profile's wish goes through `mixed_precision`, which gives fp16 to a GPU without bf16."""
    code = "\n".join(code_cells(lesson))
    for line in code.splitlines():
        if "settings.bf16" in line and lesson != "09":
            assert "mixed_precision(settings.bf16" in line, line
    assert not re.search(r"is_available\(|is_bf16_supported\(", code)


def test_the_lesson_that_does_not_ask_computes_in_fp32():
    """Lesson 09 compares the memory of three ways in fp32."""
    profiles = tomllib.loads((ROOT / "helpers" / "profiles.toml").read_text(encoding="utf-8"))
    asked = {name: profiles[name].get("lora", {}).get("bf16") for name in ("reduced", "laptop", "full")}
    assert asked["reduced"] is asked["full"] is False and not asked["laptop"]  # None: it inherits from full
