"""Galleries of both modalities: ranking by distance or by ratio, what the first ranks hold, and false alarms.

The rules are those of `vireid.data.mixed`. A calibrated protocol fits each trial's ratios on the people that the trial
does not test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.mixed import CALIBRATED
from vireid.data.modality import Modality
from vireid.data.protocol import Protocol, Trial
from vireid.evaluation import distance as distances
from vireid.evaluation.calibration import NEEDED, PairCalibration, calibrate_pairs, kind_of
from vireid.evaluation.pairs import KINDS
from vireid.evaluation.ranking import Ranking, rank_once
from vireid.evaluation.report import Alarms

if TYPE_CHECKING:
    from vireid.evaluation.scoring import Measured

FIRST = 10
"""The first pictures whose modality is counted."""
STRANGERS = (0.05, 0.1, 1.0)
"""Expected strangers up to which a search of an absent person counts as a false alarm."""
ENOUGH = 50
"""People to calibrate on, below which a report warns."""
RESAMPLINGS = 1000
_ROWS = 2**22  # numbers of a block of rows


@dataclass(frozen=True)
class Found:
    """What a gallery of both modalities gives.

    Attributes:
        rankings: each trial, ranked once.
        own_modality: percent of the first ten pictures that have the query's modality, mean over queries and trials.
        alarms: false alarms for absent people, for each of `STRANGERS`; None where distances are compared.
        warnings: sentences a reader needs.
    """

    rankings: list[Ranking]
    own_modality: float
    alarms: tuple[Alarms, ...] | None
    warnings: tuple[str, ...]


class Calibrations:
    """The calibration of each trial; trials that calibrate on the same pairs share it.

    Args:
        features: N×D finite real numbers.
        identity: N integers.
        modality: N integers, 0 visible or 1 infrared.
    """

    def __init__(self, features: np.ndarray, identity: np.ndarray, modality: np.ndarray | None) -> None:
        if modality is None:
            raise ValueError("a gallery of both modalities needs the modality of each picture")
        self.features, self.identity, self.modality = features, identity, modality
        self._made: dict[tuple[bytes, bytes], dict[str, PairCalibration]] = {}

    def of(self, trial: Trial) -> dict[str, PairCalibration]:
        """The calibration of each kind of pairs (`vireid.evaluation.pairs.KINDS`), from `trial.other` alone.

        A kind in which each person has pictures of one camera only takes these.

        Raises:
            BadInput: the people cannot be calibrated on.
        """
        other, key = trial.other, trial.other_key
        if other is None or key is None:
            raise ValueError("this trial has nobody to calibrate on")
        place = (other.tobytes(), key.tobytes())
        if place not in self._made:
            columns = (self.features[other], self.identity[other], self.modality[other])
            found = calibrate_pairs(*columns, key=key, resamplings=0)
            if len(found) < len(KINDS):
                found = {**calibrate_pairs(*columns, resamplings=0), **found}
            self._made[place] = found
        return self._made[place]


def check_comparison(rules: Protocol, distance: str, rerank: str) -> None:
    """Refuse distances that a protocol of a mixed gallery cannot use.

    Raises:
        BadInput: re-ranking, or ratios of another distance than the cosine.
    """
    if not rules.halves:
        return
    if rerank != "none":
        raise BadInput(
            f"protocol {rules.name} cannot be re-ranked ({rerank}): re-ranking uses the query's own pictures in the "
            "gallery, which the protocol excludes"
        )
    if rules.compare == "ratio" and distance != "cosine":
        raise BadInput(f"protocol {rules.name} compares by the ratio of the cosine, not by {distance} distance")


def rank_mixed(
    trials: Sequence[Trial],
    rules: Protocol,
    how: Measured,
    *,
    calibrations: Calibrations,
    camera: np.ndarray | None = None,
    listed: int = 0,
) -> Found:
    """Rank the trials of a protocol of halves, each once. The Q×G distances of one trial are in memory at a time.

    Args:
        trials: the draws of a protocol.
        rules: the protocol.
        how: how the features are compared.
        calibrations: holds the features, identities and modalities of the N samples that were drawn from.
        camera: N integers; also rank within each gallery camera.
        listed: how many ranked lists to keep; see `rank_once`.

    Raises:
        BadInput: the protocol cannot be compared like this, or people cannot be calibrated on.
    """
    check_comparison(rules, how.distance, how.rerank)
    features, identity, modality = calibrations.features, calibrations.identity, calibrations.modality
    rankings, shares, absent = [], [], []
    for number, trial in enumerate(trials):
        values = _distances(features, trial, how.distance)
        if rules.compare == "ratio":
            pairs = _fitting(rules, number, trial, calibrations)
            absent.append(_strangers(values, trial, identity, modality, pairs))
            values = _ratios(values, trial, modality, pairs)
        ours = values
        (ranking,) = rank_once(
            features,
            identity,
            [trial],
            reranker=lambda query, gallery, ours=ours: ours,
            camera=camera,
            listed=0 if number else listed,
        )
        rankings.append(ranking)
        shares.append(float(np.mean(_own_modality(values, trial, modality))))
    alarms, warnings = None, ()
    if rules.compare == "ratio":
        alarms = false_alarms(trials, identity, [strangers for strangers, _ in absent])
        warnings = (*_few(trials, identity), *_unresolved(max(least for _, least in absent)))
    return Found(rankings, 100.0 * float(np.mean(shares)), alarms, warnings)


Pairs = Mapping[tuple[int, int], PairCalibration]
"""(query modality, gallery modality) → the calibration of such pairs."""


def _fitting(rules: Protocol, number: int, trial: Trial, calibrations: Calibrations) -> Pairs:
    """The calibrations that a trial needs.

    Raises:
        BadInput: the people cannot be calibrated on, or a kind of pairs is missing.
    """
    try:
        found = calibrations.of(trial)
    except BadInput as error:
        plain = rules.name.removesuffix(CALIBRATED)
        raise BadInput(f"protocol {rules.name}, trial {number}: {error}; {plain} needs no calibration") from None
    modality = calibrations.modality
    asked, searched = (np.unique(modality[side]).tolist() for side in (trial.query, trial.gallery))
    pairs = {(q, g): kind_of(Modality(q), Modality(g)) for q in asked for g in searched}
    if missing := sorted({kind for kind in pairs.values() if kind not in found}):
        raise BadInput(
            f"protocol {rules.name} cannot calibrate {missing[0]} pairs: no person to calibrate on has two such "
            "pictures"
        )
    return {modalities: found[kind] for modalities, kind in pairs.items()}


def _distances(features: np.ndarray, trial: Trial, distance: str) -> np.ndarray:
    """Q×G float32, as `vireid.evaluation.distance.blocks` gives them: −cos for `cosine`."""
    out = np.empty((len(trial.query), len(trial.gallery)), dtype=np.float32)
    for start, stop, values in distances.blocks(features, trial.query, trial.gallery, distance=distance):
        out[start:stop] = values
    return out


def _ratios(values: np.ndarray, trial: Trial, modality: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Q×G float64: minus the log-likelihood ratios, from −cos. float64 makes no ties of different cosines."""
    out = np.empty(values.shape, dtype=np.float64)
    for (asked, searched), one in pairs.items():
        where = np.ix_(modality[trial.query] == asked, modality[trial.gallery] == searched)
        out[where] = -one.ratio(-values[where].astype(np.float64))
    return out


