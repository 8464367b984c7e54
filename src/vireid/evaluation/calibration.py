"""What a cosine says: from cosines of three kinds of pairs to log-likelihood ratios and false match rates.

Cosines of two visible pictures, of two infrared ones and of one of each have different distributions. So they do not
compare, and one list must not hold them side by side. After calibration it can: the ratio says how much more likely
this cosine is between pictures of one person than between pictures of two people, whatever kind of pair it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import UNLABELLED
from vireid.data.stored import as_json, from_values
from vireid.evaluation.cosines import STEPS, Cosines, cosine_of, logistic
from vireid.evaluation.pairs import KINDS
from vireid.evaluation.scoring import checked, whole_numbers

RESAMPLINGS = 1000
POINTS = 512
NEEDED = 30
"""Pairs of two people that a false match rate needs at least: rates below 30 / pairs are not resolved."""
FORMAT = 1
FILE = "calibration.json"
"""The calibration of a model, in the directory of the run or of the exported model."""

_CURVES = ("false", "false_lower", "false_upper", "missed", "missed_lower", "missed_upper")
_TAIL, _BODY, _SAME = 256, 64, 160
"""How many cosines come from the upper half of the pairs of two people, from the lower half, and from pairs of one
person."""


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
        cosines: ascending, up to 512: quantiles of the pairs of two people, dense where few of them are above, and of
            the pairs of one person. The first one is below all pairs, and the last one above.
        false, false_lower, false_upper: at these cosines, the share of pairs of two people with at least this cosine.
        missed, missed_lower, missed_upper: at these cosines, the share of pairs of one person with a smaller cosine.
        matched: number of people with pairs of one person.

    Rates between two cosines are interpolated along a straight line. Below the first cosine and above the last one they
    are as there: all and none of the pairs reach it.
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
    matched: int = 0

    @property
    def equal_error_rate(self) -> float:
        """The share, 0 to 1, at which as many pairs of one person are missed as pairs of two people reach a cosine."""
        false, missed = np.array(self.false), np.array(self.missed)
        after = max(int(np.argmax(missed >= false)), 1)
        above, below = false[after - 1] - missed[after - 1], missed[after] - false[after]
        share = above / (above + below) if above + below > 0 else 0.0
        return float(missed[after - 1] + share * (missed[after] - missed[after - 1]))

    @property
    def resolution(self) -> float:
        """The smallest false match rate that these pairs can tell: 30 / pairs of two people."""
        return min(NEEDED / self.different, 1.0)

    def ratio(self, cosine: Any) -> Any:
        """Log-likelihood ratio (natural logarithm) of a cosine; arrays give arrays (float64)."""
        return self.slope * cosine + self.intercept

    def false_match_rate(self, cosine: float) -> Rate:
        """How often two people reach this cosine. The upper end is never below `resolution`."""
        return Rate(*(self._at(cosine, name) for name in _CURVES[:3]))

    def miss_rate(self, cosine: float) -> Rate:
        """How often two pictures of one person do not reach this cosine."""
        return Rate(*(self._at(cosine, name) for name in _CURVES[3:]))

    def threshold(self, rate: float) -> Threshold:
        """The cosine that two people reach with this probability: the smallest one that no more of them reach.

        Its interval is where the lower and the upper ends of the false match rate have this value.

        Raises:
            BadInput: the rate is below `resolution`, or not in 0..1.
        """
        if not 0 <= rate <= 1:
            raise BadInput(f"a false match rate is a number from 0 to 1, not {rate}")
        if rate < self.resolution:
            raise BadInput(
                f"a false match rate of {rate:g} cannot be told from {self.different:,} pairs of two people; the "
                f"smallest one is {self.resolution:.2g}"
            )
        return Threshold(*(self._reached(rate, name) for name in _CURVES[:3]))

    def _at(self, cosine: float, name: str) -> float:
        return float(np.interp(cosine, self.cosines, getattr(self, name)))

    def _reached(self, rate: float, name: str) -> float:
        """The smallest cosine at which a falling curve is at most `rate`."""
        curve = np.array(getattr(self, name))
        after = int(np.argmax(curve <= rate))
        if after == 0:
            return self.cosines[0]
        share = (curve[after - 1] - rate) / (curve[after - 1] - curve[after])
        return float(self.cosines[after - 1] + share * (self.cosines[after] - self.cosines[after - 1]))


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` says.

    Attributes:
        pairs: `visible`, `infrared` and `across` (`vireid.evaluation.pairs.KINDS`) → its calibration. `across` is
            always there. `visible` or `infrared` is missing if too few people have pairs of this kind, for example
            where each modality has one camera, as in RegDB. Then nothing is known of these cosines: a search has no
            ratio, no strangers and no verdict for them, and its two modalities cannot be merged.
        model: fingerprint of the model whose features were compared, see `vireid.model.Model.fingerprint`.
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
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise BadInput(f"{where} is not JSON; calibrate again") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise BadInput(f"{where} has format {str(found)[:20]}; this version of vireid reads {FORMAT}")
        found = from_values(cls, values, where)
        if strange := [kind for kind in found.pairs if kind not in KINDS]:
            raise BadInput(f"{where} has pairs of the kind '{strange[0][:40]}'; choices: {', '.join(KINDS)}")
        if "across" not in found.pairs:
            raise BadInput(f"{where} has no pairs across the modalities; calibrate again")
        for kind, one in found.pairs.items():
            if wrong := _wrong(one):
                raise BadInput(f"{where}, {kind}: {wrong}; calibrate again")
        return found

    @classmethod
    def read(cls, file: Path) -> Calibration:
        """Read a `calibration.json`.

        Raises:
            BadInput: the file cannot be read, or as `from_text`.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadInput(f"{file} is not JSON; calibrate again") from None
        return cls.from_text(text, str(file))

    def as_text(self) -> str:
        """JSON text, with one line for each field, and for each field of a kind of pairs."""
        lines = []
        for name, value in as_json(self).items():
            if name == "pairs":
                kinds = [f"{json.dumps(kind)}: {_object(one, '   ')}" for kind, one in value.items()]
                lines.append('"pairs": {\n  ' + ",\n  ".join(kinds) + "\n }")
            else:
                lines.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
        return "{\n " + ",\n ".join(lines) + "\n}\n"


