"""Rooms of hostile notebooks: none escapes, none forges a verdict, none takes the room down.

Each attack is the body of an exercise's function. What it gets hold of it returns, so that it would stand in the
sentence of its verdict. Beside the room lies what it wants: marks, secrets, sockets, other submissions.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import submissions

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "01_concepts.ipynb"
FUNCTIONS = ("optimizer_steps", "whole_batch_loss", "static_bytes", "epoch_to_keep")
SECRET = "s3cr3t-of-the-room"
RIGHT = """
import math

def optimizer_steps(examples, batch, accumulation, epochs):
    return math.ceil(math.ceil(examples / batch) / accumulation) * epochs
"""

# Each returns what it got, or raises. {world} is a folder of the instructor's; {port} and {name} are listening.
THEFTS = {
    "deletes_marks": "os.remove('{world}/marks.csv')",
    "changes_marks": "open('{world}/marks.csv', 'a').write('all right')",
    "writes_bashrc": "open('{world}/home/.bashrc', 'a').write('rm -rf /')",
    "reads_home": "return os.listdir('{world}/home')",
    "reads_secret_file": "return open('{world}/home/secret').read()",
    "reads_environment": "return os.environ['ROOM_SECRET']",
    "reads_environments": """
        for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
            text = open(f'/proc/{{pid}}/environ').read()
            if 'ROOM_SECRET' in text:
                return text[text.index('ROOM_SECRET') + 12 :][:18]
    """,
    "reads_other_submission": "return open('{world}/submitted/zz_right.ipynb').read()",
    "replaces_submission": "shutil.copy('{world}/submitted/00_right.ipynb', '{world}/submitted/zz_wrong.ipynb')",
    "takes_solutions": """
        text = open('{root}/notebooks/solutions/01_concepts.ipynb').read()
        return re.search('def optimizer_steps', text).group()
    """,
    "reads_our_lesson": "return open('{root}/notebooks/01_concepts.ipynb').read(30)",
    "reads_tests": "return open('{root}/tests/test_checks.py').read(30)",
    "reads_checks": "return open('{root}/helpers/checks/lesson_01.py').read(30)",
    "changes_checks": "open('{root}/helpers/checks/judging.py', 'a').write('_same = lambda *_: True')",
    "replaces_checks": "os.rename('{root}/helpers/checks', '{root}/helpers/old')",
    "deletes_the_course": "shutil.rmtree('{root}/data'); shutil.rmtree('{root}/helpers')",
    "plants_sitecustomize": "open(os.path.join(os.path.dirname(os.__file__), 'sitecustomize.py'), 'w')",
    "plants_pth": "open([p for p in sys.path if 'site-packages' in p][0] + '/evil.pth', 'w')",
    "uses_unix_socket": "s = socket.socket(socket.AF_UNIX); s.connect('{world}/agent'); return s.recv(30)",
    "uses_abstract_socket": "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + '{name}'); return s.recv(30)",
    "uses_loopback": "return socket.create_connection(('127.0.0.1', {port}), 1).recv(30)",
    "follows_symlinks": """
        os.symlink('{world}/marks.csv', 'marks'); os.symlink('{world}/home', 'house')
        with contextlib.suppress(OSError):
            open('marks', 'w').write('all right')
        return open('house/secret').read()
    """,
    "links_hard": "os.link('{root}/helpers/flops.py', 'mine')",
    "lists_disks": "return open('/dev/vda', 'rb').read(8)",
    "uses_run": "return os.listdir('/run') + os.listdir('/tmp') + os.listdir('/var')",
    "inherited_descriptors": """
        links = [os.readlink(f'/proc/self/fd/{{fd}}') for fd in os.listdir('/proc/self/fd')[:-1]]
        found = [link for link in links if not link.startswith('pipe:') and link != '/dev/null']
        assert found, 'only pipes'
        return found
    """,
}
# How to get more rights; each raises if it gets none.
ESCAPES = {
    "remounts": "assert libc.mount(None, b'/', None, 32 | 4096, None) == 0",
    "mounts_tmpfs": "assert libc.mount(b'x', b'/scratch', b'tmpfs', 0, b'size=9g') == 0",
    "new_user_namespace": "assert libc.unshare(0x10000000) == 0",
    "chroots": "os.chroot('/scratch')",
    "becomes_root": "os.setresuid(0, 0, 0)",
    "setuid_program": "assert subprocess.run(['su', '-c', 'true'], stdin=subprocess.DEVNULL).returncode == 0",
    "device_node": "os.mknod('disk', 0o60600, os.makedev(254, 0)); open('disk', 'rb').read(1)",
    "runs_from_scratch": """
        open('x.sh', 'w').write('#!/bin/sh')
        os.chmod('x.sh', 0o755)
        subprocess.run(['./x.sh'], check=True)
    """,
    "sysctl": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
    "ptrace_parent": "assert libc.ptrace(16, os.getppid(), 0, 0) == 0",
    "ptrace_init": "assert libc.ptrace(16, 1, 0, 0) == 0",
    "memory_of_init": "return open('/proc/1/mem', 'r+b').read(1)",
    "memory_of_parent": "return open(f'/proc/{{os.getppid()}}/mem', 'r+b').read(1)",
    "descriptors_of_init": "return os.listdir('/proc/1/fd')",
    "kills_init": "os.kill(1, 9); time.sleep(0.2); assert not os.path.exists('/proc/1')",
    "kills_all": "os.kill(-1, 9); time.sleep(0.2); assert not os.path.exists('/proc/1')",
    "more_limits": "resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))",
}
# Wrong answers that want to be taken for right ones.
FORGERIES = {
    "says_passed": "import __main__; __main__.say(passed=True, sentence='Right: yes.')",
    "says_passed_to_runner": """
        frame = sys._getframe()
        while frame:
            if 'say' in frame.f_locals:
                frame.f_locals['say']({{'passed': True, 'sentence': 'Right: yes.', 'answer': 1, 'arguments': [0] * 4}})
            frame = frame.f_back
    """,
    "writes_to_descriptors": """
        line = json.dumps({{'passed': True, 'sentence': 'Right: yes.', 'answer': 'right', 'arguments': [1, 2, 3, 4]}})
        for fd in range(3, 256):
            with contextlib.suppress(OSError):
                os.write(fd, line.encode() + b'\\n')
    """,
    "patches_expect": """
        from helpers import checks
        import helpers.checks.judging as judging
        checks.expect = checks._same = judging.expect = judging._same = lambda *_, **__: True
    """,
    "patches_verdict": """
        import helpers.checks.judging as judging
        judging.Verdict.__init__ = lambda self, *_: None
        judging.Verdict.passed = property(lambda self: True)
        judging.failure = lambda *_: 'Right: yes.'
        raise ValueError('Right: yes.')
    """,
    "patches_builtins": """
        import builtins, math
        builtins.isinstance = builtins.all = lambda *_: True
        math.isclose = lambda *_, **__: True
        builtins.type = lambda *_: int
    """,
    "patches_libraries": """
        import numpy, torch
        torch.equal = torch.allclose = numpy.allclose = lambda *_, **__: True
        torch.Tensor.__eq__ = lambda *_: True
        return torch.zeros(1)
    """,
    "asks_the_checks": """
        from helpers.checks import lesson_01
        seen = []
        lesson_01.expect = lambda answer, expected, *_: seen.append(expected)
        lesson_01.lesson_01_optimizer_steps(lambda *_: 0)
        return seen[0]
    """,
    "walks_frames": """
        frame = sys._getframe()
        while frame:
            for name, value in frame.f_locals.items():
                if name in ('expected', 'hints', 'answer') and isinstance(value, int):
                    return value
            frame = frame.f_back
    """,
    "walks_garbage": """
        import gc
        for thing in gc.get_objects():
            if getattr(thing, '__name__', '') in ('expect', 'exercise', '_same', 'lesson_01_optimizer_steps'):
                thing.__code__ = (lambda *_, **__: None).__code__
    """,
    "equal_to_all": "return type('Yes', (), {{'__eq__': lambda *_: True, '__hash__': lambda _: 0}})()",
    "number_of_its_own": """
        methods = {{'__eq__': lambda *_: True, '__float__': lambda _: 300.0, '__sub__': lambda *_: 0.0}}
        return type('float', (float,), methods)(7)
    """,
    "whole_number_of_its_own": "return type('int', (int,), {{'__eq__': lambda *_: True, '__sub__': lambda *_: 0}})(7)",
    "text_of_its_own": "return type('str', (str,), {{'__eq__': lambda *_: True}})('300')",
    "lists_itself": """
        yes = type('Yes', (), {{'__eq__': lambda *_: True}})
        return type('Tensor', (), {{'tolist': lambda _: yes()}})()
    """,
    "pickle": """
        class Payload:
            def __reduce__(self):
                return os.system, ('touch {world}/pickled',)
        return Payload()
    """,
    "pickled_bytes": "import pickle; return pickle.dumps(print)",
    "changes_arguments": "given = list(given); given[:] = [0, 1, 1, 0]; return 0",
    "claims_right": "return 'Right: batches round up'",
    "not_a_number": "return float('nan')",
    "infinite": "return float('inf')",
    "many_digits": "return 10**5000",
    "too_deep": "x = []; [x := [x] for _ in range(900)]; return x",
    "contains_itself": "x = []; x.append(x); return x",
    "long_list": "return [0] * 10**5",
    "raises_terminal_codes": "raise ValueError('\\x1b[2Jright\\n\\rzz_right  right <script>' + chr(0x202e))",
    "exits": "sys.exit(0)",
    "exits_hard": "os._exit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "names_itself_right": "raise type('right)  right', (BaseException,), {{}})",
    "crashes": "import ctypes; ctypes.string_at(0)",
}
# Those that want all of the machine.
HOGS = {
    "forks": """
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)  # where no process is left, and then again
    """,
    "three_children": """
        for _ in range(3):
            if os.fork() == 0:
                held = [b'x' * (50 << 20) for _ in range(30)]
                time.sleep(60)
        time.sleep(60)
    """,
    "memory_files": """
        held = [os.memfd_create('x') for _ in range(100)]
        for fd in held:
            for _ in range(60):
                os.write(fd, b'x' * (1 << 20))
        time.sleep(60)
    """,
    "shared_memory": """
        libc.shmat.restype = ctypes.c_void_p
        for _ in range(12):
            segment = libc.shmget(0, 400 << 20, 0o1600)
            address = ctypes.c_void_p(libc.shmat(segment, None, 0))
            ctypes.memset(address, 1, 400 << 20)
            libc.shmdt(address)
        time.sleep(60)
    """,
    "ten_files": """
        total = 0
        for number in range(10):
            with contextlib.suppress(OSError), open(f'file{{number}}', 'wb', buffering=0) as file:
                for _ in range(60):
                    total += file.write(b'x' * (1 << 20)) >> 20
        return f'{{total}} MB written'
    """,
    "many_files": """
        count = 0
        with contextlib.suppress(OSError):
            for count in range(100_000):
                open(f'file{{count}}', 'w').close()
        return f'{{count}} files made'
    """,
    "report": """
        for fd in range(3, 256):
            with contextlib.suppress(OSError):
                for _ in range(500):
                    os.write(fd, b'x' * (1 << 20))
    """,
    "long_text": "return 'x' * (50 << 20)",
    "threads": """
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    """,
}
# Those that do not end.
STALLS = {
    "prints": "while True: print('ha' * 50_000), time.sleep(0.01)",
    "ignores_signals": """
        for number in set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP}}:
            signal.signal(number, signal.SIG_IGN)
        while True: time.sleep(1)
    """,
    "leaves_children": """
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.closerange(0, 256)
                    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', '{world}'])
                os._exit(0)
        return 0
    """,
}
IMPORTS = """
import contextlib, ctypes, json, os, re, resource, shutil, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None)
"""
# Cells that may break who reads them; each gets a notebook of its own.
DEEP = {
    "deep_brackets": "x = " + "(" * 5000 + "1" + ")" * 5000,
    "deep_minus": "x = " + "-" * 200_000 + "1",
    "deep_sum": "x = " + "1 + " * 100_000 + "1",
    "deep_attributes": "x = a" + ".a" * 100_000,
}
# Cells that are no Python, or not what they seem; all in one notebook.
UNREADABLE = {
    "argument_twice": "def f(a, a): pass",
    "nonlocal": "nonlocal x",
    "late_global": "def f():\n    x = 1\n    global x",
    "import_star": "def f():\n    from os import *",
    "return_outside": "return 1",
    "many_ifs": "\n".join("    " * depth + "if x:" for depth in range(150)) + "\n" + "    " * 150 + "x",
    "magic": "%%bash\nrm -rf /\n",
    "much_magic": "%time x = 1\n!ls\nx?\n%load_ext evil\n?\n%%\n!!\n%\n",
    "nul": "x = 1\0",
    "surrogate": "x = '\ud800'",
    "unclosed": "x = '''",
    "indented": "  x = 1\n y = 2",
    "coding": "# -*- coding: rot13 -*-\nk = 1",
    "long_number": "x = " + "9" * 10_000,
}


def write_notebook(path, *sources):
    cells = [{"cell_type": "code", "source": source, "metadata": {}, "outputs": []} for source in sources]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")


def write_attacks(path, bodies, places):
    """Each attack is the body of one of the lesson's four functions."""
    sources = []
    for function, body in zip(FUNCTIONS, bodies, strict=False):
        body = textwrap.indent(textwrap.dedent(body.format(root=ROOT, **places)), "    ")
        sources.append(f"def {function}(*given):\n{body}")
    write_notebook(path, IMPORTS, *sources)


