"""Contact sheets, looked at pixel by pixel and tag by tag."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from tests.gallery.people import INFRARED, VISIBLE, calibrated, people_index, people_rows
from vireid.data.errors import BadInput
from vireid.evaluation.calibration import Rate
from vireid.gallery import drawn, sheet
from vireid.gallery.index import Index
from vireid.gallery.search import Answer, query_from, search
from vireid.gallery.words import plain

HOSTILE = "<img src=x onerror=alert(1)>"
GREEN = np.full((60, 30, 3), (0, 160, 0), np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", quality=95)
    return made.getvalue()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    people = [n // 3 for n in range(12)]
    rows = [*people_rows(people, VISIBLE, seed=1), *people_rows(people, INFRARED, seed=1)]
    rows = [replace(row, thumbnail=jpeg(GREEN) if n % 2 else None) for n, row in enumerate(rows)]
    rows[1] = replace(rows[1], camera=HOSTILE, source="\"><script>alert('2')</script>"[:40], path=f"a/{HOSTILE}.jpg")
    rows[2] = replace(rows[2], camera="w" * 64, path="very/" + "long/" * 150 + "end.jpg")
    rows[3] = replace(rows[3], camera="\u202eabc", path="a/\x1b[2J.jpg")
    with people_index(tmp_path_factory.mktemp("gallery") / "index", rows, calibrated(people=200, each=5)) as made:
        yield made


def answer_of(index: Index, *, top: int = 30) -> Answer:
    row = next(iter(index.store.iterate()))
    return search(index, [query_from(index, row.id)], top=top)[0]


def colours_of(file: Path) -> set[tuple[int, int, int]]:
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
    packed = np.unique(pixels @ (65536, 256, 1)).tolist()
    return {(one >> 16, one >> 8 & 255, one & 255) for one in packed}


def test_each_level_has_its_frame_and_an_uncalibrated_sheet_has_grey_ones_only(index: Index, tmp_path: Path) -> None:
    answer = answer_of(index)
    levels = {sheet.level_of(match.strangers, 0.05) for match in answer.matches}
    assert levels == {"likely", "possible", "weak"}
    sheet.write_sheet(tmp_path / "a.png", index, answer, [GREEN], threshold=0.05)
    found = colours_of(tmp_path / "a.png")
    for level, colour in sheet.COLOURS.items():
        assert (ImageColor.getrgb(colour) in found) == (level in levels), level
    assert (0, 160, 0) in found  # the query is on the sheet

    plain = replace(index, calibration=None)
    sheet.write_sheet(tmp_path / "b.png", plain, answer_of(plain), [None], threshold=0.05)
    found = colours_of(tmp_path / "b.png")
    assert {ImageColor.getrgb(sheet.COLOURS[one]) in found for one in ("likely", "possible", "weak")} == {False}
    assert ImageColor.getrgb(sheet.COLOURS["unknown"]) in found


@pytest.mark.parametrize(
    "expected, level",
    [
        (None, "unknown"),
        (Rate(0.01, 0.0, 0.05), "likely"),
        (Rate(0.01, 0.0, 0.06), "possible"),
        (Rate(1.0, 0.5, 3.0), "possible"),
        (Rate(1.01, 0.5, 3.0), "weak"),
    ],
)
def test_the_level_of_a_match_follows_the_rules_of_the_verdict(expected: Rate | None, level: str) -> None:
    assert sheet.level_of(expected, 0.05) == level


@pytest.mark.parametrize("ending, form", [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG")])
def test_pictures_are_what_their_ending_says(index: Index, tmp_path: Path, ending: str, form: str) -> None:
    file = tmp_path / f"sheet{ending}"
    sheet.write_sheet(file, index, answer_of(index, top=7), [GREEN] * 9, threshold=0.05)
    with Image.open(file) as picture:
        assert picture.format == form and picture.mode == "RGB" and picture.width == 1356


class Reader(HTMLParser):
    """Collects what a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_runs_nothing_loads_nothing_and_shows_names_as_they_are(index: Index, tmp_path: Path) -> None:
    file, answer = tmp_path / "sheet.html", answer_of(index)
    sheet.write_sheet(file, index, answer, [GREEN], threshold=0.05)
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "div", "h1", "p", "main", "ol", "li"}
    assert {tag for tag, _ in reader.tags} <= allowed | {"b", "br", "span", "img"}
    names = {name for _, attributes in reader.tags for name in attributes}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "alt", "src"}
    sources = [attributes["src"] or "" for tag, attributes in reader.tags if tag == "img"]
    assert sources and all(one.startswith("data:image/jpeg;base64,") for one in sources)
    policy = next(attributes["content"] for _, attributes in reader.tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert [tag for tag, _ in reader.tags].count("li") == len(answer.matches) == 23
    assert f"camera {HOSTILE}" in reader.text and "camera ?abc" in reader.text and "\x1b" not in reader.text
    assert answer.verdict is not None and answer.verdict.words in reader.text


def test_matches_without_calibration_are_in_two_lists_with_titles(index: Index) -> None:
    plain = replace(index, calibration=None)
    found = sheet.sheet_of(plain, answer_of(plain, top=4), [], 0.05)
    query = answer_of(plain).query
    other = VISIBLE if query == INFRARED else INFRARED
    titles = [f"{one.word.capitalize()} pictures, by cosine" for one in (other, query)]
    assert [title for title, _ in found.lists] == titles and [len(cards) for _, cards in found.lists] == [4, 4]
    assert found.state == "not calibrated" and {card.level for _, cards in found.lists for card in cards} == {"unknown"}
    assert [title for title, _ in sheet.sheet_of(index, answer_of(index), [], 0.05).lists] == [""]


def test_a_sheet_of_nothing_can_be_drawn(index: Index, tmp_path: Path) -> None:
    nothing = replace(answer_of(index), matches=())
    for ending in ("png", "html"):
        sheet.write_sheet(tmp_path / f"sheet.{ending}", index, nothing, [], threshold=0.05)
    assert "No matches." in (tmp_path / "sheet.html").read_text()


def test_no_more_than_200_matches_are_on_a_sheet(index: Index) -> None:
    answer = answer_of(index)
    many = replace(answer, matches=answer.matches * 10)
    found = sheet.sheet_of(index, many, [], 0.05)
    assert sum(len(cards) for _, cards in found.lists) == 200 and found.notes[0] == "The first 200 of 230 matches."


def declared(width: int, height: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    data = bytearray(jpeg(GREEN))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        jpeg(GREEN)[:200],
        declared(60_000, 60_000),
        declared(1025, 8),
        jpeg(GREEN) + b"\0" * sheet.THUMBNAIL,
        b"GIF89a" + b"\0" * 100,
    ],
)
def test_a_thumbnail_that_is_none_is_shown_as_missing(data: bytes) -> None:
    assert sheet.picture_of(data) is None


def test_a_png_is_no_thumbnail() -> None:
    made = io.BytesIO()
    Image.fromarray(GREEN).save(made, "PNG")
    assert sheet.picture_of(made.getvalue()) is None


def test_a_large_query_picture_is_made_small() -> None:
    found = sheet.picture_of(np.zeros((1000, 400, 3), np.uint8))
    assert found is not None and found.size == (102, 256)


@pytest.mark.parametrize("name, says", [("a.gif", "ending"), ("a", "ending"), ("no/folder/a.png", "no folder")])
def test_a_file_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        sheet.check_sheet(tmp_path / name)


@given(text=st.text(max_size=80), width=st.integers(20, 300), end=st.booleans())
def test_shortened_text_fits_and_keeps_one_end(text: str, width: int, end: bool) -> None:
    text = plain(text)  # as all text that is drawn
    found = drawn._shortened(text, width, 14, end=end)
    assert drawn._font(14, False).getlength(found) <= width
    if found != text:
        assert text.endswith(found[1:]) if end else text.startswith(found[:-1])
