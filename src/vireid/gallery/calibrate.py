"""`vireid gallery calibrate`: measure what the cosines of a model say, on people that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vireid import datasets, plugins
from vireid.data.errors import BadInput
from vireid.data.records import Records, content_fingerprint
from vireid.data.settings import Count, Share, Whole, options
from vireid.data.stored import check_output, write_text
from vireid.evaluation.calibration import FILE, NEEDED, Calibration, PairCalibration, calibrate_pairs
from vireid.evaluation.pairs import KINDS
from vireid.experiments.embedding import Inference, embed_records
from vireid.experiments.test import own_fold
from vireid.experiments.trained import trained_people
from vireid.gallery.index import CALIBRATION, load_model
from vireid.gallery.store import open as open_store
from vireid.training.progress import Progress, Quiet

if TYPE_CHECKING:
    from vireid.model import Model
    from vireid.training.run import Run

LEAST = 20
"""People without whom nothing is calibrated: fewer say too little about others."""
FEW = 50
"""Below this many people there is a warning."""
RATES = (0.01, 0.001)
"""False match rates whose thresholds are shown."""


@options
class CalibrateOptions:
    """What `vireid gallery calibrate` is asked to do.

    Attributes:
        run: a run directory, or that of an exported model.
        data: `LAYOUT:PATH` of people that the run was not trained on.
        split: `test` or `val`.
        checkpoint: `last` or `best`.
        index: also keep the calibration in this index; None for none.
        fmr: false match rates whose thresholds are shown.
        seed: of drawing people again.
        batch: pictures embedded at once.
        workers: loading processes.
        cache: folder for resized pictures.
        command: the command that the calibration records.
    """

    run: Path
    data: str
    split: Literal["test", "val"] = "test"
    checkpoint: Literal["last", "best"] = "last"
    index: str | None = None
    fmr: tuple[Share, ...] = RATES
    seed: Whole = 0
    batch: Count = 64
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


def calibrate(asked: CalibrateOptions, progress: Progress = Quiet()) -> Calibration:  # noqa: B008 has no state
    """Calibrate a model, and write `calibration.json` beside it.

    All pairs of two people count, those of one camera too, because a gallery holds strangers of the query's camera.
    Two pictures of one person from one camera are no pair: they are nearly the same picture, and the match that is
    searched for is from elsewhere. See `pair_keys`.

    Raises:
        BadInput: the run, the data or the index cannot be used; people were trained on; there are fewer than 20 people
            with pictures of both modalities; or pairs of one person are not more alike than pairs of two people.
    """
    from vireid.training.run import open_run

    run = open_run(asked.run)
    file = check_output(asked.run / FILE)
    changed = plugins.require(run, asked.data)
    records, unknown = untrained_people(run, asked.data, asked.split)
    keys = pair_keys(records)
    kinds, missing = _kinds(records, keys)
    model = load_model(asked.run, asked.checkpoint)
    identifier = model.fingerprint
    if asked.index is not None:
        _check_index(asked.index, asked.run, identifier)
    records = records.with_scaling(model.scaling)
    how = Inference(model.size, batch=asked.batch, workers=asked.workers, cache=asked.cache)
    embedder = model.embedder("neck", pictures=len(records), batch=asked.batch)
    features = embed_records(embedder, records, np.arange(len(records)), how, progress)
    progress.say(f"comparing {len(records):,} pictures of {len(np.unique(records.identity))} people")
    pairs = calibrate_pairs(features, records.identity, records.modality, key=keys, seed=asked.seed, kinds=kinds)
    found = Calibration(
        pairs=pairs,
        model=identifier,
        data=asked.data,
        content=content_fingerprint(records),
        people=len(np.unique(records.identity)),
        seed=asked.seed,
        warnings=(*_warnings(records, pairs, model, asked.split), *missing, *unknown, *changed),
        command=asked.command,
    )
    try:
        write_text(file, found.as_text())
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
    if asked.index is not None:
        with open_store(asked.index) as store:
            store.keep(CALIBRATION, found.as_text())
    return found


def untrained_people(run: Run, data: str, split: str) -> tuple[Records, tuple[str, ...]]:
    """The labelled pictures of a split, after a check that the run was trained on none of its people.

    Returns:
        The pictures, and a sentence for each training of which this could not be checked.

    Raises:
        BadInput: the data cannot be read, the split has no labelled pictures, or people were trained on.
    """
    layout, root = datasets.parse_source(data)
    everything = datasets.read(layout, root, fold=own_fold(run, layout, None))
    records = everything.where(split=split).labelled()
    if not len(records):
        there = [name for name in ("test", "val") if len(everything.where(split=name).labelled())]
        raise BadInput(f"{data} has no labelled pictures in the split {split}; choices: {', '.join(there) or '(none)'}")
    trained = trained_people(everything, run)
    people = np.unique(records.identity)
    if known := len(np.intersect1d(people, trained.people)):
        others = [name for name in ("test", "val") if name != split and _untrained(everything, name, trained.people)]
        advice = f"use --split {others[0]}" if others else "use people that were kept out of the training"
        raise BadInput(
            f"{run.path} was trained on {known} of the {len(people)} people of {data}, split {split}; thresholds from "
            f"them would promise too few false matches: {advice}"
        )
    return records, trained.unknown


def _untrained(everything: Records, split: str, trained: np.ndarray) -> bool:
    people = np.unique(everything.where(split=split).labelled().identity)
    return len(people) >= LEAST and not len(np.intersect1d(people, trained))


def pair_keys(records: Records) -> np.ndarray:
    """A number for each picture: pictures with equal numbers are no pair, because they are nearly the same picture.

    They show one person at one place. Pictures of two people never have equal numbers, so all of these are pairs: a
    gallery holds strangers of the query's camera too, and they are the most similar ones.

    A place is a camera. Within a modality, two tracklets of a person at one camera are two places, if all of its
    pictures there are in a tracklet. Cameras 2 and 3 of SYSU-MM01 are in one room. A camera of LLCM is one place in
    both modalities, as in its protocols. In other layouts the two modalities never share a place: RegDB numbers no
    cameras, and of own pictures a number may be that of the modality.

    Returns:
        N int64, 0 or more.
    """
    camera = records.camera.copy()
    if records.layout == "sysu-mm01":
        camera[camera == 3] = 2
    sensor = np.zeros_like(camera) if records.layout in ("sysu-mm01", "llcm") else records.modality.astype(np.int64)
    place = _numbered(records.identity, camera, sensor)
    if records.tracklet is None:
        return place
    told = np.ones(place.max(initial=-1) + 1, bool)
    told[place[records.tracklet < 0]] = False
    return _numbered(place, np.where(told[place], records.tracklet, -1))


def _numbered(*columns: np.ndarray) -> np.ndarray:
    """A number for each different line of some columns."""
    _, found = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return found.reshape(-1).astype(np.int64)


def people_with_pairs(records: Records, keys: np.ndarray) -> dict[str, int]:
    """For each kind of pairs, how many people have a pair of their own.

    Args:
        records: N labelled pictures.
        keys: from `pair_keys`.
    """
    found = dict.fromkeys(KINDS, 0)
    for person in np.unique(records.identity):
        own = records.identity == person
        places = [set(keys[own & (records.modality == modality)].tolist()) for modality in (0, 1)]
        for kind, (one, other) in KINDS.items():
            found[kind] += bool(places[one] and places[other] and len(places[one] | places[other]) > 1)
    return found


def _kinds(records: Records, keys: np.ndarray) -> tuple[list[str], list[str]]:
    """The kinds of pairs that can be calibrated, and a warning for each other one.

    Raises:
        BadInput: too few people have pictures of both modalities.
    """
    people = people_with_pairs(records, keys)
    if people["across"] < LEAST:
        raise BadInput(
            f"{people['across']} people have visible and infrared pictures to compare; a calibration needs {LEAST}, "
            f"and with {FEW} or more it says much more"
        )
    kinds = [kind for kind in KINDS if people[kind] >= LEAST]
    missing = [
        f"{kind} pairs are not calibrated: {people[kind]} people have {kind} pictures of two cameras or tracklets, and "
        f"{LEAST} are needed; a search by {kind} pictures will have no ratios among {kind} ones"
        for kind in KINDS
        if kind not in kinds
    ]
    return kinds, missing


def _warnings(records: Records, pairs: dict[str, PairCalibration], model: Model, split: str) -> list[str]:
    found = []
    fewest = min(one.matched for one in pairs.values())
    if fewest < FEW:
        found.append(
            f"only {fewest} people: the intervals are wide, and rare false matches are not seen; use {FEW} or more"
        )
    if datasets.generated(records.root):
        found.append("made with generated people: real ones need a calibration of their own")
    if model.checkpoint == "last" and model.epochs < model.planned:
        found.append(f"the run is not finished ({model.epochs} of {model.planned} epochs): calibrate again when it is")
    chosen = model.run.facts.validation
    if model.checkpoint == "best" and chosen is not None and chosen.on == split:
        found.append(
            f"the checkpoint was chosen by its result on people of a split {split}: if they are these, it suits them"
        )
    return found


def _check_index(url: str, path: Path, model: str) -> None:
    with open_store(url) as store:
        facts = store.facts()
    if facts.model != model:
        raise BadInput(
            f"{url} holds vectors of another model ({facts.model[:16]}) than {path} ({model[:16]}): nothing was "
            "calibrated; name the model of the index, or leave out --index"
        )


# --- what is shown ----------------------------------------------------------------------------------------------------


def summary(calibration: Calibration, rates: Sequence[float]) -> dict[str, Any]:
    """What the verb prints, as JSON values: the numbers of each kind of pairs without its curves.

    Args:
        calibration: the calibration.
        rates: false match rates. Each has a threshold with its interval and the miss rate there, or, if there are too
            few pairs, the number that it `needs`.
    """
    kinds = {}
    for kind, one in calibration.pairs.items():
        kinds[kind] = {
            "slope": one.slope,
            "intercept": one.intercept,
            "same": one.same,
            "different": one.different,
            "people": one.matched,
            "equal_error_rate": one.equal_error_rate,
            "resolution": one.resolution,
            "thresholds": [_threshold(one, rate) for rate in rates],
        }
    return {
        "model": calibration.model,
        "data": calibration.data,
        "content": calibration.content,
        "people": calibration.people,
        "seed": calibration.seed,
        "warnings": list(calibration.warnings),
        "pairs": kinds,
    }


def _threshold(pairs: PairCalibration, rate: float) -> dict[str, Any]:
    if rate < pairs.resolution:
        return {"fmr": rate, "needs": None if rate == 0 else int(np.ceil(NEEDED / rate))}
    found = pairs.threshold(rate)
    miss = pairs.miss_rate(found.cosine).estimate
    return {"fmr": rate, "cosine": found.cosine, "lower": found.lower, "upper": found.upper, "missed": miss}