@dataclass
class World:
    """A folder of the instructor's with all that an attack wants, and listeners on the machine."""

    folder: Path
    owner: int

    def __enter__(self):
        self.visitors = []
        for name in ("submitted", "home"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "marks.csv").write_text("zz_wrong,0\n", encoding="utf-8")
        (self.folder / "home" / ".bashrc").write_text("# mine\n", encoding="utf-8")
        (self.folder / "home" / "secret").write_text(SECRET, encoding="utf-8")
        self.name = f"hostile-{self.folder.name}"
        families = (socket.AF_UNIX, str(self.folder / "agent")), (socket.AF_UNIX, "\0" + self.name)
        self.listeners = [self.listen(*each) for each in [*families, (socket.AF_INET, ("127.0.0.1", 0))]]
        self.places = dict(world=self.folder, name=self.name, port=self.listeners[-1].getsockname()[1])
        return self

    def __exit__(self, *_):
        for listener in self.listeners:
            listener.close()

    def listen(self, family, address):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    visitor, _ = listener.accept()
                    self.visitors.append(address)
                    visitor.send(SECRET.encode())

        threading.Thread(target=answer, daemon=True).start()
        return listener

    def fill(self, attacks, together=1):
        """Writes the room, with so many attacks to a notebook: {notebook: the names of its attacks}."""
        submitted, names = self.folder / "submitted", list(attacks)
        groups = [names[first : first + together] for first in range(0, len(names), together)]
        for group in groups:
            write_attacks(submitted / f"{group[0]}.ipynb", [attacks[name] for name in group], self.places)
        write_notebook(submitted / "00_right.ipynb", RIGHT)
        write_notebook(submitted / "zz_right.ipynb", RIGHT.replace("examples", "rows"))
        write_notebook(submitted / "zz_wrong.ipynb", "def optimizer_steps(*_):\n    return 1")
        if self.owner != os.getuid():
            for path in [self.folder, *self.folder.rglob("*")]:
                os.lchown(path, self.owner, self.owner)
        return {group[0]: group for group in groups}

    def command(self, *options, problem=None):
        """The program on this room; with a problem, as on a system that cannot isolate."""
        program = "import sys, check_exercises as program\n"
        if problem:
            program += f"program.isolation_problem = lambda: {problem!r}\n"
        program += "sys.exit(program.main(sys.argv[1:]))"
        return [sys.executable, "-c", program, str(LESSON), str(self.folder / "submitted"), "--sentences", *options]

    def check(self, *options, problem=None, prefix=()):
        """Runs the program; returns what it said, and the most memory that it had at a time."""
        environment = os.environ | {"HOME": str(self.folder / "home"), "ROOM_SECRET": SECRET}
        environment |= {
            "TMPDIR": str(self.folder),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = psutil.Popen(
                [*prefix, *self.command(*options, problem=problem)],
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=environment,
            )
            peak = peak_of_all = 0
            shared = psutil.virtual_memory().shared
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):
                    own = process.memory_info().rss
                    others = [child.memory_info().rss for child in process.children(recursive=True)]
                    others.append(psutil.virtual_memory().shared - shared)  # what belongs to no process
                    peak, peak_of_all = max(peak, own), max(peak_of_all, own + sum(others))
                time.sleep(0.1)
            out.seek(0), err.seek(0)
            return Said(process.returncode, out.read(), err.read(), peak, peak_of_all)

    def left(self):
        """Processes of this world that are still there."""
        return [
            p.pid for p in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(p.info["cmdline"] or [])
        ]


