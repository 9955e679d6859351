"""Committed notebooks: outputs in step with the code and fit to be read; and the program that executes them.

Each rule below takes a notebook's path and returns what is wrong with it. The rules run on every committed notebook,
and on small notebooks made here, spoilt in one way each, to show that they find it.
"""

import ast
import importlib.util
import json
import os
import re
import shutil
import statistics
import sys
from collections import Counter
from pathlib import Path

import execute
import nbformat
import pytest
import warm

from helpers.checks import NOT_STARTED

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SECONDS = 90
# What transformers 5 and datasets 4 removed or renamed.
REMOVED = {"evaluation_strategy", "no_cuda", "warmup_ratio", "group_by_length"}
ABSOLUTE = re.compile(r"(?<![\w.:/<~-])/[A-Za-z_][\w.-]*/[\w.-]+|\b[A-Za-z]:\\\w|site-packages|ipykernel_\d+")
HOST = re.compile(r"\blocalhost\b|\b(?:127|10)\.\d+\.\d+\.\d+\b|\b192\.168\.\d+\.\d+\b")
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")
NOISE = re.compile(r"Warning\b|\bWARN(?:ING)?\b|[Dd]eprecat")


def is_solution(path):
    return path.parent.name == "solutions"


def folder_of(path):
    return path.parent.parent if is_solution(path) else path.parent


def measured(folder):
    record = folder / "measured.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}


def code_cells(path):
    return [cell for cell in execute.read(path).cells if cell.cell_type == "code"]


def output_texts(cell):
    """Every text of a cell's outputs; pictures are left out."""
    for output in cell.outputs:
        yield "".join(output.get("text", "")) + "\n".join(output.get("traceback", []))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield content if isinstance(content, str) else json.dumps(content)


def syntax(cell):
    """The parsed code of a cell, without lines for IPython."""
    lines = [line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    return ast.parse("\n".join(lines))


def calls_of_checks(tree):
    return [
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "checks"
        and node.func.attr != "questions"  # guesses, without code
    ]


def signature(function):
    return f"{function.name}({ast.unparse(function.args)})"


def is_stub(node):
    """Whether it is a function that a learner is to write."""
    return isinstance(node, ast.FunctionDef) and "raise NotImplementedError" in ast.unparse(node.body[-1])


def rule_valid_and_clean(path):
    """Valid, and byte for byte as `make notebooks` writes it: no widget state, no execution times, stable ids.

    Only `language_info` may differ: an editor writes its own whenever somebody looks at a notebook and saves it.
    """
    notebook, problems = execute.read(path), []
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        problems.append(f"not a valid notebook: {error}")
    ours, language = notebook.metadata.get(execute.OURS), notebook.metadata.get("language_info", {})
    execute.clean(notebook, "reduced")
    if language.get("name") == "python":
        notebook.metadata.language_info = language
    if ours:
        notebook.metadata[execute.OURS] = ours  # other rules look at it
    if execute.dumps(notebook) != path.read_text(encoding="utf-8"):
        problems.append("not as `make notebooks` leaves it (widget state, execution times, ids or layout)")
    return problems


def rule_executed_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]


def rule_outputs_in_step(path):
    notebook = execute.read(path)
    problems = ["code was edited and not executed since"] if execute.is_stale(notebook) else []
    profile = notebook.metadata.get(execute.OURS, {}).get("profile")
    return problems + ([] if profile == "reduced" else [f"outputs are those of the profile {profile}"])


def rule_no_widgets(path):
    kinds = [kind for cell in code_cells(path) for output in cell.outputs for kind in output.get("data", {})]
    problems = [f"an output is a widget: {kind}" for kind in kinds if "jupyter.widget" in kind]
    return problems + (["has widget state"] if "widgets" in execute.read(path).metadata else [])


def rule_no_traces_of_the_machine(path):
    texts = [text for cell in code_cells(path) for text in output_texts(cell)]
    found = [match[0] for pattern in (ABSOLUTE, HOST, ADDRESS) for text in texts for match in pattern.finditer(text)]
    return [f"an output shows {trace}" for trace in found]


