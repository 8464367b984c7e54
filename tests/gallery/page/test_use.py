"""The page in a real browser, against the real service: what people do, with a mouse and with keys.

Skipped without playwright, Chromium or axe-core; `make browser` installs the first and the last one, and runs this.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'vireid[serve]'")
from tests.gallery.page.browsing import (
    NEEDED,
    camera,
    focused,
    shown,
    until,
)
from vireid.gallery.feedback import Feedback

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
pytestmark = NEEDED
expect = playwright.expect


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
    expect(page.locator("#cut-canvas")).to_be_visible()
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