def _own_modality(values: np.ndarray, trial: Trial, modality: np.ndarray) -> np.ndarray:
    """The share of each query's first ten pictures that have its modality, Q float64; ties by the gallery's order."""
    share = np.zeros(len(trial.query))
    for rows in _blocks(values.shape):
        block = values[rows].astype(np.float64)
        key = trial.query_key[rows, None]
        block[(trial.gallery_key == key) & (key != -1)] = np.inf
        k = min(FIRST, block.shape[1])
        last = np.partition(block, k - 1, axis=1)[:, k - 1, None]
        nearer = block < last
        tied = (block == last) & np.isfinite(block)
        first = nearer | (tied & (np.cumsum(tied, axis=1) <= k - nearer.sum(axis=1, keepdims=True)))
        own = modality[trial.gallery] == modality[trial.query][rows, None]
        share[rows] = (first & own).sum(axis=1) / np.maximum(first.sum(axis=1), 1)
    return share


def _strangers(
    values: np.ndarray, trial: Trial, identity: np.ndarray, modality: np.ndarray, pairs: Pairs
) -> tuple[np.ndarray, float]:
    """The expected strangers at the most striking picture of each query whose person is not in the gallery.

    Strangers are modalities searched × pictures searched in the picture's modality × false match rate, by the estimate
    of the rate. A search is more careful: there, a rate below the resolution counts as the resolution.

    Returns:
        Q float64, and the largest number of strangers that is below the resolution of the pairs.
    """
    found, least = np.full(len(trial.query), np.inf), 0.0
    searched = modality[trial.gallery]
    for rows in _blocks(values.shape):
        person = identity[trial.gallery] == identity[trial.query][rows, None]
        cosines = np.where(person, -np.inf, -values[rows].astype(np.float64))
        kinds = np.unique(searched)
        pictures = np.stack([(~person & (searched == kind)).sum(axis=1) for kind in kinds], axis=1)
        factor = (pictures > 0).sum(axis=1, keepdims=True) * pictures
        for asked, kind in pairs:
            own = np.flatnonzero(modality[trial.query][rows] == asked)
            column = int(np.searchsorted(kinds, kind))
            seen = own[pictures[own, column] > 0]
            if not len(seen):
                continue
            one = pairs[asked, kind]
            best = cosines[np.ix_(seen, searched == kind)].max(axis=1)
            rate = np.interp(best, one.cosines, one.false)
            place = seen + rows.start
            found[place] = np.minimum(found[place], factor[seen, column] * rate)
            least = max(least, float(factor[seen, column].max()) * one.resolution)
    return found, least