def rule_no_noise(path):
    problems = []
    for cell in code_cells(path):
        problems += [f"stderr: {o.text.strip()[:200]}" for o in cell.outputs if o.get("name") == "stderr"]
        problems += [f"an output says {match[0]}" for text in output_texts(cell) for match in NOISE.finditer(text)]
    return problems


def rule_no_errors(path):
    return [
        f"a cell raised {output.ename} and is not tagged raises-exception"
        for cell in code_cells(path)
        for output in cell.outputs
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", [])
    ]


def rule_begins_with_the_profile(path):
    lines = code_cells(path)[0].source.splitlines()
    first = ["from helpers.profiles import load_profile", "profile = load_profile()"]
    return [] if set(first) <= set(lines) else [f"the first code cell does not say {' and '.join(first)}"]


def rule_card_with_measured_figures(path):
    prose = "\n".join(cell.source for cell in execute.read(path).cells if cell.cell_type == "markdown")
    marked = [match[0] for match in execute.MARKED.finditer(prose)]
    cost = measured(folder_of(path)).get(path.relative_to(folder_of(path)).as_posix())
    if cost is None:
        return ["not in measured.json"]
    right = f"<!-- measured -->{execute.figures(cost)}<!-- /measured -->"
    problems = [f"the card says {text}, measured.json {right}" for text in marked if text != right]
    if not is_solution(path):
        problems += [] if marked else ["no <!-- measured --> <!-- /measured --> in a card"]
        problems += [] if execute.AFTERWARDS.search(prose) else ["no line **Afterwards you can** in a card"]
        problems += [] if re.search(r"^# ", prose, re.MULTILINE) else ["no title"]
    return problems


def rule_within_its_time(path):
    cost = measured(folder_of(path)).get(path.relative_to(folder_of(path)).as_posix())
    return [f"took {cost['seconds']} s, more than {SECONDS}"] if cost and cost["seconds"] > SECONDS else []


def rule_short_cells(path):
    lengths = [sum(1 for line in cell.source.splitlines() if line.strip()) for cell in code_cells(path)]
    problems = [f"a cell of {length} lines" for length in lengths if length > 20]
    middle = statistics.median(lengths)
    return problems + ([f"the median code cell has {middle} lines"] if middle > 6 else [])


