"""A room's notebooks, checked: twelve ways to hand something in, and nothing outlives its time limit."""

import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "01_concepts.ipynb"
SOLVED = ROOT / "notebooks" / "solutions" / "01_concepts.ipynb"
NAMES = ["optimizer_steps", "whole_batch_loss", "static_bytes", "epoch_to_keep"]


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import check_exercises

    return check_exercises


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


def test_twelve_notebooks(check, room, capsys):
    start = time.monotonic()
    assert check.main([str(LESSON), str(room), "--seconds", "6"]) == 0
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
    assert time.monotonic() - start < 60
    if check.isolated():
        running = [each.info for each in psutil.process_iter(["name", "cmdline"])]  # None for one that is just ending
        left = [each["cmdline"] or [] for each in running if (each["name"] or "").startswith("python")]
        assert not any("time.sleep(61)" in " ".join(line) for line in left)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can take the network away")
def test_no_network(check, tmp_path):
    if not check.isolated():
        pytest.skip("this machine does not allow namespaces")
    source = "import socket\n\ndef f():\n    socket.create_connection(('127.0.0.1', 9), 1)"
    verdict = check.run([["lesson_01_static_bytes", "f", source + "\nf()"]], 20, check.isolated())
    assert verdict == {"lesson_01_static_bytes": "crash (OSError)"}


def test_only_what_an_exercise_needs_is_run(check, tmp_path):
    sources = [
        "import math\nrate = 1 / 0",
        "steps = 10\nsize = 3",
        "def f(rows):\n    rate = 2\n    return math.ceil(rows / size)",
    ]
    notebook(tmp_path / "a.ipynb", *sources)
    needed = check.needed(check.statements(tmp_path / "a.ipynb"), "f")
    assert [check.ast.unparse(each).split("\n")[0] for each in needed] == ["import math", "size = 3", "def f(rows):"]


@pytest.mark.parametrize("case", ["no lesson", "no exercises", "empty folder", "no folder"])
def test_bad_input(check, tmp_path, capsys, case):
    notebook(tmp_path / "a.ipynb")
    (tmp_path / "empty").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "none.ipynb")
    lesson = {"no lesson": tmp_path / "missing.ipynb", "no exercises": tmp_path / "none.ipynb"}.get(case, LESSON)
    folder = {"empty folder": tmp_path / "empty", "no folder": tmp_path / "nowhere"}.get(case, tmp_path)
    assert check.main([str(lesson), str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