@dataclass
class Said:
    code: int
    out: str
    err: str
    peak: int  # bytes of the program
    peak_of_all: int  # bytes with all that it started

    def answers(self):
        """{notebook: its four answers and the remark} from the table."""
        lines = self.out.split("\n\n")[0].splitlines()[1:]
        cells = [[*re.split(r"  +", line), ""][:6] for line in lines]
        return {cell[0].removesuffix(".ipynb"): cell[1:] for cell in cells}


def digests(folder):
    """Each path in a folder with its kind, rights and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not {"__pycache__", "outputs", ".ipynb_checkpoints"} & {*path.parts}:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (path.lstat().st_mode, content, os.readlink(path) if path.is_symlink() else "")
    return found


def course():
    """The digests of the course, and of Python and its packages when each file was changed last."""
    found = {}
    for name in ("helpers", "tools", "takehome", "scripts", "data", "notebooks"):
        found |= digests(ROOT / name)
    for top in {sys.prefix, os.path.dirname(os.__file__), *(p for p in sys.path if p.endswith("site-packages"))}:
        for parent, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__"]
            found |= {f"{parent}/{name}": os.lstat(f"{parent}/{name}").st_ctime_ns for name in names}
    return found


# Shows the Python of a closed home to everybody, in a mount namespace of this command alone.
AS_NOBODY = """
set -e
mount --make-rprivate /
if [ -n "$2" ]; then
    mount -t tmpfs stage /mnt && mkdir /mnt/python && mount --bind "$1" /mnt/python
    mount -t tmpfs -o mode=755 closed "$2" && mkdir -p "$1" && mount --bind /mnt/python "$1"
