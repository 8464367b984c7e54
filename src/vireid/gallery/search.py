"""From a query to matches: both modalities are searched and merged by what their cosines say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.stored import as_json
from vireid.evaluation.calibration import PairCalibration, Rate
from vireid.gallery.index import Index
from vireid.gallery.row import MODALITIES, Row, Where, checked_ids, checked_vectors
from vireid.gallery.scores import NOTHING, STRANGERS, UNCALIBRATED, Verdict, judged, strangers, verdict
from vireid.gallery.store import EVERY_ROW, TOP, Hit
from vireid.gallery.times import time_text


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
        rank: from 1, in its list, see `Answer.matches`.
        row: its columns, without vector.
        cosine: with the query, in −1..1; the mean over the query's pictures.
        ratio: log-likelihood ratio (natural logarithm); None without calibration of this kind of pairs.
        strangers: expected pictures of other people that reach this cosine; None without calibration of this kind.
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
        searched: modality → number of pictures that passed the filter, without those that are no match.
        verdict: None without calibration.
        matches: up to `top` of each list, list after list. With calibration there is one list, by falling ratio, then
            by falling cosine, then by id. Pictures that cannot be compared by ratio, because their kind of pairs was
            not calibrated, are in a second list. Without calibration there are two, the other modality's first, then
            the query's own; such lists must not be merged.
        next: the `start` of the following page; None on the last one.
    """

    query: Modality
    searched: Mapping[Modality, int]
    verdict: Verdict | None
    matches: tuple[Match, ...]
    next: int | None


def query_of(index: Index, pictures: Sequence[Any], modality: Modality) -> Query:
    """The query of one picture, or of several pictures of one person in one modality.

    Several pictures are compared by their mean cosine, which is the scalar product with the mean vector: the mean of
    q₁·g, q₂·g, … is ((q₁ + q₂ + …) / n)·g. So one search is enough. The mean vector is shorter than one, and this
    counts: its length is kept in `Query.length`.

    The calibration is of single pictures, and it is a cautious one here. Means of numbers with one distribution are no
    more spread than one of them (in the convex order), whatever the numbers have to do with each other. So a stranger's
    mean is far above the usual at most as often as one cosine, exactly so for normal distributions: all pictures alike
    give the same rate, and different ones give a lower rate. For other distributions it is an approximation, and no
    strict bound. Likewise the ratio is the mean of the pictures' ratios, less than pictures that tell different things
    could claim together.

    Args:
        index: the index; its model is loaded.
        pictures: 1 or more pictures: paths, PIL images, H×W×3 uint8 arrays, as `vireid.model.Model.embed` takes them.
        modality: of all the pictures. Pictures of two modalities cannot be one query, because their cosines do not
            compare; search for each modality and compare the answers.

    Raises:
        BadInput: there is no picture, one cannot be read, or the modality is not visible or infrared.
    """
    if modality not in MODALITIES:
        raise BadInput(f"a query is visible or infrared, not {getattr(modality, 'word', modality)}")
    if not len(pictures):
        raise BadInput("a search needs a picture")
    return query_of_vectors(index.embed(pictures, Modality(modality)), Modality(modality))


def query_of_vectors(vectors: np.ndarray, modality: Modality) -> Query:
    """The query of pictures that are embedded already; see `query_of`.

    Args:
        vectors: N×D float32 of length one, of 1 or more pictures of one person.
        modality: of all the pictures.

    Raises:
        BadInput: wrong shape, length or numbers, or the mean has no direction.
    """
    vectors = checked_vectors(vectors, dimensions=2)
    if len(vectors) == 1:
        return Query(vectors[0], modality)
    mean = vectors.astype(np.float64).mean(axis=0) if len(vectors) else np.zeros(1)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadInput("the pictures of the query have nothing in common: search for each of them by itself")
    return Query((mean / length).astype(np.float32), modality, length, len(vectors))


