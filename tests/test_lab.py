"""A learner's own copy: made, refreshed, kept, made anew, and never written over; opened in a real JupyterLab."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import check_exercises
import nbformat
import pytest

from helpers import lab

ROOT = Path(__file__).resolve().parent.parent
LESSON, SOLUTION = "02_small.ipynb", "solutions/02_small.ipynb"
CARD = "# 02 Small\n\nTakes <!-- measured -->{} seconds<!-- /measured -->."


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def change(notebook, edit):
    """Changes a notebook's file as a program would that knows nothing of ours."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    edit(content)
    notebook.write_text(json.dumps(content), encoding="utf-8")


def answer(content):
    """What a learner does: solves the exercise."""
    content["cells"][1]["source"] = "def f():\n    return 42\n\nf()"


def improve(content):
    """What the lesson's authors do."""
    content["cells"][0]["source"] = "# 02 Better"


def open_and_save(content):
    """What JupyterLab and VS Code write into a notebook that was only looked at."""
    content["metadata"]["language_info"] |= {"version": "3.14.0", "codemirror_mode": {"name": "ipython", "version": 3}}
    content["metadata"]["kernelspec"] = {"display_name": ".venv", "language": "python", "name": "python3"}
    content["cells"][1]["metadata"] |= {"scrolled": True, "jupyter": {"source_hidden": False}}


def commit(folder, name, seconds=48):
    """An executed notebook, as notebooks/ has them."""
    output = nbformat.v4.new_output("stream", name="stdout", text="42\n")
    code = nbformat.v4.new_code_cell("def f():\n    raise NotImplementedError\n\nf()", outputs=[output])
    code.execution_count, code.metadata = 1, {"lines_to_next_cell": 2, "tags": ["raises-exception"]}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(CARD.format(seconds)), code])
    notebook.metadata = {
        "every_parameter": {"code_sha256": "0" * 64, "profile": "reduced"},
        "jupytext": {"cell_metadata_filter": "-all"},
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    path = folder / "notebooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def course(tmp_path):
    """A folder with a space in its name, and in it two lessons, and a solution of the second."""
    folder = tmp_path / "a course"
    for name in ("01_first.ipynb", LESSON, SOLUTION):
        commit(folder, name)
    return folder


def start(course, capsys, *words):
    """Starts as `make lab` does, without JupyterLab; returns what was said."""
    lab.main(list(words or ["--copy-only"]), course)
    return capsys.readouterr().out


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_first_start(course, capsys):
    before = files(course / "notebooks")
    assert start(course, capsys).startswith("my-lessons/ is your own copy of the lessons")
    assert set(files(course / "my-lessons")) == set(before) and files(course / "notebooks") == before
    for name in before:
        notebook = nbformat.read(course / "my-lessons" / name, as_version=4)
        nbformat.validate(notebook)
        prose, code = notebook.cells
        committed = nbformat.read(course / "notebooks" / name, as_version=4)
        assert [cell.source for cell in notebook.cells] == [cell.source for cell in committed.cells]
        assert code.outputs == [] and code.execution_count is None and prose.cell_type == "markdown"
        folded = {"jupyter": {"source_hidden": True}} if name == SOLUTION else {}
        assert code.metadata == {"tags": ["raises-exception"]} | folded  # what the lesson says stays
        assert set(notebook.metadata) == {"every_parameter", "kernelspec", "language_info"}
        assert set(notebook.metadata.every_parameter) == {"copied_sha256"}  # not that of executed code


def test_second_start_says_and_changes_nothing(course, capsys):
    start(course, capsys)
    change(course / "my-lessons" / LESSON, answer)
    (course / "my-lessons" / "notes.ipynb").write_text("mine", encoding="utf-8")
    before = files(course / "my-lessons")
    assert start(course, capsys) == "" and files(course / "my-lessons") == before


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_changed_lesson_replaces_a_copy_that_nobody_worked_in(course, capsys, looked_at):
    start(course, capsys)
    copy = course / "my-lessons" / LESSON
    if looked_at:
        change(copy, open_and_save)
    change(course / "notebooks" / LESSON, improve)
    assert start(course, capsys) == f"my-lessons/{LESSON} is new: the lesson changed, and you had not begun it.\n"
    assert cells(copy)[0]["source"] == "# 02 Better"
    assert start(course, capsys) == ""
    change(course / "notebooks" / LESSON, lambda content: content["cells"].pop())  # and once more
    start(course, capsys)
    assert len(cells(copy)) == 1


def run_a_cell(content):
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "42\n"}]


def tag_a_cell(content):
    content["cells"][0]["metadata"]["tags"] = ["ask about this"]


def forget_the_digest(content):
    del content["metadata"]["every_parameter"]


