"""Which architecture runs through which lesson and program: each as a tiny random checkpoint, for real.

    python tools/matrix.py                                  # all of them, programs and lessons: hours on two cores
    python tools/matrix.py --only ModernBERT Qwen3 --lessons 07 09
    python tools/matrix.py --programs fine_tune estimate --lessons

Prints a table in Markdown: "runs", or in how many cells of a lesson something failed, or the line that a program said;
below it every failed cell with its error. `estimate` and `trace` are compared with the peak of torch's own allocator in
a step of a classifier. The reduced data is cut down to few rows. Claims of a lesson about our own models are guarded by
the profile's name, so what fails here would fail for anybody with such a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path

from tiny_checkpoints import SHAPES, make_checkpoint

ROOT = Path(__file__).resolve().parent.parent
ENCODERS = {"BERT", "RoBERTa", "DistilBERT", "XLM-R", "ELECTRA", "ModernBERT", "DeBERTa-v3", "DeBERTa", "ALBERT"}
ENCODERS |= {"MPNet", "CamemBERT", "EuroBERT", "NomicBERT", "XLNet", "Longformer", "BigBird"}
TABLES = {
    "02": "imdb",
    "04": "mrpc",
    "07": "documents",
    "08": "conll2003",
    "09": "lora",
    "10": "domain",
    "11": "squad",
    "12": "instructions",
    "13": "preferences",
}
PROGRAMS = ("estimate", "trace", "fine_tune", "fine_tune --lora", "evaluate_model")
FEW = "max_train_samples = 240\nmax_eval_samples = 60\nmax_test_samples = 60\nmax_length = 64\nnum_train_epochs = 1\n"
FEW_TOKENS = "block_size = 64\nmax_train_tokens = 4096\nmax_eval_tokens = 1024\nmax_labelled_samples = 40\n"
FEW_TOKENS += "max_test_samples = 60\nmax_length = 64\nnum_train_epochs = 1\nclassifier_epochs = 1\n"
SECONDS = 400  # of one architecture in one lesson


def applies(name: str, column: str) -> bool:
    """Whether this architecture is for a lesson or program: encoders read in 02 only as classifiers, and so on."""
    if column in ("estimate", "trace"):
        return True
    if column in ("08", "11"):
        return name in ENCODERS
    if column in ("10", "12", "13"):
        return name not in ENCODERS | {"T5", "Flan-T5", "BART"}
    return True


# --- Programs ------------------------------------------------------------------------------------


def said(function: Callable[[list[str]], int], words: list[str]) -> str:
    """Runs a program's `main`; "runs", or the line that it said in place of that."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = function(words)
    if status == 0:
        return "runs"
    lines = [line for line in (err.getvalue() + out.getvalue()).splitlines() if line.strip()]
    return next((line for line in lines if re.match(r"\w+\.py: ", line)), lines[-1])


def run_programs(name: str, checkpoint: Path, work: Path, programs: list[str]) -> dict[str, str]:
    """What each program says to a checkpoint."""
    fine_tune, evaluate_model = (
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))["main"] for script in ("fine_tune", "evaluate_model")
    )
    data, found = str(ROOT / "data" / "documents.csv"), {}
    words = ["--data", data, "--checkpoint", str(checkpoint), "--max-steps", "4", "--max-length", "64", "--use-cpu"]
    words += ["--max-train-samples", "80", "--output-dir"]
    if "fine_tune" in programs or "evaluate_model" in programs:
        found["fine_tune"] = said(fine_tune, [*words, str(work / "full")])
    if "fine_tune --lora" in programs:
        found["fine_tune --lora"] = said(fine_tune, [*words, str(work / "lora"), "--lora"])
    if "evaluate_model" in programs and found["fine_tune"] == "runs":
        told = ["--model", str(work / "full"), "--data", data, "--output-dir", str(work / "evaluated")]
        found["evaluate_model"] = said(evaluate_model, told)
    if "estimate" in programs or "trace" in programs:
        found |= compare_memory(name)
    return found


def compare_memory(name: str) -> dict[str, str]:
    """How far `estimate` and `trace` are from the real peak of a padded classifier's step."""
    from memory_truth import quiet, real_peak
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    from helpers import memory

    quiet()
    classifies = SHAPES[name]["model_type"] in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    step = dict(task="sequence-classification" if classifies else "causal-lm", padded=True)
    shape, found = dict(per_device_train_batch_size=4, sequence_length=96), {}
    real = real_peak(SHAPES[name], 4, 96, **step)
    for way in (memory.estimate, memory.trace):
        try:
            predicted = way(SHAPES[name], device="cpu", **shape, **step)
        except ValueError as error:  # it says why not
            found[way.__name__] = str(error)
            continue
        kind = " (traced)" if way is memory.estimate and predicted.source == "trace" else ""
        found[way.__name__] = f"{predicted.peak_bytes / real - 1:+.1%}{kind}"
    return found


