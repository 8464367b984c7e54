"""The compiled inner loop of ranking: count what stands ahead of each true match, sort nothing.

This module imports numba, which costs about half a second; `vireid.evaluation.ranking` imports it when it first ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile a loop with numba, keeping what was compiled for the next process where there is a folder for it."""
    # nogil lets plain threads share the work: numba's own thread pools may not be entered by two threads at a time.
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep compiled code in: compile once per process
        return njit(**options)(function)


LANES = 64  # the row buffer is padded to whole vector steps, so that no scalar remainder is left


@compiled
def _below(row, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(row.size):
        # The cast keeps a 32-bit counter, which vectorises twice as wide.
        count = np.int32(count + (row[j] < threshold))
    return count


@compiled
def _up_to(row, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(row.size):
        count = np.int32(count + (row[j] <= threshold))
    return count


@compiled
def _equal(row, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(row.size):
        count = np.int32(count + (row[j] == threshold))
    return count


@compiled
def _ahead(row, place):  # pragma: no cover - compiled
    """How many entries rank ahead of the one at `place`: smaller ones, and equal ones that stand before it."""
    threshold = row[place]
    middle = place // LANES * LANES
    after = middle + LANES
    # Only the vector step around `place` has to look at places. Slices, as numba vectorises loops that begin at 0.
    return (
        np.int64(_up_to(row[:middle], threshold))
        + np.int64(_below(row[middle:after], threshold))
        + np.int64(_below(row[after:], threshold))
        + _equal(row[middle:place], threshold)
    )


@compiled
def rank_rows(  # pragma: no cover - compiled
    values,
    columns,
    gallery_key,
    gallery_code,
    first,
    members,
    query_code,
    query_key,
    offset,
    ranks,
    ahead,
):
    """Rank the true matches of some queries in one gallery.

    Args:
        values: B×U float, smaller is nearer.
        columns: G integers, which column of `values` each gallery picture has; gallery order breaks ties.
        gallery_key, gallery_code: G integers, exclusion key and identity (0..I−1).
        first: I+1 integers; the pictures of identity i are members[first[i]:first[i + 1]], ascending.
        query_code, query_key: B integers, identity (−1: not in the gallery) and exclusion key (never −1).
        offset: B integers, where a query's ranks begin in `ranks`.
        ranks: int32, written: ascending, 1 = nearest; as many zeros follow as matches were excluded.
        ahead: B int32, written: other identities with a picture nearer than the first match; −1 without a match.
    """
    size = columns.size
    row = np.full((size + LANES - 1) // LANES * LANES, np.inf, values.dtype)
    infinite = row[0] if size == 0 else values.dtype.type(np.inf)
    seen = np.full(first.size, -1, np.int64)
    for q in range(query_code.size):
        ahead[q] = -1
        code = query_code[q]
        if code < 0:
            continue
        key = query_key[q]
        line = values[q]
        for j in range(size):
            row[j] = infinite if gallery_key[j] == key else line[columns[j]]
        begin = offset[q]
        found = 0
        best = np.int64(size + 1)
        nearest = np.int64(-1)
        for m in range(first[code], first[code + 1]):
            p = members[m]
            if gallery_key[p] == key:
                continue
            rank = _ahead(row, np.int64(p)) + 1
            if rank < best:
                best = rank
                nearest = p
            # Insert among the ranks found so far.
            at = begin + found
            while at > begin and ranks[at - 1] > rank:
                ranks[at] = ranks[at - 1]
                at -= 1
            ranks[at] = rank
            found += 1
        if found == 0:
            continue
        left = best - 1  # pictures that are nearer than the first match, none of them of its identity
        others = 0
        threshold = row[nearest]
        j = 0
        while left > 0:
            if row[j] < threshold or (row[j] == threshold and j < nearest):
                left -= 1
                if seen[gallery_code[j]] != q:
                    seen[gallery_code[j]] = q
                    others += 1
            j += 1
        ahead[q] = others
