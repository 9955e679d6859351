"""The site in Chromium: no foreign address, nothing too wide, diagrams drawn, search, and no fault that axe finds.

Marked `browser`: it builds the site and needs Chromium, the group `site`, and npm the first time. Where one of them is
missing, the tests say which and are skipped.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers import checks
from helpers.profiles import ROOT

pytestmark = pytest.mark.browser
HTML = ROOT / "site" / "_build" / "html"
AXE = "4.14.1"
LESSONS = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
PAGES = [
    "index",
    "README",
    "SETUP",
    "INSTRUCTOR",
    "reference/helpers",
    "data/README",
    "notebooks/solutions/01_concepts",
]
PAGES += [f"notebooks/{name}" for name in LESSONS]
# What somebody may look for in each lesson.
WORDS = (
    *("overfitting", "IMDB", "perplexity", "paraphrase", "clipping", "FSDP2", "calibrated", "entities", "adapter"),
    *("beekeeping", "SQuAD", "template", "DPO"),
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def site():
    """The address of the built site, as a folder on a stick has it."""
    pytest.importorskip("sphinx", reason="the group `site` is not installed: make site")
    if not shutil.which("npm") and not list(ROOT.glob("site/_kept/mermaid-*.js")):
        pytest.skip("npm is not there, which gives Mermaid's file")
    outcome = subprocess.run([sys.executable, "site/build.py"], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr  # warnings are errors
    return HTML.as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the group `site` is not installed: make site")
    if not CHROMIUM:
        pytest.skip("Chromium is not there")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """axe-core's program, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if not shutil.which("npm"):
        pytest.skip("npm is not there, which gives axe-core")
    subprocess.run(["npm", "pack", f"axe-core@{AXE}", "--silent"], cwd=folder, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as files:
        return files.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(params=[("light", 1280), ("dark", 390), ("dark", 1280), ("light", 390)], ids="{0[0]}-{0[1]}".format)
def page(request, browser):
    """A page of the browser that remembers what it asked for and what went wrong."""
    theme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()


# axe takes its time: contrast depends on the theme alone, and what scrolls on the width alone.
each_theme_and_each_width = pytest.mark.parametrize(
    "page", [("light", 1280), ("dark", 390)], indirect=True, ids="{0[0]}-{0[1]}".format
)


def show(page, site: str, name: str) -> None:
    page.goto(f"{site}/{name}.html")
    page.wait_for_function("[...document.querySelectorAll('.diagram')].every((place) => place.querySelector('svg'))")


def test_every_page_fits_draws_its_diagrams_and_asks_nobody_else(site, page):
    problems = []
    for name in PAGES:
        show(page, site, name)
        width, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if width > seen:
            problems.append(f"{name}: {width} pixels in a window of {seen}")
        flat = page.evaluate(
            "[...document.querySelectorAll('.diagram svg')].filter((svg) => !svg.querySelector('.node')).length"
        )
        if flat:
            problems.append(f"{name}: {flat} diagrams are empty")
    foreign = [url for url in page.asked if not url.startswith((site, "data:", "blob:"))]
    assert not problems and not foreign and not page.errors, (problems, foreign, page.errors)


@each_theme_and_each_width
def test_axe_finds_nothing(site, page, axe):
    problems = []
    for name in PAGES:
        show(page, site, name)
        page.evaluate(axe)
        for found in page.evaluate("axe.run()")["violations"]:
            first = found["nodes"][0]
            problems.append(f"{name}: {found['help']} ({len(found['nodes'])}): {first['html'][:150]}")
    assert not problems, "\n".join(problems)


def test_pictures_say_what_is_to_be_seen(site):
    without = []
    for name in PAGES:
        text = (HTML / f"{name}.html").read_text(encoding="utf-8")
        without += [
            f"{name}: {tag[:100]}" for tag in re.findall(r"<img [^>]*>", text) if not re.search(r'alt="[^"]', tag)
        ]
    assert not without


def test_questions_answer_at_once_with_the_reason(site, browser):
    """Each option of each lesson, with the keyboard; the reason is what a notebook says."""
    page = browser.new_page()
    for name in LESSONS:
        page.goto(f"{site}/notebooks/{name}.html")
        for question in checks.questions(name[:2]):
            card = page.locator(f"fieldset[id='{question.id}']")
            buttons, said = card.locator("button"), card.get_by_role("status")
            assert buttons.count() == len(question.options) and not said.inner_text()
            for number, option in enumerate(question.options):
                assert buttons.nth(number).inner_text() == option.text.replace("`", "")
                buttons.nth(number).press("Enter")
                assert said.inner_text() == option.verdict.sentence.replace("`", "")
                assert card.locator("[aria-pressed=true]").count() == 1
                assert (buttons.nth(number).get_attribute("class") == "right") == option.right
            target = card.locator(".question-where a").get_attribute("href")
            heading = page.locator(f"section[id='{target.removeprefix('#')}'] > :is(h2, h3, h4)").inner_text()
            assert heading.startswith(question.heading.replace("`", ""))
    page.close()


@each_theme_and_each_width
def test_answered_questions_have_no_fault_that_axe_finds_and_fit(site, page, axe):
    show(page, site, f"notebooks/{LESSONS[0]}")
    page.evaluate("document.querySelectorAll('.question button').forEach((button) => button.click())")
    page.evaluate("document.querySelector('.question').scrollIntoView()")
    page.evaluate(axe)
    assert [found["help"] for found in page.evaluate("axe.run('article')")["violations"]] == []
    width, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= seen


def test_questions_can_be_read_without_scripts(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/notebooks/{LESSONS[0]}.html")
    card = page.locator(".question").first
    first = checks.questions(LESSONS[0][:2])[0]
    assert first.options[0].text in card.inner_text() and first.options[0].reason not in card.inner_text()
    card.locator("summary").click()
    assert all(option.reason in card.inner_text() for option in first.options)
    context.close()


def test_search_finds_a_word_of_each_lesson(site, browser):
    page = browser.new_page()
    for name, word in zip(LESSONS, WORDS, strict=True):
        page.goto(f"{site}/search.html?q={word}")
        page.wait_for_selector(f"#search-results li a[href*='notebooks/{name}']", timeout=10_000)
    page.close()


def test_lessons_lead_to_each_other_and_to_their_notebooks(site, browser):
    page = browser.new_page()
    for number, name in enumerate(LESSONS):
        page.goto(f"{site}/notebooks/{name}.html")
        links = page.eval_on_selector_all("a[href]", "links => links.map((link) => link.href)")
        for neighbour in LESSONS[max(0, number - 1) : number + 2]:
            assert f"{site}/notebooks/{neighbour}.html" in [link.split("#")[0] for link in links]
        download = [link for link in links if link.endswith(f"{name}.ipynb")]
        assert download and Path(download[0].removeprefix("file://")).is_file()
        hints = page.locator("details > summary", has_text="Hint")
        assert hints.count() >= 1 and not page.locator("details[open]", has_text="Hint").count()
    page.close()


def test_does_it_fit_says_what_python_says(site, browser):
    """The dials are turned at random: the page answers as helpers.memory does here. A link brings the dials back."""
    sys.path.insert(0, str(ROOT / "site"))
    import fits
    from test_fits import random_run

    page = browser.new_page()
    page.goto(f"{site}/fits.html")
    assert page.inner_text(".fits-verdict")  # the first answer came with the page
    page.select_option("select[name=model]", "llama-7b")
    title = "document.querySelector('.fits-title').textContent"
    page.wait_for_function(f"ask && {title}.startsWith('llama-7b')", timeout=120_000)
    draw = random.Random(2)
    for _ in range(200):
        run = random_run(fits, draw)
        state = json.dumps(asdict(run))
        assert json.loads(page.evaluate("state => ask('answer', state)", state)) == asdict(fits.answer(run))
    page.fill("input[name=sequence_length]", "2048")
    page.check("input[name=activation_checkpointing]")
    page.wait_for_function(f"{title}.includes('checkpointing')")
    shown, address = page.inner_text(".fits-verdict"), page.url
    again = browser.new_page()
    again.goto(address)
    again.wait_for_function(f"ask && {title}.includes('2048')", timeout=120_000)
    assert again.inner_text(".fits-verdict") == shown
    expected = fits.Run(model="llama-7b", sequence_length=2048, activation_checkpointing=True)
    assert f"{fits.answer(expected).peak / 1e9:.2f} GB" in shown
    page.close()
    again.close()
