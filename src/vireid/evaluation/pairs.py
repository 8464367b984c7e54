"""Cosine distances of pairs of pictures, within and across the modalities, and how well they tell people apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid.data.records import UNLABELLED
from vireid.evaluation.distance import normalise
from vireid.evaluation.scoring import checked, whole_numbers

KINDS = {"visible": (0, 0), "infrared": (1, 1), "across": (0, 1)}
"""The three kinds of pairs, with the modalities of their two pictures: two visible pictures, two infrared ones, and one
of each."""
LIMIT = 100_000
_BLOCK = 4096  # pairs that are compared at a time
_ALL = 2_000_000  # candidates that are all looked at; of more, some are drawn
_ROUNDS = 20  # of draws, after which what was found must do: almost all candidates may be left out


@dataclass(frozen=True)
class Pairs:
    """The distances of one kind of pairs. Each pair of pictures counts once, and no picture is paired with itself.

    Attributes:
        same: float32 cosine distances (0..2) of pairs that show one person.
        different: the same, of pairs that show two people.
        complete: whether these are all pairs of this kind; otherwise `same`, `different` or both are a random draw.
    """

    same: np.ndarray
    different: np.ndarray
    complete: bool


@dataclass(frozen=True)
class Overlap:
    """How the distances of pairs of one person lie beside those of pairs of two people. None where a pair is missing.

    Attributes:
        same_mean, same_std, different_mean, different_std: of the distances.
        d_prime: (different_mean − same_mean) / √((same_std² + different_std²) / 2), from signal detection theory. 0
            where the means are equal; larger is better; None where both deviations are 0.
        equal_error_rate: percent. At some threshold, the share of pairs of one person that are farther equals the share
            of pairs of two people that are nearer; this is the share. 50 is chance; smaller is better.
    """

    same_mean: float | None
    same_std: float | None
    different_mean: float | None
    different_std: float | None
    d_prime: float | None
    equal_error_rate: float | None


def pair_distances(
    features: Any, identity: Any, modality: Any, *, key: Any = None, limit: int = LIMIT, seed: int = 0
) -> dict[str, Pairs]:
    """Distances of pairs of pictures, for each of the `KINDS`.

    Args:
        features: N×D real numbers, of any network.
        identity: N integers; `UNLABELLED` (−1) for a picture of an unknown person, which is in no pair.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb`.
        key: N integers: two pictures of one key are no pair, except for key −1. With the cameras as keys, pairs of one
            camera are left out. The keys of a protocol are those of `vireid.data.protocol.Trial`. None for all pairs.
        limit: at most how many pairs of one person, and how many of two people, of each kind. If there are more, they
            are drawn at random, each with the same probability. So memory does not grow with N².
        seed: of the draw.

    Raises:
        BadInput: an array cannot be used.
    """
    features, identity, modality = checked(features, identity, modality)
    keys = np.full(len(identity), -1) if key is None else whole_numbers("key", np.asarray(key), len(identity))
    found = {}
    for number, (name, kinds) in enumerate(KINDS.items()):
        sides = [np.flatnonzero((modality == kind) & (identity != UNLABELLED)) for kind in kinds]
        made = []
        for same in (True, False):
            candidates = _Candidates(sides[0], sides[1], identity, keys, same=same, within=kinds[0] == kinds[1])
            first, second, complete = candidates.draw(limit, np.random.default_rng((seed, number, same)))
            made.append((_distances(features, first, second), complete))
        (same_person, all_same), (two_people, all_different) = made
        found[name] = Pairs(same_person, two_people, all_same and all_different)
    return found


def _distances(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine distances of P pairs of samples, P float32."""
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), _BLOCK):
        own = slice(start, start + _BLOCK)
        one, other = normalise(features, first[own]), normalise(features, second[own])
        found[own] = np.clip(1.0 - np.einsum("pd,pd->p", one, other), 0.0, 2.0)
    return found


class _Candidates:
    """Pairs of samples of two sides, numbered without a list of them.

    For pairs of one person, the numbers go through the people, and through all pairs of each. For pairs of two people,
    they go through all pairs of the sides. Not every number is a pair that counts: see `allowed`.
    """

    def __init__(
        self,
        first: np.ndarray,
        second: np.ndarray,
        identity: np.ndarray,
        key: np.ndarray,
        *,
        same: bool,
        within: bool,
    ) -> None:
        self.identity, self.key, self.same, self.within = identity, key, same, within
        self.sides = [side[np.argsort(identity[side], kind="stable")] for side in (first, second)]
        starts, sizes = [np.zeros(1, np.int64)] * 2, [np.array([len(side)]) for side in self.sides]
        if same:
            ordered = [identity[side] for side in self.sides]
            people = np.intersect1d(ordered[0], ordered[1])
            starts = [np.searchsorted(own, people) for own in ordered]
            sizes = [np.searchsorted(own, people, side="right") - begin for own, begin in zip(ordered, starts)]  # noqa: B905
        self.starts, self.columns = starts, sizes[1]
        self.ends = np.cumsum(sizes[0] * sizes[1])
        self.begins = self.ends - sizes[0] * sizes[1]
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def pairs(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two samples of each number."""
        block = np.searchsorted(self.ends, numbers, side="right")
        row, column = np.divmod(numbers - self.begins[block], self.columns[block])
        return self.sides[0][self.starts[0][block] + row], self.sides[1][self.starts[1][block] + column]

    def allowed(self, numbers: np.ndarray) -> np.ndarray:
        """Those of the numbers that are pairs: of one person or of two as asked, in one order, and of other keys."""
        one, other = self.pairs(numbers)
        keep = (self.identity[one] == self.identity[other]) == self.same
        keep &= (self.key[one] != self.key[other]) | (self.key[one] == -1)
        if self.within:
            keep &= one < other
        return numbers[keep]

    def draw(self, limit: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
        """At most `limit` pairs, and whether these are all."""
        if self.total <= _ALL:
            numbers = self.allowed(np.arange(self.total))
            complete = len(numbers) <= limit
        else:
            numbers, complete = np.empty(0, np.int64), False
            for _ in range(_ROUNDS):
                drawn = self.allowed(generator.integers(0, self.total, max(2 * limit, 10_000)))
                before, numbers = len(numbers), np.union1d(numbers, drawn)
                if len(numbers) == before or len(numbers) >= limit:
                    break
        if not complete:
            numbers = generator.permutation(numbers)[:limit]
        return *self.pairs(numbers), complete


def overlap(same: np.ndarray, different: np.ndarray) -> Overlap:
    """How far the distances of pairs of one person and of pairs of two people overlap.

    Args:
        same, different: finite distances, any number of each.
    """
    if not len(same) or not len(different):
        return Overlap(*_mean_std(same), *_mean_std(different), None, None)
    (near, near_std), (far, far_std) = _mean_std(same), _mean_std(different)
    scale = ((near_std**2 + far_std**2) / 2) ** 0.5
    d_prime = (far - near) / scale if scale > 0 else None
    return Overlap(near, near_std, far, far_std, d_prime, 100.0 * equal_error_rate(same, different))


def _mean_std(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation, computed in float64; None without a value."""
    wide = np.asarray(values, dtype=np.float64)
    return (float(wide.mean()), float(wide.std())) if len(wide) else (None, None)


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """The share at which the two errors of a threshold on the distance are equal.

    With a threshold t, pairs of two people up to t are taken for one person, and pairs of one person beyond t are
    missed. Between two thresholds, the errors are interpolated along the straight line that joins them (the ROC curve).

    Args:
        same, different: distances, at least one of each.

    Returns:
        A number in 0..1.

    >>> equal_error_rate(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    0.0
    >>> equal_error_rate(np.array([0.1, 0.3]), np.array([0.2, 0.4]))
    0.5
    """
    thresholds = np.unique(np.concatenate([same, different]))
    taken = np.searchsorted(np.sort(different), thresholds, side="right") / len(different)
    missed = 1.0 - np.searchsorted(np.sort(same), thresholds, side="right") / len(same)
    taken, missed = np.concatenate([[0.0], taken]), np.concatenate([[1.0], missed])  # first: a threshold below all
    after = int(np.argmax(taken >= missed))
    before = missed[after - 1] - taken[after - 1]
    share = before / (before + taken[after] - missed[after])
    return float(taken[after - 1] + share * (taken[after] - taken[after - 1]))


def modality_gap(found: Mapping[str, Overlap], which: str = "same") -> tuple[float, float | None] | None:
    """How much farther pairs across the modalities are than pairs within them: the gap that PECA's Fig. 8 shows.

    Args:
        found: kind of pairs → its numbers.
        which: `same` for pairs of one person, `different` for pairs of two people.

    Returns:
        The mean distance across minus the mean distance within, where each modality that has pairs counts equally. 0
        where the modality makes no difference. Then the same in standard deviations: divided by the root of the mean
        of both variances, within and across, as d′ is; it can be compared between networks whose distances have
        different scales. That is None if both variances are 0. None alone where pairs are missing.
    """
    means = {kind: getattr(one, f"{which}_mean") for kind, one in found.items()}
    within = [kind for kind in ("visible", "infrared") if means[kind] is not None]
    if not within or means["across"] is None:
        return None
    variances = {kind: getattr(found[kind], f"{which}_std") ** 2 for kind in (*within, "across")}
    gap = means["across"] - sum(means[kind] for kind in within) / len(within)
    scale = ((sum(variances[kind] for kind in within) / len(within) + variances["across"]) / 2) ** 0.5
    return gap, gap / scale if scale > 0 else None
