"""Executes the committed notebooks in place, top to bottom, and records what they cost.

    python tools/execute.py                # all lessons, then all solutions
    python tools/execute.py 02 solutions/01_concepts
    python tools/execute.py --check        # only lists notebooks whose outputs are not those of their code

Outputs are replaced; what somebody typed into a notebook stays. A notebook in which a cell raises stays as it was,
unless the cell is tagged `raises-exception`, and so does one that is saved in an editor while it runs. Seconds and peak
memory go to measured.json, and from there between `<!-- measured -->` and `<!-- /measured -->` in the lesson's card,
in README.md's table of lessons and in INSTRUCTOR.md's table of minutes. The last column of README's table is the line
of the card that begins with "**Afterwards you can**". The profile is `reduced`, or what FINETUNING_PROFILE names;
figures are kept for `reduced`.
"""

import argparse
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CORES = 2  # so that the figures mean the same wherever they are measured
MARKED = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)
AFTERWARDS = re.compile(r"\*\*Afterwards you can\*\*:?\s*(.+)")
SCHEDULES = {
    "Half a day": ["01", "02"],
    "One day": ["01", "02", "04", "07"],
    "Two days, the first": ["01", "02", "04", "05"],
    "Two days, the second": ["06", "07", "03", "09"],
}
OURS = "every_parameter"  # our key in the notebook's metadata
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}


class ThisPython(AsyncKernelManager):
    """Starts kernels in the interpreter that runs this program, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel of this interpreter."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name=KERNELSPEC["display_name"], language="python")


class PeakMemory(threading.Thread):
    """Follows the memory of a kernel and its children in bytes, until `stop()`."""

    def __init__(self, client: NotebookClient):
        """Takes the client that starts the kernel."""
        super().__init__(daemon=True)
        self.client, self.peak, self._stop_now = client, 0, threading.Event()

    def run(self) -> None:
        """Looks five times a second; Linux and Windows also keep the kernel's own peak between two looks."""
        while not self._stop_now.wait(0.2):
            pid = getattr(getattr(self.client.km, "provisioner", None), "pid", None)
            try:
                kernel = psutil.Process(pid) if pid else None
                tree = [kernel, *kernel.children(recursive=True)] if kernel else []
                self.peak = max(self.peak, sum(_resident(process) for process in tree), _own_peak(kernel))
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> int:
        """Ends the thread and returns the peak."""
        self._stop_now.set()
        self.join()
        return self.peak


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a child that has just ended
        return 0


def _own_peak(process: psutil.Process | None) -> int:
    """The peak that the system itself kept for a process, in bytes; 0 where it keeps none (macOS)."""
    if process is None:
        return 0
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    except (OSError, TypeError):
        return getattr(process.memory_info(), "peak_wset", 0)


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """The sha256 of all code cells' sources, in order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def is_stale(notebook: nbformat.NotebookNode) -> bool:
    """Whether the code has changed since the outputs were made."""
    return notebook.metadata.get(OURS, {}).get("code_sha256") != code_digest(notebook)


def execute(notebook: nbformat.NotebookNode, folder: Path, profile: str) -> dict:
    """Executes all cells in a fresh kernel in `folder`; outputs go into `notebook`.

    Returns:
        `seconds` (wall time with the start of the kernel), `peak_gb` (10^9 bytes, the kernel and its children).

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took over ten minutes.
        RuntimeError: the kernel did not start, or ended, for instance because it took all memory.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_manager_class=ThisPython,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(CORES))
    memory = PeakMemory(client)
    memory.start()
    start = time.perf_counter()
    try:
        client.execute(env=os.environ | threads | {"FINETUNING_PROFILE": profile})
    finally:
        seconds, peak = time.perf_counter() - start, memory.stop()
    return {"seconds": round(seconds), "peak_gb": round(peak / 1e9, 1)}


def clean(notebook: nbformat.NotebookNode, profile: str) -> None:
    """Leaves what a reader sees and what is the same for every author, and notes which code made the outputs."""
    kept = {key: value for key, value in notebook.metadata.items() if key not in ("widgets", "signature")}
    ours = {"code_sha256": code_digest(notebook), "profile": profile}
    notebook.metadata = nbformat.from_dict(kept | {"kernelspec": KERNELSPEC, "language_info": LANGUAGE, OURS: ours})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = set()
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
        text, copy = cell.cell_type + MARKED.sub("", cell.source), 0
        while (name := hashlib.sha256(f"{text}{copy or ''}".encode()).hexdigest()[:8]) in seen:
            copy += 1
        seen.add(name)
        cell.id = name  # of the content: the same whichever tool wrote the cell
        if cell.cell_type == "code":
            cell.outputs = _clean_outputs(cell.outputs)