def rule_current_apis(path):
    problems = []
    for cell in code_cells(path):
        for call in (node for node in ast.walk(syntax(cell)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            for keyword in call.keywords:
                remote_code = keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) == "True"
                old_tokenizer = keyword.arg == "tokenizer" and name.endswith("Trainer")
                if keyword.arg in REMOVED or remote_code or old_tokenizer:
                    problems.append(f"{name}({keyword.arg}=...) is not for transformers 5")
    return problems


def rule_exercises_answer_and_are_solved(path):
    """A lesson has two to four checks that answer the untouched stub; its solutions assert each of them."""
    if is_solution(path):
        lesson = folder_of(path) / path.name
        return [] if lesson.exists() else ["solves no lesson"]
    solution, asked, problems, stubs = path.parent / "solutions" / path.name, [], [], []
    for cell in code_cells(path):
        names = calls_of_checks(syntax(cell))
        stubs += [signature(node) for node in syntax(cell).body if is_stub(node)]
        asked += names
        if names and not any(NOT_STARTED in text for text in output_texts(cell)):
            problems.append(f"{names[0]} does not answer the untouched stub with '{NOT_STARTED}'")
    if not 2 <= len(set(asked)) <= 4:
        problems.append(f"{len(set(asked))} exercises with a check, not two to four")
    if not solution.exists():
        return [*problems, "no solutions notebook"]
    trees = [syntax(cell) for cell in code_cells(solution)]
    asserts = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    solved = {name for node in asserts for name in calls_of_checks(node.test)}
    problems += [f"the solutions do not assert checks.{name}(...)" for name in asked if name not in solved]
    answers = [signature(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return problems + [f"the solutions have no {stub}" for stub in stubs if stub not in answers]


RULES = [value for name, value in list(globals().items()) if name.startswith("rule_")]
COMMITTED = execute.find([], NOTEBOOKS)


def case(path: Path, rule):
    name = f"{path.relative_to(NOTEBOOKS).as_posix()}-{rule.__name__.removeprefix('rule_')}"
    return pytest.param(path, rule, id=name)


@pytest.mark.parametrize(("path", "rule"), [case(path, rule) for path in COMMITTED for rule in RULES])
def test_committed_notebook(path, rule):
    assert rule(path) == []


def test_lessons_are_there_and_measured():
    names = {path.relative_to(NOTEBOOKS).as_posix() for path in COMMITTED}
    assert set(measured(NOTEBOOKS)) == names
    # README's picture draws what is here in one style and what is planned in another.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = re.findall(r"<b>(\d\d)</b>[^\n]*:::here", readme)
    assert drawn == sorted(name[:2] for name in names if "/" not in name) and "01" in drawn


def test_readme_shows_the_measured_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert execute.table_of_lessons(NOTEBOOKS, measured(NOTEBOOKS)) in readme


def test_instructors_see_the_minutes_that_follow_from_it():
    page = (ROOT / "INSTRUCTOR.md").read_text(encoding="utf-8")
    assert execute.table_for_instructors(NOTEBOOKS, measured(NOTEBOOKS)) in page
    assert {lesson for day in execute.SCHEDULES.values() for lesson in day} <= {path.name[:2] for path in COMMITTED}


def test_minutes_in_class():
    lesson = nbformat.v4.new_notebook()
    exercise = "def f():\n    raise NotImplementedError"
    lesson.cells = [nbformat.v4.new_markdown_cell("word " * 260), *map(nbformat.v4.new_code_cell, ["1", exercise, "2"])]
    counted = execute.minutes_in_class(lesson, seconds=60)  # 2 minutes running, 2 reading, 1 looking, 8 solving
    assert counted == {"words": 260, "code cells": 3, "exercises": 1, "minutes": 15}


# ------------------------------------------------------------- the same rules on notebooks made here

CARD = "# 01 Small\n\nTakes <!-- measured --> <!-- /measured -->.\n\n**Afterwards you can** count steps."
PROFILE = "from helpers.profiles import load_profile\n\nprofile = load_profile()\nprofile.name"
CHECKS = {
    "lesson_one": "from math import ceil\n\ndef one(n, batch, accumulation, epochs):\n"
    "    return ceil(ceil(n / batch) / accumulation) * epochs",
    "lesson_two": "def two(number):\n    return 2 * number",
}
HELPER = """from types import SimpleNamespace

from helpers.checks import exercise, expect, lesson_01_optimizer_steps


@exercise
def lesson_two(function):
    expect(function(2), 4, "2")
    return "twice."


checks = SimpleNamespace(lesson_one=lesson_01_optimizer_steps, lesson_two=lesson_two)
"""


def make(path, cells):
    made = [
        nbformat.v4.new_markdown_cell(cell) if cell.startswith("#") else nbformat.v4.new_code_cell(cell)
        for cell in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """A lesson and its solutions, executed by the program, with a README: nothing is wrong with them."""
    room = tmp_path_factory.mktemp("room")
    folder = room / "notebooks"
    lesson, solution = [CARD, PROFILE, HELPER], [PROFILE, HELPER]
    for check, solved in CHECKS.items():
        name = check.removeprefix("lesson_")
        stub = re.search(r"def .*:", solved)[0] + "\n    raise NotImplementedError"
        lesson += [f"{stub}\n\nchecks.{check}({name})"]
        solution += [f"{solved}\n\nassert checks.{check}({name})"]
    make(folder / "01_small.ipynb", lesson)
    make(folder / "solutions" / "01_small.ipynb", solution)
    (room / "README.md").write_text("# Small\n\n<!-- measured -->\n<!-- /measured -->\n\nEnd.\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("FINETUNING_PROFILE", raising=False)
        assert execute.main([], folder) == 0
    return folder


@pytest.fixture
def room(classroom, tmp_path):
    """A copy of the classroom to spoil."""
    return Path(shutil.copytree(classroom.parent, tmp_path / "copy")) / "notebooks"


def complaints(path):
    found = {rule.__name__.removeprefix("rule_"): rule(path) for rule in RULES}
    return {name: problems for name, problems in found.items() if problems}


def edit(path, change, clean=True):
    """Changes a notebook as a careless author would; `clean` leaves all but the change in order."""
    notebook = execute.read(path)
    change(notebook)
    if clean:
        ours = notebook.metadata[execute.OURS]
        execute.clean(notebook, "reduced")
        notebook.metadata[execute.OURS] = ours
    path.write_text(execute.dumps(notebook), encoding="utf-8")
    return path


def with_output(**output):
    """A change that gives the last cell one more output."""
    made = nbformat.v4.new_output(**output)
    return lambda notebook: notebook.cells[-1].outputs.append(made)


def with_code(code):
    """A change that appends code to the last cell and pretends that it was executed."""

    def change(notebook):
        notebook.cells[-1].source += "\n" + code
        notebook.metadata[execute.OURS]["code_sha256"] = execute.code_digest(notebook)

    return change


def test_nothing_is_wrong_with_an_executed_notebook(classroom):
    assert complaints(classroom / "01_small.ipynb") == {}
    assert complaints(classroom / "solutions" / "01_small.ipynb") == {}
    assert execute.main(["--check"], classroom) == 0


def test_executing_again_changes_nothing_but_figures(classroom, room, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("FINETUNING_PROFILE", raising=False)
    assert execute.main(["01_small"], room) == 0
    before, after = ((folder / "01_small.ipynb").read_text(encoding="utf-8") for folder in (classroom, room))
    assert execute.MARKED.sub("", before) == execute.MARKED.sub("", after)


def test_edited_code_is_caught(room, capsys):
    path = edit(room / "01_small.ipynb", lambda notebook: notebook.cells[1].update(source=PROFILE + " + '!'"))
    assert complaints(path) == {"outputs_in_step": ["code was edited and not executed since"]}
    assert execute.main(["--check"], room) == 1
    assert "01_small.ipynb was edited and not executed since" in capsys.readouterr().out


def test_edited_prose_needs_no_execution(room):
    path = edit(room / "01_small.ipynb", lambda notebook: notebook.cells[0].update(source=CARD + "\n\nMore.\n"))
    execute_again = {"card_with_measured_figures"}  # the figures were wiped with the prose
    assert set(complaints(path)) == execute_again and execute.main(["--check"], room) == 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            with_output(output_type="stream", name="stdout", text="saved to /home/ann/model\n"),
            "no_traces_of_the_machine",
        ),
        (with_output(output_type="stream", name="stdout", text="see C:\\Users\\ann\n"), "no_traces_of_the_machine"),
        (with_output(output_type="stream", name="stdout", text="http://localhost:8888\n"), "no_traces_of_the_machine"),
        (
            with_output(output_type="display_data", data={"text/plain": "<f at 0x7f00aa11bb22>"}),
            "no_traces_of_the_machine",
        ),
        (with_output(output_type="display_data", data={"text/html": f"<b>{ROOT}</b>"}), "no_traces_of_the_machine"),
        (with_output(output_type="stream", name="stderr", text="hm\n"), "no_noise"),
        (with_output(output_type="stream", name="stdout", text="FutureWarning: old\n"), "no_noise"),
        (with_output(output_type="stream", name="stdout", text="this is deprecated\n"), "no_noise"),
        (with_output(output_type="error", ename="ValueError", evalue="", traceback=[]), "no_errors"),
        (lambda notebook: notebook.cells[2].update(execution_count=7), "executed_in_order"),
        (lambda notebook: notebook.cells[2].update(execution_count=None), "executed_in_order"),
        (lambda notebook: notebook.metadata[execute.OURS].update(profile="laptop"), "outputs_in_step"),
        (lambda notebook: notebook.cells[0].update(source=CARD), "card_with_measured_figures"),
        (lambda notebook: notebook.cells[0].update(source="# 01"), "card_with_measured_figures"),
        (with_code("\n".join(f"x{number} = {number}" for number in range(20))), "short_cells"),
        (with_code("TrainingArguments(evaluation_strategy='epoch')"), "current_apis"),
        (with_code("Trainer(model, tokenizer=tokenizer)"), "current_apis"),
        (with_code("load_dataset('a/b', trust_remote_code=True)"), "current_apis"),
        (with_code("checks.lesson_three(two)"), "exercises_answer_and_are_solved"),
        (lambda notebook: notebook.cells[-1].update(outputs=[]), "exercises_answer_and_are_solved"),
    ],
)
def test_each_fault_is_caught_by_its_rule_alone(room, change, rule):
    assert set(complaints(edit(room / "01_small.ipynb", change))) == {rule}


def test_widgets_and_untidy_files_are_caught(room):
    view = with_output(output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})
    assert set(complaints(edit(room / "01_small.ipynb", view, clean=False))) == {"no_widgets", "valid_and_clean"}
    path = room / "solutions" / "01_small.ipynb"
    edit(path, lambda notebook: notebook.cells[0].metadata.update(execution={"a": "b"}), clean=False)
    assert set(complaints(path)) == {"valid_and_clean"}
    edit(path, lambda notebook: notebook.metadata.update(widgets={}))
    assert complaints(path) == {}
    edit(path, lambda notebook: notebook.metadata.update(widgets={}), clean=False)
    assert set(complaints(path)) == {"no_widgets", "valid_and_clean"}


def test_looking_at_a_notebook_and_saving_it_is_no_fault_and_hides_none(room):
    """What JupyterLab 4.6 writes into a notebook that is opened and saved."""
    language = {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": "3.13.1",
    }
    path = room / "01_small.ipynb"
    before = path.read_bytes()
    edit(path, lambda notebook: notebook.metadata.update(language_info=nbformat.from_dict(language)), clean=False)
    assert path.read_bytes() != before and complaints(path) == {}
    edit(path, lambda notebook: notebook.cells[1].update(source=PROFILE + " + '!'"), clean=False)
    assert set(complaints(path)) == {"valid_and_clean", "outputs_in_step"}
    edit(path, lambda notebook: notebook.metadata.update(language_info={"name": "R"}), clean=False)
    assert "valid_and_clean" in complaints(path)


def test_solutions_must_exist_and_assert(room):
    lesson, solution = room / "01_small.ipynb", room / "solutions" / "01_small.ipynb"

    def forget(notebook):
        notebook.cells[-1].source = notebook.cells[-1].source.replace("assert ", "")

    def rename(notebook):
        notebook.cells[-1].source = notebook.cells[-1].source.replace("number", "figure")

    edit(solution, forget)
    assert complaints(lesson) == {
        "exercises_answer_and_are_solved": ["the solutions do not assert checks.lesson_two(...)"]
    }
    edit(solution, rename)
    assert "the solutions have no two(number)" in complaints(lesson)["exercises_answer_and_are_solved"]
    solution.unlink()
    assert complaints(lesson) == {"exercises_answer_and_are_solved": ["no solutions notebook"]}


def test_slow_and_unmeasured_notebooks_are_caught(room):
    record = room / "measured.json"
    record.write_text(json.dumps({"01_small.ipynb": {"seconds": 91, "peak_gb": 1.0}}), encoding="utf-8")
    problems = complaints(room / "01_small.ipynb")
    assert problems["within_its_time"] == ["took 91 s, more than 90"]
    assert "91 seconds on two cores, 1.0 GB" in problems["card_with_measured_figures"][0]
    assert complaints(room / "solutions" / "01_small.ipynb") == {"card_with_measured_figures": ["not in measured.json"]}


def test_readme_table(classroom):
    cost = measured(classroom)["01_small.ipynb"]
    text = (classroom.parent / "README.md").read_text(encoding="utf-8")
    row = f"| [01 Small](notebooks/01_small.ipynb) | {cost['seconds']} s | {cost['peak_gb']} GB | count steps. |"
    assert text.startswith("# Small\n\n<!-- measured -->\n| Lesson |") and text.endswith("<!-- /measured -->\n\nEnd.\n")
    assert row in text.splitlines() and text.count("| [") == 1


# ------------------------------------------------------------- the program


@pytest.mark.parametrize(
    ("code", "said"), [("1 / 0", "ZeroDivisionError: division by zero"), ("import os\nos._exit(1)", "DeadKernelError")]
)
def test_notebook_that_fails_stays_as_it_was(tmp_path, capfd, code, said):
    path = tmp_path / "01_fails.ipynb"
    make(path, [code])
    before = path.read_bytes()
    assert execute.main([], tmp_path) == 1
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]
    error = capfd.readouterr().err
    assert "01_fails.ipynb failed and stays as it was" in error and said in error and "\x1b[" not in error


def test_what_is_saved_while_a_notebook_runs_is_not_written_over(tmp_path, capfd):
    path = tmp_path / "01_edited.ipynb"
    make(path, ["from pathlib import Path\n\nPath('01_edited.ipynb').write_text('saved by somebody');"])
    assert execute.main([], tmp_path) == 1
    assert path.read_text(encoding="utf-8") == "saved by somebody" and not (tmp_path / "measured.json").exists()
    assert "01_edited.ipynb was saved by somebody while it ran" in capfd.readouterr().err


def test_memory_of_child_processes_counts_and_profile_reaches_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_PROFILE", "full")  # no figures are kept for it
    path = tmp_path / "01_child.ipynb"
    child = "import subprocess, sys\ncode = 'import time; big = bytearray(500_000_000); time.sleep(1)'"
    make(path, [f"{child}\nsubprocess.run([sys.executable, '-c', code]).returncode", "import os\nos.getcwd()"])
    notebook = execute.read(path)
    notebook.cells[1].source = "import os\nprint(os.environ['FINETUNING_PROFILE'], os.environ['OMP_NUM_THREADS'])"
    cost = execute.execute(notebook, tmp_path, "full")
    assert 0.5 < cost["peak_gb"] < 0.9 and 1 <= cost["seconds"] < 60
    assert notebook.cells[1].outputs[0].text == "full 2\n"
    make(path, ["1"])
    assert execute.main([], tmp_path) == 0 and not (tmp_path / "measured.json").exists()
    assert complaints(path)["outputs_in_step"] == ["outputs are those of the profile full"]


def test_tagged_cell_may_raise(tmp_path):
    path = tmp_path / "01_raises.ipynb"
    make(path, ["1 / 0", "2"])
    notebook = execute.read(path)
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    path.write_text(execute.dumps(notebook), encoding="utf-8")
    assert execute.main([], tmp_path) == 0
    assert [cell.execution_count for cell in code_cells(path)] == [1, 2] and rule_no_errors(path) == []


def test_outputs_are_joined_and_progress_bars_settle():
    def stream(text, name="stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data", data={"text/plain": "picture"})
    bar = nbformat.v4.new_output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}
    )
    pieces = [
        stream("a"),
        bar,
        stream("b\n 1%"),
        stream("\r50%\r99%\n"),
        picture,
        stream("c\r\n"),
        stream("d", "stderr"),
    ]
    cleaned = execute._clean_outputs(pieces)
    assert [output.get("text") for output in cleaned] == ["ab\n99%\n", None, "c\r\n", "d"]