fi
shift 2
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""


def as_nobody():
    """A command in front of another one that is then run by `nobody`."""
    if os.getuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("only root can become nobody, with the commands of util-linux")
    python = Path(os.path.realpath(sys.base_prefix))
    closed = next((str(path) for path in reversed(python.parents) if not path.stat().st_mode & 1), "")
    prefix = ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh", str(python), closed]
    if subprocess.run([*prefix, sys.executable, "-c", "import helpers.checks"], capture_output=True).returncode:
        pytest.skip("nobody cannot read the Python of these tests")
    return prefix


@pytest.fixture(scope="module")
def isolating():
    if sys.platform != "linux":
        pytest.skip("only Linux isolates")
    import sandbox

    if problem := sandbox.isolation_problem():
        pytest.skip(f"this system does not isolate: {problem}")


@pytest.fixture(scope="module", autouse=True)
def course_unharmed():
    before = course()
    yield
    after = course()
    assert [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)] == []


@pytest.fixture
def world(isolating):
    folder = Path(tempfile.mkdtemp(prefix="world-"))
    with World(folder, os.getuid()) as world:
        yield world
    shutil.rmtree(folder)


@pytest.fixture(params=["self", pytest.param("nobody", marks=pytest.mark.slow)])
def user(request, world):
    """The command that changes the user, if any; the world is then that user's."""
    prefix = as_nobody() if request.param == "nobody" else []
    world.owner = 65534 if prefix else os.getuid()
    return prefix