@pytest.mark.parametrize(
    "work",
    [
        answer,
        run_a_cell,
        tag_a_cell,
        forget_the_digest,
        lambda content: content["cells"].reverse(),
        lambda content: content["cells"][0]["source"].append(" "),
        lambda content: content["cells"][0].update(attachments={"a.png": {"image/png": "AAAA"}}),
        lambda content: content["metadata"].update(widgets={}),
    ],
)
def test_a_copy_that_somebody_worked_in_is_kept(course, capsys, work):
    start(course, capsys)
    copy = course / "my-lessons" / LESSON
    change(copy, work)
    before = copy.read_bytes()
    change(course / "notebooks" / LESSON, improve)
    for _ in range(2):  # each start says it, until the new one is taken
        said = start(course, capsys)
        assert said.startswith(f"my-lessons/{LESSON} is kept") and said.endswith("make fresh LESSON=02\n")
        assert copy.read_bytes() == before
    start(course, capsys, "--fresh", "02")
    assert start(course, capsys) == ""


def test_executing_a_lesson_again_is_no_change(course, capsys):
    start(course, capsys)
    change(course / "my-lessons" / LESSON, answer)
    commit(course, LESSON, seconds=51)
    assert start(course, capsys) == ""


def test_a_damaged_file_is_named_and_left_alone(course, capsys):
    start(course, capsys)
    copy, lesson = course / "my-lessons" / LESSON, course / "notebooks" / "01_first.ipynb"
    for path, text in ((copy, "<<<<<<< HEAD\n{}"), (lesson, '{"cells": [1]}')):
        path.write_text(text, encoding="utf-8")
    before = files(course)
    said = start(course, capsys).splitlines()
    assert said[0].startswith("notebooks/01_first.ipynb is not a notebook that can be read.")
    assert said[1].startswith(f"my-lessons/{LESSON} is not a notebook that can be read, and is left alone.")
    with pytest.raises(SystemExit, match=r"^notebooks/01_first.ipynb is not a notebook"):
        lab.main(["--fresh", "1"], course)
    assert files(course) == before
    start(course, capsys, "--fresh", "2")
    assert (course / "my-lessons" / "02_small-mine-1.ipynb").read_text(encoding="utf-8") == "<<<<<<< HEAD\n{}"


@pytest.mark.parametrize("name", ["2", "02", "02_sm", f"notebooks/{LESSON}", f"my-lessons/{LESSON}"])
def test_fresh_keeps_the_old_copy(course, capsys, name):
    start(course, capsys)
    copy = course / "my-lessons" / LESSON
    clean = copy.read_bytes()
    assert "as good as new already" in start(course, capsys, "--fresh", name)
    for number in (1, 2):
        change(copy, answer)
        mine = copy.read_bytes()
        said = start(course, capsys, "--fresh", name)
        kept = course / "my-lessons" / f"02_small-mine-{number}.ipynb"
        assert copy.read_bytes() == clean and kept.read_bytes() == mine and kept.name in said
    change(course / "my-lessons" / SOLUTION, answer)
    start(course, capsys, "--fresh", "solutions/02")
    assert (course / "my-lessons" / "solutions" / "02_small-mine-1.ipynb").exists()
    assert len(files(course / "my-lessons")) == 6


@pytest.mark.parametrize("name", ["", "0", "7", "02_small.py"])
def test_a_lesson_that_is_not_there(course, name):
    for words in (["--fresh", name], ["--lesson", name]):
        with pytest.raises(SystemExit, match=r"^which lesson\? .* 01_first, 02_small$"):
            lab.main(words, course)
    assert not (course / "my-lessons").exists()


