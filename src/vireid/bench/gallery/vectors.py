"""Made-up vectors that lie around people, and the rows of a gallery that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from vireid.data.modality import Modality
from vireid.gallery.row import Row, id_of

SOURCE = "bench"
MODEL = "be" * 32
"""The fingerprint of the model that the made-up vectors pretend to be from."""
BATCH = 1000
"""Rows that are made and stored at a time."""
PEOPLE = 10
"""Vectors around each centre. Half of the best 20 are of others, so that the choice at the end is a close one."""
CAMERAS = 6
TOP = 20


def vectors_of(count: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """`count` vectors in parts of up to 1,000: (position of the first, N×width float32 of length one).

    They lie around centres, 10 around each, with a cosine of about 0.7 to it, as pictures of one person do. A part
    depends on its position only.
    """
    for first in range(0, count, BATCH):
        yield first, part_of(first, count, width)


def part_of(first: int, count: int, width: int) -> np.ndarray:
    """The part of `vectors_of` that begins at a multiple of 1,000."""
    draw = np.random.default_rng((7, first, width))
    centres = draw.standard_normal((BATCH // PEOPLE, width), dtype=np.float32)
    found = centres.repeat(PEOPLE, axis=0) + draw.standard_normal((BATCH, width), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[: min(BATCH, count - first)]


def queries_of(count: int, rows: int, width: int) -> np.ndarray:
    """Queries near some of the vectors: count×width float32 of length one, with a cosine of about 0.7 to a vector."""
    draw = np.random.default_rng(8)
    found = np.empty((count, width), np.float32)
    for number, place in enumerate(np.linspace(0, rows - 1, count).astype(int).tolist()):
        part = part_of(place - place % BATCH, rows, width)
        noise = draw.standard_normal(width)
        near = part[place % BATCH].astype(np.float64) + noise / np.linalg.norm(noise)
        found[number] = near / np.linalg.norm(near)
    return found


def rows_of(first: int, vectors: np.ndarray) -> list[Row]:
    """The rows of some vectors: visible pictures of six cameras."""
    row = partial(Row, SOURCE, modality=Modality.VISIBLE)
    return [
        row(str(n), f"{n:064x}", camera=str(n % CAMERAS), time=n, vector=vector)
        for n, vector in enumerate(vectors, first)
    ]


def row_id(n: int) -> str:
    """The id of the row with this number."""
    return id_of(SOURCE, str(n))
