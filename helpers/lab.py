"""A learner's own copy of the lessons, opened in JupyterLab.

    python -m helpers.lab                    # make or refresh my-lessons/, open lesson 01; this is `make lab`
    python -m helpers.lab --lesson 02        # open another lesson; options that are not ours go to JupyterLab
    python -m helpers.lab --fresh 02         # a new copy of lesson 02; yours is kept under another name
    python -m helpers.lab --copy-only        # make or refresh my-lessons/ and open nothing

The lessons in notebooks/ carry their outputs, for GitHub and the tests. Who learns guesses before he sees, so he works
in `my-lessons/`: the same lessons without outputs, and the solutions with their code folded, a click for each. Git
ignores that folder, and no other program of the course looks into it.

Nothing that a learner did is written over. Each copy carries, in its metadata, a digest of what we put there. A lesson
that changed in notebooks/ replaces its copy only while that digest fits; else the copy stays, and a line says so.
"""

import argparse
import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
MINE = "my-lessons"  # beside notebooks/, so that ../scripts is the same place; no space, as lesson 06 splits commands
OURS, DIGEST = "every_parameter", "copied_sha256"
UNREADABLE = "is not a notebook that can be read"
MEASURED = re.compile(r"(?<=<!-- measured -->).*?(?=<!-- /measured -->)", re.DOTALL)
# What editors write by themselves into a notebook's metadata and into a cell's: nobody's work.
OF_EDITORS = {"language_info", "kernelspec", OURS}
OF_EDITORS_IN_CELLS = {"execution", "ExecuteTime", "collapsed", "scrolled", "trusted", "jupyter"}


def read(path: Path) -> dict | None:
    """The content of a notebook's file; None if it is no notebook, for instance after an unfinished merge."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        dicts = [content["metadata"], *(cell["metadata"] for cell in content["cells"])]
        return content if all(isinstance(each, dict) for each in dicts) else None
    except (ValueError, TypeError, KeyError):
        return None


def digest(notebook: dict) -> str:
    """A sha256 of all that somebody may have worked on: sources, outputs, attachments, tags, the order of cells.

    Opening and saving a notebook does not change it, nor do new figures of time and memory in a lesson's card.
    """
    cells = []
    for cell in notebook["cells"]:
        kept = {key: value for key, value in cell.items() if key != "id"}
        kept["metadata"] = {k: v for k, v in cell["metadata"].items() if k not in OF_EDITORS_IN_CELLS}
        kept["source"] = MEASURED.sub("", "".join(cell.get("source", "")))
        cells.append(kept)
    metadata = {key: value for key, value in notebook.get("metadata", {}).items() if key not in OF_EDITORS}
    return hashlib.sha256(json.dumps([cells, metadata], sort_keys=True).encode()).hexdigest()


def cleared(lesson: Path) -> dict | None:
    """What a learner gets of a notebook: no outputs, no notes of our tools; solutions folded. None as in `read`."""
    notebook = read(lesson)
    if notebook is None:
        return None
    for cell in notebook["cells"]:
        cell["metadata"].pop("lines_to_next_cell", None)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            if lesson.parent.name == "solutions":
                cell["metadata"]["jupyter"] = {"source_hidden": True}
    notebook["metadata"].pop("jupytext", None)
    notebook["metadata"][OURS] = {DIGEST: digest(notebook)}
    return notebook


def write(path: Path, notebook: dict) -> None:
    """Writes a notebook whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    os.replace(draft, path)


def update(name: str, root: Path) -> str:
    """Brings one copy up to date where nothing can be lost; returns what the learner should know, or nothing."""
    copy, wanted = root / MINE / name, cleared(root / "notebooks" / name)
    if wanted is None:
        return f"notebooks/{name} {UNREADABLE}. Get that file again, for instance with git."
    if not os.path.lexists(copy):
        write(copy, wanted)
        return ""
    again = "For a new copy, with yours kept under another name: make fresh LESSON=" + re.sub(r"(\d+)_.*", r"\1", name)
    mine = read(copy)
    if mine is None:
        return f"{MINE}/{name} {UNREADABLE}, and is left alone. {again}"
    new, now, put = digest(wanted), digest(mine), mine.get("metadata", {}).get(OURS, {}).get(DIGEST)
    if now == put != new:
        write(copy, wanted)
        return f"{MINE}/{name} is new: the lesson changed, and you had not begun it."
    return (
        f"{MINE}/{name} is kept, since you worked in it, but the lesson changed. {again}"
        if new not in (now, put)
        else ""
    )