@pytest.mark.parametrize("killed_at", range(4))
def test_killed_in_between(course, capsys, monkeypatch, killed_at):
    """At each replacement of a file, also of one that is refreshed or made anew: the next start completes it."""

    def replace(draft, path, real=os.replace, left=[killed_at]):  # noqa: B006
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(draft, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        start(course, capsys)
        change(course / "notebooks" / "01_first.ipynb", improve)
        start(course, capsys)
    whole = [path for path in (course / "my-lessons").rglob("*.ipynb") if not path.name.startswith(".")]
    assert len(whole) == killed_at and all(lab.read(path) for path in whole)
    start(course, capsys)
    assert set(files(course / "my-lessons")) == {"01_first.ipynb", LESSON, SOLUTION}  # and no draft is left
    mine = course / "my-lessons" / LESSON
    change(mine, answer)
    before = mine.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", lambda draft, path: (_ for _ in ()).throw(KeyboardInterrupt))
        start(course, capsys, "--fresh", "02")
    start(course, capsys)
    assert mine.with_name("02_small-mine-1.ipynb").read_bytes() == before and lab.read(mine)


def test_a_folder_that_cannot_be_written(course, capsys, monkeypatch):
    (course / "my-lessons").write_text("a file of somebody's", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^my-lessons: .*copy it to one, and start it there\.$"):
        lab.main(["--copy-only"], course)
    assert (course / "my-lessons").read_text(encoding="utf-8") == "a file of somebody's"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(course):
    course.chmod(0o555)
    try:
        with pytest.raises(SystemExit, match=r"^my-lessons: Permission denied"):
            lab.main(["--copy-only"], course)
    finally:
        course.chmod(0o755)


def test_options_that_are_not_ours_go_to_jupyterlab_and_nowhere_else(course, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(lab, "open_jupyterlab", lambda *words: opened.append(words))
    lab.main(["--lesson", "2", "--no-browser", "--port=8899"], course)
    assert opened == [(LESSON, course, ["--no-browser", "--port=8899"])]
    for words in (["--copy-only", "--no-browser"], ["--fresh", "2", "--port=1"]):
        with pytest.raises(SystemExit):
            lab.main(words, course)
    assert "not understood: --port=1" in capsys.readouterr().err


# ------------------------------------------------------------- the course itself


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The course's own notebooks, copied."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("outputs", ".*"))
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    lab.main(["--copy-only"], folder)
    return folder


def test_every_path_in_the_lessons_leads_to_the_same_place_from_the_copy(copied):
    """A lesson may name what is beside it, or above it; its folder's own name would be that of the committed one."""
    for name in lab.lessons(ROOT):
        code = ["".join(cell["source"]) for cell in cells(copied / "my-lessons" / name) if cell["cell_type"] == "code"]
        assert "notebooks" not in "\n".join(code), name
    assert Path(lab.MINE).name == lab.MINE and " " not in lab.MINE


def test_exercises_are_checked_from_copies(copied, tmp_path, capsys):
    """A room's notebooks come from the working copy: untouched, and solved by the solution's cells."""
    lesson = copied / "my-lessons" / "01_concepts.ipynb"
    shutil.copy(lesson, tmp_path / "ann.ipynb")
    solved = json.loads(lesson.read_text(encoding="utf-8"))
    solved["cells"] += cells(copied / "my-lessons" / "solutions" / "01_concepts.ipynb")
    (tmp_path / "ben.ipynb").write_text(json.dumps(solved), encoding="utf-8")
    assert check_exercises.main([str(ROOT / "notebooks" / "01_concepts.ipynb"), str(tmp_path)]) == 0
    ann, ben = capsys.readouterr().out.splitlines()[1:]
    assert ann.count("not started") == ben.count("right") == 4


def test_every_command_in_the_texts_opens_the_copy():
    """No text sends a learner to the executed lessons with `jupyter lab notebooks/...`."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "SETUP.md", "INSTRUCTOR.md")}
    assert not [name for name, text in texts.items() if re.search(r"jupyter ?lab [^\n]*notebooks", text)]
    assert texts["SETUP.md"].count("python -m helpers.lab\n") == 5  # Linux, Windows, uv twice, Poetry


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs a clone and git")
def test_git_does_not_see_the_copy():
    for name in ("01_concepts.ipynb", "solutions/01_concepts.ipynb", "outputs/01/model.safetensors", "Untitled.ipynb"):
        command = ["git", "check-ignore", "-q", f"{lab.MINE}/{name}"]
        assert subprocess.run(command, cwd=ROOT).returncode == 0, name


def get(address):
    with urllib.request.urlopen(address, timeout=10) as response:
        return response.read().decode()


def test_jupyterlab_opens_the_copy(copied):
    """As the Makefile starts it, from the course's folder; JupyterLab's own interface then shows the lesson."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    words += ["--IdentityProvider.token=secret"]
    command = [sys.executable, "-m", "helpers.lab", "--lesson", "02", *words]
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(copied / "config"), "JUPYTER_DATA_DIR": str(copied / "data")}
    with (copied / "log").open("w+", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=copied, env=env, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 120  # two seconds, where nothing else computes
            while True:
                try:
                    lesson = "my-lessons/02_imdb_gpt2_classifier.ipynb"
                    content = json.loads(get(f"{address}/api/contents/{lesson}?token=secret"))["content"]
                    break
                except urllib.error.URLError:
                    assert server.poll() is None and time.monotonic() < until, (copied / "log").read_text(
                        encoding="utf-8"
                    )
                    time.sleep(0.1)
            assert all(cell.get("outputs", []) == [] for cell in content["cells"]) and len(content["cells"]) > 50
            with urllib.request.urlopen(f"{address}/?token=secret", timeout=10) as response:
                assert response.url.split("?")[0] == f"{address}/lab/tree/{lesson}"
                assert '"news": {"disabled": true}' in response.read().decode()
            there = json.loads(get(f"{address}/api/contents?token=secret"))["content"]
            assert {"helpers", "my-lessons", "notebooks"} <= {entry["name"] for entry in there}  # the course's folder
        finally:
            server.terminate()
            server.wait(20)
