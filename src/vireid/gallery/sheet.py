"""A contact sheet: the query and its matches side by side, as one picture or one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vireid.data.errors import BadInput, unknown
from vireid.data.stored import check_output, write_text, writing
from vireid.evaluation.calibration import Rate
from vireid.gallery.index import Index
from vireid.gallery.row import THUMBNAIL
from vireid.gallery.search import Answer, Match, as_values
from vireid.gallery.times import time_text
from vireid.gallery.words import count_text, plain

ENDINGS = (".png", ".jpg", ".jpeg", ".html")
MATCHES = 200
"""Most matches on one sheet."""
SIDE = 256
"""Most pixels of a side of a picture on a sheet."""
QUERIES = 4
"""Most pictures of the query on a sheet."""
NO_PROOF = (
    "A match is no proof of identity. Strangers: pictures of other people that are expected to be as similar. "
    "Times are UTC."
)

Level = Literal["likely", "possible", "weak", "unknown"]
LEVELS: tuple[Level, ...] = ("likely", "possible", "weak", "unknown")
Shown = np.ndarray | bytes | None
"""A picture for a sheet: H×W×3 uint8, the bytes of a thumbnail, or None."""

# Okabe and Ito's blue and vermillion, which people with any kind of colour vision tell apart; each has its own width
# and its own word too.
COLOURS: dict[Level, str] = {"likely": "#0072b2", "possible": "#d55e00", "weak": "#8a929b", "unknown": "#b4bac1"}
LEGEND: dict[Level, str] = {
    "likely": "likely",
    "possible": "possible",
    "weak": "strangers are as similar",
    "unknown": "not judged",
}

_DECLARED = 1024  # most pixels of a side that a stored thumbnail may declare


@dataclass(frozen=True)
class Card:
    """One match on a sheet.

    Attributes:
        title: rank and modality.
        lines: camera, time, strangers or cosine, path.
        level: what may be said of it; `likely` and `possible` stand beside the title.
        picture: None if the gallery has no thumbnail of it.
    """

    title: str
    lines: tuple[str, ...]
    level: Level
    picture: Image.Image | None

    @property
    def mark(self) -> str:
        """The word beside the title; empty for a match that strangers reach, and for one that was not judged."""
        return self.level if self.level in ("likely", "possible") else ""


@dataclass(frozen=True)
class Sheet:
    """What stands on a sheet.

    Attributes:
        state: the state of the search in one word.
        words: its sentence.
        details: what was searched, in which index.
        queries: pictures of the query; their number may be larger than `QUERIES`.
        more: how many pictures of the query are not shown.
        lists: the lists of matches, each with its title; an empty title if there is one list.
        notes: at the end.
    """

    state: str
    words: str
    details: str
    queries: tuple[Image.Image | None, ...]
    more: int
    lists: tuple[tuple[str, tuple[Card, ...]], ...]
    notes: tuple[str, ...]

    @property
    def levels(self) -> list[Level]:
        """The levels that are on the sheet."""
        cards = [card for _, own in self.lists for card in own]
        return [level for level in LEVELS if any(card.level == level for card in cards)]


def check_sheet(file: Path) -> Path:
    """Check that a sheet can be written, before the search.

    Raises:
        BadInput: an ending without a format, or a folder that is not there or cannot be written.
    """
    if file.suffix.lower() not in ENDINGS:
        raise unknown("ending of a contact sheet", file.suffix, ENDINGS)
    return check_output(file)


def write_sheet(file: Path, index: Index, answer: Answer, queries: Sequence[Shown], *, threshold: float) -> None:
    """Write the contact sheet of an answer, completely or not at all.

    Args:
        file: `.png`, `.jpg` or `.html`.
        index: gives the thumbnails.
        answer: the first 200 matches of it are shown.
        queries: the query's pictures.
        threshold: strangers up to which a match is likely.

    Raises:
        BadInput: an unknown ending, or it cannot be written.
    """
    from vireid.gallery.drawn import draw

    check_sheet(file)
    sheet = sheet_of(index, answer, queries, threshold)
    try:
        if file.suffix.lower() == ".html":
            write_text(file, as_html(sheet))
            return
        with writing(file) as opened:
            if file.suffix.lower() == ".png":
                draw(sheet).save(opened, "PNG")
            else:
                draw(sheet).save(opened, "JPEG", quality=90, subsampling=0)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error


def sheet_of(index: Index, answer: Answer, queries: Sequence[Shown], threshold: float) -> Sheet:
    """What stands on the sheet of an answer."""
    shown = answer.matches[:MATCHES]
    cards = [(match, _card(index, match, threshold)) for match in shown]
    judged = tuple(card for match, card in cards if match.ratio is not None)
    lists = [("Both modalities, by ratio" if answer.verdict else "", judged)] if judged else []
    others = [pair for pair in cards if pair[0].ratio is None]
    for modality in dict.fromkeys(match.row.modality for match, _ in others):
        own = tuple(card for match, card in others if match.row.modality == modality)
        lists.append((f"{modality.word.capitalize()} pictures, by cosine", own))
    if len(lists) == 1 and judged:
        lists = [("", judged)]
    counts = " and ".join(f"{pictures:,} {one.word}" for one, pictures in answer.searched.items())
    notes = [NO_PROOF]
    if len(shown) < len(answer.matches):
        notes.insert(0, f"The first {MATCHES} of {len(answer.matches)} matches.")
    return Sheet(
        state=answer.verdict.state if answer.verdict else "not calibrated",
        words=as_values(answer)["words"],
        details=f"{answer.query.word} query · searched: {counts} pictures · {plain(index.url)}",
        queries=tuple(picture_of(one) for one in queries[:QUERIES]),
        more=max(0, len(queries) - QUERIES),
        lists=tuple(lists),
        notes=tuple(notes),
    )


def level_of(expected: Rate | None, threshold: float) -> Level:
    """What may be said of one match, by the rules of `vireid.gallery.scores.verdict`."""
    if expected is None:
        return "unknown"
    if expected.upper <= threshold:
        return "likely"
    return "possible" if expected.estimate <= 1 else "weak"


def picture_of(given: Shown) -> Image.Image | None:
    """A picture of at most 256 pixels a side; None if there is none, or bytes that are no small JPEG."""
    if given is None:
        return None
    found = _thumbnail(given) if isinstance(given, bytes) else Image.fromarray(np.ascontiguousarray(given))
    if found is not None:
        found.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return found


def _thumbnail(data: bytes) -> Image.Image | None:
    """A stored thumbnail. The index may have been altered, so the size is looked at before it is decoded."""
    if len(data) > THUMBNAIL:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return picture.convert("RGB") if max(picture.size) <= _DECLARED else None
    except Exception:
        return None  # on damaged files Pillow raises many kinds of exceptions


def _card(index: Index, match: Match, threshold: float) -> Card:
    row = match.row
    time = (time_text(row.time) or "time not known").replace("T", " ").removesuffix("Z")
    if match.strangers is None:
        score = f"cosine {match.cosine:.3f}"
    else:
        score = f"{count_text(match.strangers.estimate)} strangers"
    lines = (f"camera {plain(row.camera)}", time, score, plain(row.path))
    picture = picture_of(index.store.thumbnail(row.id))
    return Card(f"{match.rank} {row.modality.word}", lines, level_of(match.strangers, threshold), picture)


# --- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --faint: #57606a; --box: #f0f2f4; --line: #d0d7de }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --text: #e8ebee; --faint: #a5adb6; --box: #20252a; --line: #3a4149 }
}
body { margin: 0 auto; max-width: 82rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; padding-bottom: 1.25rem;
  border-bottom: 1px solid var(--line) }
header > div + div { flex: 1 1 20rem }
h1 { margin: 0 0 .25rem; font-size: 1.6rem }
h2 { margin: 1.75rem 0 .75rem; font-size: 1.1rem }
p { margin: 0 0 .5rem; max-width: 46rem }
.faint, .path { color: var(--faint); font-size: .85rem }
.queries { display: flex; gap: .5rem; align-items: center }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; margin: 1.25rem 0;
  padding: 0; list-style: none }
li { padding: .6rem; border-radius: .5rem; border: 1px solid #b4bac1; font-size: .9rem; overflow-wrap: anywhere }
li.likely { border: 4px solid #0072b2; padding: calc(.6rem - 3px) }
li.possible { border: 3px dashed #d55e00; padding: calc(.6rem - 2px) }
.mark { float: right }
li.weak { border-color: #8a929b }
.picture { display: flex; align-items: center; justify-content: center; height: 14rem; margin-bottom: .5rem;
  background: var(--box); color: var(--faint); border-radius: .25rem }
img { display: block; max-width: 100%; max-height: 100% }
.queries .picture { height: 11rem; min-width: 5.5rem; margin: 0 }
.picture img { height: 100%; object-fit: contain }
"""


