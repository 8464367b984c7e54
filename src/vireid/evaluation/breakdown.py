"""Where the errors are: by pair of cameras, by identity, and query by query.

A mean over thousands of queries hides that one camera finds nothing. What is counted here is what the report counts,
cut into pieces: the same distances, the same exclusion rule, the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vireid.data.protocol import Trial
from vireid.evaluation import metrics
from vireid.evaluation.ranking import Matches, rank_matches, rank_trials
from vireid.evaluation.scoring import Rerank

WORST = 20


@dataclass(frozen=True)
class PairScore:
    """Queries of one camera against the gallery pictures of another one alone.

    Attributes:
        query_camera, gallery_camera: the data set's own numbers.
        rank1, map: percent, mean over trials; None where no query has a true match (or may see none).
        queries: how many queries count, in the first trial that has any.
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
        path: of its picture.
        identity, camera: the data set's own numbers.
        precision: average precision in percent, mean over the trials in which it counts.
        rank: of its nearest true match, as the protocol's CMC counts; mean over those trials.
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
        protocol: its name.
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
        return asdict(self)


def break_down(
    features: np.ndarray,
    identity: np.ndarray,
    camera: np.ndarray,
    path: Sequence[str] | np.ndarray,
    trials: Sequence[Trial],
    *,
    protocol: str,
    cmc: str,
    reranker: Rerank | None = None,
    worst: int = WORST,
) -> Breakdown:
    """Cut one protocol's result into pieces.

    Args:
        features: N×D finite real numbers.
        identity: N integers.
        camera: N integers.
        path: N names.
        trials: the protocol's draws from these N rows.
        protocol: its name, for the result.
        cmc: `identity` or `image`.
        reranker: see `vireid.evaluation.scoring.score`. Re-ranked distances are made once for the whole gallery; a
            pair of cameras is a part of that matrix.
        worst: how many queries to list.
    """
    pieces: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    rows = len(identity)
    counted, hits, precision, rank = np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows), np.zeros(rows)
    for trial in trials:
        pairs = _camera_pairs(trial, camera)
        whole, *parts = _ranked(features, identity, trial, [part for _, *part in pairs], reranker)
        first, found = metrics.first_rank(whole, cmc=cmc), metrics.average_precision(whole)
        valid = first > 0
        asked = trial.query[valid]
        counted[asked] += 1
        hits[asked] += first[valid] == 1
        precision[asked] += found[valid]
        rank[asked] += first[valid]
        for (cameras, *_), matches in zip(pairs, parts, strict=True):
            pieces.setdefault(cameras, []).append(_means(matches))
    seen = np.flatnonzero(counted)
    hits[seen], precision[seen], rank[seen] = (sums[seen] / counted[seen] for sums in (hits, precision, rank))
    lowest = seen[np.argsort(precision[seen], kind="stable")][:worst]
    people = [(number, seen[identity[seen] == number]) for number in np.unique(identity[seen])]
    return Breakdown(
        protocol,
        tuple(_pair(cameras, values) for cameras, values in sorted(pieces.items())),
        tuple(_identity(number, asking, hits, precision) for number, asking in people),
        tuple(
            Query(str(path[row]), int(identity[row]), int(camera[row]), 100.0 * float(precision[row]), float(rank[row]))
            for row in lowest
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


def _camera_pairs(trial: Trial, camera: np.ndarray) -> list[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
    """((query camera, gallery camera), positions in the queries, positions in the gallery) of every pair there is."""
    asked, searched = camera[trial.query], camera[trial.gallery]
    return [
        ((int(a), int(b)), np.flatnonzero(asked == a), np.flatnonzero(searched == b))
        for a in np.unique(asked)
        for b in np.unique(searched)
    ]


def _ranked(
    features: np.ndarray,
    identity: np.ndarray,
    trial: Trial,
    parts: Sequence[Sequence[np.ndarray]],
    reranker: Rerank | None,
) -> list[Matches]:
    """The matches of the whole trial, then those of each part of it."""
    smaller = [Trial(trial.query[q], trial.gallery[g], trial.query_key[q], trial.gallery_key[g]) for q, g in parts]
    if reranker is None:
        return rank_trials(features, identity, [trial, *smaller])
    values = reranker(features[trial.query], features[trial.gallery])
    found = [rank_matches(values, trial, identity)]
    for part, (q, g) in zip(smaller, parts, strict=True):
        found.append(rank_matches(values[np.ix_(q, g)], part, identity))
    return found


def _means(matches: Matches) -> tuple[float, float, int]:
    """Rank-1 and mAP in percent, and how many queries count."""
    precision = metrics.average_precision(matches)
    valid = ~np.isnan(precision)
    if not valid.any():
        return float("nan"), float("nan"), 0
    # At rank 1 both ways of counting agree.
    first = metrics.first_rank(matches, cmc="image")[valid]
    return 100.0 * float((first == 1).mean()), 100.0 * float(precision[valid].mean()), int(valid.sum())


def _pair(cameras: tuple[int, int], values: Sequence[tuple[float, float, int]]) -> PairScore:
    counting = [value for value in values if value[2]]
    if not counting:
        return PairScore(*cameras, None, None, 0)
    rank1, precision = (float(np.mean([value[k] for value in counting])) for k in (0, 1))
    return PairScore(*cameras, rank1, precision, counting[0][2])


def _identity(number: int, rows: np.ndarray, hits: np.ndarray, precision: np.ndarray) -> IdentityScore:
    return IdentityScore(
        int(number), 100.0 * float(hits[rows].mean()), 100.0 * float(precision[rows].mean()), len(rows)
    )
