"""The page in a real browser, against the real service: what it says in each state, and an accessibility checker.

Skipped without playwright, Chromium or axe-core; `make browser` installs the first and the last one, and runs this.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'vireid[serve]'")
from tests.gallery.page.browsing import (
    NEEDED,
    SIZES,
    STATES,
    TITLES,
    focused,
    made_up,
    overflow,
    shown,
    until,
    violations,
)
from tests.gallery.served import served
from vireid.gallery.index import make_index
from vireid.gallery.service.audit import Audit

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
pytestmark = NEEDED
expect = playwright.expect


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_said_and_heard(window, states, query, state):
    page = window().search(states[state], query)
    expect(page.locator(".verdict-title")).to_have_text(TITLES[state])
    expect(page.locator("#said")).to_contain_text(TITLES[state])
    assert page.locator("#verdict").get_attribute("data-tone") == state
    assert page.locator("#verdict .sign use").get_attribute("href") == f"#i-{state}", "not by colour alone"
    assert page.locator(".verdict-words").inner_text()
    if state == "uncalibrated":
        assert [one.split("pictures")[0].strip() for one in page.locator("h3:visible").all_inner_texts()] == [
            "Visible", "Infrared",
        ]  # fmt: skip
        assert page.locator(".similar").first.inner_text().startswith("Cosine")
    else:
        assert page.locator(".similar").first.inner_text().endswith("expected")
    if state == "likely":
        assert page.locator(".similar").first.inner_text() == "< 0.01 strangers expected"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_an_accessibility_checker_finds_nothing_in_a_state(window, states, query, width, scheme, state):
    page = window(width, scheme).search(states[state], query)
    page.locator(".card .same").first.click()
    expect(page.locator("#toast")).to_be_visible()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert violations(page) == []
    assert overflow(page) == 0


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_an_accessibility_checker_finds_nothing_in_windows_and_without_a_search(window, people, query, width, scheme):
    page = window(width, scheme).search(people, query)
    page.locator(".look").first.click()
    page.wait_for_selector("#compare-match img")
    assert violations(page) == [], "compare"
    page.keyboard.press("Escape")
    page.click("#cut-one")
    page.wait_for_selector("#cut[open]")
    assert violations(page) == [], "cut"
    page.keyboard.press("Escape")
    page.click("#help-open")
    assert violations(page) == [], "help"
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#filters').open = true")
    page.fill("#since", "2030-01-01T00:00")
    page.locator("#since").blur()
    expect(page.locator(".verdict-title")).to_have_text("No picture passes the filters")
    assert violations(page) == [], "no match"
    page = window(width, scheme).open(people)
    assert violations(page) == [], "start"
    assert overflow(page) == 0
    page = window(width, scheme).open(people, token=False)
    page.wait_for_selector("#access[open]")
    assert violations(page) == [], "token"


def test_on_a_phone_all_targets_are_large_enough(window, people, query):
    page = window(390, has_touch=True, is_mobile=True).search(people, query)
    page.click("#filters > summary")
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, summary, .check, .segments label')]"
        ".filter(one => one.checkVisibility()).map(one => [one.textContent.trim(), one.getBoundingClientRect()])"
        ".filter(([, box]) => box.height && box.height < 39.9).map(([text, box]) => [text, box.width, box.height])"
    )
    assert small == []
    expect(page.locator("#photo")).to_be_visible()
    assert page.locator("#file-photo").get_attribute("capture") == "environment"


def test_a_busy_server_is_waited_for(window, run, query, tmp_path):
    with served(made_up(tmp_path / "index", run, "possible"), rate=0.1, burst=1) as service:
        one = window()
        page = one.search(service, query)
        page.locator(".card .from").first.click()
        expect(page.locator(".verdict-title")).to_have_text("The server is busy")
        expect(page.locator(".verdict-words")).to_have_text(re.compile(r"Trying again in \d+ s\."))
        assert violations(page) == []
        expect(page.locator(".verdict-title")).to_have_text("Possibly in the gallery", timeout=30_000)
        assert one.posts() == 3
        page.locator(".card .from").first.click()
        expect(page.locator(".verdict-title")).to_have_text("The server is busy")
        page.keyboard.press("Escape")
        expect(page.locator(".verdict-title")).to_have_text("Cancelled")
        sent = one.posts()
        page.wait_for_timeout(3500)
        assert one.posts() == sent, "a cancelled search is not tried again"
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".verdict-title")).to_have_text("Possibly in the gallery", timeout=30_000)


def test_a_token_is_asked_for_and_leaves_the_address(window, people, query):
    one = window()
    page = one.open(people, token=False)
    expect(page.locator("#access")).to_be_visible()
    expect(page.locator("#access-text")).to_contain_text("This server needs a token")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#access-text")).to_contain_text("does not know this token")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#access")).to_be_visible()
    page.fill("#token", people.token)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("body[data-ready]")

    page = window().open(people)
    assert page.url == f"{people.url}/"
    assert page.evaluate("performance.getEntriesByType('resource').every(one => !one.name.includes('token'))")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.set_input_files("#file", query)
    page.wait_for_selector(".card:not(.skeleton)")


def test_a_reason_is_asked_for(window, run, query, tmp_path):
    with served(made_up(tmp_path / "index", run, "possible"), require_reason=True) as service:
        one = window()
        page = one.open(service)
        page.set_input_files("#file", query)
        expect(page.locator(".verdict-title")).to_have_text("A reason is needed")
        assert focused(page) == "" and page.evaluate("document.activeElement.id") == "reason"
        assert one.posts() == 0
        assert violations(page) == []
        page.fill("#reason", "case 12")
        page.keyboard.press("Enter")
        page.wait_for_selector(".card:not(.skeleton)")
        page.locator(".card .from").first.click()
        until(page, "history.state.depth === 2")
        shown(page)
        folder = Path(service.service.engine.searching.index.folder)
    with Audit(folder) as audit:
        assert [entry.reason for entry in audit.entries()] == ["case 12", "case 12"]


def test_a_search_that_the_server_forgot_is_sent_again(window, run, query, tmp_path):
    with served(made_up(tmp_path / "index", run, "possible"), minutes=0.01) as service:
        one = window()
        page = one.search(service, query)
        page.wait_for_timeout(900)
        page.locator("#cameras input").first.check()
        until(page, "[...document.querySelectorAll('.camera')].every(one => one.textContent === 'Camera 1')")
        assert one.posts() == 2


def test_without_a_connection_it_says_what_to_do(window, run, query, tmp_path):
    one = window()
    with served(made_up(tmp_path / "index", run, "possible")) as service:
        page = one.search(service, query)
    page.locator("#cameras input").first.check()
    expect(page.locator(".verdict-title")).to_have_text("No connection to the server")
    expect(page.locator("#verdict")).to_contain_text("Check that it runs")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert violations(page) == []


def test_an_empty_gallery_says_so(window, run, query, tmp_path):
    make_index(tmp_path / "index", run).close()
    with served(tmp_path / "index") as service:
        page = window().open(service)
        expect(page.locator("#holding")).to_have_text("The gallery has no pictures yet")
        expect(page.locator("#verdict")).to_contain_text("vireid gallery build")
        assert violations(page) == []
