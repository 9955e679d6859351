"""The lessons' diagrams: drawn from the sources beside them, and described where they are shown."""

import hashlib
import re

import nbformat
import pytest

from helpers.profiles import ROOT

PICTURES = ROOT / "notebooks" / "pictures"
SHOWN = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)]+)\)")
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))


@pytest.mark.parametrize("source", sorted(PICTURES.glob("*.mmd")), ids=lambda path: path.stem)
def test_each_diagram_is_drawn_from_its_source(source):
    digest = hashlib.sha256(source.read_text("utf-8").encode()).hexdigest()[:16]
    svg = source.with_suffix(".svg").read_text("utf-8")
    assert digest in svg.partition("\n")[0], "make pictures"
    assert "foreignObject" not in svg  # what not every viewer draws
    assert not re.search(r'(href|src)="(?!#)', svg)  # it stands alone


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pictures_are_there_and_described(path):
    cells = nbformat.read(path, as_version=4).cells
    shown = [found for cell in cells if cell.cell_type == "markdown" for found in SHOWN.finditer(cell.source)]
    for found in shown:
        assert (path.parent / found["path"]).exists(), found["path"]
        assert len(found["alt"]) > 20, f"{found['path']}: say what is to be seen"
