"""Protocols whose gallery holds pictures of both modalities: `LAYOUT/mixed/…`.

LAYOUT/mixed/i2v, v2i         the query's person is in the other modality only
LAYOUT/mixed/i2both, v2both   the query's person is in both modalities

Names that end in `@calibrated` compare by log-likelihood ratios instead of distances. A ratio needs people to calibrate
on, and nobody may be both calibrated on and tested. So each trial splits the test people into two halves. The plain
names follow the same trials, so that their results can be compared.
"""

from __future__ import annotations

import random

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.protocol import Exclusion, Protocol, Side, Trial, numbered

CALIBRATED = "@calibrated"
MIXED = "mixed"
PEOPLE = 20
"""Test people that a protocol of halves needs. With fewer than ten people in a half, Rank-10 says nothing, and a
calibration rests on fewer than 45 pairs of two people."""
TRIALS = 10

_NOTE = "a gallery of both modalities is a protocol of this toolbox, on half of the test people: papers have no numbers"
_IN_BOTH: dict[str, Exclusion | None] = {
    "sysu-mm01": "identity-location",  # cameras 2 and 3 are in one room
    "regdb": None,  # one camera of each modality: what is left is the other modality, as in i2v and v2i
}


def mixed_protocols(layout: str) -> list[Protocol]:
    """The protocols of a gallery of both modalities, of any layout, each plain and calibrated.

    A layout from outside the package has them if its `PROTOCOLS` hold them: `[…, *mixed_protocols("my-yard")]`.

    >>> [one.name for one in mixed_protocols("regdb")]
    ['regdb/mixed/i2v', 'regdb/mixed/i2v@calibrated', 'regdb/mixed/v2i', 'regdb/mixed/v2i@calibrated']
    """
    in_both = _IN_BOTH.get(layout, "identity-camera")
    kinds: dict[str, Exclusion] = {"i2v": "identity-modality", "v2i": "identity-modality"}
    if in_both is not None:
        kinds |= {"i2both": in_both, "v2both": in_both}
    return [
        Protocol(
            f"{layout}/{MIXED}/{kind}{CALIBRATED if compare == 'ratio' else ''}",
            layout,
            query=Side(Modality.INFRARED if kind.startswith("i") else Modality.VISIBLE),
            gallery=Side(None),
            trials=TRIALS,
            exclusion=exclusion,
            cmc="image",
            note=_NOTE,
            halves=True,
            compare=compare,
        )
        for kind, exclusion in kinds.items()
        for compare in ("distance", "ratio")
    ]


def calibrating(people: np.ndarray, trial: int) -> np.ndarray:
    """The people that a trial calibrates on; the others are tested.

    Python's generator is seeded with the number of the trial. Each person, in ascending order, gets one random number.
    The half with the smallest numbers is calibrated on; of an odd number of people, one more is tested.

    Args:
        people: P different integers, ascending.
        trial: its number, from 0.

    Returns:
        ⌊P/2⌋ of the people, ascending.
    """
    generator = random.Random(trial)
    order = np.argsort([generator.random() for _ in range(len(people))], kind="stable")
    return people[np.sort(order[: len(people) // 2])]


def halves(
    protocol: Protocol,
    query: np.ndarray,
    gallery: np.ndarray,
    key: np.ndarray,
    identity: np.ndarray,
    camera: np.ndarray,
    modality: np.ndarray,
) -> list[Trial]:
    """The trials of a protocol that tests half of the people.

    Two pictures of one person are no pair to calibrate on where the protocol would exclude one for the other. Where it
    excludes all pictures of the query's person and modality, there would be no pairs within a modality. Then only
    those of one camera are left out, because they are nearly the same picture.

    Args:
        protocol: its rules.
        query: positions of all its queries, ascending.
        gallery: positions of its whole gallery, ascending.
        key: N int64, the key of each sample, see `Trial`.
        identity, camera, modality: N integers each.

    Raises:
        BadInput: there are fewer than 20 people.
    """
    people = np.unique(identity[gallery])
    if len(people) < PEOPLE:
        raise BadInput(
            f"protocol {protocol.name} calibrates on one half of the test people and tests the other: it needs at "
            f"least {PEOPLE} people, and there are {len(people)}"
        )
    pairs = numbered(identity, camera, modality) if protocol.exclusion == "identity-modality" else key
    trials = []
    for t in range(protocol.trials):
        fitted = np.isin(identity, calibrating(people, t))
        asked, searched, other = query[~fitted[query]], gallery[~fitted[gallery]], gallery[fitted[gallery]]
        trials.append(Trial(asked, searched, key[asked], key[searched], other=other, other_key=pairs[other]))
    return trials
