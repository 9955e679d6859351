"""Draws the lessons' diagrams: notebooks/pictures/NAME.svg from NAME.mmd, which is Mermaid's language.

    python site/pictures.py               # those whose source has changed
    python site/pictures.py 01_loop

A notebook shows the SVG, since not every reader of notebooks draws Mermaid. Its paper is white in every theme.
It needs Chromium, the group `site`, and npm the first time.
"""

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

from build import MERMAID, ROOT, package

PICTURES = ROOT / "notebooks" / "pictures"
# Mermaid's theme "base" in the course's colours; text as SVG's own text, which every viewer draws.
LOOK = {
    "startOnLoad": False,
    "theme": "base",
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "padding": 12, "wrappingWidth": 320},
    "fontFamily": "Helvetica, Arial, sans-serif",
    "themeVariables": {
        "fontFamily": "Helvetica, Arial, sans-serif",
        "fontSize": "15px",
        "primaryColor": "#e8f0f7",
        "primaryBorderColor": "#33658a",
        "primaryTextColor": "#1b2a38",
        "lineColor": "#33658a",
        "textColor": "#1b2a38",
    },
}
MARGIN = 12  # of white around a diagram, in pixels


def digest(source: str) -> str:
    """What the SVG says it was drawn from."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def on_paper(svg: str, source: str) -> str:
    """The SVG with its size, a white ground and the digest of its source."""
    x, y, width, height = (float(part) for part in re.search(r'viewBox="([^"]+)"', svg)[1].split())
    box = f"{x - MARGIN:g} {y - MARGIN:g} {width + 2 * MARGIN:g} {height + 2 * MARGIN:g}"
    size = f'width="{width + 2 * MARGIN:.0f}" height="{height + 2 * MARGIN:.0f}"'
    head, body = re.match(r"(<svg[^>]*>)(.*)", svg, re.DOTALL).groups()
    head = re.sub(r' (width|height|style|viewBox|role|aria-[a-z]+)="[^"]*"', "", head)
    head = head.replace("<svg", f'<svg viewBox="{box}" {size}', 1)
    ground = f'<rect x="{x - MARGIN:g}" y="{y - MARGIN:g}" width="100%" height="100%" rx="8" fill="#ffffff"/>'
    return f"<!-- drawn by site/pictures.py; source {digest(source)} -->\n{head}{ground}{body}\n"


def is_drawn(path: Path) -> bool:
    svg = path.with_suffix(".svg")
    return svg.exists() and digest(path.read_text("utf-8")) in svg.read_text("utf-8").partition("\n")[0]


def main(names: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="of a picture; all that have changed, if none is given")
    names = parser.parse_args(names).name
    asked = [PICTURES / f"{name}.mmd" for name in names] or [
        path for path in sorted(PICTURES.glob("*.mmd")) if not is_drawn(path)
    ]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        raise SystemExit("site/pictures.py: Chromium is not there")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.add_script_tag(path=package(*MERMAID) / "dist" / "mermaid.min.js")
        page.evaluate("look => mermaid.initialize(look)", LOOK)
        for path in asked:
            source = path.read_text("utf-8")
            svg = page.evaluate("async source => (await mermaid.render('diagram', source)).svg", source)
            path.with_suffix(".svg").write_text(on_paper(svg, source), encoding="utf-8", newline="\n")
            print(path.with_suffix(".svg").relative_to(ROOT))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
