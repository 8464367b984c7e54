"""Slow evaluation by the rules of the protocols, one query at a time."""

from __future__ import annotations

import random


def answer(distances, identity, key, gallery_identity, gallery_key, *, cmc):
    """(first rank, average precision, inverse penalty, ranks of true matches) of one query, or None without a match.

    `distances` has one number for each gallery picture. A picture is excluded if its key equals the key of the query.
    A query with the key −1 excludes nothing.
    """
    seen = [g for g in range(len(distances)) if key == -1 or gallery_key[g] != key]
    order = sorted(seen, key=lambda g: (distances[g], g))
    listed = [gallery_identity[g] for g in order]
    ranks = [place for place, number in enumerate(listed, start=1) if number == identity]
    if not ranks:
        return None
    if cmc == "identity":
        once = []
        for number in listed:
            if number not in once:
                once.append(number)
        first = once.index(identity) + 1
    else:
        first = ranks[0]
    precision = sum(i / rank for i, rank in enumerate(ranks, start=1)) / len(ranks)
    return first, precision, len(ranks) / ranks[-1], ranks


def evaluate(distances, query_identity, query_key, gallery_identity, gallery_key, *, cmc, depth=20):
    """(CMC of length `depth`, mAP, mINP, number of valid queries) over all queries, or None without a valid query."""
    answers = [
        answer(distances[q], query_identity[q], query_key[q], gallery_identity, gallery_key, cmc=cmc)
        for q in range(len(query_identity))
    ]
    answers = [one for one in answers if one is not None]
    if not answers:
        return None
    curve = [sum(one[0] <= k for one in answers) / len(answers) for k in range(1, depth + 1)]
    precision = sum(one[1] for one in answers) / len(answers)
    penalty = sum(one[2] for one in answers) / len(answers)
    return curve, precision, penalty, len(answers)


def draw_from_folders(folders, cameras, identities, trial):
    """AGW's draw of a gallery from folders: the paths that are drawn, in this order.

    `folders` maps (camera name, identity name) to file names in any order. Names are as on disk: identities are numbers
    with leading zeros. Cameras are visited in the order given.
    """
    random.seed(trial)
    drawn = []
    for identity in sorted(identities):
        for camera in cameras:
            if (camera, identity) in folders:
                files = sorted(f"{camera}/{identity}/{name}" for name in folders[camera, identity])
                drawn.append(random.choice(files))
    return drawn