def false_alarms(trials: Sequence[Trial], identity: np.ndarray, strangers: Sequence[np.ndarray]) -> tuple[Alarms, ...]:
    """The share of false alarms in the queries of all trials, for each of `STRANGERS`.

    The trials and the query people are both drawn again, because a trial has its own calibration and gallery.

    Args:
        trials: T draws.
        identity: N integers.
        strangers: for each trial, the fewest expected strangers of each query, Q float64.
    """
    people = np.unique(np.concatenate([identity[trial.query] for trial in trials]))
    shape = (len(trials), len(people))
    queries, counts = np.zeros(shape), np.zeros((len(STRANGERS), *shape))
    for t, (trial, found) in enumerate(zip(trials, strangers, strict=True)):
        place = np.searchsorted(people, identity[trial.query])
        queries[t] = np.bincount(place, minlength=len(people))
        for number, most in enumerate(STRANGERS):
            counts[number, t] = np.bincount(place, weights=found <= most, minlength=len(people))
    generator = np.random.default_rng(0)
    of_trials, of_people = (
        generator.multinomial(size, np.full(size, 1.0 / size), RESAMPLINGS).astype(np.float64) for size in shape
    )
    drawn = ((of_trials @ queries) * of_people).sum(axis=1)
    made = []
    for most, own in zip(STRANGERS, counts, strict=True):
        again = ((of_trials @ own) * of_people).sum(axis=1)[drawn > 0] / drawn[drawn > 0]
        lower, upper = np.quantile(again, (0.025, 0.975))
        if not own.any():  # nothing to draw: the exact upper end if people alarm independently of each other
            upper = 1.0 - 0.025 ** (1.0 / len(people))
        share = float(own.sum() / queries.sum())
        made.append(Alarms(most, 100.0 * share, 100.0 * lower, 100.0 * upper, 100.0 * (1.0 - math.exp(-most))))
    return tuple(made)


def _few(trials: Sequence[Trial], identity: np.ndarray) -> tuple[str, ...]:
    people = min(len(np.unique(identity[trial.other])) for trial in trials)
    if people >= ENOUGH:
        return ()
    return (f"calibrated on {people} people: with fewer than {ENOUGH}, ratios and false alarms are coarse",)


def _unresolved(least: float) -> tuple[str, ...]:
    told = [f"{most:g}" for most in STRANGERS if most < least]
    if not told:
        return ()
    limits = " or ".join(told)
    return (
        f"false alarms with up to {limits} expected strangers rest on fewer than {NEEDED} pairs of two people; with so "
        "few, a search says that its result is unresolved",
    )


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    """Blocks of rows that are worked on at a time."""
    step = max(_ROWS // max(shape[1], 1), 1)
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
