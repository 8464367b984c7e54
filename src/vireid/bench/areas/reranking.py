"""k-reciprocal re-ranking, against the dense textbook form.

The textbook form keeps the distances and the weights of all pairs of pictures in square matrices, sorts the distances
of each picture and loops over them in Python, as public scripts do. It is written from the paper. The features are
random, with twenty pictures of each identity. Their difficulty is about that of a trained model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vireid.bench.growth import grown
from vireid.bench.measure import Line, close
from vireid.bench.run import Bench
from vireid.evaluation.reranking import k_reciprocal

WIDTH = 2048
TEXTBOOK, OURS = "matrices of all pairs", "vireid"


def measure(bench: Bench) -> Iterator[Line]:
    """As many queries as gallery pictures."""
    count = bench.size(2000, 60)
    query, gallery = features(count, 1), features(count, 2)
    timed = bench.timed(
        {TEXTBOOK: lambda: textbook(query, gallery), OURS: lambda: k_reciprocal(query, gallery)},
        rounds=3,
        agree=close(1e-4),
    )
    yield timed.line(f"k-reciprocal, {count:,} × {count:,}", baseline=TEXTBOOK, ours=OURS, goal=10.0)


def growth(bench: Bench) -> Iterator[Line]:
    """The time against queries and gallery pictures together."""
    counts = bench.size((500, 1000, 2000, 4000), (30, 60))
    pairs = {count: (features(count, 1), features(count, 2)) for count in counts}
    works = {2 * count: lambda pair=pair: k_reciprocal(*pair) for count, pair in pairs.items()}
    yield grown(bench, "k-reciprocal", works, unit="pictures")


def features(count: int, seed: int) -> np.ndarray:
    """Random features, count×2048 float32."""
    centre = np.random.default_rng(0).standard_normal((count // 10 + 1, WIDTH), dtype=np.float32)
    out = np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)
    out *= 2.5
    for sample in range(count):  # in place: benchmarks/reranking_memory.py counts memory
        out[sample] += centre[sample % len(centre)]
    return out


def textbook(query: np.ndarray, gallery: np.ndarray, *, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """k-reciprocal re-ranking with matrices of all pairs."""
    both = np.concatenate([query, gallery]).astype(np.float32)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    plain = np.maximum(2 - 2 * both @ both.T, 0)
    np.fill_diagonal(plain, 0)
    plain /= plain.max(axis=1, keepdims=True)
    order = np.argsort(plain, axis=1)

    def mutual(p: int, k: int) -> np.ndarray:
        ahead = order[p, : k + 1]
        return ahead[(order[ahead, : k + 1] == p).any(axis=1)]

    vector = np.zeros_like(plain)
    for p in range(len(both)):
        core = mutual(p, k1)
        members = core
        for q in core:
            candidate = mutual(int(q), round(k1 / 2))
            if 3 * len(np.intersect1d(candidate, core)) > 2 * len(candidate):
                members = np.append(members, candidate)
        members = np.unique(members)
        share = np.exp(-plain[p, members])
        vector[p, members] = share / share.sum()
    vector = np.stack([vector[order[p, :k2]].mean(axis=0) for p in range(len(both))])
    return _mixed(vector, plain, len(query), weight)


def _mixed(vector: np.ndarray, plain: np.ndarray, queries: int, weight: float) -> np.ndarray:
    """The Jaccard distances of the neighbours, mixed with the plain ones."""
    listed = [np.flatnonzero(vector[:, j]) for j in range(len(plain))]
    jaccard = np.zeros((queries, len(plain)), dtype=np.float32)
    for q in range(queries):
        smaller = np.zeros(len(plain), dtype=np.float32)
        for j in np.flatnonzero(vector[q]):
            smaller[listed[j]] += np.minimum(vector[q, j], vector[listed[j], j])
        jaccard[q] = 1 - smaller / (2 - smaller)
    return ((1 - weight) * jaccard + weight * plain[:queries])[:, queries:]
