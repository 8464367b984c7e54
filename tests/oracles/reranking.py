"""Slow re-ranking with sets and dictionaries, written like the equations of the papers."""

from __future__ import annotations

import math


def _cosine(a, b):
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def k_reciprocal(query, gallery, *, k1=20, k2=6, weight=0.3, form="code"):
    """k-reciprocal re-ranking of Zhong et al. (CVPR 2017), as a list of Q lists of G distances."""
    everything = [*query, *gallery]
    places = range(len(everything))
    # ‖a − b‖² of unit vectors is 2 − 2 cos. It is divided by the largest of the picture.
    squared = [[0.0 if p == g else 2 - 2 * _cosine(everything[p], everything[g]) for g in places] for p in places]
    d = [[value / (max(line) or 1.0) for value in line] for line in squared]

    def nearest(p, count):  # the picture itself is the first
        return sorted(places, key=lambda g: (g != p, d[p][g], g))[:count]

    def mutual(p, k):  # equation 3
        return {g for g in nearest(p, k + 1) if p in nearest(g, k + 1)}

    vector = []
    for p in places:
        core = mutual(p, k1)
        expanded = set(core)
        for q in core:  # equation 4
            candidate = mutual(q, round(k1 / 2))
            inside = 3 * len(core & candidate)
            if inside > 2 * len(candidate) or (form == "paper" and inside == 2 * len(candidate)):
                expanded |= candidate
        v = {g: math.exp(-d[p][g]) for g in expanded}  # equation 7
        total = sum(v.values()) if form == "code" else 1.0
        vector.append({g: value / total for g, value in v.items()})

    averaged = []
    for p in places:  # equation 11
        close = nearest(p, k2)
        averaged.append({g: sum(vector[q].get(g, 0.0) for q in close) / len(close) for g in places})

    def jaccard(p, g):  # equation 10
        smaller = sum(min(averaged[p][j], averaged[g][j]) for j in places)
        larger = sum(max(averaged[p][j], averaged[g][j]) for j in places)
        return 1 - smaller / larger

    asked = len(query)
    return [
        [(1 - weight) * jaccard(p, g) + weight * d[p][g] for g in range(asked, len(everything))]  # equation 12
        for p in range(asked)
    ]


def query_expansion(query, gallery, *, neighbours=5, alpha=0.0):
    """Average query expansion of Chum et al. (ICCV 2007): the mean of a query and its neighbours is the new query."""

    def unit(a):
        length = math.sqrt(sum(x * x for x in a))
        return [x / length for x in a]

    out = []
    for q in map(unit, query):
        order = sorted(range(len(gallery)), key=lambda g: (-_cosine(q, gallery[g]), g))[:neighbours]
        mean = list(q)
        for g in order:
            share = max(_cosine(q, gallery[g]), 0.0) ** alpha
            mean = [m + share * x for m, x in zip(mean, unit(gallery[g]), strict=True)]
        out.append([1 - _cosine(mean, g) for g in gallery])
    return out
