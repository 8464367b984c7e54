"""Galleries of both modalities by the definition, one query and one gallery picture at a time."""

from __future__ import annotations

import random

import numpy as np

from vireid.evaluation.calibration import calibrate_pairs

ROOM = {1: "a", 2: "b", 3: "b", 4: "d", 5: "e", 6: "f"}  # SYSU-MM01: cameras 2 and 3 look into one room


def calibrating(identity, trial):
    """The people whom a trial calibrates on."""
    people = sorted(set(identity.tolist()) - {-1})
    generator = random.Random(trial)
    number = {person: generator.random() for person in people}
    return set(sorted(people, key=lambda person: number[person])[: len(people) // 2])


def place(layout, camera):
    return ROOM[camera] if layout == "sysu-mm01" else camera


def excluded(layout, kind, query, picture):
    """Whether a gallery picture is excluded for a query; each is (identity, camera, modality)."""
    if query[0] != picture[0]:
        return False
    if kind in ("i2v", "v2i"):
        return query[2] == picture[2]
    return place(layout, query[1]) == place(layout, picture[1])


class Mixed:
    """A test set of a layout; `kind` is i2v, v2i, i2both or v2both."""

    def __init__(self, layout, features, identity, camera, modality):
        self.layout, self.features = layout, features
        self.identity, self.camera, self.modality = identity, camera, modality
        self.pictures = list(zip(identity.tolist(), camera.tolist(), modality.tolist(), strict=True))
        unit = features.astype(np.float64)
        self.unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        self.fits = {}

    def calibration(self, kind, trial):
        """The three calibrations, from the people of one half."""
        other = [i for i, one in enumerate(self.pictures) if one[0] in calibrating(self.identity, trial)]
        strict = kind in ("i2both", "v2both")
        words = [
            (person, place(self.layout, camera)) if strict else (person, camera, modality)
            for person, camera, modality in (self.pictures[i] for i in other)
        ]
        if (strict, trial) not in self.fits:
            columns = (self.features[other], self.identity[other], self.modality[other])
            key = [sorted(set(words)).index(one) for one in words]
            found = calibrate_pairs(*columns, key=key, resamplings=0)
            if len(found) < 3:
                found = {**calibrate_pairs(*columns, resamplings=0), **found}
            self.fits[strict, trial] = found
        return self.fits[strict, trial]

    def sides(self, kind, trial):
        """Queries and gallery."""
        out = calibrating(self.identity, trial)
        tested = [i for i, one in enumerate(self.pictures) if one[0] not in out and one[0] != -1]
        asked = 1 if kind.startswith("i") else 0
        return [i for i in tested if self.modality[i] == asked], tested

    def answers(self, kind, trial, *, calibrated):
        """For each query: whether each ranked picture is correct, and whether it has the query's modality."""
        queries, gallery = self.sides(kind, trial)
        fits = self.calibration(kind, trial) if calibrated else None
        found = []
        for q in queries:
            ranked = []
            for g in gallery:
                if excluded(self.layout, kind, self.pictures[q], self.pictures[g]):
                    continue
                score = float(self.unit[q] @ self.unit[g])
                if fits is not None:
                    score = fits[self.kind(q, g)].ratio(score)
                ranked.append((-score, g))
            ranked = [g for _, g in sorted(ranked)]
            correct = [self.identity[g] == self.identity[q] for g in ranked]
            found.append((correct, [self.modality[g] == self.modality[q] for g in ranked]))
        return found

    def kind(self, q, g):
        if self.modality[q] != self.modality[g]:
            return "across"
        return "infrared" if self.modality[q] == 1 else "visible"

    def strangers(self, kind, trial):
        """For each query whose person is absent: the fewest expected strangers at any gallery picture."""
        queries, gallery = self.sides(kind, trial)
        fits = self.calibration(kind, trial)
        found = []
        for q in queries:
            others = [g for g in gallery if self.identity[g] != self.identity[q]]
            counts = {m: sum(self.modality[g] == m for g in others) for m in (0, 1)}
            searched = sum(count > 0 for count in counts.values())
            found.append(
                min(
                    searched
                    * counts[self.modality[g]]
                    * fits[self.kind(q, g)].false_match_rate(float(self.unit[q] @ self.unit[g])).estimate
                    for g in others
                )
            )
        return found


def metrics(answers):
    """Rank-1, 5, 10, 20, mAP, mINP in percent; number of valid queries; percent of own modality in the first ten."""
    firsts, precisions, penalties, own = [], [], [], []
    for correct, same in answers:
        own.append(sum(same[:10]) / len(same[:10]))
        ranks = [rank for rank, right in enumerate(correct, start=1) if right]
        if ranks:
            firsts.append(ranks[0])
            precisions.append(sum(i / rank for i, rank in enumerate(ranks, start=1)) / len(ranks))
            penalties.append(len(ranks) / ranks[-1])
    curve = [100 * sum(first <= k for first in firsts) / len(firsts) for k in (1, 5, 10, 20)]
    shares = [100 * sum(one) / len(one) for one in (precisions, penalties, own)]
    return [*curve, *shares[:2]], len(firsts), shares[2]