def query_from(index: Index, id: str) -> Query:
    """The query of a picture that is in the gallery. It will not find itself.

    It finds pictures with the same content, because each of them has a row of its own: they say where else this picture
    came from.

    Raises:
        BadInput: there is no such picture.
    """
    row = index.store.get(checked_ids([id])).get(id)
    if row is None or row.vector is None:
        raise BadInput(f"there is no picture {id} in the gallery")
    return Query(row.vector, row.modality, without=(id,))


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
        top: most matches of each list, 1 to 1,000. Those after the 1,000th of a list are never shown.
        start: how many matches of each list to pass over, 0 to 999; `Answer.next` for the following page.
        threshold: strangers up to which a match is likely, above 0 and up to 1.

    Returns:
        Q answers.

    Raises:
        BadInput: a number is out of range.
    """
    if not 1 <= top <= TOP:
        raise BadInput(f"top takes 1 to {TOP:,} matches, not {top}")
    if not 0 <= start < TOP:
        raise BadInput(f"start takes 0 to {TOP - 1}, not {start}: a search shows the first {TOP:,} matches of a list")
    if not 0 < threshold <= 1:
        raise BadInput(f"strangers must be above 0 and up to 1, not {threshold}")
    if not queries:
        return []
    found = _found(index, queries, where, min(TOP, top + start))
    pages = [_page(index, *one, top, start) for one in zip(queries, found, strict=True)]
    rows = index.store.get(sorted({one.hit.id for page in pages for one in page.shown}))
    return [
        _answer(index, query, own, page, rows, threshold)
        for query, own, page in zip(queries, found, pages, strict=True)
    ]


def as_values(answer: Answer, *, paths: bool = False) -> dict[str, Any]:
    """An answer as JSON values: those of `--json` and of the HTTP API.

    Args:
        answer: the answer.
        paths: whether a match names its source, path, content, tracklet and person. An HTTP answer does not.
    """
    said = answer.verdict
    words = said.words if said else UNCALIBRATED if any(answer.searched.values()) else NOTHING
    return {
        "query": {"modality": answer.query.word},
        "searched": {one.word: answer.searched.get(one, 0) for one in MODALITIES},
        "state": said.state if said else None,
        "words": words,
        "matches": [_match_values(match, paths) for match in answer.matches],
        "next": answer.next,
    }


def _match_values(match: Match, paths: bool) -> dict[str, Any]:
    row, expected = match.row, match.strangers
    values = {
        "picture": row.id,
        "rank": match.rank,
        "camera": row.camera,
        "modality": row.modality.word,
        "time": time_text(row.time),
        "cosine": match.cosine,
        "ratio": match.ratio,
        "strangers": None if expected is None else expected.estimate,
        "strangers_upper": None if expected is None else expected.upper,
    }
    if paths:
        values |= {name: getattr(row, name) for name in ("source", "path", "content", "tracklet", "person")}
    return as_json(values)


@dataclass(frozen=True)
class _Found:
    """What the store found for one query.

    Attributes:
        searched: modality → pictures that passed, without those that are no match.
        hits: modality → the best of them, as the store orders them.
        reach: how far the hits reach in each list: the store gives no more than 1,000, some of which are no match.
    """

    searched: dict[Modality, int]
    hits: dict[Modality, list[Hit]]
    reach: int


@dataclass(frozen=True)
class _Placed:
    """A hit in its list."""

    rank: int
    modality: Modality
    hit: Hit
    ratio: float | None


@dataclass(frozen=True)
class _Page:
    shown: list[_Placed]
    next: int | None


def _found(index: Index, queries: Sequence[Query], where: Where, wanted: int) -> list[_Found]:
    """Search each modality once for all queries."""
    omitted = max(len(query.without) for query in queries)
    asked = min(TOP, wanted + omitted)
    vectors = np.stack([query.vector for query in queries])
    passing = _passing(index, queries, where)
    searched: list[dict[Modality, int]] = [{} for _ in queries]
    kept: list[dict[Modality, list[Hit]]] = [{} for _ in queries]
    for modality in MODALITIES if where.modality is None else (where.modality,):
        own = replace(where, modality=modality)
        pictures = index.store.count(own)
        hits = index.store.search(vectors, asked, own) if pictures else [[] for _ in queries]
        for number, query in enumerate(queries):
            kept[number][modality] = [hit for hit in hits[number] if hit.id not in query.without]
            searched[number][modality] = pictures - sum(passing.get(one) == modality for one in set(query.without))
    return [_Found(searched[number], kept[number], TOP - len(query.without)) for number, query in enumerate(queries)]


def _passing(index: Index, queries: Sequence[Query], where: Where) -> dict[str, Modality]:
    """Of the rows that are no match, those that pass the filter: id → modality."""
    ids = {one for query in queries for one in query.without}
    if where.ids is not None:
        ids &= set(where.ids)
    if not ids:
        return {}
    return {row.id: row.modality for row in index.store.iterate(replace(where, ids=tuple(sorted(ids))))}


def _page(index: Index, query: Query, found: _Found, top: int, start: int) -> _Page:
    """The part of each list that is shown."""
    shown: list[_Placed] = []
    more = False
    for pairs, modalities in _lists(index, query, found.searched):
        placed = _ordered(pairs, {one: found.hits[one] for one in modalities}, query.length)
        end = min(start + top, found.reach)
        shown += [replace(one, rank=rank) for rank, one in enumerate(placed[start:end], start + 1)]
        more |= end < min(sum(found.searched[one] for one in modalities), found.reach)
    return _Page(shown, start + top if more and start + top < TOP else None)


def _lists(
    index: Index, query: Query, searched: Mapping[Modality, int]
) -> list[tuple[Mapping[Modality, PairCalibration], tuple[Modality, ...]]]:
    """The lists of an answer, each with its calibration and its modalities."""
    pairs = judged(index.calibration, query.modality, searched) if index.calibration is not None else {}
    others = sorted((one for one in searched if one not in pairs), key=lambda one: one == query.modality)
    merged = [(pairs, tuple(pairs))] if pairs else []
    return [*merged, *(({}, (one,)) for one in others)]


def _ordered(
    pairs: Mapping[Modality, PairCalibration], hits: Mapping[Modality, Sequence[Hit]], length: float
) -> list[_Placed]:
    """One list, by falling ratio, cosine and id.

    The store's order, by cosine and id, agrees with it inside a modality, also where two cosines round to one ratio. So
    the best n of each modality hold the best n of the list, and pages fit together.
    """
    placed = []
    for modality, own in hits.items():
        calibrated = pairs.get(modality)
        for hit in own:
            ratio = None if calibrated is None else float(calibrated.ratio(_cosine(hit, length)))
            placed.append(_Placed(0, modality, hit, ratio))
    return sorted(placed, key=lambda one: (-(one.ratio or 0.0), -one.hit.score, one.hit.id))


def _cosine(hit: Hit, length: float) -> float:
    """The mean cosine with the query's pictures, in −1..1 though the vectors' lengths may be off by a thousandth."""
    return min(1.0, max(-1.0, hit.score * length))


def _answer(
    index: Index, query: Query, found: _Found, page: _Page, rows: Mapping[str, Row], threshold: float
) -> Answer:
    said, pairs = None, {}
    if index.calibration is not None:
        pairs = judged(index.calibration, query.modality, found.searched)
        best = [(one, _cosine(hits[0], query.length)) for one, hits in found.hits.items() if hits]
        said = verdict(index.calibration, query.modality, found.searched, best, threshold=threshold)
    matches = []
    for one in page.shown:
        if (row := rows.get(one.hit.id)) is None:
            continue  # it was deleted a moment ago
        cosine = _cosine(one.hit, query.length)
        own = pairs.get(one.modality)
        expected = None if own is None else strangers(own, cosine, found.searched[one.modality], len(pairs))
        matches.append(Match(one.rank, replace(row, vector=None), cosine, one.ratio, expected))
    return Answer(query.modality, found.searched, said, tuple(matches), page.next)
