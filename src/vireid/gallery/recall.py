"""How many of the nearest rows an approximate index finds: its recall, against products with every stored vector."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vireid.gallery.row import MODALITIES, Row, Where
from vireid.gallery.store import Store

QUERIES, TOP = 200, 20
MOST = 200_000
"""Rows of a modality that are compared with every query: all of their vectors come from the server."""
AT_ONCE = 1000


@dataclass(frozen=True)
class Recall:
    """What a search with this index finds.

    Attributes:
        index: the kind of index, such as `hnsw`.
        share: of the 20 nearest rows of each query, those that a search for 20 found, in 0..1; None if there are too
            many rows or too few.
        queries: stored vectors that were searched for, in their own modality.
    """

    index: str
    share: float | None
    queries: int


def recall_of(store: Store, *, queries: int = QUERIES, top: int = TOP, most: int = MOST) -> Recall | None:
    """The recall of a store with an approximate index; None if the index is exact.

    The queries are the rows with the smallest ids. Ids are hashes, so this is a sample as good as any. A query does not
    count as its own neighbour.
    """
    kind = getattr(store, "index", "flat")
    if kind == "flat":
        return None
    found, asked = 0, 0
    for modality in MODALITIES:
        where = Where(modality=modality)
        if top < store.count(where) <= most:
            rows = list(itertools.islice(store.iterate(where, vectors=True), queries // len(MODALITIES)))
            vectors = np.stack([row.vector for row in rows if row.vector is not None])
            exact = _nearest(store.iterate(where, vectors=True), vectors, top + 1)
            for row, hits, ids in zip(rows, store.search(vectors, top + 1, where), exact, strict=True):
                near = [one for one in ids if one != row.id][:top]
                got = [hit.id for hit in hits if hit.id != row.id][:top]
                found += len({*near} & {*got})
            asked += len(rows)
    return Recall(kind, found / (asked * top) if asked else None, asked)


def _nearest(rows: Iterator[Row], queries: np.ndarray, top: int) -> list[list[str]]:
    """The ids of the nearest rows of each query, from all rows, a thousand at a time."""
    best = np.full((len(queries), 0), 0.0)
    ids = np.full((len(queries), 0), "", dtype="<U32")
    while part := list(itertools.islice(rows, AT_ONCE)):
        vectors = np.stack([row.vector for row in part if row.vector is not None]).astype(np.float64)
        best = np.concatenate([best, queries.astype(np.float64) @ vectors.T], axis=1)
        ids = np.concatenate([ids, np.broadcast_to([row.id for row in part], (len(queries), len(part)))], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top]
        best, ids = np.take_along_axis(best, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return [some.tolist() for some in ids]
