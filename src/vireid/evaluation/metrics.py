"""CMC, average precision and inverse negative penalty from ranks. They do not depend on cameras or on data sets."""

from __future__ import annotations

import numpy as np

from vireid.evaluation.ranking import Matches


def first_rank(matches: Matches, *, cmc: str) -> np.ndarray:
    """The rank of the first true match of each query.

    Args:
        matches: true matches of Q queries.
        cmc: `image` ranks pictures. `identity` ranks identities: each identity counts once, at its nearest picture, so
            the rank is one more than the number of other identities ahead of the first match.

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
    """The CMC curve: share of valid queries with a true match at rank 1, at rank 2 or less, …, at rank k or less.

    Args:
        first: Q int64 from `first_rank`. Zeros (queries without a true match) are not valid and are not counted.
        k: number of ranks.

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
    """Average precision of each query: the mean of i / (rank of the i-th true match) over its true matches.

    There is no interpolation.

    Args:
        matches: true matches of Q queries.

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
    """Inverse negative penalty of each query: the number of true matches, divided by the rank of the last of them.

    It is low if the hardest true match has a high rank. Its mean over queries is mINP (Ye et al., "Deep Learning for
    Person Re-identification: A Survey and Outlook", TPAMI 2022, equation 9).

    Args:
        matches: true matches of Q queries.

    Returns:
        Q float64 in 0..1; NaN for a query without a true match.
    """
    count = np.diff(matches.start)
    valid = count > 0
    out = np.full(len(count), np.nan)
    out[valid] = count[valid] / matches.ranks[matches.start[1:][valid] - 1]
    return out
