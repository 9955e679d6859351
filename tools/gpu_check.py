"""Runs the course on a CUDA GPU and writes down what came out: `make gpu-check`, or `pytest -m gpu`.

    python tools/gpu_check.py                    # all pieces, under eight minutes; writes gpu-check.json
    python tools/gpu_check.py --only memory
    python tools/gpu_check.py --write-tables     # fills README.md's table from gpu-check.json; the site shows README.md

Each piece (gpu_pieces.py) has a process and a limit of time of its own, and gpu-check.json is written after each: one
that is slow or fails does not lose the others. Nothing is loaded from a network; all models have random weights.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "gpu-check.json"
LIMITS = {"memory": 110, "pretraining": 130, "fine_tuning": 60, "lessons": 170}  # seconds, 7:50 in all
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "bitsandbytes", "numpy")
MARKED = re.compile(r"(<!-- gpu -->).*?(<!-- /gpu -->)", re.DOTALL)
NOT_RUN = (
    "The course was not run on a GPU yet: `make gpu-check` does that in under eight minutes, without a network, and "
    "fills a table here."
)


def machine() -> dict:
    """What the figures are of: the card, the system and the versions."""
    import torch

    found = {"date": datetime.date.today().isoformat(), "python": platform.python_version(), "cores": os.cpu_count()}
    found |= {"packages": {name: version for name in PACKAGES if (version := version_of(name))}}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory": card.total_memory, "cuda": torch.version.cuda}
    return found


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_piece(name: str, device: str = "cuda", tiny: bool = False, limit: float | None = None) -> dict:
    """Runs one piece in a process of its own, to its end or its limit.

    Returns:
        `rows`, all that it told until then; `seconds`; `ended`: "done", "out of time" or what its last line said.
    """
    command = [sys.executable, str(ROOT / "tools" / "gpu_pieces.py"), name, "--device", device, *["--tiny"] * tiny]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    environment |= {"PYTHONUNBUFFERED": "1", "FINETUNING_PROFILE": "reduced"}
    start, limit = time.monotonic(), limit or LIMITS[name]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(command, stdout=out_file, stderr=err_file, env=environment, cwd=ROOT)
            try:
                status = process.wait(limit)
                ended = "done" if status == 0 else None
            except subprocess.TimeoutExpired:
                ended = "out of time"
            finally:
                end_with_children(process)
        lines = out.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in err.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    rows = [row for row in map(read_row, lines) if row is not None]
    return {"ended": ended or (said or ["no message"])[-1][:300], "seconds": time.monotonic() - start, "rows": rows}


def read_row(line: str) -> dict | None:
    """A line of a piece; None for what a library printed, and for a line that was cut off."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def end_with_children(process: subprocess.Popen) -> None:
    """Ends a piece and all that it started, kernels too, which have a session of their own."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.kill()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=5)


def read_report(path: Path = REPORT) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def add_to_report(name: str, piece: dict, path: Path = REPORT) -> None:
    """Puts one piece into the report; pieces of another machine, or of other versions, go."""
    now, before = machine(), read_report(path)
    known = {key: value for key, value in before.get("machine", {}).items() if key != "date"}
    same = known == {key: value for key, value in now.items() if key != "date"}
    report = {"machine": now, "pieces": (before["pieces"] if same else {}) | {name: piece}}
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8", newline="\n")
    draft.replace(path)


# --- What is wrong with a piece ------------------------------------------------------------------


def errors_of(piece: dict, way: str) -> list[float]:
    """How far the predictions of memory are off, as shares of the allocator's peak less the libraries' workspaces."""
    rows = [row for row in piece["rows"] if way in row]
    return [row[way] / (row["measured"] - row.get("workspaces", 0)) - 1 for row in rows]


def complaints(name: str, piece: dict) -> list[str]:
    """What in a piece is not as the course claims; empty if everything is."""
    wrong = [] if piece["ended"] == "done" else [f"{name}: {piece['ended']}"]
    wrong += [f"{row.get('name') or row.get('device')}: {row['error']}" for row in piece["rows"] if "error" in row]
    if name == "memory":
        limits = {"estimate": (0.02, 0.10), "trace": (0.02, 0.05)}
        for way, (middle, most) in limits.items():
            off = [abs(error) for error in errors_of(piece, way)]
            if off and (statistics.median(off) > middle or max(off) > most):
                wrong.append(f"{way} is off by {statistics.median(off):.1%} in the median, {max(off):.1%} at the worst")
    if name == "pretraining":
        speed = {(row["name"], row["compiled"]): row["tokens_per_second"] for row in piece["rows"]}
        if speed.get(("program", False), 0) < 0.9 * speed.get(("transformers", False), 0):
            wrong.append("the program is slower than Transformers' own loop")
    for row in piece["rows"]:
        wrong += [f"lesson {row['lesson']}, cell {place}: {said}" for place, said in row.get("failed", {}).items()]
    return wrong


# --- The table -----------------------------------------------------------------------------------


def table(report: dict) -> str:
    """What README.md shows of a report; without one, that the check was not run."""
    if "card" not in report.get("machine", {}):
        return NOT_RUN
    about, pieces, rows = report["machine"], report["pieces"], []
    packages = about["packages"]
    if piece := pieces.get("lessons"):
        done = sum(not row["failed"] for row in piece["rows"])
        wrong = [f"{row['lesson']} (cells {', '.join(row['failed'])})" for row in piece["rows"] if row["failed"]]
        rows.append(("Lessons that run, reduced data", f"{done} of 9" + (f"; not {', '.join(wrong)}" if wrong else "")))
    if (piece := pieces.get("memory")) and errors_of(piece, "estimate"):
        for way in ("estimate", "trace"):
            off = [abs(error) for error in errors_of(piece, way)]
            said = f"{statistics.median(off):.1%} in the median, {max(off):.1%} at the worst, of {len(off)}"
            rows.append((f"`{way}` against the allocator's peak", said))
        above = [row["nvidia_smi"] - row["measured"] for row in piece["rows"] if row.get("nvidia_smi")]
        if above:
            rows.append(("nvidia-smi shows above that peak", f"{min(above) / 1e9:.1f} to {max(above) / 1e9:.1f} GB"))
    for row in pieces.get("pretraining", {}).get("rows", []):
        share = f", {row['share_of_peak']:.0%} of the card's peak" if row["share_of_peak"] else ""
        loop = {"program": "`pretrain_gpt2.py`", "torch": "a plain torch loop", "transformers": "Transformers' GPT-2"}
        name = f"GPT-2 124 M, bf16, {loop[row['name']]}{', compiled' if row['compiled'] else ''}"
        rows.append((name, f"{row['tokens_per_second']:,.0f} tokens a second{share}"))
    for row in pieces.get("fine_tuning", {}).get("rows", []):
        if "error" not in row:
            where = "the GPU" if row["device"] == "cuda" else "the same machine's CPU"
            name = f"`fine_tune.py`, a model of MiniLM's size, on {where}"
            rows.append((name, f"{row['rows_per_second']:,.0f} rows a second"))
    head = f"{about['card']}, {about['memory'] / 1e9:.0f} GB; Python {about['python']}, torch {packages['torch']}, "
    head += f"transformers {packages['transformers']}; {about['date']}"
    return "\n".join([f"| {head} | |", "|---|---|", *(f"| {name} | {said} |" for name, said in rows)])


def write_tables(report: dict, page: Path = ROOT / "README.md") -> None:
    """Writes the table between the markers of a page."""
    text, rows = page.read_text(encoding="utf-8"), table(report)
    page.write_text(MARKED.sub(lambda match: f"{match[1]}\n{rows}\n{match[2]}", text), encoding="utf-8", newline="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the paths")
    parser.add_argument("--report", type=Path, default=REPORT, help=f"by default {REPORT.name}")
    parser.add_argument("--write-tables", action="store_true", help="run nothing")
    options = parser.parse_args()
    if options.write_tables:
        write_tables(read_report(options.report))
        return 0
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_check.py: torch sees no CUDA GPU here, so nothing was run", file=sys.stderr)
        return 2
    wrong = []
    for name in options.only:
        piece = run_piece(name, options.device, options.tiny)
        add_to_report(name, piece, options.report)
        found = complaints(name, piece)
        print(f"{name}: {piece['ended']}, {piece['seconds']:.0f} s, {len(piece['rows'])} rows", *found, sep="\n  ")
        wrong += found
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
