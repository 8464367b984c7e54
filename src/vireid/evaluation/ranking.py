"""The ranks of each query's true matches, without sorting the gallery.

CMC, average precision and mINP need only the ranks of the true matches. The rank of a match is one more than the
number of gallery pictures that are nearer. So it is counted, with G comparisons for each match, instead of sorting G
pictures. Equal distances are ordered by the gallery sample's number, as in a stable sort.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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
        identity: N integers, one for each sample that the trial points at.
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
        """The matches of queries start..stop. `values` is B×U float, their distances to the columns of the block."""
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
        values: Q×G finite float32 or float64, smaller is nearer; ordered as `trial.query` and `trial.gallery`.
        trial: one draw, with its exclusion keys.
        identity: N integers, one for each sample that the trial points at.

    Raises:
        ValueError: a value is not finite, or the shape is wrong.
    """
    if values.shape != (len(trial.query), len(trial.gallery)) or not np.isfinite(values).all():
        raise ValueError(f"values are finite and {len(trial.query)}×{len(trial.gallery)}; got {values.shape}")
    return Searched(trial, identity).rank(0, len(trial.query), np.ascontiguousarray(values))


OnBlock = Callable[[int, int, np.ndarray, np.ndarray], None]
"""Called with (first query, query after the last, B×U distances, U samples of the columns) for each block."""


def rank_trials(
    features: np.ndarray,
    identity: np.ndarray,
    trials: Sequence[Trial],
    *,
    distance: str = "cosine",
    block_bytes: int = distances.BLOCK_BYTES,
    on_block: OnBlock | None = None,
) -> list[Matches]:
    """The ranks of the true matches in every trial, from features.

    Trials with the same queries share one matrix product. Their galleries overlap, so each gallery picture is compared
    once for all of them.

    Args:
        features: N×D real numbers, finite.
        identity: N integers.
        trials: draws from these N samples.
        distance: one of `vireid.evaluation.distance.DISTANCES`.
        block_bytes: about how much memory one block of distances may take.
        on_block: sees the distances of the first trial's queries, block by block.
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
                if on_block is not None and together[0] == 0:
                    on_block(start, stop, values, union)
    return [Matches.join(matches) for matches in parts]


Rerank = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(Q×D query features, G×D gallery features) → Q×G float distances, smaller is nearer."""


@dataclass(frozen=True)
class Ranking:
    """One trial, ranked once. The report, the break-down and the ranked lists are all made from it.

    Attributes:
        trial: the draw.
        matches: of all queries in the whole gallery.
        by_camera: gallery camera → matches of all queries among that camera's gallery pictures alone; empty unless
            cameras were given.
        lists: position in `trial.query` → the nearest gallery samples, int64, nearest first; empty unless asked for.
    """

    trial: Trial
    matches: Matches
    by_camera: Mapping[int, Matches] = field(default_factory=dict)
    lists: Mapping[int, np.ndarray] = field(default_factory=dict)


def rank_once(
    features: np.ndarray,
    identity: np.ndarray,
    trials: Sequence[Trial],
    *,
    distance: str = "cosine",
    reranker: Rerank | None = None,
    camera: np.ndarray | None = None,
    listed: int = 0,
) -> list[Ranking]:
    """Rank every trial in one pass over its distances.

    Args:
        features: N×D real numbers, finite.
        identity: N integers.
        trials: draws from these N samples.
        distance: one of `vireid.evaluation.distance.DISTANCES`; not used with a reranker.
        reranker: makes the distances of one trial from its query and gallery features.
        camera: N integers; also rank within each gallery camera.
        listed: make ranked lists of this many queries of the first trial. The queries are spread evenly over the query
            list, so they are not chosen by their result.
    """
    cameras = [_gallery_cameras(trial, camera) for trial in trials]
    expanded = [
        [trial, *(_within(trial, places) for places in own.values())]
        for trial, own in zip(trials, cameras, strict=True)
    ]
    lists: dict[int, np.ndarray] = {}
    collect = _collector(trials[0], listed, lists) if listed and trials else None
    if reranker is None:
        flat = iter(
            rank_trials(
                features, identity, [one for group in expanded for one in group], distance=distance, on_block=collect
            )
        )
        found = [[next(flat) for _ in group] for group in expanded]
    else:
        found = []
        for number, (trial, own) in enumerate(zip(trials, cameras, strict=True)):
            values = reranker(features[trial.query], features[trial.gallery])
            parts = [np.ascontiguousarray(values[:, places]) for places in own.values()]
            found.append(
                [rank_matches(v, t, identity) for v, t in zip([values, *parts], expanded[number], strict=True)]
            )
            if collect is not None and number == 0:
                collect(0, len(trial.query), values, trial.gallery)
    return [
        Ranking(trial, whole, dict(zip(own, parts, strict=True)), lists if number == 0 else {})
        for number, (trial, own, (whole, *parts)) in enumerate(zip(trials, cameras, found, strict=True))
    ]


