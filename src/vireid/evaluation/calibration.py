"""What a cosine says: from cosines of three kinds of pairs to log-likelihood ratios and false match rates.

Cosines of two visible pictures, of two infrared ones and of one of each have different distributions. So they do not
compare, and one list must not hold them side by side. After calibration it can: the ratio says how much more likely
this cosine is between pictures of one person than between pictures of two people, whatever kind of pair it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.data.modality import Modality

RESAMPLINGS = 1000
POINTS = 512
NEEDED = 30
"""Pairs of two people that a false match rate needs at least: rates below 30 / pairs are not resolved."""
FORMAT = 1


@dataclass(frozen=True)
class Rate:
    """A share in 0..1 with its 95 % interval, from resampling people."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Threshold:
    """The cosine at which a false match rate is reached, with its 95 % interval."""

    cosine: float
    lower: float
    upper: float


@dataclass(frozen=True)
class PairCalibration:
    """One kind of pairs: visible, infrared, or across.

    Attributes:
        slope, intercept: the log-likelihood ratio is slope · cosine + intercept; the slope is above 0.
        same, different: number of pairs of one person, and of two people.
        people: number of people in these pairs.
        cosines: ascending, up to 512: quantiles of the pairs of two people, dense where few of them are above.
        false, false_lower, false_upper: at these cosines, the share of pairs of two people with at least this cosine.
        missed, missed_lower, missed_upper: at these cosines, the share of pairs of one person with a smaller cosine.
    """

    slope: float
    intercept: float
    same: int
    different: int
    people: int
    cosines: tuple[float, ...]
    false: tuple[float, ...]
    false_lower: tuple[float, ...]
    false_upper: tuple[float, ...]
    missed: tuple[float, ...]
    missed_lower: tuple[float, ...]
    missed_upper: tuple[float, ...]

    @property
    def resolution(self) -> float:
        """The smallest false match rate that these pairs can tell: 30 / pairs of two people."""
        return NEEDED / self.different

    def ratio(self, cosine: Any) -> Any:
        """Log-likelihood ratio (natural logarithm) of a cosine; arrays give arrays (float64)."""
        return self.slope * cosine + self.intercept

    def false_match_rate(self, cosine: float) -> Rate:
        """How often two people reach this cosine. The upper end is never below `resolution`."""
        raise NotImplementedError

    def miss_rate(self, cosine: float) -> Rate:
        """How often two pictures of one person do not reach this cosine."""
        raise NotImplementedError

    def threshold(self, rate: float) -> Threshold:
        """The cosine that two people reach with this probability.

        Raises:
            BadInput: the rate is below `resolution`, or not in 0..1.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` says.

    Attributes:
        pairs: `visible`, `infrared` and `across` (`vireid.evaluation.pairs.KINDS`) → its calibration. A kind without
            pairs is missing, for example `infrared` where each person has one infrared picture.
        model: fingerprint of the model whose features were compared, see `vireid.gallery.index.fingerprint`.
        data: `LAYOUT:PATH` as it was named.
        content: `vireid.data.records.content_fingerprint` of the pictures.
        people: number of people.
        seed: of the resampling.
        warnings: sentences for people.
        command: the command that made it.
        format: version of the file.
    """

    pairs: Mapping[str, PairCalibration]
    model: str
    data: str
    content: str
    people: int
    seed: int
    warnings: tuple[str, ...] = ()
    command: str = ""
    format: int = FORMAT

    @classmethod
    def from_text(cls, text: str, where: str) -> Calibration:
        """Read the JSON text of `as_text`.

        Raises:
            BadInput: it is not such a text, or another version wrote it; `where` names the place.
        """
        raise NotImplementedError

    @classmethod
    def read(cls, file: Path) -> Calibration:
        """Read a `calibration.json`."""
        raise NotImplementedError

    def as_text(self) -> str:
        """JSON text."""
        raise NotImplementedError


def kind_of(one: Modality, other: Modality) -> str:
    """The kind of pair: `visible`, `infrared` or `across`."""
    return "across" if one != other else Modality(one).word


def calibrate_pairs(
    features: Any,
    identity: Any,
    modality: Any,
    *,
    key: Any = None,
    resamplings: int = RESAMPLINGS,
    seed: int = 0,
) -> dict[str, PairCalibration]:
    """Fit each kind of pairs.

    Args:
        features: N×D real numbers.
        identity: N integers; `UNLABELLED` is in no pair.
        modality: N integers or words.
        key: N integers: two pictures of one key are no pair, except for key −1. None for all pairs.
        resamplings: how often people are drawn again for the intervals; 0 makes lower and upper equal to the estimate.
        seed: of the resampling.

    Raises:
        BadInput: an array cannot be used, a kind of pairs has a slope that is not above 0, or across has no pairs.
    """
    raise NotImplementedError
