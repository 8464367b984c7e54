"""The page in a real browser, against the real service: names are text, no script of others runs, no frame.

Skipped without playwright, Chromium or axe-core; `make browser` installs the first and the last one, and runs this.
"""

from __future__ import annotations

import http.server
import threading

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'vireid[serve]'")
from tests.gallery.page.browsing import (
    NEEDED,
    Window,
    made_up,
    overflow,
    shown,
    until,
    violations,
)
from tests.gallery.served import served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
pytestmark = NEEDED
expect = playwright.expect


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