def _gallery_cameras(trial: Trial, camera: np.ndarray | None) -> dict[int, np.ndarray]:
    """Gallery camera → positions of its pictures in the gallery, cameras ascending."""
    if camera is None:
        return {}
    searched = camera[trial.gallery]
    return {int(number): np.flatnonzero(searched == number) for number in np.unique(searched)}


def _within(trial: Trial, places: np.ndarray) -> Trial:
    """The trial with these positions of its gallery only."""
    return Trial(trial.query, trial.gallery[places], trial.query_key, trial.gallery_key[places])


LIST_LENGTH = 10


def _collector(trial: Trial, listed: int, lists: dict[int, np.ndarray]) -> OnBlock:
    """A function that fills `lists` for evenly spread queries, from the blocks of distances."""
    wanted = np.unique(np.linspace(0, len(trial.query) - 1, listed).astype(int))

    def collect(start: int, stop: int, values: np.ndarray, samples: np.ndarray) -> None:
        columns = np.searchsorted(samples, trial.gallery)
        for position in wanted[(wanted >= start) & (wanted < stop)]:
            nearest = _nearest(values[position - start, columns], trial, int(position), LIST_LENGTH)
            lists[int(position)] = trial.gallery[nearest]

    return collect


def _nearest(values: np.ndarray, trial: Trial, position: int, k: int) -> np.ndarray:
    """Positions of the k nearest gallery pictures that a query may see, nearest first; `values` are its G distances."""
    key = trial.query_key[position]
    seen = np.flatnonzero((trial.gallery_key != key) | (key == -1))
    value = values[seen]
    if k < len(seen):  # all that may belong to the first k, ties of the last one included
        near = value <= np.partition(value, k - 1)[k - 1]
        seen, value = seen[near], value[near]
    return seen[np.argsort(value, kind="stable")][:k]


def top_matches(
    features: np.ndarray,
    trial: Trial,
    query_positions: Sequence[int] | np.ndarray,
    k: int = 10,
    *,
    distance: str = "cosine",
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest gallery samples of some queries, with their distances.

    Args:
        features: N×D real numbers, finite.
        trial: one draw.
        query_positions: P positions in `trial.query`.
        k: how many.
        distance: `cosine` or `euclidean`.

    Returns:
        P×k int64 samples (positions in `features`), nearest first, −1 where the gallery has no more; and P×k float32
        distances, NaN there.
    """
    positions = np.asarray(query_positions, dtype=np.int64)
    samples = np.full((len(positions), k), -1, dtype=np.int64)
    far = np.full((len(positions), k), np.nan, dtype=np.float32)
    query = trial.query[positions]
    for start, stop, values in distances.blocks(features, query, trial.gallery, distance=distance):
        for q in range(start, stop):
            seen = trial.gallery[_nearest(values[q - start], trial, int(positions[q]), k)]
            samples[q, : len(seen)] = seen
            far[q, : len(seen)] = distances.pairwise(features[query[q : q + 1]], features[seen], distance=distance)[0]
    return samples, far


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
