"""Sphinx: `make docs` builds these pages into docs/_build."""

from importlib.metadata import version as installed

project = "vireid"
author = "the vireid authors"
copyright = "the vireid authors, MIT licence"  # Sphinx asks for this name
release = version = installed("vireid")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
# Links such as data.md#own-pictures: three levels of headings have anchors, made as GitHub makes them.
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"vireid {release}"
