"""Sphinx: `make docs` builds these pages into docs/_build."""

from importlib.metadata import version as installed

project = "vireid"
author = "the vireid authors"
copyright = "the vireid authors, MIT licence"  # Sphinx asks for this name
release = version = installed("vireid")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
# Links such as data.md#own-pictures: three levels of headings have anchors, made as GitHub makes them.
myst_heading_anchors = 3
# ```mermaid is a diagram, on GitHub and here. The text is in the page; the reader's browser fetches the script that
# draws it, so building needs no network.
myst_fence_as_directive = ["mermaid"]

# Docstrings have code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"vireid {release}"


def to_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are written for people: two things mean something else to reStructuredText, and are changed here.

    Indented lines after a colon and an empty line are code or a formula, which needs two colons. A bar outside of code
    is a bar, as in |Q|, and not the name of a substitution.
    """
    literal = None  # the indent that a literal block is deeper than
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        indent = _indent(line)
        if literal is not None and indent > literal:
            continue
        literal = None
        after = next((other for other in lines[place + 2 :] if other.strip()), "")
        if line.endswith(":") and not "".join(lines[place + 1 : place + 2]).strip() and _indent(after) > indent:
            literal = indent
            line += "" if line.endswith("::") else ":"
        pieces = line.split("`")
        lines[place] = "`".join(piece if code % 2 else piece.replace("|", "\\|") for code, piece in enumerate(pieces))


def _indent(line):
    return len(line) - len(line.lstrip())


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", to_restructured_text, priority=100)  # before napoleon