def check_unharmed(world, *options, prefix=()):
    """Runs a room and looks at what holds after every room, whatever was in it; returns the answers and the rest."""
    before = digests(world.folder)
    said = world.check(*options, prefix=prefix)
    print(said.out, said.err)  # for who reads a failure
    assert said.code == 0
    assert digests(world.folder) == before
    assert SECRET not in said.out + said.err
    assert not world.visitors and not world.left()
    answers = said.answers()
    assert answers["00_right"][0] == answers["zz_right"][0] == "right" and answers["zz_wrong"][0] == "wrong"
    return answers, said


def test_none_escapes_and_none_forges(world, user):
    rooms = world.fill(THEFTS | ESCAPES | FORGERIES, together=4)
    answers, said = check_unharmed(world, prefix=user)
    given = {name: answers[room][place] for room, group in rooms.items() for place, name in enumerate(group)}
    assert set(given) == {*THEFTS, *ESCAPES, *FORGERIES}
    assert {name: answer for name, answer in given.items() if answer in ("right", "over time", "missing")} == {}
    raised = dict(re.findall(r"(\w+)\.ipynb: \w+: (.*)", said.out))
    assert {name: given[name] for name in THEFTS | ESCAPES if given[name] != "wrong"} == {}
    assert all(" raised " in sentence for name, sentence in raised.items() if name in THEFTS | ESCAPES)
    assert "\x1b" not in said.out and "\u202e" not in said.out and "\\x1b[2J" in said.out
    assert given["exits"] == "crash (SystemExit)" and given["crashes"] == given["exits_hard"] == "crash"


