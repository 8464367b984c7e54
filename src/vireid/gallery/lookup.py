"""`vireid gallery search`: pictures of one person in, matches out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from vireid.data.errors import BadInput
from vireid.data.modality import Modality, modality_of
from vireid.data.pictures import read_picture
from vireid.data.settings import Count, Share, Whole, options
from vireid.data.stored import as_json
from vireid.evaluation.calibration import Threshold
from vireid.gallery.index import Index, open_index
from vireid.gallery.row import MODALITIES, Where
from vireid.gallery.scores import STRANGERS, thresholds
from vireid.gallery.search import Answer, Query, as_values, query_from, query_of, search
from vireid.gallery.times import parse_time

PICTURES = 64
"""Most pictures of one query."""


@options
class SearchOptions:
    """What `vireid gallery search` is asked to do.

    Attributes:
        index: a folder, or `milvus://host:port/name`.
        pictures: up to 64 pictures of one person, all of one modality.
        from_match: the id of a picture in the gallery, instead of pictures.
        modality: of the pictures, a word of `vireid.data.modality.MODALITIES`; None guesses it.
        search_in: the modality that is searched; None for both.
        cameras, sources, tracklets: a match has one of these; without any, all.
        since, until: ISO 8601, or how long ago, see `vireid.gallery.times.parse_time`.
        top, start: most matches, and how many to pass over; see `vireid.gallery.search.search`.
        fmr: also the cosine at which this false match rate is reached.
        strangers: a match is likely up to so many expected strangers, above 0 and up to 1.
        model: where the index's model is now; None where it was.
        state: the folder of this machine for an index in Milvus; None for the usual one.
        sheet: a contact sheet to write, `.png`, `.jpg` or `.html`.
    """

    index: str
    pictures: tuple[Path, ...] = ()
    from_match: str | None = None
    modality: str | None = None
    search_in: str | None = None
    cameras: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tracklets: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    top: Count = 20
    start: Whole = 0
    fmr: Share | None = None
    strangers: Annotated[float, Interval(gt=0, le=1)] = STRANGERS
    model: Path | None = None
    state: Path | None = None
    sheet: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.pictures) == (self.from_match is not None):
            raise BadInput("a search takes pictures, or the id of a match to search on from, and not both")
        if len(self.pictures) > PICTURES:
            raise BadInput(f"a query has up to {PICTURES} pictures of one person, not {len(self.pictures)}")
        if self.from_match is not None and self.modality is not None:
            raise BadInput("the gallery knows the modality of a match: leave out the modality")
        if self.fmr == 0:
            raise BadInput("no cosine has the false match rate 0: give a rate above 0, such as 0.001")

    def where(self) -> Where:
        """The filter.

        Raises:
            BadInput: a value of it cannot be used.
        """
        since = None if self.since is None else parse_time(self.since, "since")
        until = None if self.until is None else parse_time(self.until, "until")
        if since is not None and until is not None and since >= until:
            raise BadInput(f"no time is from {self.since} on and before {self.until}")
        return Where(
            modality=None if self.search_in is None else modality_of(self.search_in),
            cameras=self.cameras or None,
            sources=self.sources or None,
            tracklets=self.tracklets or None,
            since=since,
            until=until,
        )


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        answer: matches and verdict.
        guessed: whether the query's modality was guessed.
        pictures: of the query.
        from_match: the id that was searched from; None with pictures.
        fmr: the false match rate whose cosines were asked for; None without.
        thresholds: modality → the cosine at this rate; None where the calibration cannot tell. Empty without `fmr`.
    """

    answer: Answer
    guessed: bool
    pictures: tuple[Path, ...]
    from_match: str | None
    fmr: float | None
    thresholds: Mapping[Modality, Threshold | None]

    def reaches(self, modality: Modality, cosine: float) -> bool:
        """Whether a match has a false match rate of at most `fmr`."""
        found = self.thresholds.get(modality)
        return found is not None and cosine >= found.cosine

    def to_json(self) -> dict[str, Any]:
        """The values of `--json`: those of `as_values`, with paths, and what was asked."""
        values = as_values(self.answer, paths=True)
        values["query"] |= {
            "guessed": self.guessed,
            "pictures": [str(one) for one in self.pictures],
            "from_match": self.from_match,
        }
        if self.fmr is not None:
            known = {one.word: as_json(found) for one, found in self.thresholds.items()}
            values["fmr"] = {"rate": self.fmr, "cosine": known}
        return values


def look_up(asked: SearchOptions) -> Found:
    """Search an index, and write the contact sheet if one is wanted.

    Raises:
        BadInput: an option, the index or a picture cannot be used. The sentence names it.
    """
    from vireid.gallery.sheet import check_sheet, write_sheet

    where = asked.where()
    if asked.sheet is not None:
        check_sheet(asked.sheet)
    with open_index(asked.index, model=asked.model, state=asked.state) as index:
        if asked.fmr is not None and index.calibration is None:
            raise BadInput(f"{asked.index} has no calibration, so no false match rate is known: calibrate its model")
        query, guessed, shown = _query(index, asked)
        (answer,) = search(index, [query], where, top=asked.top, start=asked.start, threshold=asked.strangers)
        known = {}
        if asked.fmr is not None and index.calibration is not None:
            known = thresholds(index.calibration, query.modality, asked.fmr)
        if asked.sheet is not None:
            write_sheet(asked.sheet, index, answer, shown, threshold=asked.strangers)
    return Found(answer, guessed, asked.pictures, asked.from_match, asked.fmr, known)


def _query(index: Index, asked: SearchOptions) -> tuple[Query, bool, list[np.ndarray | bytes | None]]:
    """The query, whether its modality was guessed, and its pictures for the contact sheet."""
    if asked.from_match is not None:
        query = query_from(index, asked.from_match)
        return query, False, [index.store.thumbnail(asked.from_match)]
    pictures = [read_picture(file, scaling=index.model.scaling) for file in asked.pictures]
    modality = guess_of(asked.pictures, pictures) if asked.modality is None else modality_of(asked.modality)
    return query_of(index, pictures, modality), asked.modality is None, [*pictures]


def guess_of(names: Sequence[Path], pictures: Sequence[np.ndarray]) -> Modality:
    """The modality of all pictures of a query, from their colours.

    Raises:
        BadInput: they seem to be of both modalities.
    """
    from vireid.gallery.untrusted import guess

    guessed = [guess(picture) for picture in pictures]
    if len(set(guessed)) > 1:
        examples = " and ".join(f"{names[guessed.index(one)]} {one.word}" for one in MODALITIES)
        raise BadInput(
            f"{examples} by its colours: the pictures of one query have one modality, so name it with --modality, or "
            "search for each kind by itself"
        )
    return guessed[0]
