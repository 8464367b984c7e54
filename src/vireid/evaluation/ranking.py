"""Where a query's true matches stand in its ranking, without making the ranking.

CMC, average precision and mINP ask only for the ranks of the true matches. The rank of a match is one more than the
number of gallery pictures that are nearer, so it can be counted: G comparisons for each match, in vector registers,
instead of sorting G pictures. Ties go to the lower gallery row, as in a stable sort.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vireid.data.protocol import Trial
from vireid.evaluation import distance as distances


@dataclass(frozen=True)
class Matches:
    """The ranks of the true matches of Q queries.

    Attributes:
        ranks: M int32, 1 = nearest; ascending inside a query, queries one after the other.
        start: Q+1 int64; the ranks of query q are ranks[start[q]:start[q + 1]], none if it has no match.
        ahead: Q int32, how many other identities have a picture nearer than the first match; −1 without a match.
    """

    ranks: np.ndarray
    start: np.ndarray
    ahead: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Matches]) -> Matches:
        """The queries of several parts, one after the other."""
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.start) for part in parts)])
        return cls(
            np.concatenate([np.empty(0, np.int32), *(part.ranks for part in parts)]),
            np.cumsum(counts),
            np.concatenate([np.empty(0, np.int32), *(part.ahead for part in parts)]),
        )


class Searched:
    """One trial's gallery, prepared once for all blocks of queries.

    Args:
        trial: the gallery and both sides' exclusion keys.
        identity: N integers, of the rows that the trial points at.
        columns: G integers, which column of the blocks each gallery picture has; None for 0..G−1.
    """

    def __init__(self, trial: Trial, identity: np.ndarray, *, columns: np.ndarray | None = None) -> None:
        size = len(trial.gallery)
        self.columns = np.arange(size, dtype=np.uint32) if columns is None else columns.astype(np.uint32)
        identities, code = np.unique(identity[trial.gallery], return_inverse=True)
        self.code = code.reshape(-1).astype(np.uint32)
        self.members = np.argsort(self.code, kind="stable").astype(np.uint32)
        self.first = np.searchsorted(self.code[self.members], np.arange(len(identities) + 1)).astype(np.int64)
        # Key −1 equals nothing: the two sides get different numbers for it.
        _, both = np.unique(np.concatenate([trial.query_key, trial.gallery_key]), return_inverse=True)
        both = both.reshape(-1).astype(np.int32)
        free = np.concatenate([trial.query_key, trial.gallery_key]) == -1
        self.query_key = np.where(free, -2, both)[: len(trial.query)].astype(np.int32)
        self.gallery_key = np.where(free, -1, both)[len(trial.query) :].astype(np.int32)
        asked = identity[trial.query]
        place = np.searchsorted(identities, asked)
        known = place < len(identities)
        known[known] = identities[place[known]] == asked[known]
        self.query_code = np.where(known, place, -1).astype(np.int64)

    def rank(self, start: int, stop: int, values: np.ndarray, *, threads: ThreadPoolExecutor | None = None) -> Matches:
        """The matches of queries start..stop, whose values to the blocks' columns are B×U float, smaller is nearer."""
        from vireid.evaluation.counting import rank_rows

        code = self.query_code[start:stop]
        room = np.where(code >= 0, np.diff(self.first)[code], 0) if len(self.first) > 1 else np.zeros_like(code)
        offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(room)])
        ranks = np.zeros(offset[-1], dtype=np.int32)
        ahead = np.full(stop - start, -1, dtype=np.int32)

        def part(low: int, high: int) -> None:
            rank_rows(
                values[low:high],
                self.columns,
                self.gallery_key,
                self.code,
                self.first,
                self.members,
                code[low:high],
                self.query_key[start + low : start + high],
                offset[low:high],
                ranks,
                ahead[low:high],
            )

        if threads is None:
            part(0, stop - start)
        else:
            # More parts than threads: queries differ in how many matches they have.
            edges = np.linspace(0, stop - start, 4 * _threads() + 1).astype(int)
            list(threads.map(part, edges[:-1], edges[1:]))
        filled = ranks > 0
        count = np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(filled)])[offset])
        return Matches(ranks[filled], np.concatenate([np.zeros(1, np.int64), np.cumsum(count)]), ahead)


