"""The compiled inner loop of ranking. It counts the pictures ahead of each true match, and needs no sorting.

This module imports numba, which takes about half a second. So `vireid.evaluation.ranking` imports this module only when
it ranks for the first time.
"""

from __future__ import annotations

import numpy as np

from vireid.data.compiled import compiled

# The buffer of distances is padded to a multiple of this length, so that vector instructions cover all of it.
LANES = 64


@compiled
def _below(distances, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(distances.size):
        # The cast keeps the counter at 32 bits, so that one vector instruction handles twice as many.
        count = np.int32(count + (distances[j] < threshold))
    return count


@compiled
def _up_to(distances, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(distances.size):
        count = np.int32(count + (distances[j] <= threshold))
    return count


@compiled
def _equal(distances, threshold):  # pragma: no cover - compiled
    count = np.int32(0)
    for j in range(distances.size):
        count = np.int32(count + (distances[j] == threshold))
    return count


@compiled
def _ahead(distances, place):  # pragma: no cover - compiled
    """How many distances rank ahead of the one at `place`: smaller ones, and equal ones at earlier places."""
    threshold = distances[place]
    middle = place // LANES * LANES
    after = middle + LANES
    # Equal distances need a comparison of places only near `place`. Slices are used because numba vectorises loops that
    # begin at 0.
    return (
        np.int64(_up_to(distances[:middle], threshold))
        + np.int64(_below(distances[middle:after], threshold))
        + np.int64(_below(distances[after:], threshold))
        + _equal(distances[middle:place], threshold)
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
    """Rank the true matches of B queries in one gallery of G pictures. It writes into `ranks` and `ahead`.

    Args:
        values: B×U float; a smaller value is nearer.
        columns: G integers, the column of `values` for each gallery picture. Gallery order breaks ties.
        gallery_key, gallery_code: G integers each, exclusion key and identity (0..I−1).
        first: I+1 integers. The gallery pictures of identity i are members[first[i]:first[i + 1]], ascending.
        members: gallery pictures, sorted by identity.
        query_code, query_key: B integers each, identity (−1 if it is not in the gallery) and exclusion key (never −1).
        offset: B integers, where the ranks of each query begin in `ranks`.
        ranks: int32, output: the ranks of the true matches of each query, ascending, 1 = nearest. After them stand as
            many zeros as true matches were excluded.
        ahead: B int32, output: number of other identities that have a picture nearer than the first match; −1 without
            a match.
    """
    size = columns.size
    distances = np.full((size + LANES - 1) // LANES * LANES, np.inf, values.dtype)
    infinite = distances[0] if size == 0 else values.dtype.type(np.inf)
    seen = np.full(first.size, -1, np.int64)
    for q in range(query_code.size):
        ahead[q] = -1
        code = query_code[q]
        if code < 0:
            continue
        key = query_key[q]
        unordered = values[q]
        for j in range(size):
            distances[j] = infinite if gallery_key[j] == key else unordered[columns[j]]
        begin = offset[q]
        found = 0
        best = np.int64(size + 1)
        nearest = np.int64(-1)
        for m in range(first[code], first[code + 1]):
            p = members[m]
            if gallery_key[p] == key:
                continue
            rank = _ahead(distances, np.int64(p)) + 1
            if rank < best:
                best = rank
                nearest = p
            # Insert the rank among those found so far, in ascending order.
            at = begin + found
            while at > begin and ranks[at - 1] > rank:
                ranks[at] = ranks[at - 1]
                at -= 1
            ranks[at] = rank
            found += 1
        if found == 0:
            continue
        left = best - 1  # pictures nearer than the first match; all of them are of other identities
        others = 0
        threshold = distances[nearest]
        j = 0
        while left > 0:
            if distances[j] < threshold or (distances[j] == threshold and j < nearest):
                left -= 1
                if seen[gallery_code[j]] != q:
                    seen[gallery_code[j]] = q
                    others += 1
            j += 1
        ahead[q] = others