def fresh(name: str, root: Path) -> str:
    """Makes a new copy of one lesson; the old one is renamed, never written over. Returns what was done."""
    copy, wanted, kept = root / MINE / name, cleared(root / "notebooks" / name), ""
    if wanted is None:
        raise SystemExit(f"notebooks/{name} {UNREADABLE}: get that file again, for instance with git")
    if os.path.lexists(copy):
        if (mine := read(copy)) and digest(mine) == digest(wanted):
            return f"{MINE}/{name} is as good as new already."
        number = 1
        while os.path.lexists(old := copy.with_name(f"{copy.stem}-mine-{number}.ipynb")):
            number += 1
        copy.rename(old)
        kept = f" Yours is kept beside it, as {old.name}. If it is open: File > Reload Notebook from Disk."
    write(copy, wanted)
    return f"{MINE}/{name} is new.{kept}"


def lessons(root: Path) -> list[str]:
    """The notebooks that there are, lessons first: "02_imdb_gpt2_classifier.ipynb", "solutions/02_...ipynb"."""
    folder = root / "notebooks"
    found = [*sorted(folder.glob("[0-9]*.ipynb")), *sorted(folder.glob("solutions/[0-9]*.ipynb"))]
    return [path.relative_to(folder).as_posix() for path in found]


def find(wanted: str, root: Path) -> str:
    """The notebook that a learner means with "2", "02", "02_imdb" or "notebooks/02_imdb_gpt2_classifier.ipynb"."""
    start = wanted.removeprefix("notebooks/").removeprefix(f"{MINE}/").removesuffix(".ipynb")
    start = start.zfill(2) if start.isdigit() else start
    fits = [name for name in lessons(root) if start and name.startswith(start)]
    if len(fits) != 1:
        there = ", ".join(name.removesuffix(".ipynb") for name in lessons(root) if "/" not in name)
        raise SystemExit(f"which lesson? {wanted!r} fits {len(fits)} of these: {there or 'none in ' + str(root)}")
    return fits[0]


def open_jupyterlab(name: str, root: Path, options: list[str]) -> None:
    """Starts JupyterLab on a lesson of the working copy, until it is stopped."""
    try:
        from jupyterlab.labapp import main as start
    except ImportError:
        raise SystemExit("JupyterLab is not installed for this Python: see SETUP.md") from None
    first = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{quote(f'{MINE}/{name}')}"]
    # Versions are pinned, and rooms have no network: JupyterLab asks nobody for news or a newer version.
    first += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        first.append("--allow-root")
        print("You are root, so every cell will run with root's rights. A normal user is safer.", flush=True)
    start([*first, *options])


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    """Runs the command line.

    Raises:
        SystemExit: something is in the way; one line says what.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--lesson", default="01", help="which one to open: 02, or solutions/02; default: 01")
    parser.add_argument("--fresh", metavar="LESSON", help="make a new copy of this one, and open nothing")
    parser.add_argument("--copy-only", action="store_true", help="open nothing")
    options, rest = parser.parse_known_args(arguments)
    wants_jupyterlab = options.fresh is None and not options.copy_only
    if rest and not wants_jupyterlab:
        parser.error(f"not understood: {' '.join(rest)}")
    name = find(options.lesson if options.fresh is None else options.fresh, root)
    try:
        if options.fresh is not None:
            print(fresh(name, root))
        else:
            first_time = not (root / MINE).exists()
            said = [update(each, root) for each in lessons(root)]
            if first_time:
                print(f"{MINE}/ is your own copy of the lessons, without outputs. Work there: git does not see it.")
            print("".join(f"{sentence}\n" for sentence in said if sentence), end="")
    except OSError as error:
        raise SystemExit(
            f"{MINE}: {error.strerror} ({Path(error.filename or '').name}). The course needs a folder that you may "
            "write to: copy it to one, and start it there."
        ) from None
    if wants_jupyterlab:
        open_jupyterlab(name, root, rest)


if __name__ == "__main__":
    main()
