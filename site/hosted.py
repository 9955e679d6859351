"""Writes what opens the lessons on machines of others: Colab, Kaggle, Binder, Codespaces.

    python site/hosted.py owner/name           # `make links REPOSITORY=owner/name`: where the course lies on GitHub
    python site/hosted.py none                 # takes all of it away again

The address is kept in pyproject.toml, under [project.urls], and nowhere else. From it come `hosted/`, the lessons
without outputs, each with a first cell that fetches the course and the packages that are missing; the buttons in
README.md, between `<!-- links -->` and `<!-- /links -->`; and those of the site. Without an address there are none.
"""

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- links -->\n).*?(<!-- /links -->)", re.DOTALL)
URLS = re.compile(r"\n\[project\.urls\]\nRepository = \"[^\"]*\"\n")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*)/[A-Za-z0-9._-]+")
FIRST = "fetch-the-course"  # the id of the cell that we put first
SETUP = """\
# This machine has not got the course yet. The cell fetches it, and the packages that are missing.
import os
import subprocess
import sys

course = os.path.expanduser("~/every-parameter")
if not os.path.isdir(course):
    command = ["git", "clone", "--quiet", "--depth=1", "https://github.com/REPOSITORY", course]
    subprocess.run(command, check=True)
subprocess.run([sys.executable, f"{course}/tools/hosted_setup.py"], check=True)
os.chdir(f"{course}/notebooks")
sys.path.insert(0, course)
"""


def repository(root: Path = ROOT) -> str | None:
    """The address that pyproject.toml names, as owner/name; None if it names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").removeprefix("https://github.com/") or None


def links(address: str, lesson: str) -> dict[str, str]:
    """Where a lesson, named without suffix, opens."""
    there = f"github.com/{address}/blob/main/hosted/{lesson}.ipynb"
    return {
        "Colab": f"https://colab.research.google.com/{there.replace('.com', '', 1)}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://{there}",
        "Binder": f"https://mybinder.org/v2/gh/{address}/main?labpath=notebooks%2F{lesson}.ipynb",
    }


def table(address: str, lessons: list[str]) -> str:
    """README's buttons: a row for each lesson."""
    rows = [f"Without an install: [Codespaces](https://codespaces.new/{address}), or a lesson on", ""]
    rows += ["| Lesson | " + " | ".join(links(address, "x")) + " |", "|---|---|---|---|"]
    for lesson in lessons:
        rows.append(f"| {lesson} | " + " | ".join(f"[open]({link})" for link in links(address, lesson).values()) + " |")
    return "\n".join(rows)


def hosted(path: Path, address: str) -> dict:
    """A lesson without outputs, after the cell that fetches the course."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    first = nbformat.v4.new_code_cell(SETUP.replace("REPOSITORY", address), id=FIRST)
    notebook.cells.insert(0, first)
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return notebook


def write(address: str | None, root: Path = ROOT) -> None:
    """Writes everything that an address changes, or takes it away."""
    lessons = sorted(root.glob("notebooks/*.ipynb"))
    project, readme = root / "pyproject.toml", root / "README.md"
    text = URLS.sub("", project.read_text(encoding="utf-8"))
    if address:
        urls = f'\n[project.urls]\nRepository = "https://github.com/{address}"\n'
        text = text.replace("\n[project.scripts]", f"{urls}\n[project.scripts]", 1)
    project.write_text(text, encoding="utf-8", newline="\n")
    shown = table(address, [path.stem for path in lessons]) + "\n" if address else ""
    page = MARKED.sub(lambda found: found[1] + shown + found[2], readme.read_text(encoding="utf-8"))
    readme.write_text(page, encoding="utf-8", newline="\n")
    folder = root / "hosted"
    for path in folder.glob("*.ipynb"):  # those of an earlier address, and nothing else that lies there
        if f'"id": "{FIRST}"' in path.read_text(encoding="utf-8"):
            path.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
    for path in lessons if address else []:
        folder.mkdir(exist_ok=True)
        text = nbformat.writes(nbformat.from_dict(hosted(path, address)), indent=1, ensure_ascii=False)
        (folder / path.name).write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="owner/name on GitHub, or none")
    address = parser.parse_args(arguments).repository.removeprefix("https://github.com/").removesuffix(".git")
    if address != "none" and not NAME.fullmatch(address):
        print(f"hosted.py: {json.dumps(address)} is no owner/name of a repository on GitHub", file=sys.stderr)
        return 2
    write(None if address == "none" else address)
    print("no links" if address == "none" else f"links to {address}: README.md, hosted/, and the site when it is built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
