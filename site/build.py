"""Builds the course's site: the notebooks and documents as they are, gathered into one folder and given to Sphinx.

    python site/build.py                # into site/_build/html
    python site/build.py --serve        # and shows it on http://127.0.0.1:8000

Two packages are fetched, once, from npm, in the versions and with the checksums below: Mermaid, which draws the
diagrams, and Pyodide, which runs Python in a browser. The result needs no address outside itself, over HTTP or from a
folder.
"""

import argparse
import base64
import functools
import hashlib
import http.server
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import hosted
import nbformat

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
SOURCE, BUILT, KEPT = SITE / "_source", SITE / "_build" / "html", SITE / "_kept"
# Packages of npm, each with its version and the checksum that npm itself states for it.
MERMAID = (
    "mermaid@12.3.0",
    "4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw==",
)
PYODIDE = (
    "pyodide@314.0.7",
    "0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A==",
)
# What the page "Does it fit?" runs: Python itself, and our own code as it stands.
PYTHON_FILES = ("pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
OUR_FILES = (
    *("helpers/__init__.py", "helpers/flops.py", "helpers/palette.py", "helpers/memory/*.py", "helpers/memory/*.toml"),
    "site/fits.py",
)
# Pictures of the start page: the output of the cell of a lesson that holds this line.
PICTURES = {
    "curves.png": ("01_concepts", "curves.plot(runs)"),
    "mistakes.png": ("02_imdb_gpt2_classifier", "ConfusionMatrixDisplay.from_predictions("),
}
# The questions of a lesson stand before this section.
SUMMARY = "## What you have seen"
# A cell that asks questions of its lesson: those that it names, or all.
ASKED = re.compile(r'checks\.questions\("\d\d"((?:, "[^"]+")*)\)')
# An exercise ends with "*Hint: …*"; on the site the hint is folded.
HINT = re.compile(r"\s*\*Hint: (.+?)\*\s*$", re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="show the site when it is built")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    gather()
    shutil.copyfile(package(*MERMAID) / "dist" / "mermaid.min.js", SOURCE / "static" / "mermaid.min.js")
    write_fits(SOURCE / "static" / "fits", package(*PYODIDE))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto", "-b", "html"]
    status = subprocess.run([*command, str(SOURCE), str(BUILT)]).returncode
    if status == 0:
        print(f"{BUILT.relative_to(ROOT)}/index.html")
        if options.serve:
            serve(options.port)
    return status


def gather() -> None:
    """Copies what becomes a page to SOURCE, in the places where links expect it."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(SITE / "pages", SOURCE)
    shutil.copytree(SITE / "static", SOURCE / "static")
    shutil.copyfile(SITE / "conf.py", SOURCE / "conf.py")
    documents = ["LICENSE", "constraints.txt", "CITATION.cff"]
    documents += [path.name for path in ROOT.glob("*.md")]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("data/**/README.md")]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tools/*.svg")]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/pictures/*.svg")]
    for name in documents:
        if (ROOT / name).exists():
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, SOURCE / name)
    for path in sorted(ROOT.glob("data/**/README.md")):  # their front matter is for `load_dataset`
        page = SOURCE / path.relative_to(ROOT)
        page.write_text(re.sub(r"\A---\n.*?\n---\n", "", page.read_text("utf-8"), flags=re.DOTALL), "utf-8")
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]:
        page = SOURCE / path.relative_to(ROOT)
        page.parent.mkdir(parents=True, exist_ok=True)
        notebook = for_the_site(nbformat.read(path, as_version=4))
        if path.parent.name == "notebooks":
            ask(notebook, path.name[:2])
            offer(notebook, path.stem)
        nbformat.write(notebook, page)
    bring_what_is_linked()
    (SOURCE / "pictures").mkdir()
    for name, (lesson, line) in PICTURES.items():
        (SOURCE / "pictures" / name).write_bytes(picture(ROOT / "notebooks" / f"{lesson}.ipynb", line))


def bring_what_is_linked() -> None:
    """Copies the files of ours that a page links to, such as a program: on the site the link downloads it."""
    for page in [*SOURCE.rglob("*.md"), *SOURCE.rglob("*.ipynb")]:
        for link in re.findall(r"\]\(([^)\s#:]+)", page.read_text("utf-8")):
            place = (page.parent / link).resolve()
            if place.is_relative_to(SOURCE) and not place.exists():
                ours = ROOT / place.relative_to(SOURCE)
                if ours.is_file():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ours, place)


def picture(lesson: Path, line: str) -> bytes:
    """The PNG that a cell of a lesson made.

    Args:
        lesson: the notebook.
        line: what one of its cells holds, and no other that has a picture.
    """
    cells = [cell for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells if line in cell.source for output in cell.outputs]
    (found,) = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return base64.b64decode(found)


def for_the_site(notebook):
    """Folds the hints of a notebook's exercises."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = HINT.sub(r"\n\n<details><summary>Hint</summary>\n\n\1\n\n</details>", cell.source)
    return notebook


def offer(notebook, lesson: str) -> None:
    """Puts under the title where the lesson opens on a machine of others, if the course has an address."""
    if address := hosted.repository():
        places = " · ".join(f"[{place}]({link})" for place, link in hosted.links(address, lesson).items())
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"Open this lesson on {places}"))


