"""How far features keep people apart and modalities together: the numbers that a t-SNE picture can only hint at.

All of them compare directions (cosine), as the protocols do. Pictures of unknown people do not count.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.records import UNLABELLED
from vireid.evaluation.distance import normalise
from vireid.evaluation.scoring import checked

_BLOCK = 4096  # features that are prepared at a time
PROBE_PEOPLE, PROBE_PICTURES = 250, 8
"""At most what the linear probe is fitted on: people, and pictures of each in each modality. A few seconds of work."""
FOLDS = 5


@dataclass(frozen=True)
class Separation:
    """Numbers of one network's features. The people are those that have pictures of both modalities.

    Attributes:
        pictures, people: how many they are computed from; `people` counts those with pictures of both modalities.
        silhouette: silhouette by identity, −1 to 1: positive where pictures are nearer to their own person than to
            the nearest other one. See `silhouette`.
        silhouette_across: the same, where a picture is compared with pictures of the other modality only.
        probe: accuracy of a linear probe for the modality in percent, on people that it was not fitted on. 50 is
            chance: the features do not tell the modality. See `probe`.
        probe_pictures: how many pictures the probe was fitted and tested on.
        centroid_distance: distance between the mean visible and the mean infrared feature, 0 to 2.
        spread: mean distance of the features of a modality to their mean; the mean of both modalities.
        centroid_ratio: `centroid_distance` / `spread`.
    """

    pictures: int
    people: int
    silhouette: float
    silhouette_across: float
    probe: float
    probe_pictures: int
    centroid_distance: float
    spread: float

    @property
    def centroid_ratio(self) -> float:
        """0 where both modalities have one centre; infinite or NaN where a modality has no spread."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.float64(self.centroid_distance) / self.spread)


def separation(features: Any, identity: Any, modality: Any, *, seed: int = 0) -> Separation:
    """Measure how features separate people and modalities.

    Args:
        features: N×D real numbers, of any network.
        identity: N integers; `UNLABELLED` (−1) for a picture of an unknown person.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb`.
        seed: of the probe's folds, and of the pictures that it takes where there are many.

    Raises:
        BadInput: an array cannot be used, fewer than two people have pictures of both modalities, or scikit-learn is
            not installed.
    """
    features, identity, modality = known(*checked(features, identity, modality))
    both = in_both(identity, modality)
    people = len(np.unique(identity[both]))
    if people < 2:
        raise BadInput(f"separation needs two people with pictures of both modalities; there are {people}")
    accuracy, used = probe(features, identity, modality, seed=seed)
    distance, spread = centroids(features[both], modality[both])
    return Separation(
        len(features),
        people,
        silhouette(features, identity),
        silhouette(features, identity, modality),
        accuracy,
        used,
        distance,
        spread,
    )


def known(features: np.ndarray, identity: np.ndarray, modality: np.ndarray) -> tuple[np.ndarray, ...]:
    """The samples of known people. The same arrays if all are known."""
    keep = identity != UNLABELLED
    return (features, identity, modality) if keep.all() else (features[keep], identity[keep], modality[keep])


def in_both(identity: np.ndarray, modality: np.ndarray) -> np.ndarray:
    """Which samples show a person who has pictures of both modalities, N booleans.

    >>> in_both(np.array([7, 7, 8, 9]), np.array([0, 1, 0, 1])).tolist()
    [True, True, False, False]
    """
    return np.isin(identity, np.intersect1d(identity[modality == 0], identity[modality == 1]))