def test_none_takes_the_machine(world, user):
    world.fill(HOGS)
    answers, said = check_unharmed(world, "--seconds", "6", prefix=user)
    got = {name: answers[name][0] for name in HOGS}
    assert "right" not in got.values()
    assert said.peak < 200 << 20, "the program itself grew"
    assert said.peak_of_all < 3.5 * 2**30, "of the 4.5 GB and more that some wanted"
    assert got["report"] == got["long_text"] == "too much output"
    made = {name: int(count) for count, name in re.findall(r"got '(\d+) (MB written|files made)", said.out)}
    assert made["MB written"] <= 64 and made["files made"] < 5000


def test_none_outlives_its_time(world, user):
    world.fill(STALLS)
    answers, _ = check_unharmed(world, "--seconds", "4", prefix=user)
    assert {name: answers[name][0] for name in STALLS} == dict.fromkeys(STALLS, "over time") | {
        "leaves_children": "wrong"
    }


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_bad_cell_costs_only_itself(name):
    parsed = submissions.parse([UNREADABLE[name], RIGHT])
    assert submissions.needed(parsed.statements, "optimizer_steps")
    harmless = name in ("magic", "much_magic", "coding")  # IPython makes Python of them, or they are comments
    assert [remark[:12] for remark in parsed.broken] == ([] if harmless else ["code cell 1:"])


def test_each_is_a_row(world):
    """What cannot be read, parsed or run, and names that want to be more than names."""
    submitted = world.folder / "submitted"
    for name, source in DEEP.items():
        write_notebook(submitted / f"{name}.ipynb", source, RIGHT)
    write_notebook(submitted / "unreadable.ipynb", *UNREADABLE.values(), RIGHT)
    broken_function = RIGHT.replace("(examples, batch,", "(batch, batch,")
    write_notebook(submitted / "the_function_itself.ipynb", broken_function)
    write_notebook(submitted / "a\nzz_wrong.ipynb  right.ipynb", RIGHT + "# 1")
    write_notebook(submitted / "b\x1b[2J<b>\u202e.ipynb", RIGHT)
    os.rename(submitted / "b\x1b[2J<b>\u202e.ipynb", os.fsencode(submitted) + b"/c\xff.ipynb")
    write_notebook(submitted / "b\x1b[2J<b>\u202e.ipynb", RIGHT)
    files = {
        "no_json": b"{'cells'",
        "deep_json": b"[" * 10**6,
        "a_list": b"[]",
        "a_number": b"7",
        "nothing": b"",
        "binary": bytes(range(256)),
        "no_cells": b'{"nbformat": 4, "cells": 7}',
        "no_source": b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}',
        "old": b'{"nbformat": 3, "worksheets": 1}',
        "kernel": b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "\\u001b[31mR\\n"}}}',
    }
    for name, content in files.items():
        (submitted / f"{name}.ipynb").write_bytes(content)
    (submitted / "folder.ipynb").mkdir()
    (submitted / "dangling.ipynb").symlink_to("nowhere")
    (submitted / "linked.ipynb").symlink_to("00_right.ipynb")
    os.mkfifo(submitted / "fifo.ipynb")
    (submitted / "large.ipynb").touch()
    os.truncate(submitted / "large.ipynb", 200 << 20)
    world.fill({})
    os.chmod(submitted / "nothing.ipynb", 0)
    answers, said = check_unharmed(world)
    assert len(answers) == len(list(submitted.iterdir())) == len(DEEP) + len(files) + 13
    assert {name: answers[name][0] for name in [*DEEP, "unreadable"]} == dict.fromkeys([*DEEP, "unreadable"], "right")
    assert answers["a\\nzz_wrong.ipynb right"][0] == "right"
    assert answers["b\\x1b[2J<b>\\u202e"][0] == answers["c\\udcff"][0] == "right"
    assert all(ord(letter) >= 32 or letter == "\n" for letter in said.out + said.err)
    remarks = {name: answer[4] for name, answer in answers.items() if answer[0] == "-"}
    assert remarks == dict.fromkeys(files, "not a notebook") | {
        "the_function_itself": "none of this lesson's exercises in it; "
        "code cell 1: duplicate argument 'batch' in function definition",
        "folder": "a folder, not a notebook",
        "dangling": "a link, which is not followed",
        "linked": "a link, which is not followed",
        "fifo": "not an ordinary file",
        "large": "larger than 20 MB",
        "kernel": "a notebook for \\x1b[31mR\\n, not for Python",
    } | ({} if os.getuid() == 0 else {"nothing": "cannot be read: Permission denied"})


