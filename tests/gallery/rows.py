"""Rows for tests, and answers worked out one row at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vireid.data.modality import Modality
from vireid.gallery.row import Row, Where
from vireid.gallery.stores.product import scores

MODEL = "5eed" * 16
WIDTH = 8


def unit(count: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Random vectors of length one, count×width float32."""
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def row(number: int, vector: np.ndarray | None = None, **columns: Any) -> Row:
    """A row whose columns follow from a number, but for those given."""
    given = {
        "source": "hall" if number % 2 else "gate",
        "path": f"{number:04d}.jpg",
        "content": hashlib.sha256(b"%d" % (number // 2)).hexdigest(),
        "camera": str(number % 3),
        "modality": Modality(number % 2),
        "time": None if number % 5 == 0 else number * 1000,
        "tracklet": None if number % 3 else f"t{number % 4}",
        "person": None if number % 4 else f"p{number % 3}",
        "vector": unit(1, seed=number)[0] if vector is None else vector,
        "thumbnail": b"\xff\xd8 picture %04d" % number,
    }
    return Row(**{**given, **columns})


def passes(one: Row, where: Where) -> bool:
    """Whether a row passes a filter, as the filter's description reads."""
    if where.modality is not None and one.modality != where.modality:
        return False
    lists = (
        (where.cameras, one.camera),
        (where.sources, one.source),
        (where.tracklets, one.tracklet),
        (where.persons, one.person),
        (where.contents, one.content),
        (where.ids, one.id),
    )
    for choices, value in lists:
        if choices is not None and value not in choices:
            return False
    if where.since is not None and (one.time is None or one.time < where.since):
        return False
    return where.until is None or (one.time is not None and one.time < where.until)


def nearest(rows: Iterable[Row], query: np.ndarray, top: int, where: Where) -> list[tuple[str, float]]:
    """(id, score) of the best rows: every score by itself, all of them sorted."""
    found = [(one.id, float(scores(query, one.vector[None])[0])) for one in rows if passes(one, where)]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:top]


def same(found: Row, stored: Row, *, vector: bool = True) -> bool:
    """Whether all columns are equal, and the vector bit for bit."""
    if not vector:
        return found == stored and found.vector is None
    return found == stored and found.vector is not None and found.vector.tobytes() == stored.vector.tobytes()


def columns_of(rows: Sequence[Row]) -> dict[str, Row]:
    """Id → row."""
    return {one.id: one for one in rows}