def rank_matches(values: np.ndarray, trial: Trial, identity: np.ndarray) -> Matches:
    """The ranks of the true matches when all distances are at hand.

    Args:
        values: Q×G finite float32 or float64, smaller is nearer; rows as `trial.query`, columns as `trial.gallery`.
        trial: one draw, with its exclusion keys.
        identity: N integers, of the rows that the trial points at.

    Raises:
        ValueError: a value is not finite, or the shape is another.
    """
    if values.shape != (len(trial.query), len(trial.gallery)) or not np.isfinite(values).all():
        raise ValueError(f"values are finite and {len(trial.query)}×{len(trial.gallery)}; got {values.shape}")
    return Searched(trial, identity).rank(0, len(trial.query), np.ascontiguousarray(values))


def rank_trials(
    features: np.ndarray,
    identity: np.ndarray,
    trials: Sequence[Trial],
    *,
    distance: str = "cosine",
    block_bytes: int = distances.BLOCK_BYTES,
) -> list[Matches]:
    """The ranks of the true matches in every trial, from features.

    Trials that ask with the same queries share one matrix product: their galleries overlap, so each picture of the
    union is compared once.

    Args:
        features: N×D real numbers, finite.
        identity: N integers.
        trials: draws from these N rows.
        distance: one of `vireid.evaluation.distance.DISTANCES`.
        block_bytes: about how much memory one block of distances may take.
    """
    parts: list[list[Matches]] = [[] for _ in trials]
    with ThreadPoolExecutor(_threads()) as threads:
        for together in _same_queries(trials):
            union = np.unique(np.concatenate([trials[t].gallery for t in together]))
            searched = [
                Searched(trials[t], identity, columns=np.searchsorted(union, trials[t].gallery)) for t in together
            ]
            query = trials[together[0]].query
            for start, stop, values in distances.blocks(
                features, query, union, distance=distance, block_bytes=block_bytes
            ):
                for t, gallery in zip(together, searched, strict=True):
                    parts[t].append(gallery.rank(start, stop, values, threads=threads))
    return [Matches.join(matches) for matches in parts]


def top_matches(
    features: np.ndarray,
    trial: Trial,
    query_positions: Sequence[int] | np.ndarray,
    k: int = 10,
    *,
    distance: str = "cosine",
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest gallery rows of some queries, for pictures of rank lists.

    Args:
        features: N×D real numbers, finite.
        trial: one draw.
        query_positions: P positions in `trial.query`.
        k: how many.
        distance: `cosine` or `euclidean`.

    Returns:
        P×k int64 rows of `features`, nearest first, −1 where the gallery has no more; and P×k float32 distances,
        NaN there.
    """
    positions = np.asarray(query_positions, dtype=np.int64)
    rows = np.full((len(positions), k), -1, dtype=np.int64)
    far = np.full((len(positions), k), np.nan, dtype=np.float32)
    query = trial.query[positions]
    for start, stop, values in distances.blocks(features, query, trial.gallery, distance=distance):
        for q in range(start, stop):
            key = trial.query_key[positions[q]]
            seen = np.flatnonzero((trial.gallery_key != key) | (key == -1))
            value = values[q - start, seen]
            if k < len(seen):  # all that may belong to the first k, ties of the last one included
                near = value <= np.partition(value, k - 1)[k - 1]
                seen, value = seen[near], value[near]
            seen = seen[np.argsort(value, kind="stable")][:k]
            rows[q, : len(seen)] = trial.gallery[seen]
            pair = distances.pairwise(features[query[q : q + 1]], features[trial.gallery[seen]], distance=distance)
            far[q, : len(seen)] = pair[0]
    return rows, far


def _same_queries(trials: Sequence[Trial]) -> Iterable[list[int]]:
    groups: list[list[int]] = []
    for t, trial in enumerate(trials):
        for group in groups:
            if np.array_equal(trials[group[0]].query, trial.query):
                group.append(t)
                break
        else:
            groups.append([t])
    return groups


def _threads() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(limit) if limit.isdigit() and int(limit) else cores))