def test_the_attacks_are_real(world):
    """Without isolation the same submissions do get what they want, or the tests above would prove nothing."""
    harmless = (
        "deletes_marks",
        "writes_bashrc",
        "reads_secret_file",
        "replaces_submission",
        "takes_solutions",
        "reads_checks",
        "uses_unix_socket",
        "uses_abstract_socket",
        "uses_loopback",
        "follows_symlinks",
    )
    world.fill({name: THEFTS[name] for name in harmless} | {"asks_the_checks": FORGERIES["asks_the_checks"]})
    said = world.check("--without-isolation", problem="as a test wants it")
    print(said.out, said.err)
    assert said.err.count("WITHOUT ISOLATION: as a test wants it.") == 2  # before and after the table
    answers = said.answers()
    assert (world.folder / "marks.csv").read_text(encoding="utf-8") == "all right", (
        "deleted, then written through a link"
    )
    assert "rm -rf" in (world.folder / "home" / ".bashrc").read_text(encoding="utf-8")
    assert len(world.visitors) == 3 and said.out.count(SECRET) == 5
    assert answers["zz_wrong"][0] == answers["00_right"][0] == "right", "another submission took its place"
    assert "got 'def optimizer_steps'" in said.out and "from helpers" not in said.err
    assert "raised" not in said.out


def test_without_isolation_nothing_is_left_and_nothing_grows(world):
    world.fill(STALLS | {"report": HOGS["report"], "three_children": HOGS["three_children"]})
    said = world.check("--without-isolation", "--seconds", "4", problem="as a test wants it")
    print(said.out, said.err)
    answers = said.answers()
    assert answers["prints"][0] == answers["ignores_signals"][0] == "over time"
    assert answers["report"][0] == "too much output" and answers["zz_right"][0] == "right"
    assert not world.left() and said.peak < 200 << 20 and said.peak_of_all < 3.5 * 2**30


def test_who_cannot_isolate_refuses(world):
    """In a container that allows no further namespaces."""
    world.fill({"deletes_marks": THEFTS["deletes_marks"]})
    closed = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", closed, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no such container can be made here")
    said = world.check(prefix=prefix)
    assert (said.code, said.out) == (2, "") and (world.folder / "marks.csv").exists()
    assert said.err.startswith("Submitted code cannot be isolated here: this system does not let us (")
    assert len(said.err.splitlines()) == 1 and "unshare: " in said.err and "Nothing was run" in said.err


def test_all_ends_with_the_program(world):
    """Killed itself, it leaves nothing behind that it has started."""
    world.fill({"ignores_signals": STALLS["ignores_signals"]})
    (world.folder / "submitted" / "00_right.ipynb").unlink()
    program = psutil.Popen(
        world.command(),
        cwd=world.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}", "TMPDIR": str(world.folder)},
    )
    until, started = time.monotonic() + 60, []
    while time.monotonic() < until and not any("exercise_runner.py" in " ".join(p.cmdline()[:5]) for p in started):
        time.sleep(0.1)
        with contextlib.suppress(psutil.Error):
            started = [p for p in program.children(recursive=True) if p.is_running()]
            started = started if program.status() != psutil.STATUS_ZOMBIE else []
    time.sleep(0.5)
    program.kill()
    program.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert started and not alive
