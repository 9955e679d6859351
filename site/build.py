"""Builds the course's site: the notebooks and documents as they are, gathered into one folder and given to Sphinx.

    python site/build.py                # into site/_build/html
    python site/build.py --serve        # and shows it on http://127.0.0.1:8000

Nothing is fetched but Mermaid's own file, once, from npm in the version and with the checksum below; with
`--mermaid FILE` not even that. The result needs no address outside itself, over HTTP or from a folder.
"""

import argparse
import base64
import functools
import hashlib
import http.server
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
SOURCE, BUILT, KEPT = SITE / "_source", SITE / "_build" / "html", SITE / "_kept"
MERMAID = "12.3.0"
MERMAID_SHA512 = "4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
# Pictures of the start page: the output of the cell of a lesson that holds this line.
PICTURES = {
    "curves.png": ("01_concepts", "curves.plot(runs)"),
    "mistakes.png": ("02_imdb_gpt2_classifier", "ConfusionMatrixDisplay.from_predictions("),
}
# An exercise ends with "*Hint: …*"; on the site the hint is folded.
HINT = re.compile(r"\s*\*Hint: (.+?)\*\s*$", re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="show the site when it is built")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mermaid", type=Path, help="mermaid.min.js, where npm is not there")
    options = parser.parse_args(arguments)
    gather()
    shutil.copyfile(options.mermaid or fetch_mermaid(), SOURCE / "static" / "mermaid.min.js")
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
    documents = ["README.md", "SETUP.md", "INSTRUCTOR.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("data/**/README.md")]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tools/*.svg")]
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
        nbformat.write(for_the_site(nbformat.read(path, as_version=4)), page)
    (SOURCE / "pictures").mkdir()
    for name, (lesson, line) in PICTURES.items():
        (SOURCE / "pictures" / name).write_bytes(picture(ROOT / "notebooks" / f"{lesson}.ipynb", line))


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


def fetch_mermaid() -> Path:
    """Mermaid's file from npm's package, kept for the next time.

    Raises:
        SystemExit: npm is not there, did not give it, or gave another file.
    """
    kept = KEPT / f"mermaid-{MERMAID}.min.js"
    if kept.exists():
        return kept
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["npm", "pack", f"mermaid@{MERMAID}", "--silent", "--pack-destination", folder]
            subprocess.run(command, check=True, cwd=folder)
        except (OSError, subprocess.CalledProcessError) as cause:
            raise SystemExit(
                f"site/build.py: npm did not give mermaid {MERMAID} ({cause}): install npm, or name a copy of "
                "mermaid.min.js with --mermaid"
            ) from cause
        package = next(Path(folder).glob("*.tgz"))
        found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != MERMAID_SHA512:
            raise SystemExit(f"site/build.py: mermaid {MERMAID} has the checksum {found}, not the pinned one")
        with tarfile.open(package) as files:
            content = files.extractfile("package/dist/mermaid.min.js").read()
    kept.write_bytes(content)
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
