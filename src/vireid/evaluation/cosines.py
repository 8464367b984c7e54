"""Counts of cosines of all pairs of pictures, for thresholds, and what they would be for other people.

Pairs are many: 10,000 pictures have 50 million. So no list of them is made. Cosines are counted in steps of `STEP`,
picture by picture, and for the intervals in up to 512 larger steps for each two people. When people are drawn again
with replacement, two people that were drawn n and m times have n · m times their pairs, and a person that was drawn n
times has n times its own. So the counts of a draw are products of matrices, and no pair is looked at twice. Copies of
one person make no pair of two people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vireid.evaluation.distance import normalise

STEPS = 200_000
"""Cosines from −1 to 1 are counted in this many steps."""
STEP = 2 / STEPS
PRIOR = 10.0
"""Standard deviation of the prior of a slope, in units in which the cosines have the standard deviation 1."""

_BLOCK = 2**21  # pairs that are compared at a time
_KEPT = 2**25  # pairs whose steps are kept between the two times that they are counted; of more, they are made again
_NEAR = 1e-7  # of a step: a cosine that rounding put just below a step is on it
_ROUNDS = 200


def step_of(cosines: np.ndarray) -> np.ndarray:
    """The step of each cosine, 0 to `STEPS` − 1, as int32."""
    found = ((cosines + 1.0) * (STEPS / 2) + _NEAR).astype(np.int32)
    return np.clip(found, 0, STEPS - 1, out=found)


def cosine_of(step: np.ndarray) -> np.ndarray:
    """The smallest cosine of a step, with the five decimal places that it has."""
    return np.round(step * STEP - 1.0, 5)


@dataclass(frozen=True)
class _Block:
    """Some pictures of one person, compared with all pictures of the other side that follow.

    Attributes:
        person: its number.
        steps: A×B int32, 1 + the step of each cosine; 0 where it is no pair.
        others: B numbers of people, ascending.
        own: the columns of the person itself.
    """

    person: int
    steps: np.ndarray
    others: np.ndarray
    own: slice


class Cosines:
    """The cosines of one kind of pairs.

    Attributes:
        people: number of people on both sides; they are numbered in the order of their identities.
        same, different: `STEPS` counts of pairs of one person, and of two people.
        matched: number of people with pairs of one person.
    """

    def __init__(
        self, features: np.ndarray, identity: np.ndarray, key: np.ndarray, sides: Sequence[np.ndarray], *, within: bool
    ) -> None:
        """Count.

        Args:
            features: N×D finite real numbers.
            identity: N integers.
            key: N integers: two pictures of one key are no pair, except for key −1.
            sides: the positions of the pictures of the two sides.
            within: whether the sides are the same; each pair then counts once.
        """
        known = np.unique(identity[np.concatenate(sides)])
        self.people = len(known)
        ordered = [side[np.argsort(identity[side], kind="stable")] for side in sides]
        self._person = [np.searchsorted(known, identity[side]) for side in ordered]
        self._key = [key[side] for side in ordered]
        one = normalise(features, ordered[0]).astype(np.float64)
        self._unit = [one, one if within else normalise(features, ordered[1]).astype(np.float64)]
        self._within = within
        few = len(ordered[0]) * len(ordered[1]) <= _KEPT
        self._blocks = list(self._compare()) if few else None
        everything, own = np.zeros(STEPS, np.int64), np.zeros(STEPS, np.int64)
        matched = np.zeros(self.people, bool)
        for blocks in _batches(self._all()):
            everything += _counted([block.steps for block in blocks])
            same = [block.steps[:, block.own] for block in blocks]
            own += _counted(same)
            for block, steps in zip(blocks, same, strict=True):
                matched[block.person] |= bool(steps.any())
        self.same, self.different, self.matched = own, everything - own, int(matched.sum())

    def counts(self, steps: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many pairs reach some cosines, if each person were there several times or not at all.

        Args:
            steps: K steps, ascending.
            times: R×P, how often each person is there.

        Returns:
            Pairs of one person and pairs of two people, each R×(K + 1) float64: in column 0 all of them, and in column
            k those of step `steps[k − 1]` or above.
        """
        bins = len(steps) + 2  # 0: no pair; 1: below all steps; 2…: from each step on
        place = np.concatenate([[0], 1 + np.cumsum(np.bincount(steps, minlength=STEPS)[:STEPS])])
        times = times.astype(np.float64)
        own = np.zeros((self.people, bins))
        different = np.zeros((len(times), bins))
        for block in self._all():
            cells = place[block.steps] + block.others * bins
            found = np.bincount(cells.reshape(-1), minlength=own.size).reshape(own.shape).astype(np.float64)
            own[block.person] += found[block.person]
            found[block.person] = 0
            rest = found.any(axis=1)
            different += times[:, block.person, None] * (times[:, rest] @ found[rest])
        return tuple(_from_above(one[:, 1:]) for one in (times @ own, different))  # type: ignore[return-value]

    def _all(self) -> Iterable[_Block]:
        return self._compare() if self._blocks is None else self._blocks

    def _compare(self) -> Iterator[_Block]:
        """All pairs, person by person."""
        (first, second), (ours, theirs) = self._person, self._unit
        edges = [np.searchsorted(side, np.arange(self.people + 1)) for side in (first, second)]
        for person in range(self.people):
            start, stop = edges[0][person], edges[0][person + 1]
            begin = start if self._within else 0  # the pairs with people before are theirs
            rows = max(1, _BLOCK // max(len(second) - begin, 1))
            own = slice(edges[1][person] - begin, edges[1][person + 1] - begin)
            for top in range(start, stop, rows):
                some = slice(top, min(top + rows, stop))
                steps = step_of(ours[some] @ theirs[begin:].T) + 1
                self._leave_out(steps, some, begin)
                yield _Block(person, steps, second[begin:], own)

    def _leave_out(self, steps: np.ndarray, rows: slice, begin: int) -> None:
        """Mark what is no pair."""
        keys, others = self._key[0][rows], self._key[1][begin:]
        equal = np.isin(others, keys[keys != -1])
        if equal.any():
            columns = np.flatnonzero(equal)
            steps[:, columns] = np.where(keys[:, None] == others[columns], 0, steps[:, columns])
        if self._within:
            number = rows.stop - begin  # the columns up to the last of these pictures
            earlier = np.arange(rows.start, rows.stop)[:, None] >= begin + np.arange(number)
            steps[:, :number][earlier] = 0


def _batches(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    """Blocks of about `_BLOCK` pairs together: small ones would cost as much to count as large ones."""
    batch: list[_Block] = []
    size = 0
    for block in blocks:
        batch.append(block)
        size += block.steps.size
        if size >= _BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _counted(steps: Sequence[np.ndarray]) -> np.ndarray:
    """How often each step is there, without what is no pair."""
    flat = np.concatenate([one.reshape(-1) for one in steps])
    return np.bincount(flat, minlength=STEPS + 1)[1:]


def _from_above(counts: np.ndarray) -> np.ndarray:
    """Sums of each column and all columns after it."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]


# --- the fit ----------------------------------------------------------------------------------------------------------


def logistic(same: np.ndarray, different: np.ndarray, people: int) -> tuple[float, float]:
    """Fit a logistic regression of one person against two people on the cosine, both classes weighted equally.

    With equal weights, slope · cosine + intercept is a log-likelihood ratio: the part of the log odds that does not
    depend on how common pairs of one person are.

    If no pair of two people reaches the cosine of a pair of one person, the likelihood grows with the slope without
    end. So the slope has a prior: normal with mean 0 and standard deviation `PRIOR`, where the cosines are scaled to
    standard deviation 1. It counts once against the people, not against the pairs, which are not independent. Where the
    classes overlap, it changes the slope by about a thousandth.

    Args:
        same, different: `STEPS` counts of pairs of one person, and of two people; some of each.
        people: the number of people with pairs of one person.

    Returns:
        Slope and intercept. The slope is 0 if all cosines are equal.
    """
    used = np.flatnonzero(same + different)
    cosines = cosine_of(used) + STEP / 2
    weights = [one[used] / (2.0 * one.sum()) for one in (same, different)]
    total = weights[0] + weights[1]
    mean = float(total @ cosines)
    scale = float(np.sqrt(total @ (cosines - mean) ** 2))
    if scale < STEP / 2:
        return 0.0, 0.0
    slope, intercept = _newton((cosines - mean) / scale, weights[0], weights[1], 1.0 / (PRIOR**2 * people))
    return slope / scale, intercept - slope * mean / scale


def _newton(x: np.ndarray, same: np.ndarray, different: np.ndarray, ridge: float) -> tuple[float, float]:
    """Slope and intercept with the least loss, which is convex and has one minimum."""

    def loss(at: np.ndarray) -> float:
        logit = at[0] * x + at[1]
        return float(same @ np.logaddexp(0, -logit) + different @ np.logaddexp(0, logit) + ridge * at[0] ** 2 / 2)

    at = np.zeros(2)
    now = loss(at)
    for _ in range(_ROUNDS):
        chance = 0.5 * (1.0 + np.tanh((at[0] * x + at[1]) / 2))  # the logistic function, which cannot overflow so
        error = different * chance - same * (1.0 - chance)
        bend = (same + different) * chance * (1.0 - chance)
        gradient = np.array([error @ x + ridge * at[0], error.sum()])
        cross = bend @ x
        curvature = np.array([[bend @ x**2 + ridge, cross], [cross, bend.sum()]])
        curvature[1, 1] += 1e-12  # where all pairs are far from the border, nothing else holds the intercept
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := loss(at - size * step)) > now and size > 1e-9:
            size /= 2
        at, before, now = at - size * step, now, min(now, after)
        if before - after <= 1e-15 and np.abs(gradient).max() < 1e-9:
            break
    return float(at[0]), float(at[1])