def test_names_of_notebooks(room, capsys):
    lesson, solution = room / "01_small.ipynb", room / "solutions" / "01_small.ipynb"
    assert execute.find([], room) == [lesson, solution]
    assert execute.find(["01"], room) == execute.find(["notebooks/01_small.ipynb"], room) == [lesson]
    assert execute.find(["solutions/01", "01"], room) == [solution, lesson]
    with pytest.raises(SystemExit, match=r"no notebook is called '7'; there is: 01_small.ipynb, solutions/01"):
        execute.find(["7"], room)


# ------------------------------------------------------------- which notebooks `make test` runs again


@pytest.fixture
def course(tmp_path):
    """A project with conftest.py and two notebooks, of which one fails."""
    for file in ("helpers/rates.py", "data/rows.csv", "scripts/train.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("1", encoding="utf-8")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    make(tmp_path / "notebooks" / "01_passes.ipynb", ["# Prose", "a = 1", "b = a"])
    make(tmp_path / "notebooks" / "02_fails.ipynb", ["a = 1", "assert a == 2, 'scripts/train.py'"])
    return tmp_path


def run_pytest(course, options):
    """In a new process: runs pytest in a project's folder."""
    os.chdir(course)
    sys.exit(pytest.main(["--nbval-lax", "--nbval-current-env", "-rA", *options]))


def run_notebooks(course, *options):
    """How many cells of each notebook passed, failed or were skipped, and all that was said."""
    said = warm.run(run_pytest, course, options).output
    ends = re.findall(r"^(PASSED|FAILED) notebooks/(\d\d)", said, re.MULTILINE)
    skipped = re.findall(r"^SKIPPED \[(\d+)\] notebooks/(\d\d)", said, re.MULTILINE)
    return Counter(f"{name} {end.lower()}" for end, name in ends) + Counter(
        {f"{name} skipped": int(cells) for cells, name in skipped}
    ), said


def test_a_notebook_that_passed_whole_is_not_run_again(course):
    assert run_notebooks(course, "notebooks/01_passes.ipynb::Cell 0")[0] == {"01 passed": 1}
    everything = ("notebooks", "--skip-unchanged")
    half_way = run_notebooks(course, *everything, "-n", "1", "--dist", "loadscope")[0]  # in a worker
    assert half_way == {"01 passed": 2, "02 passed": 1, "02 failed": 1}
    cells, said = run_notebooks(course, *everything)
    assert cells == {"01 skipped": 2, "02 passed": 1, "02 failed": 1}
    assert "not run again: notebooks/01_passes.ipynb." in said and "make test ALL=1" in said
    assert run_notebooks(course, "notebooks/01_passes.ipynb")[0] == {"01 passed": 2}  # nobody asked to skip


def test_what_makes_a_notebook_run_again(course, monkeypatch):
    spec = importlib.util.spec_from_file_location("conftest_of_the_project", ROOT / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    monkeypatch.setattr(conftest, "versions", lambda: ["torch==8"])
    lesson, other = "notebooks/01_passes.ipynb", "notebooks/02_fails.ipynb"
    changes = {
        "code": (lambda: make(course / lesson, ["# Prose", "a = 2", "b = a"]), {lesson}),
        "prose": (lambda: make(course / lesson, ["# Other prose", "a = 2", "b = a"]), set()),
        "helpers": (lambda: (course / "helpers" / "rates.py").write_text("2", encoding="utf-8"), {lesson, other}),
        "data": (lambda: (course / "data" / "rows.csv").write_text("2", encoding="utf-8"), {lesson, other}),
        "programs": (lambda: (course / "scripts" / "train.py").write_text("2", encoding="utf-8"), {other}),
        "profile": (lambda: monkeypatch.setenv("FINETUNING_PROFILE", "mine.toml"), {lesson, other}),
        "versions": (lambda: monkeypatch.setattr(conftest, "versions", lambda: ["torch==9"]), {lesson, other}),
        "nothing": (lambda: None, set()),
    }
    before = conftest.notebook_digests(course)
    for what, (change, again) in changes.items():
        change()
        after = conftest.notebook_digests(course)
        assert {name for name in after if after[name] != before[name]} == again, what
        before = after
