"""What the tests of the page share: services for each state, a browser, windows that are checked at the end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.gallery.served import Served


@pytest.fixture(scope="module")
def run(runs) -> Path:
    return runs["sysu-mm01"]


@pytest.fixture(scope="module")
def people(runs, worlds, tmp_path_factory) -> Iterator[Served]:
    """Real pictures and their vectors, calibrated so that a search is possible."""
    from tests.gallery.page.browsing import calibration
    from tests.gallery.served import served
    from tests.gallery.station import station
    from vireid.gallery.index import CALIBRATION

    folder = tmp_path_factory.mktemp("station") / "index"
    with station(folder, runs["sysu-mm01"], worlds["sysu-mm01"]) as index:
        index.store.keep(CALIBRATION, calibration("possible", index.facts.fingerprint).as_text())
    with served(folder) as service:
        yield service


@pytest.fixture(scope="module")
def states(run, tmp_path_factory) -> Iterator[dict[str, Served]]:
    """A service for each state."""
    from tests.gallery.page.browsing import STATES, made_up
    from tests.gallery.served import served

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
    from playwright.sync_api import sync_playwright

    from tests.gallery.page.browsing import CHROMIUM

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def window(browser) -> Iterator:
    """Makes windows. At the end, none of them asked another host, and none had an error in a script."""
    from tests.gallery.page.browsing import Window

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
