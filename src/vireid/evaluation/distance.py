"""Distances between features, computed as float32 matrix products in blocks of limited memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vireid.data.errors import unknown

DISTANCES = ("cosine", "euclidean")

# The number of columns of a matrix product is rounded up to a multiple of 16 with columns of zeros. For the columns
# beyond such a multiple, some BLAS libraries use slower kernels (1.3 to 1.6 times slower in MKL on AMD). Those kernels
# may also round differently, so that two equal pictures would get different distances.
_COLUMNS = 16
_CHUNK = 4096  # features that are prepared at a time, so that the float64 copies are small
_SMALL, _LARGE = 1e-20, 1e30  # range of squared lengths that float32 computes without loss of digits
BLOCK_BYTES = 128 * 2**20


def normalise(features: np.ndarray, places: np.ndarray | None = None, *, padded: int | None = None) -> np.ndarray:
    """Features of length one.

    Args:
        features: N×D real numbers, finite.
        places: M indices into `features`: which features to return, in this order. None for all.
        padded: least number of features to return. If it is greater than M, features of zeros follow.

    Returns:
        max(M, padded)×D float32. A feature of zeros has no direction and remains zero. Its cosine distance to every
        feature is 1.
    """
    places = np.arange(len(features)) if places is None else np.asarray(places)
    out = np.zeros((max(len(places), padded or 0), features.shape[1]), dtype=np.float32)
    for start in range(0, len(places), _CHUNK):
        chosen = places[start : start + _CHUNK]
        into = out[start : start + len(chosen)]
        if features.dtype == np.float32:
            np.take(features, chosen, axis=0, out=into, mode="clip")  # the other modes make one more copy
            squared = np.einsum("nd,nd->n", into, into)
            if squared.min() > _SMALL and squared.max() < _LARGE:
                into *= (1.0 / np.sqrt(squared))[:, None]
                continue
        chunk = features[chosen].astype(np.float64)
        # Division by the largest value comes first, because the square of 1e300 is outside the range of float64.
        largest = np.abs(chunk).max(axis=1, initial=0.0, keepdims=True)
        np.divide(chunk, largest, out=chunk, where=largest > 0)
        length = np.linalg.norm(chunk, axis=1, keepdims=True)
        np.divide(chunk, length, out=chunk, where=length > 0)
        into[:] = chunk
    return out


def pairwise(query: np.ndarray, gallery: np.ndarray, *, distance: str = "cosine") -> np.ndarray:
    """Distances of all queries to all gallery features.

    Args:
        query: Q×D real numbers.
        gallery: G×D real numbers.
        distance: `cosine` is 1 − cos(q, g), in 0..2. `euclidean` is ‖q − g‖ of the features without normalisation.

    Returns:
        Q×G float32.

    Raises:
        BadInput: `distance` is unknown.
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
    """Compare the queries with the whole gallery, one block of queries at a time.

    The values rank the gallery in the same order as the distance. They are −cos(q, g) for `cosine` and ½‖g‖² − q·g for
    `euclidean`. The terms that are equal for all gallery features of a query are left out. With 1 − cos(q, g), rounding
    would make small differences into ties.

    Args:
        features: N×D real numbers, finite.
        query: Q indices into `features`.
        gallery: G indices into `features`.
        distance: one of `DISTANCES`.
        block_bytes: approximate size of one block. The gallery's features in float32 need memory in addition to it.

    Yields:
        start, stop, and a (stop − start)×G float32 array for the queries start..stop−1. The next block overwrites it.

    Raises:
        BadInput: `distance` is unknown.
    """
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    columns = max(-(-len(gallery) // _COLUMNS), 1) * _COLUMNS
    step = int(max(min(block_bytes // (4 * columns), len(query)), 1))
    if distance == "cosine":
        prepare = normalise
        offset = None
    else:
        prepare = _Centred(features, gallery)
    searched = prepare(features, gallery, padded=columns)
    if distance == "euclidean":
        offset = 0.5 * np.einsum("nd,nd->n", searched, searched, dtype=np.float64).astype(np.float32)
    values = np.empty((step, columns), dtype=np.float32)
    for start in range(0, len(query), step):
        stop = min(start + step, len(query))
        asking = prepare(features, query[start:stop])
        np.negative(asking, out=asking)
        block = np.matmul(asking, searched.T, out=values[: stop - start])
        if offset is not None:
            block += offset
        yield start, stop, block[:, : len(gallery)]


class _Centred:
    """Features scaled so that the gallery's values are in −1..1, minus the mean of the gallery.

    Neither step changes which of two distances is smaller. Both are needed because ‖q − g‖² is computed as
    ‖q‖² + ‖g‖² − 2 q·g: if all features have a large common part, its rounding error hides their differences, and large
    features overflow in float32.
    """

    def __init__(self, features: np.ndarray, gallery: np.ndarray) -> None:
        chunks = [gallery[start : start + _CHUNK] for start in range(0, len(gallery), _CHUNK)]
        largest = max(float(np.abs(features[chunk]).max(initial=0.0)) for chunk in chunks) if chunks else 0.0
        self.scale = 1.0 / largest if largest > 0 else 1.0
        total = np.zeros(features.shape[1])
        for chunk in chunks:
            total += (features[chunk].astype(np.float64) * self.scale).sum(axis=0)
        self.centre = total / max(len(gallery), 1)

    def __call__(self, features: np.ndarray, places: np.ndarray, *, padded: int | None = None) -> np.ndarray:
        """M indices into N×D features to max(M, padded)×D float32, as `normalise` does."""
        out = np.zeros((max(len(places), padded or 0), features.shape[1]), dtype=np.float32)
        for start in range(0, len(places), _CHUNK):
            chunk = features[places[start : start + _CHUNK]].astype(np.float64) * self.scale
            out[start : start + len(chunk)] = chunk - self.centre
        return out
