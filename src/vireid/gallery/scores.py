"""What a search may say: how many strangers to expect at a cosine, and the state of the whole search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, PairCalibration, Rate

STRANGERS = 0.05
"""A search is `likely` if at most this many strangers are expected at its best match."""
MISSED = 0.2
"""No match and a miss rate up to this: the person is probably not in the gallery."""

State = Literal["likely", "possible", "absent", "open", "unresolved"]


@dataclass(frozen=True)
class Verdict:
    """The state of a search and the sentence that explains it."""

    state: State
    words: str


def strangers(pairs: PairCalibration, cosine: float, searched: int, modalities: int) -> Rate:
    """How many pictures of other people reach this cosine in such a search, expected.

    modalities searched × pictures searched in the match's modality × false match rate of the cosine.
    """
    raise NotImplementedError


def verdict(
    calibration: Calibration,
    query: Modality,
    searched: Mapping[Modality, int],
    best: Sequence[tuple[Modality, float]],
    *,
    threshold: float = STRANGERS,
) -> Verdict:
    """The state of a search.

    Args:
        calibration: of the model.
        query: the query's modality.
        searched: modality → pictures that were searched.
        best: the largest cosine of each searched modality.
        threshold: strangers up to which a match is likely.
    """
    raise NotImplementedError
