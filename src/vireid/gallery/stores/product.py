"""Exact search: the vectors with the largest scalar products, found without computing all of them exactly.

A search passes through up to three stages. Each leaves fewer candidates, and none drops a vector that can belong to the
answer, because each knows the largest error of what it computes:

1. int8 codes, a quarter of the bytes (`encode`), for few queries;
2. float32 products, in blocks;
3. float64 products of the few vectors that are left, which are the scores.

The scores of stage 3 do not depend on the other vectors, the block or the store. So equal vectors have equal scores,
and every store gives the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np

from vireid.gallery.row import OFF_LENGTH

FEW = 4
"""With so many queries, the codes are faster; with more, one float32 product for all of them is."""
BLOCK_BYTES = 32 * 2**20
_LENGTH = 1 + OFF_LENGTH  # of a vector, at most
_TINY = 1e-9  # more than float64 loses in a product of two such vectors
_SPLIT = 16_384  # vectors from which on threads share the work
_INT32 = 2**31 - 1


class Damaged(Exception):
    """Numbers that no vector of length one can give: the file is damaged."""


def code_type(width: int) -> np.dtype:
    """How a vector is kept as codes: v ≈ scale · code, and ‖v − scale · code‖ ≤ residual."""
    return np.dtype([("code", "i1", (width,)), ("scale", "<f4"), ("residual", "<f4")])


def encode(vectors: np.ndarray) -> np.ndarray:
    """The codes of vectors.

    Args:
        vectors: N×D float32.

    Returns:
        N of `code_type(D)`: whole numbers −127 to 127 and the largest error.
    """
    found = np.empty(len(vectors), code_type(vectors.shape[1]))
    found["scale"] = np.abs(vectors).max(axis=1) / 127
    scale = found["scale"].astype(np.float64)[:, None]
    exact = vectors.astype(np.float64)
    found["code"] = np.rint(np.divide(exact, scale, out=np.zeros_like(exact), where=scale > 0)).clip(-127, 127)
    residual = np.linalg.norm(exact - scale * found["code"], axis=1)
    found["residual"] = np.nextafter((residual + _TINY).astype(np.float32), np.float32(np.inf))  # never too small
    return found


def best(
    queries: np.ndarray, vectors: np.ndarray, codes: np.ndarray | None, places: np.ndarray, top: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query, the places of its `top` largest products, and of all that are equal to the last of them.

    Args:
        queries: Q×D float32, of length one.
        vectors: N×D float32, of length one; may be mapped from a file.
        codes: N of `code_type(D)`, or None to do without.
        places: M ascending positions in `vectors`: those that are searched.
        top: 1 or more.

    Returns:
        For each query: places (int64) and scores (float64), in no particular order.

    Raises:
        Damaged: the vectors are not of length one.
    """
    if codes is None or len(queries) > FEW:
        left = _by_product(queries, vectors, places, top)
    else:
        left = []
        for query in queries:
            candidates = _by_codes(query, codes, places, top)
            left += _by_product(query[None], vectors, candidates, top)
    return [_equal_to_last(found, scores(q, vectors[found]), top) for q, found in zip(queries, left, strict=True)]


