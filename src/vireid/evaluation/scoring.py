"""From features to a report: evaluate the features of a test set by a protocol."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid.data.camera import camera_numbers
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality, modality_of
from vireid.data.permutation import Permutation, read_permutation
from vireid.data.protocol import Protocol, Trial, draw_trials, parse_protocol, protocol_names
from vireid.data.records import UNLABELLED
from vireid.evaluation import metrics
from vireid.evaluation.distance import DISTANCES
from vireid.evaluation.ranking import Ranking, Rerank, rank_once
from vireid.evaluation.report import METRICS, Report, with_counts
from vireid.evaluation.tracklets import set_distances

if TYPE_CHECKING:
    from vireid.evaluation.mixed import Calibrations

COLUMNS = ("features", "identity", "camera", "modality")
_SYSU_PAIRS = {(1, 0), (2, 0), (4, 0), (5, 0), (3, 1), (6, 1)}  # camera and modality
MORE = ("path", "tracklet")  # which some protocols need
_RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class TrialScores:
    """One trial's result, query by query.

    Attributes:
        trial: the draw.
        first: Q int64, the rank of the first true match as the protocol's CMC counts it; 0 without a match.
        precision: Q float64, average precision in 0..1; NaN without a match.
        penalty: Q float64, inverse negative penalty in 0..1; NaN without a match.
        metrics: the six metrics in percent, and `valid_queries`, `queries`, `gallery`.
    """

    trial: Trial
    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """How features were made and compared; part of every report.

    Attributes:
        distance: `cosine` (features are brought to length one first) or `euclidean` (as they are).
        rerank: name of the re-ranking, or `none`.
        embedding: which feature it is, in words.
        flip: whether the mirrored picture's feature was added.
        seed: of the run that trained the model, where known.
    """

    distance: str = "cosine"
    rerank: str = "none"
    embedding: str = "given"
    flip: bool = False
    seed: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """One protocol's result: the report, and what it was made from.

    Attributes:
        report: the numbers.
        scores: each trial's result, query by query.
        rankings: each trial, ranked once.
    """

    report: Report
    scores: tuple[TrialScores, ...]
    rankings: tuple[Ranking, ...]


def score(
    features: Any,
    identity: Any,
    camera: Any,
    modality: Any,
    *,
    protocol: str | Protocol,
    distance: str = "cosine",
    rerank: str = "none",
    reranker: Rerank | None = None,
    embedding: str = "given",
    flip: bool = False,
    seed: int | None = None,
    permutation: Permutation | str | Path | None = None,
    path: Any = None,
    tracklet: Any = None,
) -> Report:
    """Evaluate features of any model under a named protocol.

    All arrays have one entry for each picture of the test set, in file order: the seeded draws depend on the order.

    Args:
        features: N×D real numbers (array or tensor).
        identity: N integers; `vireid.data.records.UNLABELLED` for a picture of an unknown person.
        camera: N integers, the data set's own numbers, or words such as `cam3`. None for a protocol that needs no
            cameras, such as `regdb/v2i`.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb` and `thermal`.
        protocol: a name such as `sysu-mm01/all/single`.
        distance: `cosine` (features are brought to length one first) or `euclidean` (as they are).
        rerank: `none`, `k-reciprocal` or `query-expansion`; or any name, if `reranker` is given.
        reranker: makes the distances of one trial from its query and gallery features, in place of `distance`.
        embedding, flip, seed: how the features were made; written into the report.
        permutation: for the `@official` draws: what `read_permutation` gave, or the file.
        path: N texts, for protocols that are given by lists.
        tracklet: N integers, −1 for a picture in no tracklet, for protocols that rank tracklets.

    Raises:
        BadInput: an array or a name cannot be used (the sentence says which), the cameras are those of another data
            set, or no query of a trial has a true match.
    """
    rules = parse_protocol(protocol)
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    if reranker is None and rerank != "none":
        from vireid.evaluation.reranking import find_reranker

        reranker = find_reranker(rerank)
    elif rerank == "none" and reranker is not None:
        raise BadInput("a reranker needs a name for the report: rerank=NAME")
    features, identity, modality = checked(features, identity, modality)
    camera = _cameras(camera, modality, rules)
    _check_cameras(rules, camera, modality)
    if isinstance(permutation, (str, Path)):
        permutation = read_permutation(permutation)
    drawn = draw_trials(rules, identity, camera, modality, permutation=permutation, path=path, tracklet=tracklet)
    how = Measured(distance, rerank, embedding, bool(flip), seed)
    report = evaluate(features, identity, rules, drawn, how, reranker=reranker, modality=modality).report
    return with_counts(report, identity, modality)


def evaluate(
    features: np.ndarray,
    identity: np.ndarray,
    rules: Protocol,
    trials: Sequence[Trial],
    how: Measured,
    *,
    reranker: Rerank | None = None,
    camera: np.ndarray | None = None,
    listed: int = 0,
    modality: np.ndarray | None = None,
    calibrations: Calibrations | None = None,
) -> Evaluation:
    """Evaluate features on trials that are already drawn, ranking each trial once.

    Args:
        features: N×D finite real numbers.
        identity: N integers.
        rules: the protocol.
        trials: its draws from these N samples.
        how: how the features were made and compared.
        reranker: makes the distances of one trial, in place of `how.distance`.
        camera: N integers; also rank within each gallery camera, which `break_down` needs.
        listed: how many ranked lists to keep; see `rank_once`.
        modality: N integers, 0 visible or 1 infrared; needed where the gallery holds both (`Protocol.halves`).
        calibrations: of the same features, so that protocols share them; made from `modality` if missing.

    Raises:
        BadInput: no query of a trial has a true match in its gallery, or the features cannot be calibrated.
    """
    if rules.tracklets != "none":
        (trial,) = trials  # nothing is drawn where tracklets are ranked
        values = set_distances(features, trial, rules.tracklets, distance=how.distance, reranker=reranker)
        reranker = lambda query, gallery: values  # noqa: E731
    mixed = None
    if rules.halves:
        from vireid.evaluation.mixed import Calibrations, rank_mixed

        fits = calibrations or Calibrations(features, identity, modality)
        mixed = rank_mixed(trials, rules, how, calibrations=fits, camera=camera, listed=listed)
        rankings = mixed.rankings
    else:
        rankings = rank_once(
            features, identity, trials, distance=how.distance, reranker=reranker, camera=camera, listed=listed
        )
    scores = [_trial_scores(ranking, rules.cmc) for ranking in rankings]
    report = _report(rules, scores, identity, features, how)
    if mixed is not None:
        warnings = (*report.warnings, *mixed.warnings)
        report = replace(report, warnings=warnings, own_modality=mixed.own_modality, alarms=mixed.alarms)
    return Evaluation(report, tuple(scores), tuple(rankings))


def _report(
    rules: Protocol, scores: Sequence[TrialScores], identity: np.ndarray, features: np.ndarray, how: Measured
) -> Report:
    """The report of the scores of all trials."""
    first = scores[0].metrics
    means: dict[str, Any] = {name: float(np.mean([one.metrics[name] for one in scores])) for name in METRICS}
    return Report(
        protocol=rules.name,
        **means,
        trials=tuple(one.metrics for one in scores),
        std={name: float(np.std([one.metrics[name] for one in scores])) for name in METRICS},
        valid_queries=int(first["valid_queries"]),
        queries=int(first["queries"]),
        gallery=int(first["gallery"]),
        embedding=how.embedding,
        flip=how.flip,
        rerank=how.rerank,
        seed=how.seed,
        warnings=tuple(_warnings(rules, scores, identity, features, how.rerank)),
        distance=how.distance,
        cmc=rules.cmc,
        chance_rank1=100.0 * float(np.mean([chance(one.trial, identity) for one in scores])),
    )


def with_both_draws(names: Sequence[str], permutation: Permutation | str | Path | None) -> list[str]:
    """The protocols to evaluate: where a permutation is given, a name without a draw stands for both draws.

    Raises:
        BadInput: an unknown name, or a permutation although no protocol uses it.
    """
    if permutation is None:
        return list(names)
    found: list[str] = []
    for name in names:
        parse_protocol(name)
        both = [f"{name}@agw", f"{name}@official"]
        found += both if both[1] in protocol_names() else [name]
    if not any(name.endswith("@official") for name in found):
        known = [name for name in protocol_names("sysu-mm01") if name.endswith("@official")]
        raise BadInput(f"--permutation is for {', '.join(known)}; none of them is asked for: {', '.join(names)}")
    return list(dict.fromkeys(found))


def score_trials(
    features: np.ndarray,
    identity: np.ndarray,
    trials: Sequence[Trial],
    *,
    cmc: str,
    distance: str = "cosine",
    reranker: Rerank | None = None,
) -> list[TrialScores]:
    """The result of every trial, query by query.

    Args:
        features: N×D finite real numbers.
        identity: N integers.
        trials: draws from these N samples.
        cmc: `identity` or `image`, see `vireid.data.protocol.Protocol`.
        distance: `cosine` or `euclidean`.
        reranker: makes the distances of one trial, in place of `distance`.
    """
    rankings = rank_once(features, identity, trials, distance=distance, reranker=reranker)
    return [_trial_scores(ranking, cmc) for ranking in rankings]


def chance(trial: Trial, identity: np.ndarray) -> float:
    """The expected rank-1 of a random ranking, exactly.

    For one query it is (true matches) / (gallery pictures it sees); this is the mean over the queries that have a
    true match.

    Returns:
        A number in 0..1; NaN if no query has a match.
    """
    key, gallery_key = trial.query_key, trial.gallery_key
    kinds, code = np.unique(np.concatenate([identity[trial.query], identity[trial.gallery]]), return_inverse=True)
    asked, searched = code[: len(key)], code[len(key) :]
    of_identity = np.bincount(searched, minlength=len(kinds))[asked]
    of_key = np.where(key == -1, 0, _count_equal(gallery_key, key))
    # Key and identity in one number: keys are numbered first, so that no product can overflow.
    _, place = np.unique(np.concatenate([key, gallery_key]), return_inverse=True)
    pair = place * len(kinds) + code
    excluded_matches = np.where(key == -1, 0, _count_equal(pair[len(key) :], pair[: len(key)]))
    matches = of_identity - excluded_matches
    valid = matches > 0
    seen = len(trial.gallery) - of_key
    return float(np.mean(matches[valid] / seen[valid])) if valid.any() else float("nan")


def read_features(file: str | Path) -> dict[str, np.ndarray | None]:
    """Read a features file: an `.npz` with the arrays `features` (N×D), `identity`, `camera`, `modality` (N each).

    `camera` may be missing and is None then: `score` says whether the protocol needs it. `path` and `tracklet` are read
    too if they are there.

    Raises:
        BadInput: the file is missing, is no `.npz`, holds pickled objects, or lacks an array.
    """
    file = Path(file)
    wanted = ", ".join(COLUMNS)
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BadInput(f"'{file}' holds a single array; expected an .npz with the arrays {wanted}")
        with archive:
            missing = [name for name in COLUMNS if name not in archive.files and name != "camera"]
            if missing:
                present = ", ".join(archive.files) or "(none)"
                raise BadInput(f"'{file}' has no array '{missing[0]}'; it has: {present}; expected: {wanted}")
            names = (*COLUMNS, *(name for name in MORE if name in archive.files))
            return {name: archive[name] if name in archive.files else None for name in names}
    except BadInput:
        raise
    except OSError as error:
        why = error.strerror or "not a NumPy file"
        raise BadInput(f"features file '{file}' cannot be read ({why}); expected an .npz with {wanted}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, AttributeError) as error:
        if "allow_pickle" in str(error) and zipfile.is_zipfile(file):
            raise BadInput(f"'{file}' holds Python objects; expected arrays of numbers: {wanted}") from None
        raise BadInput(f"'{file}' is not an .npz file of arrays; expected the arrays {wanted}") from None


def _trial_scores(ranking: Ranking, cmc: str) -> TrialScores:
    trial, matches = ranking.trial, ranking.matches
    first = metrics.first_rank(matches, cmc=cmc)
    precision, penalty = metrics.average_precision(matches), metrics.inverse_penalty(matches)
    curve = metrics.cumulative_matches(first, max(_RANKS))
    valid = first > 0
    if not valid.any():
        raise BadInput("not one query of this trial has a true match left in the gallery")
    values: dict[str, float] = {f"rank{k}": 100.0 * float(curve[k - 1]) for k in _RANKS}
    values["map"] = 100.0 * float(precision[valid].mean())
    values["minp"] = 100.0 * float(penalty[valid].mean())
    values |= {"valid_queries": int(valid.sum()), "queries": len(trial.query), "gallery": len(trial.gallery)}
    return TrialScores(trial, first, precision, penalty, values)


def _count_equal(column: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """How often each asked value stands in the column."""
    ordered = np.sort(column)
    return np.searchsorted(ordered, asked, side="right") - np.searchsorted(ordered, asked, side="left")


def _warnings(
    rules: Protocol, scored: Sequence[TrialScores], identity: np.ndarray, features: np.ndarray, rerank: str
) -> list[str]:
    found = [rules.note] if rules.note else []
    if unlabelled := int((identity == UNLABELLED).sum()):
        found.append(f"{unlabelled} of {len(identity)} pictures are unlabelled, and are no queries")
    if rerank != "none":
        found.append(f"re-ranked ({rerank}): not comparable with plain numbers")
    skipped = [int(one.metrics["queries"] - one.metrics["valid_queries"]) for one in scored]
    if max(skipped):
        asked = int(scored[0].metrics["queries"])
        found.append(f"{max(skipped)} of {asked} queries have no true match left in the gallery and are not counted")
    sizes = [
        len(np.unique(identity[one.trial.gallery])) if rules.cmc == "identity" else len(one.trial.gallery)
        for one in scored
    ]
    past = [k for k in _RANKS if k > min(sizes)]
    if past:
        what = "identities" if rules.cmc == "identity" else "pictures"
        says = "says" if len(past) == 1 else "say"
        found.append(f"the gallery has {min(sizes)} {what}: {', '.join(f'rank{k}' for k in past)} {says} nothing")
    used = np.unique(np.concatenate([samples for one in scored for samples in (one.trial.query, one.trial.gallery)]))
    zero = int(np.count_nonzero(~np.asarray(features.any(axis=1))[used]))
    if zero:
        found.append(f"{zero} of {len(used)} features are all zeros: pictures without a direction rank by file order")
    return found


def _check_cameras(rules: Protocol, camera: np.ndarray, modality: np.ndarray) -> None:
    """Refuse cameras that a data set cannot have. Those of SYSU-MM01 are checked where its trials are drawn."""
    pairs = {(int(c), int(m)) for c, m in np.unique(np.stack([camera, modality], axis=1), axis=0)}
    cameras = [sorted(number for number, kind in pairs if kind == word) for word in (0, 1)]
    looks = "; these look like features of sysu-mm01" if pairs == _SYSU_PAIRS else ""
    if rules.layout == "regdb" and max(map(len, cameras)) > 1:
        kind = max((0, 1), key=lambda word: len(cameras[word]))
        shown = ", ".join(map(str, cameras[kind][:9])) + (" …" if len(cameras[kind]) > 9 else "")
        raise BadInput(
            f"protocol {rules.name}: regdb has one camera of each modality, but the {Modality(kind).word} samples have "
            f"cameras {shown}{looks}"
        )
    if rules.layout == "llcm":
        strange = sorted({number for number, _ in pairs if number not in range(1, 10)})
        if strange or looks:
            what = f"there is camera {strange[0]}" if strange else "no camera has samples of both modalities"
            raise BadInput(f"protocol {rules.name}: llcm has cameras 1 to 9 of both modalities, but {what}{looks}")


def _needs_cameras(rules: Protocol) -> bool:
    """Whether the trials of a protocol depend on the cameras."""
    sides = (rules.query, rules.gallery)
    drawn = any(side.drawn is not None or side.cameras is not None for side in sides)
    excluded = rules.exclusion not in ("none", "identity-modality")
    # Pictures of one camera are nearly the same, so a calibration leaves them out; RegDB has one of each modality.
    calibrated = rules.compare == "ratio" and rules.layout != "regdb"
    return excluded or drawn or calibrated or rules.tracklets != "none" or rules.layout == "sysu-mm01"


def _as_numbers(given: Any, numbers: Callable[[list[str]], list[int]]) -> np.ndarray:
    """An array in which words have become numbers; everything else is left as it is."""
    column = _array(given)
    if column.dtype.kind not in "USO":
        return column
    words = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in column.reshape(-1)]
    return np.array(numbers(words), dtype=np.int64).reshape(column.shape)


def checked(features: Any, identity: Any, modality: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays or tensors of anybody's network, checked.

    Args:
        features: N×D real numbers.
        identity: N whole numbers.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb` and `thermal`.

    Returns:
        Features N×D, identities N int64, modalities N int64.

    Raises:
        BadInput: an array cannot be used; the sentence says which, and why.
    """
    features = _array(features)
    if features.dtype.kind not in "fiu":
        raise BadInput(f"features are {features.dtype}; expected real numbers such as float32")
    if features.ndim != 2 or 0 in features.shape:
        raise BadInput(f"features have shape {features.shape}; expected N×D, one feature for each picture")
    modality = _as_numbers(modality, lambda words: [int(modality_of(word)) for word in words])
    identity = whole_numbers("identity", _array(identity), len(features))
    modality = whole_numbers("modality", modality, len(features))
    wrong = np.flatnonzero((modality != 0) & (modality != 1))
    if wrong.size:
        raise BadInput(f"sample {wrong[0]} has modality {modality[wrong[0]]}; choices: 0 (visible), 1 (infrared)")
    for start in range(0, len(features), 4096):
        part = features[start : start + 4096]
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if bad.size:
            sample = start + int(bad[0])
            what = "NaN" if np.isnan(features[sample]).any() else "an infinite number"
            raise BadInput(f"features: sample {sample} holds {what}")
    return features, identity, modality


def _cameras(camera: Any, modality: np.ndarray, rules: Protocol) -> np.ndarray:
    """N int64 cameras. Without cameras, each modality counts as one."""
    if camera is None and _needs_cameras(rules):
        raise BadInput(f"protocol {rules.name} depends on the cameras; give the array 'camera'")
    numbers = modality if camera is None else _as_numbers(camera, lambda words: camera_numbers(words)[0])
    return whole_numbers("camera", numbers, len(modality))


def _array(given: Any) -> np.ndarray:
    """A NumPy array; tensors are brought to the CPU, half-precision ones to float32 where NumPy has no such type."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        if str(given.dtype) == "torch.bfloat16":
            given = given.float()
        return given.numpy()
    try:
        return np.asarray(given)
    except ValueError:
        raise BadInput("features of different lengths make no array; each picture needs as many numbers") from None


def whole_numbers(name: str, column: np.ndarray, samples: int) -> np.ndarray:
    """A column of whole numbers, checked: as many as there are samples, as int64.

    Raises:
        BadInput: it has another shape, or holds something else; the sentence begins with `name`.
    """
    if column.shape != (samples,):
        raise BadInput(f"{name} has shape {column.shape}; there are {samples} features, so expected ({samples},)")
    if column.dtype.kind not in "iufb":
        raise BadInput(f"{name} is {column.dtype}; expected whole numbers")
    if column.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(column) & (column == np.round(column)) & (np.abs(column) < 2**53)))
        if bad.size:
            raise BadInput(f"{name}: sample {bad[0]} is {column[bad[0]]}; expected whole numbers")
    if column.dtype == np.uint64 and column.size and column.max() > np.iinfo(np.int64).max:
        raise BadInput(f"{name}: {column.max()} is too large a number")
    return column.astype(np.int64)
