"""The result of one protocol by pair of cameras, by identity, and by query.

A mean over thousands of queries can hide that one camera finds nothing. The pieces come from the same ranking as the
report: the same distances, the same exclusion rule, the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid.data.stored import as_json
from vireid.evaluation import metrics
from vireid.evaluation.ranking import Ranking
from vireid.evaluation.scoring import Evaluation

WORST = 20


@dataclass(frozen=True)
class PairScore:
    """Queries of one camera against the gallery pictures of another one alone.

    Attributes:
        query_camera, gallery_camera: the data set's own numbers.
        rank1, map: percent, mean over trials; None where no query has a true match (or may see none).
        queries: how many queries count in the first trial in which any count.
    """

    query_camera: int
    gallery_camera: int
    rank1: float | None
    map: float | None
    queries: int


@dataclass(frozen=True)
class IdentityScore:
    """One identity's queries against the whole gallery.

    Attributes:
        identity: the data set's own number.
        rank1, map: percent, mean over its queries and the trials in which they count.
        queries: how many of its queries count.
    """

    identity: int
    rank1: float
    map: float
    queries: int


@dataclass(frozen=True)
class Query:
    """One query against the whole gallery.

    Attributes:
        path: the picture's path.
        identity, camera: the data set's own numbers.
        precision: average precision in percent, mean over the trials in which it counts.
        rank: rank of the nearest true match as the protocol's CMC counts it, mean over those trials.
    """

    path: str
    identity: int
    camera: int
    precision: float
    rank: float


@dataclass(frozen=True)
class Breakdown:
    """One protocol's result in pieces.

    Attributes:
        protocol: the protocol's name.
        pairs: by query camera, then gallery camera.
        identities: ascending.
        worst: the queries of the lowest average precision, lowest first.
    """

    protocol: str
    pairs: tuple[PairScore, ...]
    identities: tuple[IdentityScore, ...]
    worst: tuple[Query, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return as_json(self)


def break_down(
    evaluation: Evaluation,
    identity: np.ndarray,
    camera: np.ndarray,
    path: Sequence[str] | np.ndarray,
    *,
    worst: int = WORST,
) -> Breakdown:
    """Cut one protocol's result into pieces. Nothing is ranked again.

    Args:
        evaluation: from `evaluate`, which was given the cameras too.
        identity: N integers.
        camera: N integers.
        path: N names.
        worst: how many queries to list.
    """
    pieces: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    samples = len(identity)
    counted = np.zeros(samples, np.int64)
    hits, precision, rank = np.zeros(samples), np.zeros(samples), np.zeros(samples)
    for scores, ranking in zip(evaluation.scores, evaluation.rankings, strict=True):
        valid = scores.first > 0
        query = scores.trial.query[valid]
        counted[query] += 1
        hits[query] += scores.first[valid] == 1
        precision[query] += scores.precision[valid]
        rank[query] += scores.first[valid]
        for cameras, means in _camera_pairs(ranking, camera):
            pieces.setdefault(cameras, []).append(means)
    seen = np.flatnonzero(counted)
    hits[seen], precision[seen], rank[seen] = (sums[seen] / counted[seen] for sums in (hits, precision, rank))
    lowest = seen[np.argsort(precision[seen], kind="stable")][:worst]
    people = [(number, seen[identity[seen] == number]) for number in np.unique(identity[seen])]
    return Breakdown(
        evaluation.report.protocol,
        tuple(_pair(cameras, values) for cameras, values in sorted(pieces.items())),
        tuple(_identity(number, query, hits, precision) for number, query in people),
        tuple(
            Query(str(path[q]), int(identity[q]), int(camera[q]), 100.0 * float(precision[q]), float(rank[q]))
            for q in lowest
        ),
    )


def lines(breakdown: Breakdown, *, worst: int = 5) -> str:
    """The pairs of cameras and the first few of the worst queries, for a terminal."""
    out = [f"{breakdown.protocol} by cameras: rank-1 | mAP in percent, then queries"]
    for pair in breakdown.pairs:
        numbers = "no query counts" if pair.rank1 is None else f"{pair.rank1:6.2f} | {pair.map:6.2f}   {pair.queries}"
        out.append(f"  camera {pair.query_camera} → camera {pair.gallery_camera}: {numbers}")
    weakest = sorted(breakdown.identities, key=lambda one: one.map)[:worst]
    out.append("  identities of the lowest mAP: " + ", ".join(f"{one.identity} ({one.map:.1f})" for one in weakest))
    out.append("  worst queries, by average precision:")
    out += [f"    {query.precision:6.2f}  rank {query.rank:.1f}  {query.path}" for query in breakdown.worst[:worst]]
    return "\n".join(out)


def _camera_pairs(ranking: Ranking, camera: np.ndarray) -> list[tuple[tuple[int, int], tuple[float, float, int]]]:
    """(query camera, gallery camera) → Rank-1 and mAP in percent, and how many queries count; for every pair."""
    found = []
    query_camera = camera[ranking.trial.query]
    for gallery_camera, matches in ranking.by_camera.items():
        precision = metrics.average_precision(matches)
        # At rank 1 both ways of counting agree.
        first = metrics.first_rank(matches, cmc="image")
        for number in np.unique(query_camera):
            valid = (query_camera == number) & (first > 0)
            means = (float("nan"), float("nan"), 0)
            if valid.any():
                means = (
                    100.0 * float((first[valid] == 1).mean()),
                    100.0 * float(precision[valid].mean()),
                    int(valid.sum()),
                )
            found.append(((int(number), gallery_camera), means))
    return found


def _pair(cameras: tuple[int, int], values: Sequence[tuple[float, float, int]]) -> PairScore:
    counting = [value for value in values if value[2]]
    if not counting:
        return PairScore(*cameras, None, None, 0)
    rank1, precision = (float(np.mean([value[k] for value in counting])) for k in (0, 1))
    return PairScore(*cameras, rank1, precision, counting[0][2])


def _identity(number: int, query: np.ndarray, hits: np.ndarray, precision: np.ndarray) -> IdentityScore:
    return IdentityScore(
        int(number), 100.0 * float(hits[query].mean()), 100.0 * float(precision[query].mean()), len(query)
    )
