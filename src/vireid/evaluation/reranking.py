"""Re-ranking: distances that also use the neighbours of each picture.

There are two methods, k-reciprocal re-ranking and average query expansion. Both take the query and gallery features of
one trial and return distances that replace the plain ones in
`vireid.evaluation.scoring.score(..., rerank=name, reranker=function)`. Both use cosine similarity.

Neither method knows the exclusion rule of the protocol. On SYSU-MM01, for example, a query of camera 3 is not compared
with gallery pictures of camera 2. Such pictures are still neighbours of the query here, as in the public code that the
re-ranked numbers of papers come from. They are removed from its ranking afterwards, as without re-ranking. In
k-reciprocal re-ranking, other queries are neighbours as well. So the result of a query depends on the other queries of
the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from vireid.data.compiled import compiled
from vireid.data.errors import BadInput, unknown
from vireid.evaluation.distance import BLOCK_BYTES, normalise

_TOGETHER = 4  # inner products that are summed at the same time
_COLUMNS = 16  # other widths may round equal pictures differently, see vireid.evaluation.distance


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

    Queries and gallery pictures are taken together. d(p, g) is the squared Euclidean distance of features of length
    one, divided by the largest such distance of p. N(p, k) is p itself and its k nearest others. R(p, k) contains the
    members of N(p, k) that have p in their own N(·, k) (equation 3).

    - R*(p) is R(p, k1) and each R(q, k1/2), q ∈ R(p, k1), that has two thirds of its members in R(p, k1) (equation 4).
    - V(p, g) is exp(−d(p, g)) for g ∈ R*(p) and 0 for all others (equation 7).
    - Each V(p, ·) is replaced by the mean over the k2 nearest of p, with p as one of them (equation 11).
    - The result is (1 − λ)·(1 − Σ min(V_p, V_g) / Σ max(V_p, V_g)) + λ·d(p, g) (equations 10 and 12).

    Memory: the Q×G float32 result, a float32 copy of the Q+G features, one block of `block_bytes`, and for V at most
    8·(k1+1)·(k1/2+2) + 8·40·k2 bytes per picture. For 10,000 queries and 10,000 gallery pictures of width 2,048 these
    are 400, 164, 128 and 90 MB; 551 MB were measured. The textbook form needs several dense matrices of all 20,000 ×
    20,000 pairs, with 1,600 MB each.

    Args:
        query, gallery: Q×D and G×D finite real numbers.
        k1: size of the neighbourhoods, at least 1. The paper uses 20.
        k2: number of V that are averaged, at least 1. The paper uses 6; with 1 there is no averaging.
        weight: λ, weight of the plain distance, 0..1. The paper uses 0.3; with 1 the plain ranking is kept.
        form: the paper and its authors' public code differ. `code` requires *more* than two thirds in equation 4 and
            divides each V(p, ·) by its sum; the re-ranked numbers of papers come from it. `paper` follows the
            equations.
        block_bytes: approximate memory of one block of plain distances.

    Returns:
        Q×G float32 in 0..1; a smaller value is nearer. Neighbours at equal distances are taken in the order of the
        input, queries first. A picture is always the first of its own neighbours.

    Raises:
        BadInput: k1 or k2 is below 1, λ is outside 0..1, or `form` is unknown.
    """
    _check(k1, k2, weight, form)
    queries, size = len(query), len(query) + len(gallery)
    unit = np.zeros((-(-size // _COLUMNS) * _COLUMNS, query.shape[1]), dtype=np.float32)
    unit[:queries] = normalise(query)
    unit[queries:size] = normalise(gallery)

    near, far = _neighbours(unit, size, min(max(k1 + 1, k2), size), block_bytes)
    half = round(k1 / 2) + 1  # halves round to the even number, as with NumPy in the public code
    members, values, count = _reciprocal(unit, near, far, min(k1 + 1, size), min(half, size), form == "code")
    columns, shares, first = _averaged(members, values, count, near[:, : min(k2, size)])
    del members, values, near
    listed, listed_share, begin = _by_column(columns, shares, first, queries, size)

    out = _cosines(unit, queries, size, block_bytes)
    sums = np.add.reduceat(shares, first[:-1], dtype=np.float64)
    _finish(out, columns, shares, first, listed, listed_share, begin, sums, far, np.float64(weight))
    return out


def _check(k1: int, k2: int, weight: float, form: str) -> None:
    if k1 < 1 or k2 < 1:
        raise BadInput(f"re-ranking with k1={k1} and k2={k2}; both must be 1 or more")
    if not 0 <= weight <= 1:
        raise BadInput(f"re-ranking with weight={weight}; it is the share of the plain distance, 0 to 1")
    if form not in ("code", "paper"):
        raise unknown("form of re-ranking", form, ("code", "paper"))


def _cosines(unit: np.ndarray, queries: int, size: int, block_bytes: int) -> np.ndarray:
    """Q×G float32 cosine similarities, computed in blocks. `unit` has the queries, then the gallery up to `size`."""
    out = np.empty((queries, size - queries), dtype=np.float32)
    step = max(block_bytes // (4 * max(size - queries, 1)), 1)
    for start in range(0, queries, step):
        np.matmul(unit[start : min(start + step, queries)], unit[queries:size].T, out=out[start : start + step])
    return out


def query_expansion(query: np.ndarray, gallery: np.ndarray, *, neighbours: int = 5, alpha: float = 0.0) -> np.ndarray:
    """Average query expansion (Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall", ICCV 2007, section 4).

    Each query feature is replaced by the mean of itself and its nearest gallery features, all of length one. The new
    feature is compared with the gallery. Chum et al. average those of the first 50 pictures that pass a geometric
    check. There is no such check for person features, so all of a small number of neighbours are averaged.

    Memory: the Q×G result and a copy of one block of it.

    Args:
        query: Q×D finite real numbers.
        gallery: G×D finite real numbers.
        neighbours: number of gallery features in the mean, at least 1. The paper does not state it; 5 is our choice.
        alpha: 0 for the plain mean. With a value above 0, each neighbour has the weight max(cos, 0)^alpha
            (Radenović, Tolias and Chum, TPAMI 2019, α-weighted query expansion).

    Returns:
        Q×G float32 cosine distances in 0..2.

    Raises:
        BadInput: `neighbours` is below 1, or `alpha` is below 0.
    """
    if neighbours < 1 or alpha < 0:
        raise BadInput(
            f"query expansion with neighbours={neighbours} and alpha={alpha}; they must be at least 1 and at least 0"
        )
    asking, searched = normalise(query), normalise(gallery)
    take = min(neighbours, len(gallery))
    out = np.empty((len(query), len(gallery)), dtype=np.float32)
    step = max(BLOCK_BYTES // (4 * max(len(gallery), 1)), 1)
    for start in range(0, len(query), step):
        these = slice(start, min(start + step, len(query)))
        block = np.matmul(asking[these], searched.T, out=out[these])
        near = np.empty((len(block), take), dtype=np.int32)
        _nearest(np.negative(block), np.full(len(block), -1), len(gallery), near, np.empty(len(block), np.float32))
        share = np.ones_like(near, dtype=np.float32)
        if alpha:
            share = np.maximum(np.take_along_axis(block, near, axis=1), 0.0) ** np.float32(alpha)
        for place in range(take):  # one neighbour at a time needs no queries×neighbours×D array
            asking[these] += share[:, place, None] * searched[near[:, place]]
        np.matmul(normalise(asking[these]), searched.T, out=out[these])
    np.subtract(1.0, out, out=out)
    return np.clip(out, 0.0, 2.0, out=out)


RERANKERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "k-reciprocal": k_reciprocal,
    "query-expansion": query_expansion,
}


def find_reranker(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """The re-ranking function with this name, which has the published settings as defaults; None for `none`.

    Raises:
        BadInput: there is no re-ranking with this name.
    """
    if name != "none" and name not in RERANKERS:
        raise unknown("re-ranking", name, ("none", *RERANKERS))
    return RERANKERS.get(name)


def _neighbours(unit: np.ndarray, size: int, k: int, block_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest neighbours of each picture.

    Args:
        unit: at least size×D float32, features of length one.
        size: number of pictures, queries and gallery together.
        k: number of neighbours, the picture itself included.
        block_bytes: approximate memory of one block of distances.

    Returns:
        size×k int32 neighbours, the picture itself first and then the nearest first, and `size` float32: the largest
        1 − cos of each picture.
    """
    near = np.empty((size, k), dtype=np.int32)
    far = np.empty(size, dtype=np.float32)
    step = int(max(min(block_bytes // (4 * len(unit)), size), 1))
    values = np.empty((step, len(unit)), dtype=np.float32)
    for start in range(0, size, step):
        stop = min(start + step, size)
        block = np.matmul(-unit[start:stop], unit.T, out=values[: stop - start])
        _nearest(block, np.arange(start, stop), size, near[start:stop], far[start:stop])
    return near, np.maximum(far + np.float32(1.0), 0.0)


@compiled
def _nearest(values, own, size, near, far):  # pragma: no cover - compiled
    """Write the k smallest of the first `size` values of each picture into `near`, and the largest into `far`.

    Equal values are ordered by place. If own[i] is not −1, it is the first neighbour of picture i in any case.
    """
    k = near.shape[1]
    kept = np.empty(k, values.dtype)
    for i in range(len(values)):
        own_values = values[i]
        found = 0
        if own[i] >= 0:
            kept[0] = -np.inf
            near[i, 0] = own[i]
            found = 1
        largest = own_values[0]
        for j in range(size):
            value = own_values[j]
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
    """R(p, k): write the first k neighbours that have p among their own first k into `into`. Returns their number."""
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
def _products(unit, p, others, out):  # pragma: no cover - compiled
    """Inner products of picture p with up to `_TOGETHER` others, each summed in order.

    An addition waits for the one before it. Four sums at a time take little longer than one.
    """
    last = others.size - 1
    f, g = unit[p], unit[others[0]]
    h, i, j = unit[others[min(1, last)]], unit[others[min(2, last)]], unit[others[min(3, last)]]
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    for d in range(f.size):
        value = f[d]
        first += value * g[d]
        second += value * h[d]
        third += value * i[d]
        fourth += value * j[d]
    out[0], out[1], out[2], out[3] = first, second, third, fourth


@compiled
def _reciprocal(unit, near, far, k, half, as_code):  # pragma: no cover - compiled
    """R*(p) and V(p, ·) of each picture p: size×width members, size×width values, and the number of members."""
    size = len(near)
    width = k * (half + 1)
    members = np.empty((size, width), np.int32)
    values = np.zeros((size, width), np.float32)
    count = np.zeros(size, np.int64)
    core, more = np.empty(k, np.int32), np.empty(half, np.int32)
    in_core, in_all = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    product = np.empty(_TOGETHER, np.float64)
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
        far_from = far[p] if far[p] > 0 else np.float32(1.0)
        for a in range(0, found, _TOGETHER):
            _products(unit, p, members[p, a : min(a + _TOGETHER, found)], product)
            for b in range(min(_TOGETHER, found - a)):
                values[p, a + b] = np.exp(-max(1.0 - product[b], 0.0) / far_from) if members[p, a + b] != p else 1.0
        total = 0.0
        for a in range(found):
            total += values[p, a]
        if as_code:
            for a in range(found):
                values[p, a] /= total
        count[p] = found
    return members, values, count


@compiled
def _averaged(members, values, count, near):  # pragma: no cover - compiled
    """Mean of V over the neighbours `near` of each picture, as a sparse matrix in compressed row storage (CSR).

    Returns columns, values, and the place where the entries of each picture begin.
    """
    size, k = near.shape
    first = np.zeros(size + 1, np.int64)
    seen = np.full(size, -1, np.int32)
    for p in range(size):
        different = 0
        for a in range(k):
            neighbour = near[p, a]
            for b in range(count[neighbour]):
                if seen[members[neighbour, b]] != p:
                    seen[members[neighbour, b]] = p
                    different += 1
        first[p + 1] = first[p] + different
    columns = np.empty(first[size], np.int32)
    shares = np.empty(first[size], np.float32)
    total = np.zeros(size, np.float64)
    seen[:] = -1
    for p in range(size):
        at = first[p]
        for a in range(k):
            neighbour = near[p, a]
            for b in range(count[neighbour]):
                column = members[neighbour, b]
                if seen[column] != p:
                    seen[column] = p
                    total[column] = 0.0
                    columns[at] = column
                    at += 1
                total[column] += values[neighbour, b]
        for entry in range(first[p], at):
            shares[entry] = total[columns[entry]] / k
    return columns, shares, first


@compiled
def _by_column(columns, shares, first, queries, size):  # pragma: no cover - compiled
    """V of the gallery pictures, stored by column (CSC): gallery places, values, and where each column begins."""
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
    """Replace the cosines in `out` by the final distances, one query at a time."""
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
            # Σ min + Σ max is the sum of both, so Σ max needs no second loop.
            jaccard = 1.0 - smaller[g] / (sums[q] + sums[queries + g] - smaller[g])
            plain = min(max(1.0 - out[q, g], 0.0) / far_from, 1.0)
            out[q, g] = (1.0 - weight) * jaccard + weight * plain
