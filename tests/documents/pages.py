"""What the tests of the documents share: the pages, their fenced blocks, and names that resolve."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^```(?P<language>[\w{}-]*)[^\n]*\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, languages: set[str]) -> Iterator[tuple[int, str]]:
    """(line, code) of every fenced block in one of the languages."""
    yield from ((line, code) for _, line, code in fences(page, languages))


def fences(page: Path, languages: set[str]) -> Iterator[tuple[str, int, str]]:
    """(language, line, code) of every fenced block in one of the languages, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found["language"] in languages:
            yield found["language"], text.count("\n", 0, found.start()) + 2, found["code"]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def resolved(dotted: str) -> object:
    """The object behind a dotted name: a module, or an attribute of one, however deep.

    Raises:
        AttributeError: there is none.
    """
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ImportError:
            continue
        for part in parts[split:]:
            known = getattr(found, "__dataclass_fields__", {}) | getattr(found, "__annotations__", {})
            found = getattr(found, part, None) if part in known else getattr(found, part)
        return found
    raise AttributeError(dotted)


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one. A field of a dataclass counts."""
    try:
        resolved(dotted)
    except AttributeError:
        return False
    return True
