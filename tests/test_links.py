"""Links within the course: what they point to is there, a heading too; the glossary is in order."""

import re
from pathlib import Path

import nbformat
import pytest

from helpers.profiles import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("data/**/README.md"), *ROOT.glob("notebooks/**/*.ipynb")]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def prose(path: Path) -> str:
    """The Markdown of a page, without code."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "code", text, flags=re.DOTALL)


def headings(path: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#{1,6} (.+)$", prose_with_code(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in found}


def prose_with_code(path: Path) -> str:
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_within_the_course_leads_somewhere(page):
    for target, heading in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{target} is not there"
        if heading and there.suffix in (".md", ".ipynb"):
            assert heading in headings(there), f"{target} has no heading #{heading}"


def test_the_glossary_is_in_order():
    words = re.findall(r"^## (.+)$", (ROOT / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert words == sorted(set(words), key=str.lower) and len(words) > 60


def test_the_sites_contents_name_every_data_card_and_lesson():
    contents = (ROOT / "site" / "pages" / "index.md").read_text(encoding="utf-8").splitlines()
    pages = [*ROOT.glob("data/**/README.md"), *ROOT.glob("notebooks/*.ipynb")]
    assert [page.name for page in pages if page.relative_to(ROOT).with_suffix("").as_posix() not in contents] == []
