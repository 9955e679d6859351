"""Sphinx's settings for the course on the web. `site/build.py` gathers the pages and calls Sphinx."""

from docutils import nodes
from pygments.lexers.special import TextLexer

project = "Every Parameter"
author = "The Every Parameter authors"
copyright = "the Every Parameter authors, MIT licence"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "sphinx_book_theme"
html_title = "Every Parameter"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("mermaid.min.js", {"defer": "defer"}), ("site.js", {"defer": "defer"})]
html_copy_source = True  # the download of a lesson is the notebook itself
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "use_repository_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
}

# The outputs are the committed ones; tests keep them fresh.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # widgets need a kernel: nothing is fetched for them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "html_image"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.mime_priority"]
autodoc_member_order = "bysource"
exclude_patterns = ["**/.ipynb_checkpoints"]


def label_pictures(app, document) -> None:
    """A picture in an output without a description gets the heading that it stands under, rather than nothing."""
    for image in document.findall(nodes.image):
        if not image.get("alt"):
            sections = [parent for parent in ancestors(image) if isinstance(parent, nodes.section)]
            image["alt"] = f"Figure: {sections[0].next_node(nodes.title).astext()}" if sections else "Figure"


def ancestors(node):
    while node := node.parent:
        yield node


def setup(app) -> None:
    app.add_lexer("mermaid", TextLexer)  # site.js draws it; without scripts its source is readable
    app.connect("doctree-read", label_pictures)
