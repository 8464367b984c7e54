"""The page of the service in a real browser, against the real service: what people do, with a mouse and with keys.

Skipped without playwright, Chromium or axe-core; `make browser` installs the first and the last one, and runs this.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'vireid[serve]'")
from tests.gallery.browsing import (
    AXE,
    CHROMIUM,
    Window,
    calibration,
    camera,
    focused,
    made_up,
    overflow,
    shown,
    until,
    violations,
)
from tests.gallery.served import Served, served
from tests.gallery.station import station
from vireid.gallery.audit import Audit
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import CALIBRATION, make_index

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
    pytest.mark.skipif(not AXE.is_file(), reason=f"no axe-core at {AXE}: make browser, or name the file in AXE"),
]
STATES = ("likely", "possible", "absent", "open", "unresolved", "uncalibrated")
TITLES = {
    "likely": "Likely in the gallery",
    "possible": "Possibly in the gallery",
    "absent": "Probably not in the gallery",
    "open": "No reliable match",
    "unresolved": "Too many pictures to tell",
    "uncalibrated": "Not calibrated",
}
SIZES = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
expect = playwright.expect


@pytest.fixture(scope="module")
def run(runs) -> Path:
    return runs["sysu-mm01"]


@pytest.fixture(scope="module")
def people(runs, worlds, tmp_path_factory) -> Iterator[Served]:
    """Real pictures and their vectors, calibrated so that a search is possible."""
    folder = tmp_path_factory.mktemp("station") / "index"
    with station(folder, runs["sysu-mm01"], worlds["sysu-mm01"]) as index:
        index.store.keep(CALIBRATION, calibration("possible", index.facts.fingerprint).as_text())
    with served(folder) as service:
        yield service


@pytest.fixture(scope="module")
def states(run, tmp_path_factory) -> Iterator[dict[str, Served]]:
    """A service for each state."""
    with contextlib.ExitStack() as stack:
        yield {
            state: stack.enter_context(served(made_up(tmp_path_factory.mktemp(state) / "index", run, state)))
            for state in STATES
        }


@pytest.fixture(scope="module")
def query(worlds) -> Path:
    """An infrared picture of the world."""
    return next((worlds["sysu-mm01"] / "cam3").rglob("*.jpg"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def window(browser) -> Iterator:
    """Makes windows. At the end, none of them asked another host, and none had an error in a script."""
    opened: list[Window] = []

    def make(width: int = 1280, scheme: str = "light", **settings) -> Window:
        opened.append(Window(browser, width, scheme, **settings))
        return opened[-1]

    yield make
    for one in opened:
        hosts = {re.sub(r"^(blob:)?(\w+://[^/]+).*", r"\2", url) for _, url in one.asked}
        assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+", host) for host in hosts), hosts
        assert len(hosts) <= 1, hosts
        assert one.errors == []
        assert one.context.cookies() == []
        one.context.close()


# --- what people do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 390])
def test_upload_filter_search_from_and_judge(window, people, query, width, tmp_path):
    one = window(width)
    page = one.search(people, query)
    expect(page.locator(".verdict-title")).to_have_text("Possibly in the gallery")
    expect(page.locator("#guessed")).to_contain_text("Guessed")
    assert page.locator("#modality").input_value() == "infrared"
    assert one.posts() == 1

    if width < 860:
        page.click("#filters > summary")
    camera(page, "3").check()
    until(page, "[...document.querySelectorAll('.camera')].every(one => one.textContent === 'Camera 3')")
    shown(page)
    assert page.locator(".card").count() > 0
    assert one.posts() == 1, "a filter must not send the picture again"
    page.click("#clear")
    until(page, "new Set([...document.querySelectorAll('.camera')].map(one => one.textContent)).size > 1")

    first = page.locator(".look").first.locator("img")
    expect(first).to_be_visible()
    name = page.locator(".card .camera").nth(1).inner_text()
    page.locator(".card .from").nth(1).click()
    until(page, "document.querySelector('#guessed').textContent.startsWith('A picture of the gallery')")
    shown(page)
    assert name.lower() in page.locator("#guessed").inner_text().lower()
    assert one.posts() == 2

    page.locator(".card .from").nth(2).click()
    expect(page.locator("#guessed")).to_contain_text("A picture of the gallery")
    until(page, "history.state.depth === 3")
    shown(page)

    same = page.locator(".card .same").first
    same.click()
    expect(same).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#toast-text")).to_have_text("Match 1: the same person")
    page.locator(".card .not").nth(1).click()
    expect(page.locator("#toast-text")).to_have_text("Match 2: not the same person")
    page.click("#undo")
    expect(page.locator("#toast-text")).to_have_text("Match 2: judgement taken back")
    expect(page.locator(".card .not").nth(1)).to_have_attribute("aria-pressed", "false")
    with Feedback(Path(people.service.engine.searching.index.folder)) as kept:
        assert [said.verdict for said in kept.all()][-1] == "same"


def test_keyboard_only(window, people, query):
    one = window()
    page = one.open(people)
    page.keyboard.press("/")
    assert focused(page) == "Choose a picture"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(query)
    page.wait_for_selector("body[data-view=search]")
    shown(page)
    page.keyboard.press("ArrowRight")
    assert focused(page).startswith("match 1")
    page.keyboard.press("ArrowRight")
    assert focused(page).startswith("match 2")
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("getComputedStyle(document.querySelector('.cards')).gridTemplateColumns.split(' ').length")
    assert focused(page).startswith(f"match {2 + columns}")
    page.keyboard.press("ArrowUp")
    assert focused(page).startswith("match 2")

    page.keyboard.press("Enter")
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#compare-title")).to_have_text("Match 2")
    for _ in range(12):
        page.keyboard.press("Tab")
        inside = page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#compare')"
        )
        assert inside, "Tab leaves the dialog"
    page.keyboard.press("ArrowRight")
    expect(page.locator("#compare-title")).to_have_text("Match 3")
    page.keyboard.press("y")
    expect(page.locator("#compare-actions .same")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("u")
    expect(page.locator("#compare-actions .same")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(page.locator("#compare")).to_be_hidden()
    assert focused(page).startswith("match 3")

    page.keyboard.press("n")
    expect(page.locator(".card .not").nth(2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("u")
    expect(page.locator(".card .not").nth(2)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("s")
    expect(page.locator("#guessed")).to_contain_text("A picture of the gallery")
    shown(page)
    until(page, "document.activeElement.className === 'look'")
    assert focused(page).startswith("match 1")

    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.wait_for_timeout(200)
    assert page.evaluate("history.state.depth") == 2, "single keys are off"


def test_what_has_the_focus_is_seen(window, people, query):
    page = window().search(people, query)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert focused(page) == "Go to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("[document.activeElement.id, document.body.dataset.view]") == ["results", "search"]
    page.focus("#help-open")
    for _ in range(24):
        page.keyboard.press("Tab")
        look = page.evaluate(
            "(() => { const one = document.activeElement;"
            " const shown = one.name === 'search-in' ? one.nextElementSibling : one;"
            " return [one.tagName + one.id, getComputedStyle(shown).outlineStyle]; })()"
        )
        assert look[1] != "none" or look[0].startswith("BODY"), look


def test_back_and_forward_bring_searches_back(window, people, query):
    one = window()
    page = one.search(people, query)
    own = page.locator(".card time").all_inner_texts()
    page.locator(".card .from").nth(3).click()
    until(page, "history.state.depth === 2")
    shown(page)
    found = page.locator(".card time").all_inner_texts()
    assert found != own
    sent = len(one.asked)
    page.click("#back")
    until(page, "history.state.depth === 1")
    assert page.locator(".card time").all_inner_texts() == own
    assert focused(page).startswith("match 4"), "the focus is where the search went on from"
    page.go_forward()
    until(page, "history.state.depth === 2")
    assert page.locator(".card time").all_inner_texts() == found
    assert not [url for _, url in one.asked[sent:] if "/searches" in url], "searches in memory are not asked for again"
    page.go_back()
    page.go_back()
    page.wait_for_selector("body[data-view=start]")
    expect(page.locator("#choose")).to_have_text("Choose a picture")


def test_a_reload_keeps_the_search(window, people, query):
    one = window()
    page = one.search(people, query)
    before = page.locator(".card time").all_inner_texts()
    page.reload()
    page.wait_for_selector(".card:not(.skeleton)")
    assert page.locator(".card time").all_inner_texts() == before
    expect(page.locator("#query-pictures")).to_contain_text("not in this tab any more")
    assert one.posts() == 1


def test_several_pictures_of_one_person_and_more_results(window, states, query, worlds):
    others = sorted((worlds["sysu-mm01"] / "cam3").rglob("*.jpg"))[1:3]
    one = window()
    page = one.search(states["open"], query)
    assert page.locator(".card").count() == 24
    page.click("#more")
    until(page, "document.querySelectorAll('.card').length === 48")
    assert page.locator(".rank").last.inner_text().endswith("48")
    assert focused(page).startswith("match 25")
    with page.expect_file_chooser() as chooser:
        page.click("#add")
    chooser.value.set_files(others)
    until(page, "document.querySelectorAll('#query-pictures li').length === 3")
    shown(page)
    page.get_by_role("button", name="Remove picture 2").click()
    until(page, "document.querySelectorAll('#query-pictures li').length === 2")
    shown(page)
    assert one.posts() == 3


def test_a_wrong_guess_is_corrected(window, people, query):
    one = window()
    page = one.search(people, query)
    page.select_option("#modality", "visible")
    until(page, "!document.querySelector('#guessed').textContent.includes('Guessed')")
    shown(page)
    assert page.locator("#modality").input_value() == "visible"
    assert one.posts() == 2


def test_a_picture_is_cut_with_the_mouse_and_with_keys(window, people, tmp_path):
    wide = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(wide)
    one = window()
    page = one.search(people, wide)
    expect(page.locator("#guessed")).to_contain_text("The picture is wide")
    page.click("#cut-one")
    box = page.locator("#cut-canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    page.focus("#cut-right")
    page.keyboard.press("ArrowLeft")
    assert [page.locator(f"#cut-{edge}").input_value() for edge in ("left", "right")] == ["250", "499"]
    page.click("#cut-done")
    until(page, "history.state.depth === 2")
    shown(page)
    size = page.evaluate(
        "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])"
        "(document.querySelector('#query-pictures img'))"
    )
    assert size[0] == 100 and 280 <= size[1] <= 300
    assert "wide" not in page.locator("#guessed").inner_text()


def test_a_picture_that_is_too_large_is_made_smaller_first(window, people, tmp_path):
    large = tmp_path / "phone.jpg"
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save(large)
    page = window().search(people, large)
    size = page.evaluate("document.querySelector('#query-pictures img').naturalWidth")
    assert 4000 < size < 4300
    expect(page.locator(".verdict-title")).to_have_text("Possibly in the gallery")


def test_what_is_no_picture_is_refused_with_a_sentence(window, people, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    page = window().open(people)
    page.set_input_files("#file", tmp_path / "notes.jpg")
    expect(page.locator("#toast-text")).to_have_text("This browser cannot read the file as a picture.")
    assert page.evaluate("document.body.dataset.view") == "start"


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_drop_and_paste(window, people, query, how):
    page = window().open(people)
    event = {
        "drop": "new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true})",
        "paste": "new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true})",
    }[how]
    page.evaluate(
        "async bytes => { const file = new File([new Uint8Array(bytes)], 'a.jpg', {type: 'image/jpeg'});"
        f" const carried = new DataTransfer(); carried.items.add(file); document.body.dispatchEvent({event}); }}",
        list(query.read_bytes()),
    )
    page.wait_for_selector(".card:not(.skeleton)")


def test_time_and_all_visible_infrared(window, people, query):
    page = window().search(people, query)
    page.get_by_label("Visible", exact=True).check(force=True)
    until(page, "!document.querySelector('#list .tag.infrared') && document.querySelector('#list .tag.visible')")
    shown(page)
    page.get_by_label("All", exact=True).check(force=True)
    page.fill("#since", "2026-03-01T12:00")
    page.fill("#until", "2026-03-01T18:00")
    page.locator("#until").blur()
    until(
        page,
        "[...document.querySelectorAll('.card time')].every(one => {"
        "const hour = Number(one.textContent.slice(-5, -3)); return hour >= 12 && hour < 18; })"
        "&& document.querySelectorAll('.card time').length > 0",
    )
    expect(page.locator("#filters-count")).to_contain_text("2")
    page.fill("#until", "2026-03-01T11:00")
    page.locator("#until").blur()
    assert page.evaluate("document.querySelector('#until').validationMessage") == "“Until” must be later than “Since”."
    page.fill("#until", "2026-03-01T12:01")
    page.fill("#since", "2026-03-01T12:00")
    page.locator("#since").blur()
    expect(page.locator(".verdict-title")).to_have_text("No picture passes the filters")
    page.get_by_role("button", name="Clear all filters").last.click()
    page.wait_for_selector(".card")


# --- states -----------------------------------------------------------------------------------------------------------


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


# --- threats ----------------------------------------------------------------------------------------------------------

HOSTILE = (
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "\"><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "בדיקה ارض \u202edlrow",
    "W" * 64,
    "&lt;b&gt; {{7*7}} ${7*7}",
)  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_cameras_are_only_text(window, run, query, tmp_path, width):
    with served(made_up(tmp_path / "index", run, "possible", cameras=HOSTILE, each=21)) as service:
        page = window(width).search(service, query)
        page.evaluate("document.querySelector('#filters').open = true")
        assert set(page.locator(".camera bdi").all_text_contents()) <= set(HOSTILE)
        assert set(page.locator("#cameras bdi").all_text_contents()) == set(HOSTILE)
        assert page.locator(".camera *:not(bdi):not(.hidden)").count() == 0
        for n in range(len(HOSTILE)):
            page.locator(".look").nth(n).click()
            page.wait_for_selector("#compare[open]")
            assert overflow(page) == 0
            page.keyboard.press("Escape")
        assert violations(page) == []
        page.locator("#cameras input").nth(1).check()
        shown(page)
        page.locator(".card .from").first.click()
        until(page, "history.state.depth === 2")
        shown(page)
        assert page.evaluate("window.hacked") is None
        assert overflow(page) == 0
        wide = "[...document.querySelectorAll('.card')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
        clipped = page.evaluate(wide)
        assert clipped == 0


def test_a_script_that_gets_into_the_page_does_not_run(browser, people):
    """Should text become HTML one day, the server's policy still stops it."""
    one = Window(browser)
    page = one.open(people)
    refused = page.evaluate(
        "() => { try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>'); }"
        " catch (error) { return error.name; } return 'inserted'; }"
    )
    page.wait_for_timeout(300)
    assert refused == "TypeError", "trusted types are required"
    assert page.evaluate("window.hacked") is None
    one.context.close()


def test_no_other_site_frames_the_page(browser, people):
    framing = f"<iframe src='{people.url}/' onload='window.loaded = 1'></iframe>".encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(framing)

        def log_message(self, *_: object) -> None: ...

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    one = Window(browser)
    one.page.goto(f"http://127.0.0.1:{other.server_port}/")
    until(one.page, "window.loaded === 1")
    inside = one.page.frames[1]
    assert inside.url.startswith("chrome-error:") or inside.locator("#choose").count() == 0
    assert any("frame" in message.lower() for message in one.errors), one.errors
    one.context.close()
    other.shutdown()
    other.server_close()
