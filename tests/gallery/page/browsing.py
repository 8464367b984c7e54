"""The page of the service in a real browser: windows, made-up indexes for each state, an accessibility checker."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gallery.served import Served
from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, PairCalibration
from vireid.gallery.index import CALIBRATION, make_index
from vireid.gallery.row import Row

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
AXE = Path(os.environ.get("AXE", Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"))
NEEDED = [
    pytest.mark.slow,
    pytest.mark.rare,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
    pytest.mark.skipif(not AXE.is_file(), reason=f"no axe-core at {AXE}: make browser, or name the file in AXE"),
]
"""The marks of every file of tests here."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

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


def calibration(state: str, model: str) -> Calibration:
    """A calibration with which a search of a hundred pictures, none of them similar, ends in this state."""
    false = {"likely": 1e-6, "possible": 5e-3}.get(state, 1.0)
    missed = 0.05 if state == "absent" else 0.9
    curve, miss = (false,) * 3, (missed, missed, 1.0)
    pairs = PairCalibration(
        slope=12.0,
        intercept=-4.0,
        same=5000,
        different=40 if state == "unresolved" else 10**9,
        people=60,
        cosines=(-1.0, 0.999, 1.0) if state in ("likely", "possible") else (0.99, 0.999, 1.0),
        false=curve if state in ("likely", "possible") else (1.0, 1e-6, 0.0),
        false_lower=curve if state in ("likely", "possible") else (1.0, 1e-6, 0.0),
        false_upper=curve if state in ("likely", "possible") else (1.0, 1e-6, 0.0),
        missed=miss,
        missed_lower=miss,
        missed_upper=miss,
    )
    return Calibration(dict.fromkeys(("visible", "infrared", "across"), pairs), model, "folder:/x", "0" * 64, 60, 0)


def thumbnail(seed: int) -> bytes:
    made = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 128)).save(made, "JPEG")
    return made.getvalue()


def made_up(
    folder: Path, run: Path, state: str, *, cameras: tuple[str, ...] = ("1", "2", "North gate"), each: int = 30
) -> Path:
    """An index whose vectors are random, so that every query is far from all of them."""
    with make_index(folder, run) as index:
        drawn = np.random.default_rng(0).normal(size=(2 * each, index.facts.width))
        vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        index.store.upsert(
            Row(
                source="hall" if n % 2 else "gate",
                path=f"{n}.jpg",
                content=hashlib.sha256(str(n).encode()).hexdigest(),
                camera=cameras[n % len(cameras)],
                modality=Modality(n % 2),
                time=None if n % 9 == 0 else 1_772_330_000_000 + n * 3_600_000,
                vector=vectors[n],
                thumbnail=None if n % 11 == 10 else thumbnail(n),
            )
            for n in range(2 * each)
        )
        if state != "uncalibrated":
            index.store.keep(CALIBRATION, calibration(state, index.facts.fingerprint).as_text())
    return folder


class Window:
    """A window of its own, which notes what the page asks for and what goes wrong in it."""

    def __init__(self, browser, width: int = 1280, scheme: str = "light", **settings) -> None:
        settings = {"locale": "en-GB", "timezone_id": "Europe/Berlin", **settings}
        self.context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.asked: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.context.on("request", lambda one: self.asked.append((one.method, one.url)))
        self.page.on("pageerror", lambda one: self.errors.append(str(one)))
        self.page.on("console", lambda one: self.errors.append(one.text) if _matters(one) else None)
        self.page.on("filechooser", lambda _: None)  # from now on; later, a key can be faster than the switch
        self.page.on("dialog", lambda one: (self.errors.append(f"dialog: {one.message}"), one.dismiss()))

    def open(self, service: Served, *, token: bool = True):
        self.page.goto(f"{service.url}/#token={service.token}" if token else service.url)
        if token:
            self.page.wait_for_selector("body[data-ready]")
        return self.page

    def search(self, service: Served, query: Path):
        page = self.open(service)
        page.set_input_files("#file", query)
        page.wait_for_selector("body[data-view=search]")
        shown(page)
        return page

    def posts(self) -> int:
        """How many searches were sent with POST."""
        return sum(method == "POST" for method, _ in self.asked)


def _matters(message) -> bool:
    """Chromium writes each 4xx to the console. The page must not write anything itself."""
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def shown(page) -> None:
    """Wait for matches, or for the end of a search without any."""
    until(page, "!document.querySelector('#list[aria-busy=true], .skeleton, .spinning')")


def until(page, condition: str, seconds: float = 20) -> None:
    """Wait for a condition. playwright's own wait needs `eval`, which the page's policy refuses."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


def camera(page, name: str):
    """The box of a camera in the filter."""
    own = page.locator("bdi", has_text=re.compile(f"^{re.escape(name)}$"))
    return page.locator("#cameras li", has=own).locator("input")


def violations(page) -> list:
    page.evaluate(AXE.read_text())
    found = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
    assert len(found["passes"]) > 20
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]]


def focused(page) -> str:
    return page.evaluate("document.activeElement.textContent.replace(/\\s+/g, ' ').trim()")


def overflow(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