def ask(notebook, lesson: str) -> None:
    """Makes cards of a lesson's questions: where a cell asks one, and the others before the summary.

    Without scripts a card shows the options, and all reasons folded. site.js makes buttons of the options.
    """
    sys.path.insert(0, str(ROOT))
    from helpers.checks import questions  # here, where it can be found without an install

    left = {question.id.partition("-")[2]: question for question in questions(lesson)}
    for cell in notebook.cells:
        found = ASKED.search(cell.source) if cell.cell_type == "code" else None
        if found:
            names = re.findall(r'"([^"]+)"', found[1]) or list(left)
            cards = "".join(card("", left.pop(name)) for name in names)
            cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": cards})]
    if left:
        before = next(n for n, cell in enumerate(notebook.cells) if SUMMARY in cell.source)
        above, below = notebook.cells[before].source.split(SUMMARY)
        cards = "\n\n".join(card(f"{number}. ", question) for number, question in enumerate(left.values(), 1))
        asked = nbformat.v4.new_markdown_cell(f"{above}## Questions\n\nNo code: choose, and read why.\n\n{cards}")
        notebook.cells[before].source = SUMMARY + below
        notebook.cells.insert(before, asked)


def card(number: str, question) -> str:
    """A question as one block of HTML, which Markdown leaves as it is; `number` stands before it."""
    from docutils.nodes import make_id  # Sphinx names a section so, too

    from helpers.checks.asking import as_html

    options = "".join(f"<li>{as_html(option.text)}</li>" for option in question.options)
    answers = "".join(
        f'<li class="{"right" if option.right else "not-right"}">{as_html(option.verdict.sentence)}</li>'
        for option in question.options
    )
    where = f'<a href="#{make_id(question.heading)}">{as_html(question.heading)}</a>'
    shown = "A cell shows it in" if question.prediction else "Read about it in"
    return (
        f'<fieldset class="question" id="{question.id}"><legend>{number}{as_html(question.text)}</legend>'
        f'<ol class="question-options" type="a">{options}</ol>'
        f'<details><summary>Answers</summary><ol type="a">{answers}</ol></details>'
        f'<p class="question-where">{shown}: {where}</p></fieldset>'
    )


def write_fits(folder: Path, pyodide: Path) -> None:
    """Writes the scripts of the page "Does it fit?".

    A page from a folder may load scripts and nothing else, so Python's files and ours are put into scripts.
    """
    folder.mkdir(parents=True)
    shutil.copyfile(pyodide / "pyodide.js", folder / "pyodide.js")
    python = {name: base64.b64encode((pyodide / name).read_bytes()).decode() for name in PYTHON_FILES}
    lock = json.loads((pyodide / "pyodide-lock.json").read_text("utf-8"))["info"]  # without Python's further packages
    text = f"const PYTHON_FILES = {json.dumps(python)};\nconst PYTHON_LOCK = {json.dumps(lock)};\n"
    (folder / "python.js").write_text(text, encoding="utf-8")
    ours = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for name in OUR_FILES for path in ROOT.glob(name)
    }
    sys.path[:0] = [str(ROOT), str(SITE)]
    import fits  # here, where its packages can be found without an install

    start = fits.Run()
    first = {"choices": fits.choices(), "answer": asdict(fits.answer(start)), "advice": asdict(fits.advice(start))}
    text = f"const OUR_FILES = {json.dumps(ours)};\nconst FIRST = {json.dumps(first)};\n"
    (folder / "ours.js").write_text(text, encoding="utf-8")


def package(name: str, checksum: str) -> Path:
    """The folder of an npm package, fetched the first time and kept.

    Args:
        name: with its version, as in "mermaid@12.3.0".
        checksum: SHA-512 of the package in base64, as `npm view NAME dist.integrity` says.

    Raises:
        SystemExit: npm is not there, did not give it, or gave another file.
    """
    kept = KEPT / name / "package"
    if kept.is_dir():
        return kept
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        try:
            subprocess.run(["npm", "pack", name, "--silent"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as cause:
            why = f"npm did not give {name} ({cause}): is npm installed, and a network there?"
            raise SystemExit(f"site/build.py: {why}") from cause
        (file,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
        if found != checksum:
            raise SystemExit(f"site/build.py: {name} has the checksum {found}, not the pinned {checksum}")
        with tarfile.open(file) as files:
            files.extractall(folder, filter="data")
        kept.parent.mkdir(exist_ok=True)
        (Path(folder) / "package").rename(kept)
    return kept


def serve(port: int) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(BUILT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{port} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