def _clean_outputs(outputs: list) -> list:
    """Drops widgets, whose state is not kept, and joins the pieces in which a stream arrived."""
    cleaned = []
    for output in outputs:
        widgets = [kind for kind in output.get("data", {}) if "jupyter.widget" in kind]
        if widgets and "text/html" not in output.data:  # nothing is left to see
            continue
        for kind in widgets:
            del output.data[kind]
        last = cleaned[-1] if cleaned else None
        if output.output_type == "stream" and last and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            cleaned.append(output)
    for output in cleaned:
        if output.output_type == "stream":  # what a terminal shows of a line that was written over
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    return [output for output in cleaned if output.output_type != "stream" or output.text]


def figures(measured: dict) -> str:
    """What a card says: seconds and peak memory."""
    return f"{measured['seconds']} seconds on two cores, {measured['peak_gb']} GB of memory at the peak"


def write_card(notebook: nbformat.NotebookNode, measured: dict) -> None:
    """Writes the figures between the markers of the card."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MARKED.sub(lambda match: match[1] + figures(measured) + match[2], cell.source)


def table_of_lessons(folder: Path, measured: dict) -> str:
    """The README's table: one row for each lesson that was measured."""
    rows = ["| Lesson | Time on two cores | Peak memory | Afterwards you can |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.ipynb")):
        if path.name in measured:
            prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
            title, can = re.search(r"^# (.+)", prose, re.MULTILINE), AFTERWARDS.search(prose)
            cost = f"{measured[path.name]['seconds']} s | {measured[path.name]['peak_gb']} GB"
            name = title[1].strip() if title else path.stem
            rows.append(f"| [{name}]({folder.name}/{path.name}) | {cost} | {can[1].strip() if can else ''} |")
    return "\n".join(rows)


def minutes_in_class(lesson: nbformat.NotebookNode, seconds: float) -> dict[str, int]:
    """What a lesson takes in a room: what can be counted, and `minutes`, which INSTRUCTOR.md says how to read.

    Half as fast a machine as here, 130 words a minute, 20 seconds to look at a code cell, 8 minutes an exercise;
    rounded up to five minutes.
    """
    prose = [cell.source for cell in lesson.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in lesson.cells if cell.cell_type == "code"]
    words = len(re.sub(r"```.*?```|<!--.*?-->", "", "\n".join(prose), flags=re.DOTALL).split())
    exercises = sum("raise NotImplementedError" in source for source in code)
    minutes = 2 * seconds / 60 + words / 130 + len(code) / 3 + 8 * exercises
    return {"words": words, "code cells": len(code), "exercises": exercises, "minutes": 5 * math.ceil(minutes / 5)}


