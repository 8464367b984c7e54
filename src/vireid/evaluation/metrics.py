"""From ranks to CMC, average precision and inverse negative penalty. Nothing here knows a camera or a data set."""

from __future__ import annotations

import numpy as np

from vireid.evaluation.ranking import Matches


def first_rank(matches: Matches, *, cmc: str) -> np.ndarray:
    """The rank at which each query is answered.

    Args:
        matches: of Q queries.
        cmc: `image` counts pictures: the smallest rank of a true match. `identity` counts each identity once, at its
            nearest picture: one more than the other identities ahead of the first match.

    Returns:
        Q int64, 1 = nearest; 0 for a query without a true match.
    """
    if cmc == "identity":
        return matches.ahead.astype(np.int64) + 1
    valid = np.diff(matches.start) > 0
    rank = np.zeros(len(valid), dtype=np.int64)
    rank[valid] = matches.ranks[matches.start[:-1][valid]]
    return rank


def cumulative_matches(first: np.ndarray, k: int) -> np.ndarray:
    """The CMC curve: the share of valid queries that are answered within 1, 2, … k.

    Args:
        first: Q int64 from `first_rank`; zeros are skipped.
        k: how many ranks.

    Returns:
        k float64 in 0..1; NaN if no query is valid.

    >>> cumulative_matches(np.array([1, 3, 0, 3]), 4).round(3).tolist()
    [0.333, 0.333, 1.0, 1.0]
    """
    valid = first[first > 0]
    if not len(valid):
        return np.full(k, np.nan)
    return np.cumsum(np.bincount(np.minimum(valid, k + 1), minlength=k + 2)[1 : k + 1]) / len(valid)


def average_precision(matches: Matches) -> np.ndarray:
    """The mean, over a query's true matches, of i / (rank of the i-th); no interpolation between them.

    Returns:
        Q float64 in 0..1; NaN for a query without a true match.
    """
    count = np.diff(matches.start)
    index = np.arange(1, len(matches.ranks) + 1) - np.repeat(matches.start[:-1], count)
    total = np.bincount(
        np.repeat(np.arange(len(count)), count), weights=index / matches.ranks, minlength=len(count)
    ).astype(np.float64)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def inverse_penalty(matches: Matches) -> np.ndarray:
    """The number of true matches over the rank of the last: what is left to look through for the hardest one.

    Its mean over queries is mINP (Ye et al., Deep learning for person re-identification, TPAMI 2022, equation 9).

    Returns:
        Q float64 in 0..1; NaN for a query without a true match.
    """
    count = np.diff(matches.start)
    valid = count > 0
    out = np.full(len(count), np.nan)
    out[valid] = count[valid] / matches.ranks[matches.start[1:][valid] - 1]
    return out