def draw_people(identity: np.ndarray, modality: np.ndarray, *, people: int, pictures: int, seed: int) -> np.ndarray:
    """Samples of people drawn at random from those with pictures of both modalities.

    Args:
        identity, modality: N integers each.
        people: at most how many people.
        pictures: at most how many pictures of a person in each modality.
        seed: of both draws.

    Returns:
        Positions, ascending int64.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(identity))
    order = order[in_both(identity, modality)[order]]
    chosen = generator.permutation(np.unique(identity[order]))[:people]
    order = order[np.isin(identity[order], chosen)]
    # The first `pictures` of each person and modality, in the random order.
    _, cell = np.unique(np.stack([identity[order], modality[order]], axis=1), axis=0, return_inverse=True)
    by_cell = np.argsort(cell.reshape(-1), kind="stable")
    sizes = np.bincount(cell.reshape(-1))
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[by_cell[place < pictures]]).astype(np.int64)


def silhouette(features: np.ndarray, identity: np.ndarray, modality: np.ndarray | None = None) -> float:
    """The mean silhouette of pictures by identity (Rousseeuw, 1987), with cosine distance.

    For a picture, a is the mean distance to the other pictures of its person, and b is the smallest mean distance to
    the pictures of another person. Its silhouette is (b − a) / max(a, b). With `modality`, both are means over pictures
    of the other modality only. A picture without another one of its person to be compared with is left out.

    Memory grows with N, not N²: a mean of cosine distances is 1 − x·(mean of the others), for features of length one.

    Args:
        features: N×D real numbers.
        identity: N integers.
        modality: N integers, 0 or 1; None to compare with pictures of both.

    Returns:
        A number in −1..1; NaN if no picture can be compared.
    """
    _, code = np.unique(identity, return_inverse=True)
    code = code.reshape(-1)
    if modality is None:
        everything = np.arange(len(code))
        sides = [(everything, everything)]
    else:
        visible, infrared = np.flatnonzero(modality == 0), np.flatnonzero(modality == 1)
        sides = [(visible, infrared), (infrared, visible)]
    values = np.concatenate([_silhouettes(features, code, asked, others) for asked, others in sides])
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _silhouettes(features: np.ndarray, code: np.ndarray, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The silhouettes of the samples `asked` among `others`, float64; NaN where there is nothing to compare with."""
    count = np.bincount(code[others], minlength=code.max() + 1)
    total = np.zeros((len(count), features.shape[1]))
    by_person = others[np.argsort(code[others], kind="stable")]
    for person, own in enumerate(np.split(by_person, np.cumsum(count)[:-1])):
        total[person] = normalise(features, own).sum(axis=0, dtype=np.float64)
    alone = asked is others  # then a picture stands among the others itself, and does not count there
    found = []
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        unit = normalise(features, block).astype(np.float64)
        rows, own = np.arange(len(block)), code[block]
        products = unit @ total.T
        same = products[rows, own] - (np.einsum("nd,nd->n", unit, unit) if alone else 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = np.where(count > 0, 1.0 - products / count, np.inf)
            a = 1.0 - same / (count[own] - alone)
            distances[rows, own] = np.inf
            b = distances.min(axis=1)
            value = np.where(np.maximum(a, b) > 0, (b - a) / np.maximum(a, b), 0.0)
        found.append(np.where((count[own] > alone) & np.isfinite(b), value, np.nan))
    return np.concatenate(found) if found else np.empty(0)


def centroids(features: np.ndarray, modality: np.ndarray) -> tuple[float, float]:
    """How far the centres of the modalities are apart, and how far features lie around their centre.

    Features are brought to length one first.

    Args:
        features: N×D real numbers, some of each modality.
        modality: N integers, 0 or 1.

    Returns:
        ‖c₀ − c₁‖, where c is the mean of a modality's features; and the mean over the modalities of the mean ‖x − c‖.
    """
    centres, spreads = [], []
    for kind in (0, 1):
        own = np.flatnonzero(modality == kind)
        blocks = [own[start : start + _BLOCK] for start in range(0, len(own), _BLOCK)]
        centre = sum(normalise(features, block).sum(axis=0, dtype=np.float64) for block in blocks) / len(own)
        around = sum(np.linalg.norm(normalise(features, block) - centre, axis=1).sum() for block in blocks)
        centres.append(centre)
        spreads.append(around / len(own))
    return float(np.linalg.norm(centres[0] - centres[1])), float(np.mean(spreads))


def probe(features: np.ndarray, identity: np.ndarray, modality: np.ndarray, *, seed: int = 0) -> tuple[float, int]:
    """How well a linear classifier tells the modality of people that it was not fitted on.

    Logistic regression on features of length one, standardised, in five folds. All pictures of a person are in one
    fold. Only people with pictures of both modalities count, so that who somebody is says nothing about the modality.

    Args:
        features: N×D real numbers; at least two people have pictures of both modalities.
        identity: N integers.
        modality: N integers, 0 or 1.
        seed: of the folds, and of the pictures that are used: at most `PROBE_PEOPLE` people, and `PROBE_PICTURES`
            pictures of each in each modality.

    Returns:
        Balanced accuracy in percent, which is the mean of the shares of visible and of infrared pictures that are told
        rightly, so that chance is 50; and how many pictures it was measured on.

    Raises:
        BadInput: scikit-learn is not installed.
    """
    model_selection, pipeline = scikit_learn("model_selection"), scikit_learn("pipeline")
    standard = scikit_learn("preprocessing").StandardScaler()
    logistic = scikit_learn("linear_model").LogisticRegression(class_weight="balanced", max_iter=1000)
    used = draw_people(identity, modality, people=PROBE_PEOPLE, pictures=PROBE_PICTURES, seed=seed)
    kinds = modality[used]
    people, code = np.unique(identity[used], return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(people))[code.reshape(-1)] % FOLDS
    told = model_selection.cross_val_predict(
        pipeline.make_pipeline(standard, logistic),
        normalise(features, used),
        kinds,
        cv=model_selection.PredefinedSplit(fold),
    )
    return 100.0 * float(np.mean([(told[kinds == kind] == kind).mean() for kind in (0, 1)])), len(used)


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn, which is an extra.

    Raises:
        BadInput: it is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise BadInput("t-SNE and the linear probe need scikit-learn: pip install 'vireid[figures]'") from error
