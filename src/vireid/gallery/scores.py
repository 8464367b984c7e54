"""What a search may say: how many strangers to expect at a cosine, and the state of the whole search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, PairCalibration, Rate, Threshold, kind_of
from vireid.gallery.words import count_text, percent

STRANGERS = 0.05
"""A search is `likely` if at most this many strangers are expected at its best match."""
MISSED = 0.2
"""No match and a miss rate up to this: the person is probably not in the gallery."""
UNCALIBRATED = "This model was not calibrated: there is one list for each modality, and nothing is said of the matches."
NOTHING = "No picture passes the filter, so nothing was searched."

State = Literal["likely", "possible", "absent", "open", "unresolved"]

_NARROW = "narrow the search by camera or time, or calibrate with more people"
_KINDS = {"visible": "two visible pictures", "infrared": "two infrared pictures", "across": "one picture of each kind"}


@dataclass(frozen=True)
class Verdict:
    """The state of a search and the sentence that explains it."""

    state: State
    words: str


@dataclass(frozen=True)
class _Judged:
    """One searched modality that can be judged.

    Attributes:
        modality: the modality.
        pairs: the calibration of query and such pictures.
        searched: pictures that were searched.
        factor: modalities that are judged × pictures searched: strangers = factor × false match rate.
        found: strangers at the best match.
    """

    modality: Modality
    pairs: PairCalibration
    searched: int
    factor: int
    found: Rate

    @property
    def least(self) -> float:
        """The smallest number of strangers that the pairs can tell."""
        return self.factor * self.pairs.resolution

    @property
    def resolved(self) -> bool:
        """Whether the pairs can tell the false match rate at which one stranger is expected."""
        return 1 / self.factor >= self.pairs.resolution

    def missed(self) -> Rate:
        """The miss rate at the cosine at which one stranger is expected."""
        return self.pairs.miss_rate(self.pairs.threshold(1 / self.factor).cosine)


def judged(
    calibration: Calibration, query: Modality, searched: Mapping[Modality, int]
) -> dict[Modality, PairCalibration]:
    """The modalities whose matches can be judged: pictures were searched, and such pairs were calibrated.

    Their number is the number of modalities that counts in `strangers`. The calibration lacks a kind of pairs if its
    data set has none; the cosines of this kind mean nothing then, and are in a list of their own.
    """
    found = {one: calibration.pairs.get(kind_of(query, one)) for one, pictures in searched.items() if pictures > 0}
    return {one: pairs for one, pairs in found.items() if pairs is not None}


def strangers(pairs: PairCalibration, cosine: float, searched: int, modalities: int) -> Rate:
    """How many pictures of other people reach this cosine in such a search, expected.

    modalities searched × pictures searched in the match's modality × false match rate of the cosine. If the person is
    not in the gallery, a modality shows a stranger at this level with at most the probability pictures × rate. The
    factor `modalities` is there because the best match is chosen from several modalities: whatever it is, the sum over
    them stays below the number.

    A rate below the resolution of the pairs (30 / pairs of two people) counts as the resolution, in the estimate too:
    that no pair of calibration people reached a cosine says little of a larger number of strangers.
    """
    rate = pairs.false_match_rate(cosine)
    least, factor = pairs.resolution, modalities * searched
    return Rate(factor * max(rate.estimate, least), factor * rate.lower, factor * max(rate.upper, least))


def thresholds(calibration: Calibration, query: Modality, rate: float) -> dict[Modality, Threshold | None]:
    """The cosine at which a false match rate is reached, for pictures of each modality.

    Args:
        calibration: of the model.
        query: the query's modality.
        rate: false match rate, above 0 and up to 1.

    Returns:
        Modality → threshold. None where these pairs were not calibrated, or are too few for this rate.
    """
    found: dict[Modality, Threshold | None] = {}
    for one in (Modality.VISIBLE, Modality.INFRARED):
        pairs = calibration.pairs.get(kind_of(query, one))
        found[one] = None if pairs is None or rate < pairs.resolution else pairs.threshold(rate)
    return found


def verdict(
    calibration: Calibration,
    query: Modality,
    searched: Mapping[Modality, int],
    best: Sequence[tuple[Modality, float]],
    *,
    threshold: float = STRANGERS,
) -> Verdict:
    """The state of a search.

    | state | when |
    | --- | --- |
    | likely | strangers at the best match of a modality are at most `threshold`, by the upper end of their interval |
    | possible | otherwise, if they are at most 1, by the estimate |
    | unresolved | otherwise, if in a modality the pairs are too few to tell where one stranger is expected |
    | absent | otherwise, if the miss rate where one stranger is expected is at most 20 %, by the upper end |
    | open | otherwise |

    - The two claims that somebody may act on, likely and absent, are made by the upper end of an interval. The upper
      end of a false match rate is never below the resolution of the pairs, so too few pairs make `likely` impossible,
      and the words say so. A modality that is not resolved, with 1 / (modalities × pictures) below the resolution,
      cannot be `possible` either.
    - The person may be in one modality only, and nobody knows in which one. So `absent` counts the largest miss rate of
      the modalities, and not their product. It is the miss rate of one picture; a person with several pictures in the
      gallery is missed less often.
    - Modalities without calibrated pairs take no part, and the words name them. If nothing can be judged the state is
      unresolved. If no picture was searched it is open.

    Args:
        calibration: of the model.
        query: the query's modality.
        searched: modality → pictures that were searched.
        best: the largest cosine of each searched modality.
        threshold: strangers up to which a match is likely, above 0 and up to 1.
    """
    if not any(searched.values()):
        return Verdict("open", NOTHING)
    pairs = judged(calibration, query, searched)
    found = []
    for one, cosine in best:
        if (own := pairs.get(one)) is not None:
            expected = strangers(own, cosine, searched[one], len(pairs))
            found.append(_Judged(one, own, searched[one], len(pairs) * searched[one], expected))
    omitted = [_not_judged(query, one) for one, pictures in searched.items() if pictures > 0 and one not in pairs]
    if found:
        state, words = _state(found, threshold)
        return Verdict(state, " ".join([words, *omitted]))
    return Verdict("unresolved", " ".join(omitted)) if omitted else Verdict("open", NOTHING)


def _state(found: Sequence[_Judged], threshold: float) -> tuple[State, str]:
    """The state and its sentence, of modalities that can be judged."""
    if min(one.found.upper for one in found) <= threshold:
        return "likely", _such_searches(threshold)
    best = min(found, key=lambda one: (one.found.estimate, one.found.upper))
    if best.found.estimate <= 1:
        expected = count_text(best.found.estimate)
        return (
            "possible",
            f"Look yourself. Fewest strangers expected at a match: {expected}.{_not_likely(best, threshold)}",
        )
    if unresolved := [one for one in found if not one.resolved]:
        worst = max(unresolved, key=lambda one: one.least)
        return "unresolved", (
            f"{worst.searched:,} {worst.modality.word} pictures are too many for this calibration, whose pairs cannot "
            f"tell false match rates below {worst.pairs.resolution:.2g}: {_NARROW}."
        )
    missed = max((one.missed() for one in found), key=lambda rate: (rate.upper, rate.estimate))
    if missed.upper <= MISSED:
        return "absent", (
            f"No match is better than what strangers reach, and this model misses at most {percent(missed.upper)} of "
            "true ones, so the person is probably not in the gallery."
        )
    return "open", (
        f"No reliable match. This model misses {percent(missed.estimate)} of true ones (95 % interval: "
        f"{percent(missed.lower)} to {percent(missed.upper)}), so nothing follows."
    )


def _such_searches(threshold: float) -> str:
    if threshold > 0.5:
        share = f"{percent(threshold)} of such searches show"
    else:
        share = f"1 in {math.floor(1 / threshold + 1e-9)} such searches shows"
    return f"If the person is not in the gallery, at most {share} a stranger as similar as the best match."


def _not_likely(one: _Judged, threshold: float) -> str:
    """Why a match is only possible, if that is for the lack of pairs."""
    if one.found.estimate <= one.least and one.least > threshold:
        return (
            f" More cannot be said, because {one.pairs.different:,} calibrated pairs are too few for {one.searched:,} "
            f"{one.modality.word} pictures: {_NARROW}."
        )
    if one.found.estimate <= threshold:
        return f" The 95 % interval of this number reaches {count_text(one.found.upper)}, so it is not called likely."
    return ""


def _not_judged(query: Modality, one: Modality) -> str:
    return f"The {one.word} pictures were not judged: the calibration has no pairs of {_KINDS[kind_of(query, one)]}."
