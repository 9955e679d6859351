"""Windows and macOS, which we cannot run here: Linux made to fail as they do, and what can be read from the code.

What is simulated, and what is not, says tests/other_system/sitecustomize.py.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from test_house import FILES, ROOT, name_of, tree_of

LINUX_OR_UNIX = {"resource", "fcntl", "grp", "pwd", "termios"}
simulated = pytest.mark.skipif(sys.platform != "linux", reason="this machine is one of those that are simulated")

# A profile, options, a checkpoint written and read, and a whole run of a program, with no process forked.
FIRST = "test_profiles or test_commandline or test_checkpoints or test_it_says_what_it_found"
MORE = "test_tables or test_texts or test_doctor or test_curves or test_checks or test_fine_tune or test_metrics"


OTHER = ROOT / "tests" / "other_system"


def environment_of(system):
    """With it each Python that is started is as on another system."""
    return os.environ | {"AS_ON": system, "PYTHONPATH": str(OTHER), "PYTHONIOENCODING": "utf-8"}


def python_as(system, *words):
    """Runs Python as on another system."""
    command, environment = [sys.executable, *words], environment_of(system)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60)


def pytest_as(system, *words, timeout=600):
    """Runs pytest as on another system; the libraries, for which nothing changes there, are imported already."""
    words = ("tests", "-q", "-p", "no:cacheprovider", *words)
    return warm.run(become_and_test, words, environment=environment_of(system), timeout=timeout)


def become_and_test(words):
    """In a new process: forgets our own modules, becomes what AS_ON says, and runs pytest."""
    os.chdir(ROOT)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if Path(file).is_relative_to(ROOT) and "site-packages" not in file and name != "__mp_main__":
            del sys.modules[name]
    spec = importlib.util.spec_from_file_location("other_system", OTHER / "sitecustomize.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    sys.exit(pytest.main(list(words)))


@pytest.mark.parametrize("path", [path for files in FILES.values() for path in files], ids=name_of)
def test_a_text_file_is_opened_with_its_encoding_and_unix_modules_where_they_are_used(path):
    """On Windows text files have another encoding by default, and resource, fcntl and their like do not exist."""
    tree = tree_of(path)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and lacks_encoding(node)] == []
    at_import = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in at_import for alias in node.names}
    assert names & LINUX_OR_UNIX == set()


def lacks_encoding(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes text without naming the encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if name == "read_text":
        return not call.args
    if name == "write_text":
        return len(call.args) < 2
    if name != "open" or (isinstance(call.func, ast.Attribute) and not is_path(call.func.value)):
        return False
    place = 1 if isinstance(call.func, ast.Name) else 0
    mode = keywords.get("mode") or (call.args[place] if len(call.args) > place else None)
    return not (isinstance(mode, ast.Constant) and "b" in mode.value)


def is_path(value: ast.expr) -> bool:
    """Whether `value.open` is a path's, as far as its name tells; os.open, gzip.open and the like are not."""
    return not (
        isinstance(value, ast.Name)
        and value.id in {"os", "gzip", "zipfile", "tarfile", "webbrowser", "wave", "archive"}
    )


def test_the_rule_of_encodings_finds_what_it_is_for():
    wrong = ["open(f)", "open(f, 'w')", "path.open()", "path.read_text()", "path.write_text('a')", "path.open('a')"]
    right = ["open(f, 'rb')", "open(f, encoding='utf-8')", "path.open('wb')", "os.open(f, 0)"]
    right += ["path.read_text('utf-8')", "path.write_text('a', encoding='utf-8')", "path.read_bytes()"]
    assert all(lacks_encoding(ast.parse(code).body[0].value) for code in wrong)
    assert not any(lacks_encoding(ast.parse(code).body[0].value) for code in right)


SEES = """
import multiprocessing, os, shutil, sys, tempfile
from pathlib import Path
def of(*attempt):
    try: return type(attempt[0](*attempt[1:])).__name__
    except (Exception, SystemExit) as error: return type(error).__name__
folder = Path(tempfile.mkdtemp())
(folder / "a").write_bytes(b""), (folder / "b").write_bytes(b""), (folder / "c").mkdir(), (folder / "d").mkdir()
reader = os.open(folder / "a", os.O_RDONLY)
def module(): import resource
def text(): (folder / "e").write_text("\\u0142")
print(of(module), of(text), of(os.rename, folder / "a", folder / "b"), of(os.replace, folder / "c", folder / "d"),
      of(os.fsync, reader), of(multiprocessing.get_context, "forkserver"), hasattr(os, "geteuid"),
      hasattr(os, "sched_getaffinity"), of(shutil.which, "unshare"), of(os.open, folder, os.O_RDONLY), os.name,
      sys.platform)
"""


SEEN = {  # an exception, or the type of what came back
    "windows": "ModuleNotFoundError UnicodeEncodeError FileExistsError PermissionError OSError ValueError "
    "False False NoneType PermissionError nt win32",
    "macos": "NoneType NoneType NoneType NoneType NoneType ForkServerContext True False NoneType int posix darwin",
}


@simulated
@pytest.mark.parametrize("system", SEEN)
def test_the_simulation_refuses_what_the_system_would(system, request):
    program = ROOT / "tests" / f"as_on_{system}.py"  # of the project's own files, which alone it is about
    request.addfinalizer(lambda: program.unlink(missing_ok=True))
    program.write_text(SEES, encoding="utf-8")
    done = python_as(system, str(program))
    assert (done.stdout.strip(), done.stderr) == (SEEN[system], "")


@simulated
def test_macos_collects_every_module():
    done = pytest_as("macos", "--collect-only")
    assert done.status == 0, done.output[-3000:]
    assert int(re.search(r"(\d+)/\d+ tests collected", done.output)[1]) > 1500


@simulated
def test_windows_collects_every_module_and_does_what_comes_first():
    done = pytest_as("windows", "-k", FIRST)
    assert done.status == 0, done.output[-3000:]
    assert int(re.search(r"(\d+) passed", done.output)[1]) > 80


@simulated
@pytest.mark.slow
def test_windows_does_more():
    done = pytest_as("windows", "-k", MORE, timeout=3600)
    assert done.status == 0, done.output[-3000:]
