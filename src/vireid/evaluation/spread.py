"""How far results spread: 95 % intervals of a mean over seeds, and of the difference between two groups of runs.

Intervals over seeds use Student's t. Intervals over test people use the bootstrap (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000  # of a bootstrap; the ends of an interval of a few points then vary by a few hundredths
MEMBERS = 10  # fewest for a bootstrap: from fewer, its interval is much too short

# Two-sided 95 % points of Student's t for 1, 2, … degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and half-width of its 95 % interval (Student's t) over runs that differ in the seed; None for one value.

    >>> mean, half = interval([50.0, 52.0, 54.0])
    >>> round(mean, 3), round(half, 3)
    (52.0, 4.969)
    """
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, student(n - 1) * deviation / math.sqrt(n)


def student(freedom: int) -> float:
    """The two-sided 95 % point of Student's t distribution, to 0.001.

    Args:
        freedom: degrees of freedom, 1 or more. Beyond the table, the first terms of Fisher's expansion are used.

    >>> student(2), round(student(16), 3), round(student(30), 3), round(student(1000), 3)
    (4.303, 2.119, 2.042, 1.962)
    """
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@dataclass(frozen=True)
class Paired:
    """The difference of two groups of runs over the seeds that both have, seed by seed.

    Attributes:
        mean: of the differences, in the unit of the values.
        half: half-width of the 95 % interval of this mean (Student's t); None for one seed.
        seeds: the common seeds, ascending.
    """

    mean: float
    half: float | None
    seeds: tuple[int, ...]


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Second minus first, by seed; None without a common seed.

    What a seed does to both groups alike, such as the order of the people, is not in the differences. So this interval
    can be much shorter than those of the two means.

    >>> paired({0: 50.0, 1: 60.0}, {0: 51.0, 1: 61.0, 2: 90.0})
    Paired(mean=1.0, half=0.0, seeds=(0, 1))
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    differences = [second[seed] - first[seed] for seed in seeds]
    found = interval(differences)
    return Paired(differences[0], None, seeds) if found is None else Paired(*found, seeds)


def bootstrap(differences: Sequence[float], weights: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of a weighted mean of differences, from drawing its members again with replacement.

    A member is a test identity. Queries of one person are alike, so drawing single queries would give an interval that
    is too short.

    Args:
        differences: M numbers, one for each member.
        weights: M positive numbers, such as how many queries a member has.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The percentiles 2.5 and 97.5 of the mean over the draws; None for fewer than ten members.
    """
    values, weight = np.asarray(differences, dtype=float), np.asarray(weights, dtype=float)
    if len(values) < MEMBERS:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(DRAWS)
    at_once = max(1, 1_000_000 // len(values))
    for start in range(0, DRAWS, at_once):
        drawn = generator.integers(0, len(values), (min(at_once, DRAWS - start), len(values)))
        means[start : start + len(drawn)] = (values[drawn] * weight[drawn]).sum(1) / weight[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Order:
    """How sure it is that one of two groups of runs is better.

    Attributes:
        difference: second minus first, in percentage points.
        low, high: the 95 % interval of the difference.
        probability: that the first is better, 0..1: the share of draws in which it is; a tie counts half.
    """

    difference: float
    low: float
    high: float
    probability: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def people_drawn_again(values: np.ndarray, identity: np.ndarray, *, seed: int = 0) -> np.ndarray | None:
    """A metric of several trainings, computed again for test people who are drawn with replacement.

    A person who is drawn brings all of their queries, in all trials. The people who are drawn depend on `identity` and
    `seed` only. So results of one list of queries, also from several calls, are paired: a draw asks all trainings the
    same queries.

    Args:
        values: R×T×Q percent, for R trainings, T trials and Q queries; NaN where a query does not count, which is so
            for all trainings or for none.
        identity: Q integers.
        seed: of the draws.

    Returns:
        D×R float64, for D draws: the mean over trials of the mean over queries; None for fewer than ten people.
    """
    counts = np.isfinite(values[0])
    asked = counts.any(axis=0)
    people, member = np.unique(identity[asked], return_inverse=True)
    if len(people) < MEMBERS:
        return None
    of_person = np.zeros((int(asked.sum()), len(people)))
    of_person[np.arange(len(of_person)), member] = 1.0
    queries = counts[:, asked] @ of_person  # T×P: how many queries of a person count
    sums = np.nan_to_num(values[:, :, asked]) @ of_person  # R×T×P
    generator = np.random.default_rng(seed)
    found = np.empty((DRAWS, len(values)))
    at_once = max(1, 1_000_000 // len(people))
    for start in range(0, DRAWS, at_once):
        times = generator.multinomial(len(people), np.full(len(people), 1 / len(people)), min(at_once, DRAWS - start))
        with np.errstate(invalid="ignore"):  # in a trial, it can be that no query of the drawn people counts
            means = np.einsum("dp,rtp->drt", times, sums, optimize=True) / (times @ queries.T)[:, None]
        found[start : start + len(times)] = np.nanmean(means, axis=2)
    return found


def seeds_drawn_again(numbers: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """The mean of a group of runs, for seeds that are drawn with replacement.

    Of n seeds, n − 1 are drawn. Then the variance of the mean over draws is that of a mean of n seeds, s²/n; with n of
    n it would be too small, by half for two seeds (Rao and Wu, "Resampling inference with complex survey data", 1988).
    Groups of the same seeds get the same draws, so they are paired; other groups are drawn independently.

    Args:
        numbers: D×R, from `people_drawn_again`.
        seeds: R numbers of 0 or more.

    Returns:
        D float64. With one seed, nothing is drawn.
    """
    many = len(seeds)
    if many == 1:
        return numbers[:, 0]
    times = np.random.default_rng([*seeds, many]).multinomial(many - 1, np.full(many, 1 / many), len(numbers))
    return (times * numbers).sum(axis=1) / (many - 1)


def order(first: np.ndarray, second: np.ndarray, difference: float) -> Order:
    """How sure it is that the first of two groups is better.

    Args:
        first, second: D numbers each; entry d of both was computed for the same people.
        difference: what was measured, second minus first.
    """
    drawn = second - first
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Order(difference, float(low), float(high), float((drawn < 0).mean() + (drawn == 0).mean() / 2))
