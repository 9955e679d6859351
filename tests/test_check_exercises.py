"""A room's notebooks, checked: twelve ways to hand something in, and nothing outlives its time limit."""

import json
import shutil
import sys
from pathlib import Path

import check_exercises
import exercise_runner
import nbformat
import psutil
import pytest
import submissions
from crossing import Malformed, Other, decode, encode

from helpers import checks

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "01_concepts.ipynb"
SOLVED = ROOT / "notebooks" / "solutions" / "01_concepts.ipynb"
WITHOUT = ["--without-isolation"]  # what these notebooks do is harmless, and not every system isolates
NAMES = ["optimizer_steps", "whole_batch_loss", "static_bytes", "epoch_to_keep"]


def notebook(path, *sources, kernel="python", solved=True):
    """Writes the solutions of lesson 01, or its untouched exercises, with further cells behind them."""
    book = nbformat.read(SOLVED if solved else LESSON, 4)
    book.cells = [cell for cell in book.cells if cell.cell_type == "code" and "checks.lesson_01" in cell.source]
    book.cells += map(nbformat.v4.new_code_cell, sources)
    book.metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": kernel}}
    nbformat.write(book, path)
    return book


def without(path, name):
    book = nbformat.read(path, 4)
    book.cells = [cell for cell in book.cells if f"def {name}(" not in cell.source]
    nbformat.write(book, path)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    stub = "def optimizer_steps(*_):\n    {}"
    notebook(folder / "01_right.ipynb")
    notebook(folder / "02_wrong.ipynb", stub.format("return 1"))
    nbformat.write(nbformat.v4.new_notebook(), folder / "03_empty.ipynb")
    notebook(folder / "04_crashing.ipynb", stub.format("import os; os._exit(3)"))
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(61)'], "
    child += "start_new_session=True, env={})\n    while True: pass"
    notebook(folder / "05_endless.ipynb", stub.format(child))
    notebook(
        folder / "06_loud.ipynb", "def static_bytes(*_):\n    for _ in range(3000): print('ha' * 50000)\n    return 0"
    )
    notebook(folder / "07_edited_checks.ipynb", "checks.lesson_01_static_bytes = lambda _: True", solved=False)
    notebook(folder / "08_missing.ipynb")
    without(folder / "08_missing.ipynb", "static_bytes")
    notebook(folder / "09_other_kernel.ipynb", kernel="R")
    (folder / "10_no_json.ipynb").write_text("{ 'cells': ", encoding="utf-8")
    other = nbformat.read(ROOT / "notebooks" / "solutions" / "05_mrpc_pytorch_loop.ipynb", 4)
    nbformat.write(other, folder / "11_other_lesson.ipynb")
    notebook(folder / "12_copy.ipynb", "# of my own", "print('training, which nobody waits for')\nmodel.train()")
    return folder


