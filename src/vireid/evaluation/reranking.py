"""Distances that look at neighbourhoods: k-reciprocal re-ranking and average query expansion.

Both take one trial's query and gallery features and give distances in place of the plain ones, for
`vireid.evaluation.scoring.score(..., rerank=name, reranker=function)`. Both compare by cosine.

Neither knows the protocol's exclusion rule. Gallery pictures that a query may not see (SYSU-MM01's camera 2 for
camera 3) take part in its neighbourhood, as they do in the public code that papers' re-ranked numbers come from; they
are dropped from its ranking afterwards, by the trial's keys, as they are without re-ranking. k-reciprocal re-ranking
also lets queries help each other: a query's result depends on the other queries of the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.evaluation.counting import compiled
from vireid.evaluation.distance import BLOCK_BYTES, normalise

_COLUMNS = 16  # see vireid.evaluation.distance: other widths may round equal pictures differently


def k_reciprocal(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    form: Literal["code", "paper"] = "code",
    block_bytes: int = BLOCK_BYTES,
) -> np.ndarray:
    """k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, CVPR 2017), exact, without a matrix of all pairs.

    With d the squared Euclidean distance of features of length one over the largest of its row, N(p, k) the picture
    itself and its k nearest others among queries and gallery together, and R(p, k) those of N(p, k) that have p in
    their own N(·, k) (equation 3):

    - R*(p) joins to R(p, k1) each R(q, k1/2), q ∈ R(p, k1), of which two thirds lie in R(p, k1) (equation 4);
    - V(p, g) = exp(−d(p, g)) for g ∈ R*(p), 0 elsewhere (equation 7);
    - each V(p, ·) becomes the mean of those of its k2 nearest, itself counted (equation 11);
    - the result is (1 − λ)·(1 − Σ min(V_p, V_g) / Σ max(V_p, V_g)) + λ·d(p, g) (equations 10 and 12).

    Memory: the Q×G float32 result, the Q+G features once more in float32, one block of `block_bytes`, and at most
    8·(k1+1)·(k1/2+2) + 8·40·k2 bytes a picture for V. For 10,000 queries and 10,000 gallery pictures of width 2,048 the
    parts are 400, 164, 128 and 90 MB; 551 MB were measured. The textbook form holds several dense matrices of all
    20,000 × 20,000 pairs, of 1,600 MB each.

    Args:
        query: Q×D finite real numbers.
        gallery: G×D finite real numbers.
        k1: size of the neighbourhoods; 20 in the paper's experiments.
        k2: how many V are averaged; 6 in the paper's experiments, 1 averages nothing.
        weight: λ, the share of the plain distance; 0.3 in the paper's experiments, 1 keeps the plain ranking.
        form: where the paper and its authors' public code differ. `code` asks for *more* than two thirds and brings
            each V(p, ·) to the sum 1; re-ranked numbers in papers come from it. `paper` follows the equations.
        block_bytes: about how much memory one block of plain distances may take.

    Returns:
        Q×G float32 in 0..1, smaller is nearer. Where distances are equal, neighbours are taken in row order, queries
        first, but a picture always comes first in its own neighbourhood.

    Raises:
        BadInput: k1 or k2 below 1, λ outside 0..1, or another form.
    """
    if k1 < 1 or k2 < 1:
        raise BadInput(f"re-ranking with k1={k1}, k2={k2}: both must be 1 or more")
    if not 0 <= weight <= 1:
        raise BadInput(f"re-ranking with a weight of {weight}; it is a share of the plain distance, 0 to 1")
    if form not in ("code", "paper"):
        raise unknown("form of re-ranking", form, ("code", "paper"))
    queries, size = len(query), len(query) + len(gallery)
    unit = np.zeros((-(-size // _COLUMNS) * _COLUMNS, query.shape[1]), dtype=np.float32)
    unit[:queries] = normalise(query)
    unit[queries:size] = normalise(gallery)

    near, far = _neighbours(unit, size, min(max(k1 + 1, k2), size), block_bytes)
    half = round(k1 / 2) + 1  # to the even number, as NumPy's rounding in the public code
    members, values, count = _reciprocal(unit, near, far, min(k1 + 1, size), min(half, size), form == "code")
    columns, shares, first = _averaged(members, values, count, near[:, : min(k2, size)])
    del members, values, near
    listed, listed_share, begin = _by_column(columns, shares, first, queries, size)

    out = np.empty((queries, len(gallery)), dtype=np.float32)
    step = max(block_bytes // (4 * max(len(gallery), 1)), 1)
    for start in range(0, queries, step):
        np.matmul(unit[start : min(start + step, queries)], unit[queries:size].T, out=out[start : start + step])
    sums = np.add.reduceat(shares, first[:-1], dtype=np.float64)
    _finish(out, columns, shares, first, listed, listed_share, begin, sums, far, np.float64(weight))
    return out


def query_expansion(query: np.ndarray, gallery: np.ndarray, *, neighbours: int = 5, alpha: float = 0.0) -> np.ndarray:
    """Average query expansion (Chum, Philbin, Sivic, Isard and Zisserman, Total recall, ICCV 2007, section 4).

    Each query becomes the mean of itself and its nearest gallery pictures, all of length one, and asks again. Chum et
    al. average what a geometric check accepts among the first 50; features of persons have no such check, so a small
    number is taken as it is.

    Args:
        query: Q×D finite real numbers.
        gallery: G×D finite real numbers.
        neighbours: how many gallery pictures join the query; not from the paper, we chose 5.
        alpha: 0 for the plain mean; above it, each picture weighs max(cos, 0)^alpha (Radenović, Tolias and Chum,
            TPAMI 2019, α-weighted query expansion).

    Returns:
        Q×G float32 cosine distances in 0..2. Memory: this matrix, and a block of it a second time.

    Raises:
        BadInput: fewer than one neighbour, or alpha below 0.
    """
    if neighbours < 1 or alpha < 0:
        raise BadInput(f"query expansion with neighbours={neighbours}, alpha={alpha}: at least 1, and at least 0")
    asking, searched = normalise(query), normalise(gallery)
    take = min(neighbours, len(gallery))
    out = np.empty((len(query), len(gallery)), dtype=np.float32)
    step = max(BLOCK_BYTES // (4 * max(len(gallery), 1)), 1)
    for start in range(0, len(query), step):
        rows = slice(start, min(start + step, len(query)))
        block = np.matmul(asking[rows], searched.T, out=out[rows])
        near = np.empty((len(block), take), dtype=np.int32)
        _nearest(np.negative(block), np.full(len(block), -1), len(gallery), near, np.empty(len(block), np.float32))
        share = np.ones_like(near, dtype=np.float32)
        if alpha:
            share = np.maximum(np.take_along_axis(block, near, axis=1), 0.0) ** np.float32(alpha)
        for place in range(take):  # one neighbour at a time: never rows×neighbours×D numbers
            asking[rows] += share[:, place, None] * searched[near[:, place]]
        np.matmul(normalise(asking[rows]), searched.T, out=out[rows])
    np.subtract(1.0, out, out=out)
    return np.clip(out, 0.0, 2.0, out=out)


RERANKERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "k-reciprocal": k_reciprocal,
    "query-expansion": query_expansion,
}


def find_reranker(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """The re-ranking of this name with its published settings; None for `none`.

    Raises:
        BadInput: no re-ranking has this name.
    """
    if name != "none" and name not in RERANKERS:
        raise unknown("re-ranking", name, ("none", *RERANKERS))
    return RERANKERS.get(name)


def _neighbours(unit: np.ndarray, size: int, k: int, block_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """size×k rows, itself first and then nearest first; and the largest 1 − cos of each row."""
    near = np.empty((size, k), dtype=np.int32)
    far = np.empty(size, dtype=np.float32)
    rows = int(max(min(block_bytes // (4 * len(unit)), size), 1))
    values = np.empty((rows, len(unit)), dtype=np.float32)
    for start in range(0, size, rows):
        stop = min(start + rows, size)
        block = np.matmul(-unit[start:stop], unit.T, out=values[: stop - start])
        _nearest(block, np.arange(start, stop), size, near[start:stop], far[start:stop])
    return near, np.maximum(far + np.float32(1.0), 0.0)


@compiled
def _nearest(values, own, size, near, far):  # pragma: no cover - compiled
    """The smallest of each row by (value, place), `own` before all others where it is not −1; and the largest value."""
    k = near.shape[1]
    kept = np.empty(k, values.dtype)
    for i in range(len(values)):
        row = values[i]
        found = 0
        if own[i] >= 0:
            kept[0] = -np.inf
            near[i, 0] = own[i]
            found = 1
        largest = row[0]
        for j in range(size):
            value = row[j]
            largest = max(largest, value)
            if j == own[i] or (found == k and value >= kept[k - 1]):
                continue
            at = found if found < k else k - 1
            while at > 0 and kept[at - 1] > value:
                kept[at] = kept[at - 1]
                near[i, at] = near[i, at - 1]
                at -= 1
            if at < k:
                kept[at] = value
                near[i, at] = j
            found = min(found + 1, k)
        far[i] = largest


@compiled
def _mutual(near, p, k, into):  # pragma: no cover - compiled
    """R(p, k): those of the first k that have p among their own first k. Returns how many."""
    found = 0
    for a in range(k):
        other = near[p, a]
        for b in range(k):
            if near[other, b] == p:
                into[found] = other
                found += 1
                break
    return found


@compiled
def _reciprocal(unit, near, far, k, half, as_code):  # pragma: no cover - compiled
    """R*(p) of every row with its V, side by side in rows of fixed width; and how many there are."""
    size = len(near)
    width = k * (half + 1)
    members = np.empty((size, width), np.int32)
    values = np.zeros((size, width), np.float32)
    count = np.zeros(size, np.int64)
    core, more = np.empty(k, np.int32), np.empty(half, np.int32)
    in_core, in_all = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    for p in range(size):
        cores = _mutual(near, p, k, core)
        found = 0
        for a in range(cores):
            in_core[core[a]] = p
            in_all[core[a]] = p
            members[p, found] = core[a]
            found += 1
        for a in range(cores):
            others = _mutual(near, core[a], half, more)
            shared = 0
            for b in range(others):
                shared += in_core[more[b]] == p
            if 3 * shared > 2 * others or (not as_code and 3 * shared == 2 * others):
                for b in range(others):
                    if in_all[more[b]] != p:
                        in_all[more[b]] = p
                        members[p, found] = more[b]
                        found += 1
        total = 0.0
        for a in range(found):
            product = 0.0
            for d in range(unit.shape[1]):
                product += unit[p, d] * unit[members[p, a], d]
            far_from = far[p] if far[p] > 0 else np.float32(1.0)
            values[p, a] = np.exp(-max(1.0 - product, 0.0) / far_from) if members[p, a] != p else 1.0
            total += values[p, a]
        if as_code:
            for a in range(found):
                values[p, a] /= total
        count[p] = found
    return members, values, count


@compiled
def _averaged(members, values, count, near):  # pragma: no cover - compiled
    """The mean of V over the first neighbours of each row, as compressed rows: columns, values, where rows begin."""
    size, k = near.shape
    first = np.zeros(size + 1, np.int64)
    seen = np.full(size, -1, np.int32)
    for p in range(size):
        different = 0
        for a in range(k):
            row = near[p, a]
            for b in range(count[row]):
                if seen[members[row, b]] != p:
                    seen[members[row, b]] = p
                    different += 1
        first[p + 1] = first[p] + different
    columns = np.empty(first[size], np.int32)
    shares = np.empty(first[size], np.float32)
    total = np.zeros(size, np.float64)
    seen[:] = -1
    for p in range(size):
        at = first[p]
        for a in range(k):
            row = near[p, a]
            for b in range(count[row]):
                column = members[row, b]
                if seen[column] != p:
                    seen[column] = p
                    total[column] = 0.0
                    columns[at] = column
                    at += 1
                total[column] += values[row, b]
        for entry in range(first[p], at):
            shares[entry] = total[columns[entry]] / k
    return columns, shares, first


@compiled
def _by_column(columns, shares, first, queries, size):  # pragma: no cover - compiled
    """The gallery's rows of V, column by column: gallery places, values, where columns begin."""
    begin = np.zeros(size + 1, np.int64)
    for entry in range(first[queries], first[size]):
        begin[columns[entry] + 1] += 1
    for column in range(size):
        begin[column + 1] += begin[column]
    at = begin[:-1].copy()
    listed = np.empty(begin[size], np.int32)
    values = np.empty(begin[size], np.float32)
    for p in range(queries, size):
        for entry in range(first[p], first[p + 1]):
            column = columns[entry]
            listed[at[column]] = p - queries
            values[at[column]] = shares[entry]
            at[column] += 1
    return listed, values, begin


@compiled
def _finish(out, columns, shares, first, listed, listed_share, begin, sums, far, weight):  # pragma: no cover - compiled
    """Turn cosines in `out` into the final distances, row by row."""
    queries, size = out.shape
    smaller = np.zeros(size, np.float64)
    for q in range(queries):
        smaller[:] = 0.0
        for entry in range(first[q], first[q + 1]):
            column = columns[entry]
            for place in range(begin[column], begin[column + 1]):
                smaller[listed[place]] += min(shares[entry], listed_share[place])
        far_from = far[q] if far[q] > 0 else np.float32(1.0)
        for g in range(size):
            # min + max = both, so the sum of the larger ones needs no second walk.
            jaccard = 1.0 - smaller[g] / (sums[q] + sums[queries + g] - smaller[g])
            plain = min(max(1.0 - out[q, g], 0.0) / far_from, 1.0)
            out[q, g] = (1.0 - weight) * jaccard + weight * plain
