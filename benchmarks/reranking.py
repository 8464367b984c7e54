"""k-reciprocal re-ranking compared with the dense textbook form in the same run.

The textbook form keeps the distances and the weights of all pairs of pictures in square matrices, sorts the distances
of each picture and loops over them in Python, as public scripts do. This version is written from the paper. The
features are random, with twenty pictures per identity. Their difficulty is about that of a trained model.

    python benchmarks/reranking.py            # 2,000 queries × 2,000 gallery pictures
    python benchmarks/reranking.py --full     # also 10,000 × 10,000 without the textbook form, with its peak memory
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from vireid.evaluation.reranking import k_reciprocal, query_expansion

WIDTH = 2048


def features(count: int, seed: int) -> np.ndarray:
    """Random features, count×2048 float32."""
    generator = np.random.default_rng(seed)
    centre = np.random.default_rng(0).standard_normal((count // 10 + 1, WIDTH), dtype=np.float32)
    out = generator.standard_normal((count, WIDTH), dtype=np.float32)
    out *= 2.5
    for sample in range(count):  # one at a time, so that the peak memory is not that of the benchmark's own arrays
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
    listed = [np.flatnonzero(vector[:, j]) for j in range(len(both))]
    jaccard = np.zeros((len(query), len(both)), dtype=np.float32)
    for q in range(len(query)):
        smaller = np.zeros(len(both), dtype=np.float32)
        for j in np.flatnonzero(vector[q]):
            smaller[listed[j]] += np.minimum(vector[q, j], vector[listed[j], j])
        jaccard[q] = 1 - smaller / (2 - smaller)
    return ((1 - weight) * jaccard + weight * plain[: len(query)])[:, len(query) :]


def timed(function, *arguments):
    """Wall seconds and the result of one call."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def peak() -> float:
    """Peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000, help="number of queries and of gallery pictures (2000)")
    parser.add_argument("--full", action="store_true", help="also 10,000 × 10,000")
    options = parser.parse_args()
    k_reciprocal(features(64, 1), features(64, 2))  # compile
    query_expansion(features(64, 1), features(64, 2))

    if options.full:  # before the baseline, because its peak memory is greater
        query, gallery = features(10_000, 1), features(10_000, 2)
        before = peak()
        ours, _ = timed(k_reciprocal, query, gallery)
        print(f"k-reciprocal, 10,000 × 10,000: {ours:.1f} s, {peak() - before:,.0f} MB above {before:,.0f} MB")
        dense = 4 * 20_000**2 / 2**20
        print(f"  the textbook form would need four dense float32 matrices of {dense:,.0f} MB each")
        ours, _ = timed(query_expansion, query, gallery)
        print(f"query expansion, 10,000 × 10,000: {ours:.1f} s, peak memory of the process {peak():,.0f} MB")
    query, gallery = features(options.pictures, 1), features(options.pictures, 2)
    ours, found = timed(k_reciprocal, query, gallery)
    baseline, wanted = timed(textbook, query, gallery)
    print(f"k-reciprocal, {options.pictures:,} × {options.pictures:,}: {ours:.2f} s, textbook {baseline:.2f} s")
    print(f"  {baseline / ours:.1f} times as fast; the distances differ by {np.abs(found - wanted).max():.1e} at most")


if __name__ == "__main__":
    main()
