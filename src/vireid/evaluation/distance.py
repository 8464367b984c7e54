"""Distances between features: float32 matrix products, in blocks, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vireid.data.errors import unknown

DISTANCES = ("cosine", "euclidean")

# Rows beyond a multiple of 16 columns meet other, slower kernels in some BLAS libraries (1.3-1.6 times in MKL on AMD)
# and may round differently, which would break ties between equal pictures. Zero columns cost less.
_COLUMNS = 16
_CHUNK = 4096  # rows prepared at a time, so that float64 copies stay small
_SMALL, _LARGE = 1e-20, 1e30  # squared lengths that float32 computes without losing digits
BLOCK_BYTES = 128 * 2**20


def normalise(features: np.ndarray, rows: np.ndarray | None = None, *, padded: int | None = None) -> np.ndarray:
    """Rows of length one.

    Args:
        features: N×D real numbers, finite.
        rows: which rows, in this order; None for all.
        padded: how many rows to give back at least; those beyond are zero.

    Returns:
        N×D float32. A row of zeros has no direction and stays zero, at cosine distance 1 from everything.
    """
    rows = np.arange(len(features)) if rows is None else np.asarray(rows)
    out = np.zeros((max(len(rows), padded or 0), features.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK]
        into = out[start : start + len(chosen)]
        if features.dtype == np.float32:
            np.take(features, chosen, axis=0, out=into, mode="clip")  # any other mode copies once more
            squared = np.einsum("nd,nd->n", into, into)
            if squared.min() > _SMALL and squared.max() < _LARGE:
                into *= (1.0 / np.sqrt(squared))[:, None]
                continue
        part = features[chosen].astype(np.float64)
        # Divide by the largest entry first: the square of 1e300 is no float64.
        largest = np.abs(part).max(axis=1, initial=0.0, keepdims=True)
        np.divide(part, largest, out=part, where=largest > 0)
        length = np.linalg.norm(part, axis=1, keepdims=True)
        np.divide(part, length, out=part, where=length > 0)
        into[:] = part
    return out


def pairwise(query: np.ndarray, gallery: np.ndarray, *, distance: str = "cosine") -> np.ndarray:
    """Every query's distance to every gallery feature.

    Args:
        query: Q×D real numbers.
        gallery: G×D real numbers.
        distance: `cosine`, 1 − cos(q, g) in 0..2, or `euclidean`, ‖q − g‖ of the features as they are.

    Returns:
        Q×G float32.

    Raises:
        BadInput: another distance.
    """
    if distance == "cosine":
        return np.clip(1.0 - normalise(query) @ normalise(gallery).T, 0.0, 2.0)
    if distance != "euclidean":
        raise unknown("distance", distance, DISTANCES)
    centre = np.asarray(gallery, dtype=np.float64).mean(axis=0)
    query, gallery = np.asarray(query, dtype=np.float64) - centre, np.asarray(gallery, dtype=np.float64) - centre
    squared = (query**2).sum(axis=1)[:, None] + (gallery**2).sum(axis=1) - 2.0 * query @ gallery.T
    return np.sqrt(np.maximum(squared, 0.0)).astype(np.float32)


def blocks(
    features: np.ndarray,
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    distance: str = "cosine",
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Block after block of queries against the whole gallery, as values that rank as the distance does.

    The values are −cos(q, g), or ½‖g‖² − q·g for `euclidean`: what is left of the distance when everything that is
    equal for the whole gallery of a query is dropped. 1 − cos would round near ties into ties.

    Args:
        features: N×D real numbers, finite.
        query: Q rows of `features`.
        gallery: G rows of `features`.
        distance: one of `DISTANCES`.
        block_bytes: about how large one block may be. Beyond it memory is the gallery's float32 features once.

    Yields:
        start, stop, and a (stop − start)×G float32 array that the next block overwrites.

    Raises:
        BadInput: another distance.
    """
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    columns = max(-(-len(gallery) // _COLUMNS), 1) * _COLUMNS
    rows = int(max(min(block_bytes // (4 * columns), len(query)), 1))
    if distance == "cosine":
        prepare = normalise
        offset = None
    else:
        prepare = _Centred(features, gallery)
    searched = prepare(features, gallery, padded=columns)
    if distance == "euclidean":
        offset = 0.5 * np.einsum("nd,nd->n", searched, searched, dtype=np.float64).astype(np.float32)
    values = np.empty((rows, columns), dtype=np.float32)
    for start in range(0, len(query), rows):
        stop = min(start + rows, len(query))
        asking = prepare(features, query[start:stop])
        np.negative(asking, out=asking)
        block = np.matmul(asking, searched.T, out=values[: stop - start])
        if offset is not None:
            block += offset
        yield start, stop, block[:, : len(gallery)]


class _Centred:
    """Features moved to the gallery's mean and scaled into −1..1; neither changes which distance is smaller.

    ‖q − g‖² computed as ‖q‖² + ‖g‖² − 2 q·g loses what the features have in common to rounding, and in float32 large
    features overflow.
    """

    def __init__(self, features: np.ndarray, gallery: np.ndarray) -> None:
        self.scale = 1.0
        parts = [gallery[start : start + _CHUNK] for start in range(0, len(gallery), _CHUNK)]
        largest = max(float(np.abs(features[part]).max(initial=0.0)) for part in parts) if parts else 0.0
        self.scale = 1.0 / largest if largest > 0 else 1.0
        total = np.zeros(features.shape[1])
        for part in parts:
            total += (features[part].astype(np.float64) * self.scale).sum(axis=0)
        self.centre = total / max(len(gallery), 1)

    def __call__(self, features: np.ndarray, rows: np.ndarray, *, padded: int | None = None) -> np.ndarray:
        out = np.zeros((max(len(rows), padded or 0), features.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = features[rows[start : start + _CHUNK]].astype(np.float64) * self.scale
            out[start : start + len(part)] = part - self.centre
        return out