def table_for_instructors(folder: Path, measured: dict) -> str:
    """INSTRUCTOR.md's table, one row for each lesson that was measured, and the schedules that follow from it."""
    rows = [
        "| Lesson | Run, two cores | Words | Code cells | Exercises | Minutes in class |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for path in sorted(folder.glob("*.ipynb")):
        if path.name in measured:
            seconds = measured[path.name]["seconds"]
            counted = minutes_in_class(read(path), seconds)
            rows.append(f"| {path.stem} | {seconds} s | " + " | ".join(map(str, counted.values())) + " |")
    return "\n".join([*rows, "", *(f"**{name}.** {plan}\n" for name, plan in schedules(folder, measured).items())])


def schedules(folder: Path, measured: dict) -> dict[str, str]:
    """Each day of `SCHEDULES` by the clock, from nine: a quarter of an hour after each lesson, an hour for lunch."""
    minutes = {
        path.stem[:2]: minutes_in_class(read(path), measured[path.name]["seconds"])["minutes"]
        for path in folder.glob("*.ipynb")
        if path.name in measured
    }
    days = {}
    for day, lessons in SCHEDULES.items():
        now, parts, lunch = 9 * 60, [], False
        for lesson in (lesson for lesson in lessons if lesson in minutes):
            if now >= 12 * 60 and not lunch:
                now, lunch = now + 45, True  # with the quarter of an hour before
            parts.append(f"{now // 60}:{now % 60:02} lesson {lesson}")
            now += minutes[lesson] + 15
        days[day] = ", ".join(parts) + f", end {(now - 15) // 60}:{(now - 15) % 60:02}"
    return days


def write_tables(folder: Path, measured: dict) -> None:
    """Writes the tables between the markers of README.md and INSTRUCTOR.md in the folder above."""
    for name, table in (("README.md", table_of_lessons), ("INSTRUCTOR.md", table_for_instructors)):
        page = folder.parent / name
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if not MARKED.search(text):
            print(f"{name} has no <!-- measured --> <!-- /measured -->, so no table was written there")
            continue
        rows = table(folder, measured)
        _replace(page, MARKED.sub(lambda match, rows=rows: f"{match[1]}\n{rows}\n{match[2]}", text, count=1))


def read(path: Path) -> nbformat.NotebookNode:
    """Reads a notebook; a missing cell id is no reason to complain, `clean` gives one."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for number, cell in enumerate(content["cells"]):
        cell.setdefault("id", f"cell-{number}")
    content["nbformat_minor"] = 5
    return nbformat.reads(json.dumps(content), as_version=4)


def dumps(notebook: nbformat.NotebookNode) -> str:
    """The text of the notebook's file."""
    return nbformat.writes(notebook, indent=1, ensure_ascii=False).rstrip("\n") + "\n"


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(path)


def _failure(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return re.sub(r"\x1b\[[\d;]*m", "", str(error)).rstrip()  # without colours
    return f"{type(error).__name__}: {error}".rstrip()


def run(path: Path, folder: Path) -> bool:
    """Executes one notebook, cleans and writes it; returns whether it ran to its end."""
    name, profile = path.relative_to(folder).as_posix(), os.environ.get("FINETUNING_PROFILE") or "reduced"
    notebook, before = read(path), path.read_bytes()
    try:
        cost = execute(notebook, path.parent, profile)
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        print(f"{name} failed and stays as it was:\n{_failure(error)}\n", file=sys.stderr)
        return False
    if path.read_bytes() != before:
        print(f"{name} was saved by somebody while it ran, and stays as it is: execute it again", file=sys.stderr)
        return False
    clean(notebook, profile)
    if profile == "reduced":
        record = folder / "measured.json"
        measured = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        measured[name] = cost
        write_card(notebook, cost)
        _replace(record, json.dumps(measured, indent=1, sort_keys=True) + "\n")
    nbformat.validate(notebook)
    _replace(path, dumps(notebook))
    if profile == "reduced":
        write_tables(folder, measured)
    print(f"{name}: {cost['seconds']} s, {cost['peak_gb']} GB")
    return True


def find(names: list[str], folder: Path) -> list[Path]:
    """The notebooks of these names, or all: `02`, `02_imdb_gpt2_classifier`, `solutions/02`, with or without a suffix.

    Raises:
        SystemExit: a name fits no notebook; the message lists them.
    """
    there = sorted(folder.glob("*.ipynb")) + sorted(folder.glob("solutions/*.ipynb"))
    if not names:
        return there
    found = []
    for name in names:
        wanted = name.removeprefix(f"{folder.name}/").removesuffix(".ipynb")
        fits = [path for path in there if path.relative_to(folder).as_posix().startswith(wanted)]
        if not fits:
            known = ", ".join(path.relative_to(folder).as_posix() for path in there) or "none yet"
            raise SystemExit(f"no notebook is called {name!r}; there is: {known}")
        found += fits
    return found


def main(arguments: list[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Runs the command line; returns the exit status: 1 if a notebook failed or is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which notebooks, for instance 02 or solutions/02; default: all")
    parser.add_argument("--check", action="store_true", help="execute nothing, list what needs to be executed")
    options = parser.parse_args(arguments)
    paths = find(options.names, folder)
    if options.check:
        stale = [path.relative_to(folder).as_posix() for path in paths if is_stale(read(path))]
        print("\n".join(f"{name} was edited and not executed since: run `make notebooks`" for name in stale))
        return int(bool(stale))
    failed = [path for path in paths if not run(path, folder)]  # one failure does not stop the rest
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