def _object(values: Mapping[str, Any], indent: str) -> str:
    """A JSON object with one line for each entry."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    return "{\n" + indent + f",\n{indent}".join(lines) + "\n" + indent[:-1] + "}"


def _wrong(pairs: PairCalibration) -> str | None:
    """What cannot be in a calibration, in words; None if all is well."""
    if not (math.isfinite(pairs.slope) and pairs.slope > 0 and math.isfinite(pairs.intercept)):
        return "the slope must be above 0, and slope and intercept finite"
    if min(pairs.same, pairs.different, pairs.people) < 1:
        return "there must be pairs"
    cosines = np.array(pairs.cosines)
    if not 2 <= len(cosines) <= POINTS or not np.isfinite(cosines).all() or (np.diff(cosines) <= 0).any():
        return f"the cosines must be 2 to {POINTS} ascending numbers"
    curves = {name: np.array(getattr(pairs, name)) for name in _CURVES}
    for name, curve in curves.items():
        if len(curve) != len(cosines) or not ((curve >= 0) & (curve <= 1)).all():
            return f"'{name}' must be {len(cosines)} numbers from 0 to 1"
        if (np.diff(curve if name.startswith("missed") else -curve) < 0).any():
            return f"'{name}' must not go up and down"
    for name in ("false", "missed"):
        if (curves[f"{name}_lower"] > curves[name]).any() or (curves[name] > curves[f"{name}_upper"]).any():
            return f"'{name}' must be between its lower and its upper end"
    return None


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
    kinds: Collection[str] = tuple(KINDS),
) -> dict[str, PairCalibration]:
    """Fit each kind of pairs.

    Memory does not grow with the number of pairs.

    Args:
        features: N×D real numbers.
        identity: N integers; `UNLABELLED` is in no pair.
        modality: N integers or words.
        key: N integers: two pictures of one key are no pair, except for key −1. None for all pairs.
        resamplings: how often people are drawn again for the intervals; 0 makes lower and upper equal to the estimate,
            but for the upper end of the false match rate, which is never below `PairCalibration.resolution`.
        seed: of the resampling.
        kinds: those of `KINDS` that are fitted.

    Returns:
        Those kinds that have pairs of one person and pairs of two people.

    Raises:
        BadInput: an array cannot be used, a kind of pairs has a slope that is not above 0, or across has no pairs.
    """
    features, identity, modality = checked(features, identity, modality)
    keys = np.full(len(identity), -1) if key is None else whole_numbers("key", np.asarray(key), len(identity))
    if resamplings < 0:
        raise BadInput(f"resamplings is {resamplings}; it takes a whole number of 0 or more")
    found = {}
    for number, (name, both) in enumerate(KINDS.items()):
        sides = [np.flatnonzero((modality == one) & (identity != UNLABELLED)) for one in both]
        if name in kinds and all(len(side) for side in sides):
            cosines = Cosines(features, identity, keys, sides, within=both[0] == both[1])
            if cosines.same.any() and cosines.different.any():
                found[name] = _calibrated(name, cosines, resamplings, np.random.default_rng((seed, number)))
    if "across" in kinds and "across" not in found:
        raise BadInput(
            "there are no pairs across the modalities, of one person and of two: a calibration needs people with "
            "visible and infrared pictures"
        )
    return found


def _calibrated(name: str, cosines: Cosines, resamplings: int, generator: np.random.Generator) -> PairCalibration:
    """The calibration of one kind of pairs, from its counts."""
    slope, intercept = logistic(cosines.same, cosines.different, cosines.matched)
    if not slope > 0:
        raise BadInput(
            f"{name} pairs of one person are not more alike than pairs of two people (slope {slope:.3g}): these "
            "features cannot be calibrated"
        )
    steps = _steps(cosines.same, cosines.different)
    times = np.ones((1 + resamplings, cosines.people), np.int64)
    times[1:] = generator.multinomial(cosines.people, np.full(cosines.people, 1 / cosines.people), size=resamplings)
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = [counts[:, 1:] / counts[:, :1] for counts in cosines.counts(steps, times)]
    same, different = int(cosines.same.sum()), int(cosines.different.sum())
    missed = _interval(1.0 - reached[0], same, cosines.matched)
    false = _interval(reached[1], different, cosines.people)
    false[2] = np.maximum(false[2], min(NEEDED / different, 1.0))
    curves = dict(zip(_CURVES, [*false, *missed], strict=True))
    return PairCalibration(
        slope=slope,
        intercept=intercept,
        same=same,
        different=different,
        people=cosines.people,
        cosines=tuple(cosine_of(steps).tolist()),
        **{name: tuple(float(f"{rate:.6g}") for rate in curve.tolist()) for name, curve in curves.items()},
        matched=cosines.matched,
    )


def _interval(shares: np.ndarray, pairs: int, people: int) -> list[np.ndarray]:
    """A curve of shares, and the lower and upper ends of its 95 % interval.

    The interval is symmetric in the log odds, where its half width is t times the standard deviation of the draws.
    Percentiles of the draws would be shorter towards large shares: with 24 people who fall into groups, true rates of
    1 % were above the upper percentile in 9 of 100 trials, and above this end in 3.

    Args:
        shares: (1 + R)×K: the curve, which rises or falls, and that of each draw. A draw of people without a single
            pair is NaN and says nothing.
        pairs: how many pairs the shares are of. Half a pair is added on both sides, so that odds are finite.
        people: how many people were drawn, for t and for the variance.
    """
    estimate, draws = shares[0], shares[1:][~np.isnan(shares[1:]).any(axis=1)]
    if len(draws) < 2:
        return [estimate, estimate.copy(), estimate.copy()]

    def log_odds(share: np.ndarray) -> np.ndarray:
        return np.log((share * pairs + 0.5) / ((1.0 - share) * pairs + 0.5))

    freedom = max(people - 1, 1)
    half = _student(freedom) * log_odds(draws).std(axis=0) * np.sqrt(people / freedom)
    ends = [1.0 / (1.0 + np.exp(-(log_odds(estimate) + sign * half))) for sign in (-1, 1)]
    lower, upper = (np.clip((end * (pairs + 1) - 0.5) / pairs, 0.0, 1.0) for end in ends)
    along = slice(None, None, -1 if estimate[0] > estimate[-1] else 1)  # the direction in which the curve rises
    lower = np.minimum.accumulate(np.minimum(lower, estimate)[along][::-1])[::-1][along]
    upper = np.maximum.accumulate(np.maximum(upper, estimate)[along])[along]
    return [estimate, lower, upper]


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t, by its expansion around the normal distribution; good from 5 degrees on."""
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _steps(same: np.ndarray, different: np.ndarray) -> np.ndarray:
    """The steps whose rates are kept, ascending: the first is at or below all pairs, and the last one above."""
    used = np.flatnonzero(same + different)
    above = np.cumsum(different[::-1])  # pairs of two people in the last steps
    pairs = float(above[-1])
    # From one pair on, each number of pairs is larger than the one before by the same factor.
    wanted = [np.geomspace(1, max(pairs / 2, 1), _TAIL), np.linspace(pairs / 2, pairs, _BODY)]
    chosen = [STEPS - 1 - np.searchsorted(above, np.ceil(one)) for one in wanted]
    ranks = np.linspace(1, float(same.sum()), _SAME)
    chosen.append(np.searchsorted(np.cumsum(same), np.ceil(ranks)))
    return np.unique(np.concatenate([used[:1], *chosen, used[-1:] + 1]))