def test_twelve_notebooks(room, capsys):
    assert check_exercises.main([str(LESSON), str(room), "--seconds", "4", *WITHOUT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["notebook", *NAMES, "remark"]
    found = {line.split()[0][:2]: " ".join(line.split()[1:]) for line in lines[1:]}
    rest = " right right right"
    assert found == {
        "01": "right" + rest,
        "02": "wrong" + rest + " more than one optimizer_steps: the last one counts",
        "03": "- - - - none of this lesson's exercises in it",
        "04": "crash" + rest + " more than one optimizer_steps: the last one counts",
        "05": "over time" + rest + " more than one optimizer_steps: the last one counts",
        "06": "right right wrong right more than one static_bytes: the last one counts",
        "07": "not started not started not started not started",
        "08": "right right missing right",
        "09": "- - - - a notebook for R, not for Python",
        "10": "- - - - not a notebook",
        "11": "- - - - another lesson: 05_mrpc_pytorch_loop.ipynb",
        "12": "right" + rest + " word for word as 01_right.ipynb",
    }
    running = [each.info for each in psutil.process_iter(["name", "cmdline"])]  # None for one that is just ending
    left = [each["cmdline"] or [] for each in running if (each["name"] or "").startswith("python")]
    assert not any("time.sleep(61)" in " ".join(line) for line in left)


def test_only_what_an_exercise_needs_is_run(tmp_path):
    sources = [
        "import math\nrate = 1 / 0",
        "steps = 10\nsize = 3",
        "def f(rows):\n    rate = 2\n    return math.ceil(rows / size)",
    ]
    notebook(tmp_path / "a.ipynb", *sources)
    parsed = submissions.parse(submissions.code_cells((tmp_path / "a.ipynb").read_text(encoding="utf-8")))
    needed = submissions.needed(parsed.statements, "f")
    assert [each.text.split("\n")[0] for each in needed] == ["import math", "size = 3", "def f(rows):"]


def test_a_lesson_with_tensors(tmp_path, capsys):
    lesson = "09_lora_and_qlora.ipynb"
    shutil.copy(ROOT / "notebooks" / "solutions" / lesson, tmp_path)
    assert check_exercises.main([str(ROOT / "notebooks" / lesson), str(tmp_path), *WITHOUT]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1:] == ["right"] * 3


@pytest.mark.parametrize("lesson", sorted(path.stem for path in (ROOT / "notebooks" / "solutions").glob("*.ipynb")))
def test_every_exercise_crosses(lesson):
    """Arguments and answers of all solutions survive the way to another process and back."""
    parsed = submissions.parse(
        submissions.code_cells((ROOT / f"notebooks/solutions/{lesson}.ipynb").read_text(encoding="utf-8"))
    )
    wanted = submissions.exercises(ROOT / f"notebooks/{lesson}.ipynb")
    for check, name in wanted.items():
        cells = submissions.cells_of(submissions.needed(parsed.statements, name), parsed.sources)
        function = exercise_runner.define(json.loads(json.dumps(cells)), name)

        def there_and_back(*arguments, function=function):
            arguments = json.loads(json.dumps([encode(each, strict=True) for each in arguments]))
            return decode(json.loads(json.dumps(encode(function(*map(decode, arguments))))))

        verdict = getattr(checks, check)(there_and_back)
        assert verdict, verdict


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_isolates(monkeypatch, capsys, tmp_path, platform):
    notebook(tmp_path / "a.ipynb")
    monkeypatch.setattr(sys, "platform", platform)
    assert check_exercises.main([str(LESSON), str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(
        "Submitted code cannot be isolated here: only Linux has the means. Nothing was run"
    )


@pytest.mark.parametrize("option", [["--seconds", "nan"], ["--seconds", "-1"], ["--minutes", "0"], ["--minutes", "x"]])
def test_bad_options(capsys, tmp_path, option):
    with pytest.raises(SystemExit):
        check_exercises.main([str(LESSON), str(tmp_path), *option])
    assert f"argument {option[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 名.ipynb", "plain ä 名.ipynb"),
        ("a\nb\tc\x1b[2J", "a\\nb\\tc\\x1b[2J"),
        ("to the left \u202e", "to the left \\u202e"),
        ("half \udcff", "half \\udcff"),
        ("a    b", "a b"),
        ("x" * 200, "x" * 99 + "…"),
        ("\x1b" * 99, "\\x1b" * 24 + "\\x1…"),
    ],
)
def test_texts_of_others_are_printable(text, shown):
    assert check_exercises.printable(text) == shown and len(shown) <= 100


@pytest.mark.parametrize("case", ["no lesson", "no exercises", "empty folder", "no folder"])
def test_bad_input(tmp_path, capsys, case):
    notebook(tmp_path / "a.ipynb")
    (tmp_path / "empty").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "none.ipynb")
    lesson = {"no lesson": tmp_path / "missing.ipynb", "no exercises": tmp_path / "none.ipynb"}.get(case, LESSON)
    folder = {"empty folder": tmp_path / "empty", "no folder": tmp_path / "nowhere"}.get(case, tmp_path)
    assert check_exercises.main([str(lesson), str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [None, True, 7, -2.5, "ä\n", [1, [2.0, ()]], (1, "x"), {"a": [1], (1, "b"): None}, float("inf"), [], 2**70],
)
def test_values_cross(value):
    back = decode(json.loads(json.dumps(encode(value, strict=True))))
    assert back == value and type(back) is type(value)


def test_arrays_and_tensors_cross():
    import numpy as np
    import pandas as pd
    import torch

    for value in (torch.arange(6).reshape(2, 3), torch.tensor(0.1), torch.zeros(0, 3), torch.tensor([True])):
        back = decode(json.loads(json.dumps(encode(value))))
        assert back.dtype == value.dtype and back.shape == value.shape and torch.equal(back, value)
    back = decode(encode(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)))
    assert back.dtype == torch.bfloat16 and back.tolist() == [1, 1]
    for value in (np.float32(0.1), np.arange(3.0), np.array([[1], [2]], dtype="uint8"), np.bool_(True)):
        back = decode(json.loads(json.dumps(encode(value))))
        assert back.dtype == value.dtype and back.tolist() == value.tolist()
    assert decode(encode(pd.Series(["a", None], dtype="object"))).tolist() == ["a", None]


def test_what_does_not_cross_is_shown():
    class Thing:
        def __repr__(self):
            return "<a thing>" * 100

    back = decode(json.loads(json.dumps(encode([Thing(), print, {1, 2}, 10**5000]))))
    assert all(isinstance(each, Other) for each in back)
    assert repr(back[0]).startswith("<a thing>") and len(repr(back[0])) == 300 and type(back[0]).__name__ == "Thing"
    with pytest.raises(TypeError, match="a Thing cannot be handed"):
        encode([Thing()], strict=True)


@pytest.mark.parametrize(
    "form",
    [
        {},
        [],
        ["list"],
        ["list", 7],
        ["evil", 1],
        ["dict", [1]],
        ["dict", [[["list", []], 1]]],
        ["other", 1, 2],
        ["tensor", "float32", [2], [1.0]],
        ["tensor", "float32", [1], ["x"]],
        ["tensor", "object", [1], [1]],
        ["tensor", "save", [1], [1]],
        ["array", "int64", [1], [10**30]],
        ["array", "O", [1], [1]],
        ["tensor", "int64", [-1, -1], [1]],
        ["tensor", "uint8", [1], [1000000]],
    ],
)
def test_malformed_values_are_refused(form):
    with pytest.raises(Malformed):
        decode(form)
    deep = form
    for _ in range(500):
        deep = ["list", [deep]]
    with pytest.raises(Malformed):
        decode(deep)
