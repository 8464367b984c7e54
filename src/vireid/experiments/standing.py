"""Which group of runs is better, and whether that is certain: groups of a protocol in order, compared with the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vireid.data.errors import BadInput
from vireid.evaluation.queries import BY_QUERY, Queries
from vireid.evaluation.spread import MEMBERS, Order, order, people_drawn_again, seeds_drawn_again
from vireid.experiments.grouping import Group
from vireid.experiments.measurement import queries_of

SEEDS = 3  # of each group, fewest for an order that is said to be certain whatever the seeds


@dataclass(frozen=True)
class Standing:
    """The place of a group in the order of a protocol.

    Attributes:
        group: the group.
        intervals: `map` and `rank1` → the 95 % interval of the group's own number, in percent; empty if not known.
        behind: `map` and `rank1` → this group minus the best one; empty for the best one and where `reason` says why.
        few: whether this group or the best one has fewer than three seeds, so that other seeds may change the order.
        reason: why the group is not compared with the best one, in words; otherwise empty.
    """

    group: Group
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    behind: Mapping[str, Order] = field(default_factory=dict)
    few: bool = False
    reason: str = ""

    def verdict(self, metric: str) -> str:
        """`certain`, `certain for these trainings` or `not certain`; empty without a comparison."""
        if metric not in self.behind:
            return ""
        if not self.behind[metric].certain:
            return "not certain"
        return "certain for these trainings" if self.few else "certain"


def standings(groups: Sequence[Group]) -> list[Standing]:
    """The groups of one protocol, the highest mAP first; those that are not finished come last.

    The test people are drawn again with replacement, the same ones for all groups, and the seeds of each group as well.
    So a difference is between answers to the same queries in the same trials.

    Args:
        groups: groups of measurements of one protocol, without untrained networks.
    """
    ordered = sorted(groups, key=lambda group: (not group.finished, -group.ours.metrics["map"]))
    if not ordered:
        return []
    best, kept = ordered[0], [_queries(group) for group in ordered]
    reference, found = kept[0], []
    drawn: dict[str, np.ndarray] = {}
    for group, own in zip(ordered, kept, strict=True):
        reason = "" if group.finished else "not compared: it is not finished"
        reason = reason or _unlike(own, reference, group is best)
        if isinstance(own, str) or reason:
            found.append(Standing(group, reason=reason))
            continue
        again = {metric: _drawn_again(group, own, metric) for metric in BY_QUERY}
        intervals = {metric: _interval(numbers) for metric, numbers in again.items()}
        if group is best:
            drawn = again
            found.append(Standing(group, intervals))
            continue
        behind = {
            metric: order(drawn[metric], again[metric], group.ours.metrics[metric] - best.ours.metrics[metric])
            for metric in BY_QUERY
        }
        few = min(len(group.ours.seeds), len(best.ours.seeds)) < SEEDS
        found.append(Standing(group, intervals, behind, few))
    return found


Kept = Mapping[int, Sequence[Queries]]
"""Fold → the results of queries of each seed, in the order of `Ours.seeds`; 1 where the layout has no folds."""


def _queries(group: Group) -> Kept | str:
    """The results of all queries of a group, or why there are none."""
    found: dict[int, list[Queries]] = {}
    for run, one in sorted(group.found, key=lambda pair: pair[0].facts.seed):
        try:
            own = queries_of(run, one)
        except BadInput as error:
            return f"not compared: {error}"
        if own is None:
            return "not compared: the results of its queries are not kept; run vireid test again"
        found.setdefault(run.facts.data.fold or 1, []).append(own)
    if any(len(people(one)) < MEMBERS for of_fold in found.values() for one in of_fold):
        return f"not compared: fewer than {MEMBERS} test people"
    return found


def people(queries: Queries) -> np.ndarray:
    """The identities that have a query that counts, ascending."""
    return np.unique(queries.identity[(queries.first > 0).any(axis=0)])


def _unlike(own: Kept | str, best: Kept | str, is_best: bool) -> str:
    """Why a group cannot be compared with the best one; empty if it can."""
    if isinstance(own, str):
        return own
    if isinstance(best, str):
        return "not compared: the best one has no results of queries to compare with"
    if own.keys() != best.keys():
        return f"not compared: folds {_listed(own)}, and the best one has folds {_listed(best)}"
    for fold, of_fold in own.items():
        other = best[fold][0]
        for one in of_fold:
            if not np.array_equal(one.path, other.path) or not np.array_equal(one.identity, other.identity):
                same = len(np.intersect1d(one.path, other.path))
                return f"not compared: other queries ({same} of {len(one.path)} are also queries of the best one)"
            if not np.array_equal(one.trials, other.trials):
                return "not compared: the same queries, but other gallery pictures were drawn"
    return ""


def _listed(kept: Kept) -> str:
    return ", ".join(map(str, sorted(kept)))


def _drawn_again(group: Group, kept: Kept, metric: str) -> np.ndarray:
    """The group's metric for each draw of people and seeds. The people of each fold are drawn on their own."""
    of_folds = []
    for fold, of_fold in sorted(kept.items()):
        values = np.stack([one.values(metric) for one in of_fold])
        numbers = people_drawn_again(values, of_fold[0].identity, seed=fold)
        assert numbers is not None  # `_queries` has counted the people
        of_folds.append(numbers)
    return seeds_drawn_again(np.mean(of_folds, axis=0), group.ours.seeds)


def _interval(numbers: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(numbers, (2.5, 97.5))
    return float(low), float(high)
