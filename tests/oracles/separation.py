"""Slow loops for the numbers beside t-SNE and distances: one picture, one pair, one threshold at a time."""

from __future__ import annotations

import math


def cosine_distance(x, y):
    """1 − cos of two lists of numbers."""
    product = sum(a * b for a, b in zip(x, y, strict=True))
    return 1 - product / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def silhouette(features, identity, modality=None):
    """The mean over pictures of (b − a) / max(a, b). With `modality`, others are those of the other modality."""
    values = []
    samples = range(len(features))
    for i in samples:
        others = [j for j in samples if j != i and (modality is None or modality[j] != modality[i])]
        by_person = {}
        for j in others:
            by_person.setdefault(identity[j], []).append(cosine_distance(features[i], features[j]))
        means = {person: sum(found) / len(found) for person, found in by_person.items()}
        if identity[i] not in means or len(means) < 2:
            continue
        a = means.pop(identity[i])
        b = min(means.values())
        values.append((b - a) / max(a, b))
    return sum(values) / len(values)


def pairs(features, identity, modality, key):
    """(kind, same person?) → the distances of all pairs, ascending."""
    found = {}
    for i in range(len(features)):
        for j in range(i):
            if -1 in (identity[i], identity[j]) or (key[i] == key[j] and key[i] != -1):
                continue
            kind = {(0, 0): "visible", (1, 1): "infrared"}.get((modality[i], modality[j]), "across")
            distance = cosine_distance(features[i], features[j])
            found.setdefault((kind, identity[i] == identity[j]), []).append(distance)
    return {name: sorted(distances) for name, distances in found.items()}


def error_rates(same, different, threshold):
    """(share of pairs of two people up to the threshold, share of pairs of one person beyond it)."""
    taken = sum(distance <= threshold for distance in different) / len(different)
    missed = sum(distance > threshold for distance in same) / len(same)
    return taken, missed


def density(values, x, width):
    """The kernel density at x of values in 0..2 that are reflected at both ends."""
    total = 0.0
    for value in values:
        for at in (value, -value, 4 - value):
            total += math.exp(-0.5 * ((x - at) / width) ** 2)
    return total / (len(values) * width * math.sqrt(2 * math.pi))
