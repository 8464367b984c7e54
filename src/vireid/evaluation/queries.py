"""The result of each query in each draw: what a report's means are made of.

With it, runs are compared query by query.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.protocol import Trial
from vireid.data.stored import writing
from vireid.evaluation.report import Report
from vireid.evaluation.scoring import Evaluation

BY_QUERY = ("map", "rank1")
"""The metrics that are means over queries here."""


@dataclass(frozen=True, eq=False)
class Queries:
    """The result of every query in every trial of a protocol.

    Attributes:
        path: Q texts.
        identity, camera: Q int64, the data set's own numbers.
        first: T×Q int32, rank of the first true match as the protocol's CMC counts it; 0 where the query does not
            count, because it has no true match in this trial or is not asked.
        precision: T×Q float32, average precision in 0..1; NaN where the query does not count.
        trials: T texts, a hash of each draw: of its pictures, people and keys. Equal draws have equal hashes.
    """

    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray
    first: np.ndarray
    precision: np.ndarray
    trials: np.ndarray

    @classmethod
    def of(
        cls, evaluation: Evaluation, identity: np.ndarray, camera: np.ndarray, path: Sequence[str] | np.ndarray
    ) -> Queries:
        """The queries of an evaluation.

        Args:
            evaluation: from `vireid.evaluation.scoring.evaluate`.
            identity: N integers.
            camera: N integers.
            path: N names.
        """
        asked = np.unique(np.concatenate([scores.trial.query for scores in evaluation.scores]))
        first = np.zeros((len(evaluation.scores), len(asked)), np.int32)
        precision = np.full(first.shape, np.nan, np.float32)
        for number, scores in enumerate(evaluation.scores):
            place = np.searchsorted(asked, scores.trial.query)
            first[number, place], precision[number, place] = scores.first, scores.precision
        names = np.asarray(path).astype(str)
        drawn = np.array([_hash(scores.trial, identity, names) for scores in evaluation.scores])
        return cls(names[asked], identity[asked], camera[asked], first, precision, drawn)

    def values(self, metric: str) -> np.ndarray:
        """What a metric is the mean of: T×Q float64 in percent; NaN where a query does not count.

        Args:
            metric: `map` or `rank1`.
        """
        if metric == "map":
            return 100.0 * self.precision.astype(np.float64)
        return np.where(self.first > 0, 100.0 * (self.first == 1), np.nan)

    def means(self, metric: str) -> np.ndarray:
        """Q float64 in percent: each query's mean over the trials in which it counts; NaN if it counts in none."""
        values = self.values(metric)
        counted = (self.first > 0).sum(axis=0)
        return np.divide(np.nansum(values, axis=0), counted, out=np.full(len(counted), np.nan), where=counted > 0)

    def ranks(self) -> np.ndarray:
        """Q float64: the rank of the first true match, mean over the trials in which it counts; NaN if in none."""
        counted = (self.first > 0).sum(axis=0)
        return np.divide(self.first.sum(axis=0), counted, out=np.full(len(counted), np.nan), where=counted > 0)

    def belong_to(self, report: Report) -> bool:
        """Whether a report's Rank-1 and mAP are the means of these results."""
        if len(self.trials) != len(report.trials):
            return False
        return all(
            abs(float(np.nanmean(self.values(name), axis=1).mean()) - getattr(report, name)) < 1e-3 for name in BY_QUERY
        )

    def write(self, file: Path) -> None:
        """Write an `.npz` file with an array for each attribute, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        with writing(file) as stream:
            np.savez_compressed(stream, **vars(self))

    @classmethod
    def read(cls, file: Path) -> Queries:
        """Read what `write` wrote.

        Raises:
            BadInput: the file cannot be read, or is another one.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls(**{one.name: stored[one.name] for one in fields(cls)})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(f"{file} does not hold the results of queries: {error}; run vireid test again") from None


def _hash(trial: Trial, identity: np.ndarray, path: np.ndarray) -> str:
    """16 hexadecimal digits. Positions are left out, because they depend on what else the data set holds."""
    found = hashlib.sha256()
    for samples, key in ((trial.query, trial.query_key), (trial.gallery, trial.gallery_key)):
        found.update("\n".join(path[samples]).encode())
        found.update(np.ascontiguousarray(identity[samples], np.int64).tobytes())
        found.update(np.ascontiguousarray(key, np.int64).tobytes())
    for pictures in (*(trial.query_sets or ()), *(trial.gallery_sets or ())):
        found.update("\n".join(path[pictures]).encode() + b"\n\n")
    return found.hexdigest()[:16]
