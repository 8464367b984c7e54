"""Which queries to look at: the best, the worst, random ones, and the mistakes that a network is most sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vireid.data.protocol import Trial
from vireid.evaluation import distance as distances
from vireid.evaluation.ranking import Matches

Which = Literal["best", "worst", "random"]
By = Literal["similarity", "margin"]


def choose(precision: np.ndarray, people: np.ndarray, which: Which, count: int, *, seed: int = 0) -> np.ndarray:
    """Queries to show, each of another person.

    Args:
        precision: Q float, average precision; NaN for a query without a true match, which is not chosen.
        people: Q integers, the identity of each query.
        which: `best` or `worst` by average precision, or `random`.
        count: how many.
        seed: of the random choice, and of the order of equally good queries.

    Returns:
        At most `count` int64 positions of queries, in the order of the choice; fewer if there are fewer people.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~np.isnan(precision)))
    if which != "random":
        order = order[np.argsort(precision[order] * (-1 if which == "best" else 1), kind="stable")]
    return _one_of_each(order, people)[:count]


def _one_of_each(order: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The first of each person, in this order."""
    _, first = np.unique(people[order], return_index=True)
    return order[np.sort(first)]


@dataclass(frozen=True)
class Mistake:
    """A query whose nearest gallery picture shows another person.

    Attributes:
        query, wrong, right: samples: the query, the nearest picture, and the nearest true match.
        rank: of `right`, counted in pictures; 2 or more.
        similarity, true_similarity: cosine of the query with `wrong` and with `right`.
    """

    query: int
    wrong: int
    right: int
    rank: int
    similarity: float
    true_similarity: float


def mistakes(
    features: np.ndarray,
    identity: np.ndarray,
    trial: Trial,
    matches: Matches,
    count: int,
    *,
    by: By = "similarity",
) -> list[Mistake]:
    """The mistakes at rank 1 that a network is most sure of, each of another person.

    Args:
        features: N×D real numbers, finite; compared by their cosine.
        identity: N integers.
        trial: one draw from these N samples.
        matches: the true matches of the trial's queries, ranked by the cosine.
        count: how many.
        by: `similarity`: the wrong picture is most similar to the query. `margin`: it is more similar than the nearest
            true match by the most.

    Returns:
        At most `count` mistakes, the surest first. Queries without a true match have no mistakes.
    """
    nearest, right = np.empty((2, len(trial.query)), dtype=np.int64)
    similar, true = np.empty((2, len(trial.query)), dtype=np.float32)
    for start, stop, values in distances.blocks(features, trial.query, trial.gallery, block_bytes=16 * 2**20):
        part, rows = slice(start, stop), np.arange(stop - start)
        key = trial.query_key[part, None]
        seen = np.where((trial.gallery_key != key) | (key == -1), values, np.inf)
        same = identity[trial.gallery] == identity[trial.query[part], None]
        own = np.where(same, seen, np.inf)
        nearest[part], right[part] = seen.argmin(axis=1), own.argmin(axis=1)  # of equal ones the first, as in `Trial`
        similar[part], true[part] = -seen[rows, nearest[part]], -own[rows, right[part]]
    people = identity[trial.query]
    found = np.diff(matches.start) > 0
    wrong = np.flatnonzero(found & (identity[trial.gallery[nearest]] != people))
    sure = similar[wrong] if by == "similarity" else similar[wrong] - true[wrong]
    order = wrong[np.argsort(-sure, kind="stable")]
    return [
        Mistake(
            int(trial.query[q]),
            int(trial.gallery[nearest[q]]),
            int(trial.gallery[right[q]]),
            int(matches.ranks[matches.start[q]]),
            float(similar[q]),
            float(true[q]),
        )
        for q in _one_of_each(order, people)[:count]
    ]
