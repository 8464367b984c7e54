"""Distances between tracklets: several pictures of one person at one camera, compared as one.

average    the distance of the mean features; with cosine, features of length one are averaged
min        min over pairs (a picture of the query, a picture of the gallery tracklet) of their distance
mean       the mean over these pairs
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.protocol import Trial
from vireid.evaluation.distance import normalise, pairwise
from vireid.evaluation.ranking import Rerank

Sets = Sequence[np.ndarray]

_PAIRS = 8 * 2**20  # distances of pictures that are held at a time


def set_distances(
    features: np.ndarray, trial: Trial, rule: str, *, distance: str = "cosine", reranker: Rerank | None = None
) -> np.ndarray:
    """The distances of a trial's query tracklets to its gallery tracklets.

    Args:
        features: N×D finite real numbers, of pictures.
        trial: a draw that has `query_sets` and `gallery_sets`.
        rule: `average`, `min` or `mean`.
        distance: `cosine` or `euclidean`.
        reranker: makes the distances from the mean features instead; `average` only.

    Returns:
        Q×G float32. They rank the gallery; for `cosine`, 1 is subtracted, because rounding makes fewer ties then.

    Raises:
        BadInput: a reranker and another rule than `average`.
    """
    if trial.query_sets is None or trial.gallery_sets is None:
        raise ValueError("this trial ranks pictures, not tracklets")
    if rule != "average":
        if reranker is not None:
            raise BadInput(f"re-ranking compares single features, and tracklets: {rule} has none; use average")
        return _over_pairs(features, trial.query_sets, trial.gallery_sets, rule, distance)
    query, gallery = (_means(features, sets, distance) for sets in (trial.query_sets, trial.gallery_sets))
    if reranker is not None:
        return reranker(query, gallery)
    return _compared(query, gallery, distance)


def _compared(query: np.ndarray, gallery: np.ndarray, distance: str) -> np.ndarray:
    """Q×G float32: −cos for `cosine`, the distance for `euclidean`."""
    if distance != "cosine":
        return pairwise(query, gallery, distance=distance)
    return -(normalise(query) @ normalise(gallery).T)


def _means(features: np.ndarray, sets: Sets, distance: str) -> np.ndarray:
    """The mean feature of each set, as float64; of features of length one for `cosine`."""
    order = np.concatenate(sets)
    chosen = (normalise(features, order) if distance == "cosine" else features[order]).astype(np.float64)
    sizes = np.array([len(own) for own in sets])
    return np.add.reduceat(chosen, _begins(sets)) / sizes[:, None]


def _over_pairs(features: np.ndarray, query: Sets, gallery: Sets, rule: str, distance: str) -> np.ndarray:
    """The smallest or the mean distance over the pairs of pictures of two sets, in blocks of query sets."""
    searched = features[np.concatenate(gallery)]
    begins = _begins(gallery)
    fold = np.minimum if rule == "min" else np.add
    found = np.empty((len(query), len(gallery)), dtype=np.float32)
    for first, last in _blocks(query, len(searched)):
        part = query[first:last]
        pairs = _compared(features[np.concatenate(part)], searched, distance).astype(np.float64)
        found[first:last] = fold.reduceat(fold.reduceat(pairs, begins, axis=1), _begins(part), axis=0)
    if rule == "mean":
        found /= np.outer([len(own) for own in query], [len(own) for own in gallery]).astype(np.float32)
    return found


def _begins(sets: Sets) -> np.ndarray:
    """Where each set begins if all of them are concatenated."""
    return np.cumsum([0, *(len(own) for own in sets[:-1])])


def _blocks(query: Sets, searched: int) -> list[tuple[int, int]]:
    """(first, last) of blocks of query sets that have at most `_PAIRS` pairs together, or one set."""
    found, first, held = [], 0, 0
    for number, own in enumerate(query):
        if number > first and (held + len(own)) * searched > _PAIRS:
            found.append((first, number))
            first, held = number, 0
        held += len(own)
    return [*found, (first, len(query))]
