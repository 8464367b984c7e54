"""The report in a real browser: an accessibility checker, the width of a phone, the keyboard, and print.

Skipped without playwright, Chromium or axe-core; `make browser` installs the first and the last one, and runs this.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from vireid.experiments.test import TestOptions, test
from vireid.figures.page import write_page
from vireid.training.run import open_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
AXE = Path(os.environ.get("AXE", Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.rare,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
    pytest.mark.skipif(not AXE.is_file(), reason=f"no axe-core at {AXE}: make browser, or name the file in AXE"),
]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def address(runs, worlds, tmp_path_factory) -> str:
    """A page of two runs by two protocols, with break-downs."""
    for layout in ("sysu-mm01", "llcm"):
        data = f"{layout}:{worlds[layout]}"
        test(TestOptions(runs[layout], data, workers=0, breakdown=True))
    page = tmp_path_factory.mktemp("page") / "page.html"
    return write_page(page, [open_run(runs[layout]) for layout in ("sysu-mm01", "llcm")]).as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, address: str, width: int, scheme: str = "light"):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_an_accessibility_checker_finds_nothing(browser, address, width, scheme):
    page = opened(browser, address, width, scheme)
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20
    page.close()


def test_a_phone_scrolls_tables_and_not_the_page(browser, address):
    page = opened(browser, address, 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("[...document.querySelectorAll('.wide')].some(one => one.scrollWidth > one.clientWidth)")
    page.close()


def test_the_keyboard_reaches_tables_and_shows_where_it_is(browser, address):
    page = opened(browser, address, 390)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        kind, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", kind
        reached.add(kind)
    assert {"A", "DIV", "SUMMARY"} <= reached
    page.close()


def test_in_print_everything_is_open(browser, address, tmp_path):
    page = browser.new_page()
    page.goto(address)
    page.emulate_media(media="print")
    hidden = "[...document.querySelectorAll('details td, details pre')].filter(one => !one.checkVisibility()).length"
    assert page.evaluate(hidden) == 0
    page.emulate_media(media="screen")
    assert page.evaluate(hidden) > 0, "on the screen, something is closed"
    page.close()