def as_html(sheet: Sheet) -> str:
    """The sheet as one HTML file. It loads nothing, and runs nothing."""
    parts = [_section(title, cards) for title, cards in sheet.lists] or ["<p>No matches.</p>"]
    queries = "".join(f'<span class="picture">{_image(one, "query")}</span>' for one in sheet.queries)
    more = f'<span class="faint">+ {sheet.more}</span>' if sheet.more else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Search: {html.escape(sheet.state)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f'<header><div class="queries">{queries}{more}</div>',
            f"<div><h1>{html.escape(sheet.state.capitalize())}</h1>",
            f'<p>{html.escape(sheet.words)}</p><p class="faint">{html.escape(sheet.details)}</p></div></header>',
            f"<main>{''.join(parts)}</main>",
            *(f'<p class="faint">{html.escape(note)}</p>' for note in sheet.notes),
            "</body>\n</html>\n",
        ]
    )


def _section(title: str, cards: Sequence[Card]) -> str:
    head = f"<h2>{html.escape(title)}</h2>" if title else ""
    return f"{head}<ol>{''.join(_item(card) for card in cards)}</ol>"


def _item(card: Card) -> str:
    camera, time, score, path = (html.escape(line) for line in card.lines)
    title = html.escape(card.title)
    return (
        f'<li class="{card.level}"><div class="picture">{_image(card.picture, f"match {card.title}")}</div>'
        f'<b>{title}</b><b class="mark">{card.mark}</b><br>{camera}<br>{time}<br>{score}'
        f'<br><span class="path">{path}</span></li>\n'
    )


def _image(picture: Image.Image | None, alternative: str) -> str:
    """A picture as a data address. It is encoded anew, so no byte of what was stored gets into the file."""
    if picture is None:
        return "no picture"
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=88)
    text = base64.b64encode(made.getvalue()).decode()
    return f'<img alt="{html.escape(alternative)}" src="data:image/jpeg;base64,{text}">'