def scores(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The scalar products of a query (D float32) with vectors (N×D float32), as N float64.

    The products of two float32 are exact in float64. Each sum is over one vector alone, in a fixed order.
    """
    exact = query.astype(np.float64)
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), 1024):
        chunk = vectors[start : start + 1024].astype(np.float64)
        found[start : start + 1024] = (chunk * exact).sum(axis=1)
    return found


def float32_error(width: int) -> float:
    """The largest error of a float32 scalar product of two vectors of length one, in whatever order it is summed.

    |fl(q·v) − q·v| ≤ γ ‖q‖ ‖v‖ with γ = D u / (1 − D u) and u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1).
    """
    unit = width * 2.0**-24
    return unit / (1 - unit) * _LENGTH**2 + _TINY


def _equal_to_last(places: np.ndarray, exact: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    keep = exact >= _top_value(exact, top)
    return places[keep], exact[keep]


def _top_value(values: np.ndarray, top: int) -> float:
    """The `top`-th largest value; −∞ if there are not as many."""
    return float(np.partition(values, -top)[-top]) if len(values) >= top else -np.inf


# --- stage 1: codes ---------------------------------------------------------------------------------------------------


def _by_codes(query: np.ndarray, codes: np.ndarray, places: np.ndarray, top: int) -> np.ndarray:
    """The places that can be among the `top` best, judged by the codes.

    The query becomes whole numbers too: q = t·d + e. With v = s·c + r:
    q·v = t s (d·c) + e·(s c) + q·r, and by Cauchy and Schwarz |e·(s c)| ≤ ‖e‖ (‖v‖ + ‖r‖) and |q·r| ≤ ‖q‖ ‖r‖.
    d·c is computed in whole numbers, without error, and the bounds in the same pass, while the row is in the cache.
    """
    if len(places) <= top:
        return places
    exact = query.astype(np.float64)
    largest = min(32_767, _INT32 // (127 * len(query)))  # so that no sum leaves 32 bits
    step = np.abs(exact).max() / largest
    whole = np.rint(exact / step).astype(np.int16)
    off = float(np.linalg.norm(exact - step * whole))
    low, high = _bounds(codes, whole, places, step, _LENGTH + off, off * _LENGTH + _TINY)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise Damaged
    return places[high >= _top_value(low, top)]


def _bounds(
    codes: np.ndarray, query: np.ndarray, places: np.ndarray, step: float, grown: float, fixed: float
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value that q·v can have at each place, M float64 each; threads share the places."""
    from numba import config

    kernel, low, high = _kernel(), np.empty(len(places)), np.empty(len(places))
    columns = codes["code"], codes["scale"], codes["residual"]
    # The number that numba would use. Asking it by `get_num_threads` starts its threads, which changes torch's number.
    most: int = config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue] numba makes it at import
    parts = most if len(places) >= _SPLIT else 1
    if parts == 1:
        kernel(*columns, query, places, step, grown, fixed, low, high)
        return low, high
    ends = np.linspace(0, len(places), parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        given = [(places[a:b], step, grown, fixed, low[a:b], high[a:b]) for a, b in pairwise(ends)]
        for done in [pool.submit(kernel, *columns, query, *one) for one in given]:
            done.result()
    return low, high


@cache
def _kernel() -> Callable[..., None]:
    """The compiled loop. numba takes half a second to import."""
    from vireid.data.compiled import compiled

    return compiled(_int8_bounds)


def _int8_bounds(codes, scale, residual, query, places, step, grown, fixed, low, high):  # pragma: no cover - compiled
    for n in range(places.size):
        code = codes[places[n]]
        total = np.int32(0)
        for j in range(query.size):
            # The casts keep the sum at 32 bits: one vector instruction multiplies and adds eight pairs or more.
            total = np.int32(total + np.int32(code[j]) * np.int32(query[j]))
        near = total * (step * np.float64(scale[places[n]]))
        error = np.float64(residual[places[n]]) * grown + fixed
        low[n] = near - error
        high[n] = near + error


# --- stage 2: float32 -------------------------------------------------------------------------------------------------


def _by_product(queries: np.ndarray, vectors: np.ndarray, places: np.ndarray, top: int) -> list[np.ndarray]:
    """For each query, the places that can be among its `top` best, judged by float32 products."""
    count, width = queries.shape
    slack = 2 * float32_error(width)  # the last of the best may be computed too high, and a better one too low
    step = max(BLOCK_BYTES // (4 * width), 1)
    kept = [(np.empty(0, np.int64), np.empty(0, np.float32))] * count
    least = np.full(count, -np.inf)
    for start in range(0, len(places), step):
        part = places[start : start + step]
        products = queries @ _taken(vectors, part).T
        if not (products.max() < 2 and products.min() > -2):  # nor is NaN
            raise Damaged
        for q in range(count):
            new = np.flatnonzero(products[q] >= least[q])
            found = np.concatenate([kept[q][0], part[new]]), np.concatenate([kept[q][1], products[q][new]])
            least[q] = _top_value(found[1], top) - slack
            keep = found[1] >= least[q]
            kept[q] = found[0][keep], found[1][keep]
    return [found for found, _ in kept]


def _taken(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some vectors; those that lie one after another are not copied."""
    if len(places) and places[-1] - places[0] == len(places) - 1:
        return vectors[places[0] : places[-1] + 1]
    return vectors[places]