def _programs_in_a_process(pipe, name: str, programs: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run_programs(name, make_checkpoint(name, Path(folder) / "checkpoint"), Path(folder), programs)
        except Exception as error:  # a program that lets one out, or a model that cannot be built
            found = dict.fromkeys(programs, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    pipe.send(found)


def in_a_process(name: str, programs: list[str]) -> dict[str, str]:
    """`run_programs` in a process of its own: Accelerate keeps the state of one run in its process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_programs_in_a_process, args=(sender, name, programs))
    process.start()
    answered = receiver.poll(SECONDS)
    found = receiver.recv() if answered else dict.fromkeys(programs, f"not done after {SECONDS} s")
    process.kill() if not answered else None
    process.join()
    return found


# --- Lessons -------------------------------------------------------------------------------------


def run_lesson(number: str, profile: str, work: Path, seconds: int = SECONDS) -> dict[int, str]:
    """The cells of a lesson that fail under a profile, each with its error in a line.

    Every cell is run, also after one that failed. A NameError after that is what it left undone, and is not told.

    Args:
        number: of the lesson, such as "02".
        profile: the text of its TOML file.
        work: folder that it runs in, and writes to.
        seconds: for the longest cell.
    """
    import nbformat
    from execute import ThisPython
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    (work / "tried.toml").write_text(profile, encoding="utf-8")
    (work / "notebooks").mkdir(exist_ok=True)
    for name in ("scripts", "data"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_manager_class=ThisPython,
        allow_errors=True,
        resources={"metadata": {"path": str(work / "notebooks")}},
    )
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"FINETUNING_PROFILE": str(work / "tried.toml"), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    try:
        client.execute(env=os.environ | variables)
    except (CellTimeoutError, DeadKernelError) as error:
        return {-1: f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    return failures(notebook)


def small_profile(number: str, checkpoint: str) -> str:
    """The text of a profile with this checkpoint and few rows for one lesson."""
    few = FEW_TOKENS if number == "10" else FEW
    return f'inherits = "reduced"\n[{TABLES[number]}]\ncheckpoint = {json.dumps(checkpoint)}\n{few}'


def failures(notebook) -> dict[int, str]:
    """The failed cells of an executed notebook, by their place, without those that an earlier failure explains."""
    found = {}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or "raises-exception" in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            if output.output_type == "error" and not (found and output.ename == "NameError"):
                line = next((line for line in output.evalue.splitlines() if line.strip()), "")
                failed = [
                    row for row in output.traceback for row in row.splitlines() if "---->" in row or "--> " in row
                ]
                where = re.sub(r"\x1b\[[\d;]*m", "", failed[0]).split("> ", 1)[-1].strip() if failed else ""
                found[place] = f"{output.ename}: {line[:200]} | {where[:120]}"
    return found


# --- The table -----------------------------------------------------------------------------------


def run(name: str, programs: list[str], lessons: list[str], tell: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """One row of the table, and the lines below it."""
    cells, below = {}, []
    if programs:
        cells = in_a_process(name, programs)
    for number in lessons:
        if not applies(name, number):
            continue
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            checkpoint = make_checkpoint(name, work / "checkpoint")
            failed = run_lesson(number, small_profile(number, str(checkpoint)), work)
        cells[number] = "runs" if not failed else f"{len(failed)} cells: {', '.join(map(str, failed))}"
        below += [f"- {name}, lesson {number}, cell {place}: {error}" for place, error in failed.items()]
    row = [name, *(cells.get(column, "–")[:140] for column in (*programs, *lessons))]
    tell("| " + " | ".join(row) + " |")
    return row, below


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="ARCHITECTURE")
    parser.add_argument("--programs", nargs="*", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--lessons", nargs="*", choices=TABLES, default=list(TABLES))
    options = parser.parse_args()
    columns = [*options.programs, *options.lessons]

    if options.programs:
        import takehome.trainer  # noqa: F401  # a forked process has it already

    def tell(line: str) -> None:
        print(line, flush=True)

    tell("| architecture | " + " | ".join(columns) + " |")
    tell("|---|" + "---|" * len(columns))
    below = [line for name in options.only for line in run(name, options.programs, options.lessons, tell)[1]]
    tell("\n" + "\n".join(below))


if __name__ == "__main__":
    main()
