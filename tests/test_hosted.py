"""site/hosted.py and tools/hosted_setup.py: links from one address, none without one, and what gets installed."""

import json
import re
import shutil
import tomllib

import hosted
import hosted_setup
import nbformat
import pytest

from helpers.profiles import ROOT

GROUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["full-finetuning"]


@pytest.fixture
def course(tmp_path):
    """A course with one lesson, as it lies in the repository."""
    (tmp_path / "notebooks").mkdir()
    for name in ("pyproject.toml", "README.md", "notebooks/01_concepts.ipynb"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    hosted.write(None, tmp_path)
    return tmp_path


def files(folder) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_one_address_makes_all_links_and_none_takes_them_away(course):
    before = files(course)
    assert hosted.repository(course) is None and "colab" not in before["README.md"]
    hosted.write("owner/a.name", course)
    after = files(course)
    assert hosted.repository(course) == "owner/a.name" and tomllib.loads(after["pyproject.toml"])["project"]["scripts"]
    for place in ("colab.research.google.com/github/owner/a.name/blob/main/hosted/01_concepts.ipynb", "kaggle.com/"):
        assert place in after["README.md"]
    hosted.write("owner/a.name", course)
    assert files(course) == after
    (course / "hosted" / "mine.ipynb").write_text("{}", encoding="utf-8")
    hosted.write(None, course)
    assert files(course) == before | {"hosted/mine.ipynb": "{}"}


def test_a_hosted_lesson_fetches_the_course_first(course):
    hosted.write("owner/name", course)
    notebook = nbformat.read(course / "hosted" / "01_concepts.ipynb", as_version=4)
    nbformat.validate(notebook)
    first, *rest = notebook.cells
    compile(first.source, "first cell", "exec")
    assert "https://github.com/owner/name" in first.source
    lesson = nbformat.read(course / "notebooks" / "01_concepts.ipynb", as_version=4)
    assert [cell.source for cell in rest] == [cell.source for cell in lesson.cells]
    assert not any(cell.get("outputs") for cell in rest)


@pytest.mark.parametrize("address", ["", "name", "a/b/c", "a b/c", "https://example.org/a/b", "../a"])
def test_what_is_no_repository_is_refused(address, capsys, monkeypatch):
    monkeypatch.setattr(hosted, "write", lambda address: pytest.fail("it wrote"))
    assert hosted.main([address]) == 2
    assert json.dumps(address) in capsys.readouterr().err


def test_what_is_there_stays_and_what_is_missing_or_old_comes():
    there = {"transformers": "5.9.1", "datasets": "5.1.0", "numpy": "2.0.2", "torch": "2.11.0+cu130", "peft": "0.20.0"}
    wanted = hosted_setup.missing(GROUP, there.get)
    assert "transformers>=5.23" in wanted and "seqeval" in wanted
    assert not {"datasets", "numpy", "torch", "pytest", "jupyterlab"} & {re.split("[>=]", name)[0] for name in wanted}
    assert hosted_setup.missing(GROUP, lambda name: "99.0") == []


def test_its_oldest_versions_are_not_newer_than_those_that_are_pinned():
    pinned = dict(re.match(r"([\w.-]+)==([\w.*]+)", line).groups() for line in GROUP)
    for name, oldest in hosted_setup.OLDEST.items():
        assert hosted_setup.numbers(oldest) <= hosted_setup.numbers(pinned[name])
    names = {re.match(r"[\w.-]+", line)[0] for line in GROUP}
    assert names > hosted_setup.NOT_THERE


def test_what_is_committed_agrees_with_the_address():
    """`make links` was run after the lessons changed, if there is an address at all."""
    address = hosted.repository()
    assert (ROOT / "hosted").exists() == bool(address)
    for path in ROOT.glob("notebooks/*.ipynb") if address else []:
        lesson, there = (nbformat.read(folder / path.name, as_version=4) for folder in (path.parent, ROOT / "hosted"))
        assert [cell.source for cell in there.cells[1:]] == [cell.source for cell in lesson.cells], "make links"
