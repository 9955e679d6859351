"""JupyterLab as a learner sees it: lesson 01 opens and runs to its end, a slider moves, an exercise is answered.

Marked `browser`: it needs Chromium and the group `site`. Pictures of what was to be seen stay in site/_build/seen.
"""

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from helpers.profiles import ROOT

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SEEN = ROOT / "site" / "_build" / "seen"
LESSON = "01_concepts.ipynb"
# What a page of JupyterLab knows of its notebook: the source, the number and the texts of the outputs of each cell.
CELLS = """() => [...jupyterapp.shell.currentWidget.content.model.cells].map((cell) => ({
    code: cell.type === "code", source: cell.sharedModel.getSource(), count: cell.executionCount ?? 0,
    errors: cell.type === "code" ? cell.outputs.toJSON().filter((output) => output.output_type === "error") : [],
    said: cell.type === "code" ? JSON.stringify(cell.outputs.toJSON()) : "" }))"""
IDLE = "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """The course's folder, with a working copy of its own to come."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("data", "helpers", "takehome", "scripts", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("outputs"))
    return folder


@pytest.fixture(scope="module")
def address(course):
    """Where JupyterLab shows the lesson, as `make lab` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = f"import pathlib, sys; from helpers import lab; lab.main(sys.argv[1:], pathlib.Path({str(course)!r}))"
    words = ["--no-browser", f"--port={port}", "--IdentityProvider.token=secret", "--LabApp.expose_app_in_browser=True"]
    log = (course / "log").open("w", encoding="utf-8")
    server = subprocess.Popen([sys.executable, "-c", start, *words], cwd=course, stdout=log, stderr=log)
    end = time.monotonic() + 60
    while "is running at:" not in (course / "log").read_text(encoding="utf-8"):
        assert server.poll() is None and time.monotonic() < end, (course / "log").read_text(encoding="utf-8")
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/lab/tree/my-lessons/{LESSON}?token=secret"
    server.terminate()
    server.wait(30)
    log.close()


@pytest.fixture(scope="module")
def page(address):
    """The lesson in the browser, run from top to bottom."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the group `site` is not installed: make site")
    if not CHROMIUM:
        pytest.skip("Chromium is not there")
    SEEN.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_function(IDLE, timeout=60_000)
        assert all(not cell["count"] for cell in page.evaluate(CELLS))  # a working copy has no outputs
        run(page, "notebook:run-all-cells")
        yield page
        browser.close()


def run(page, command: str) -> None:
    """Runs a command of JupyterLab and waits for the kernel."""
    page.evaluate("command => jupyterapp.commands.execute(command)", command)
    page.wait_for_timeout(500)
    page.wait_for_function(IDLE, timeout=300_000)


def find(page, part: str) -> int:
    """The number of the cell whose source holds this."""
    (number,) = [number for number, cell in enumerate(page.evaluate(CELLS)) if cell["code"] and part in cell["source"]]
    return number


def show(page, number: int) -> None:
    """Goes to a cell, as by scrolling."""
    page.evaluate(
        """async number => { const { content } = jupyterapp.shell.currentWidget;
        content.activeCellIndex = number; await content.scrollToItem(number, 'start'); }""",
        number,
    )
    page.wait_for_timeout(500)


def test_the_lesson_runs_to_its_end(page):
    cells = [cell for cell in page.evaluate(CELLS) if cell["code"]]
    assert [cell["errors"] for cell in cells if cell["errors"]] == []
    assert all(cell["count"] for cell in cells if cell["source"].strip())
    page.screenshot(path=SEEN / "lab-lesson.png")


def test_a_slider_moves_and_the_picture_follows(page):
    show(page, find(page, "IntSlider("))
    handle = page.locator(".widget-slider .noUi-handle").first
    value = page.locator(".widget-slider .widget-readout").first
    picture = page.locator(".widget-image, .jp-OutputArea-output .jupyter-widgets img").first
    before = value.inner_text(), picture.get_attribute("src")
    handle.focus()
    for _ in range(4):
        handle.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.widget-image, .jupyter-widgets img').src !== before",
        arg=before[1],
        timeout=30_000,
    )
    assert int(value.inner_text()) == int(before[0]) + 4
    page.screenshot(path=SEEN / "lab-slider.png")


def answer(page, number: int, source: str) -> str:
    """Types a solution into a cell, runs it, and returns what the cell says."""
    page.evaluate(
        "([number, source]) => { const { content } = jupyterapp.shell.currentWidget;"
        "content.activeCellIndex = number; content.model.cells.get(number).sharedModel.setSource(source); }",
        [number, source],
    )
    run(page, "notebook:run-cell")
    return page.evaluate(CELLS)[number]["said"]


def test_an_exercise_is_answered_wrongly_and_rightly(page, course):
    check = "checks.lesson_01_static_bytes("
    number = find(page, check)
    solutions = nbformat.read(course / "notebooks" / "solutions" / LESSON, as_version=4).cells
    (right,) = [cell.source for cell in solutions if check in cell.source]
    right = right.replace("assert checks.", "checks.")
    wrong = re.sub(r"return .*", "return 0", right)
    show(page, number)
    assert "Right" not in answer(page, number, wrong)
    page.screenshot(path=SEEN / "lab-wrong.png")
    assert "Right" in answer(page, number, right)
    page.screenshot(path=SEEN / "lab-right.png")


def test_the_dark_theme(page):
    page.evaluate("jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'", timeout=30_000)
    for part, name in (("IntSlider(", "slider"), ("checks.lesson_01_static_bytes(", "exercise")):
        show(page, find(page, part))
        page.screenshot(path=SEEN / f"lab-dark-{name}.png")
