"""From a query to matches: both modalities are searched and merged by what their cosines say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid.data.modality import Modality
from vireid.evaluation.calibration import Rate
from vireid.gallery.index import Index
from vireid.gallery.row import Row, Where
from vireid.gallery.scores import STRANGERS, Verdict
from vireid.gallery.store import EVERY_ROW


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: D float32 of length one: of one picture, or the direction of the mean of several.
        modality: of the query's pictures.
        length: length of the mean of the pictures' vectors; 1 for one picture. score · length is the mean cosine.
        pictures: how many pictures.
        without: ids of rows that are no match: the picture itself, if it is in the gallery.
    """

    vector: np.ndarray
    modality: Modality
    length: float = 1.0
    pictures: int = 1
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """One picture that was found.

    Attributes:
        rank: from 1, in the merged list; in a search without calibration, in the list of its modality.
        row: its columns, without vector.
        cosine: with the query, in −1..1; the mean over the query's pictures.
        ratio: log-likelihood ratio (natural logarithm); None without calibration.
        strangers: expected pictures of other people that reach this cosine; None without calibration.
    """

    rank: int
    row: Row
    cosine: float
    ratio: float | None
    strangers: Rate | None


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    Attributes:
        query: the query's modality.
        searched: modality → number of pictures that passed the filter.
        verdict: None without calibration.
        matches: with calibration one list, by falling ratio, then by id. Without, those of the other modality first,
            then those of the query's own: two lists that must not be merged.
        next: the `start` of the following page; None on the last one.
    """

    query: Modality
    searched: Mapping[Modality, int]
    verdict: Verdict | None
    matches: tuple[Match, ...]
    next: int | None


def query_of(index: Index, pictures: Sequence[Any], modality: Modality) -> Query:
    """The query of one picture, or of several pictures of one person in one modality (paths, PIL images, arrays)."""
    raise NotImplementedError


def query_from(index: Index, id: str) -> Query:
    """The query of a picture that is in the gallery. It will not find itself.

    Raises:
        BadInput: there is no such picture.
    """
    raise NotImplementedError


def search(
    index: Index,
    queries: Sequence[Query],
    where: Where = EVERY_ROW,
    *,
    top: int = 20,
    start: int = 0,
    threshold: float = STRANGERS,
) -> list[Answer]:
    """Search for several queries that share a filter; they share the matrix products too.

    Args:
        index: the index.
        queries: Q queries.
        where: the filter; if it names no modality, both are searched.
        top: most matches of each answer; with `start`, up to 1,000.
        start: how many matches to pass over.
        threshold: strangers up to which a match is likely.

    Returns:
        Q answers.
    """
    raise NotImplementedError


def as_values(answer: Answer) -> dict[str, Any]:
    """An answer as JSON values: those of `--json` and of the HTTP API."""
    raise NotImplementedError
