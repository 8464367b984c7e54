"""`vireid test`: measure a checkpoint on a test set by protocols, and keep the measurements in the run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from vireid import datasets, plugins
from vireid.data.errors import BadInput
from vireid.data.protocol import (
    Protocol,
    Trial,
    default_protocols,
    draw_trials,
    parse_protocol,
    read_permutation,
)
from vireid.data.records import Records, content_fingerprint
from vireid.data.settings import Count, Whole, options
from vireid.data.stored import check_output, writing
from vireid.evaluation.breakdown import break_down
from vireid.evaluation.mixed import Calibrations, check_comparison
from vireid.evaluation.queries import Queries
from vireid.evaluation.ranking import Ranking
from vireid.evaluation.report import expanded
from vireid.evaluation.scoring import Measured, evaluate, with_both_draws
from vireid.experiments import trained
from vireid.experiments.embedding import Inference, embed_records, used_samples
from vireid.experiments.measurement import Answer, Circumstances, Measurement, RankedList
from vireid.training.progress import Progress, Quiet

if TYPE_CHECKING:
    from vireid.evaluation.embedding import Way
    from vireid.model import Model
    from vireid.training.run import Run

LISTED = 8  # ranked lists that are kept with a report
BEST_ON_TEST = (
    "best on test: this checkpoint was chosen by its result on the test set itself, so the result is inflated"
)
HELD_OUT = "trained without the validation identities, which published models of this layout train on as well"


@options
class TestOptions:
    """What `vireid test` is asked to do.

    Attributes:
        run: the run directory.
        data: `LAYOUT:PATH`.
        protocols: names of protocols, or a layout for its usual ones; if empty, those of the data's layout.
        flip: average with the mirrored picture's feature.
        embedding: `neck`, `pooled` or `both`.
        rerank: `none`, `k-reciprocal` or `query-expansion`.
        checkpoint: `last` or `best`.
        untrained: test the network as it was before its first step.
        fold: RegDB's fold; only the one that the run was trained on.
        batch: pictures embedded at once.
        precision: `off`, `bf16`, `fp16`, or `auto` for bf16 where that is clearly faster.
        workers: loading processes.
        cache: folder for resized pictures.
        permutation: SYSU-MM01's `rand_perm_cam.mat`.
        features: also write the features to this `.npz` file.
        breakdown: also compute each result by cameras and identities.
        allow_overlap: test although people are in more than one split of the data; the reports are marked.
        command: the command that the measurement records.
    """

    run: Path
    data: str
    protocols: tuple[str, ...] = ()
    flip: bool = False
    embedding: Literal["neck", "pooled", "both"] = "neck"
    rerank: Literal["none", "k-reciprocal", "query-expansion"] = "none"
    checkpoint: Literal["last", "best"] = "last"
    untrained: bool = False
    fold: Whole | None = None
    batch: Count = 64
    precision: Literal["off", "bf16", "fp16", "auto"] = "off"
    workers: Whole = 2
    cache: Path | None = None
    permutation: Path | None = None
    features: Path | None = None
    breakdown: bool = False
    allow_overlap: bool = False
    command: str = ""

    __test__: ClassVar[bool] = False  # pytest would collect it, because its name begins with Test


def test(asked: TestOptions, progress: Progress = Quiet()) -> list[Measurement]:  # noqa: B008 has no state
    """Measure a run by every protocol that was asked for, and keep the measurements in its directory.

    The trials are drawn once, each picture is embedded once, and each trial is ranked once.

    Raises:
        BadInput: the run, the data, a protocol or an option cannot be used; for example, the fold is not the run's.
    """
    from vireid.evaluation.embedding import fastest_device
    from vireid.model import EMBEDDINGS, load
    from vireid.training.run import open_run

    if asked.untrained and asked.checkpoint != "last":
        raise BadInput(
            "untrained tests the network before its first step, which no checkpoint holds: "
            f"leave out untrained or checkpoint {asked.checkpoint}"
        )
    if asked.features:
        check_output(asked.features)
    run = open_run(asked.run)
    changed = plugins.require(run, asked.data)
    everything, drawn = draw(asked, run)
    trained_on, overlap = _training_pictures(everything, run)
    overlap = (*overlap, *trained.overlap(everything, run))
    related = not trained_on or run.facts.data.root == str(Path(everything.root).resolve())
    shared = everything.refuse_overlap(asked.allow_overlap) if related and not asked.untrained else 0
    records = everything.where(split="test")
    model = load(run, untrained=asked.untrained, checkpoint=asked.checkpoint)
    records = records.with_scaling(model.scaling)
    how = Inference(model.size, asked.flip, asked.batch, asked.workers, asked.cache)
    samples = used_samples(trials for _, trials in drawn)
    embedder = model.embedder(
        asked.embedding,
        device=fastest_device(),
        precision=asked.precision,
        pictures=len(samples),
        batch=asked.batch,
    )
    progress.say(f"features by {embedder.way.words}")
    features = embed_records(embedder, records, samples, how, progress)
    if asked.features:
        write_features(asked.features, features, records)
    measured = Measured(
        rerank=asked.rerank,
        embedding=EMBEDDINGS[asked.embedding],
        flip=asked.flip,
        seed=run.facts.seed,
    )
    circumstances = replace(_circumstances(model, records, asked, embedder.way), trained_on=trained_on, shared=shared)
    shared_fits = Calibrations(features, records.identity, records.modality)
    found = [_measure(shared_fits, records, one, measured, circumstances, asked.breakdown) for one in drawn]
    found = [_with_warnings(one, (*changed, *_about_the_training(model, one.measured), *overlap)) for one in found]
    for measurement in found:
        try:
            measurement.keep(run)
        except OSError as error:
            progress.say(f"vireid: the report is not kept in {run.reports}: {error.strerror}")
    return found


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it in every file that imports it


Drawn = tuple[Protocol, list[Trial]]


def draw(asked: TestOptions, run: Run) -> tuple[Records, list[Drawn]]:
    """All records of the data set, and each protocol that was asked for with its trials, which count test records only.

    Raises:
        BadInput: a protocol for another layout, another fold than the run's, or data that cannot be read.
    """
    layout, root = datasets.parse_source(asked.data)
    names = with_both_draws(expanded(asked.protocols) or default_protocols(layout), asked.permutation)
    rules = [parse_protocol(name) for name in names]
    for rule in rules:
        if rule.layout not in ("", layout):
            raise BadInput(f"protocol {rule.name} is for layout {rule.layout}, the data are {layout}")
        check_comparison(rule, "cosine", asked.rerank)
    records = datasets.read(layout, root, fold=own_fold(run, layout, asked.fold))
    tested = records.where(split="test")
    columns = (tested.identity, tested.camera, tested.modality)
    fixed = read_permutation(asked.permutation) if asked.permutation else None
    more = {"permutation": fixed, "path": tested.path, "tracklet": tested.tracklet}
    return records, [(rule, draw_trials(rule, *columns, **more)) for rule in rules]


def own_fold(run: Run, layout: str, asked: int | None) -> int:
    """The fold to test on: the run's own.

    Raises:
        BadInput: another fold was asked for. About half of its test identities are in the run's training set.
    """
    trained = run.facts.data.fold if run.facts.data.layout == layout else None
    if trained is not None and asked is not None and asked != trained:
        raise BadInput(
            f"this run was trained on fold {trained} of {layout}; testing it on fold {asked} would inflate the result, "
            f"because about half of those test identities were trained on: train with --fold {asked} first"
        )
    return trained or asked or 1


def _measure(
    calibrations: Calibrations,
    records: Records,
    drawn: Drawn,
    how: Measured,
    circumstances: Circumstances,
    pieces: bool,
) -> Measurement:
    """One protocol's measurement, from one ranking of each trial."""
    from vireid.evaluation.reranking import find_reranker

    rules, trials = drawn
    evaluation = evaluate(
        calibrations.features,
        records.identity,
        rules,
        trials,
        how,
        reranker=find_reranker(how.rerank),
        camera=records.camera if pieces else None,
        listed=0 if circumstances.untrained else LISTED,
        calibrations=calibrations,
    )
    columns = (records.identity, records.camera, records.path)
    breakdown = break_down(evaluation, *columns) if pieces else None
    lists = ranked_lists(evaluation.rankings[0], records)
    queries = Queries.of(evaluation, *columns)
    return Measurement(evaluation.report, circumstances, lists, breakdown, queries=queries)


def ranked_lists(ranking: Ranking, records: Records) -> tuple[RankedList, ...]:
    """The ranked lists that a ranking kept, as paths."""
    found = []
    for position, nearest in ranking.lists.items():
        query = int(ranking.trial.query[position])
        correct = records.identity[nearest] == records.identity[query]
        answers = tuple(Answer(str(records.path[s]), bool(c)) for s, c in zip(nearest, correct, strict=True))
        found.append(RankedList(str(records.path[query]), answers))
    return tuple(found)


def _circumstances(model: Model, records: Records, asked: TestOptions, way: Way) -> Circumstances:
    from vireid.training.run import surroundings

    return Circumstances(
        command=asked.command,
        epochs=model.epochs,
        checkpoint=model.checkpoint,
        untrained=asked.untrained,
        embedding=asked.embedding,
        root=str(Path(records.root).resolve()),
        fingerprint=records.fingerprint(),
        generated=datasets.generated(records.root),
        precision=way.precision,
        way=way.words,
        difference=way.difference,
        runtime=model.runtime,
        planned=None if asked.untrained else model.planned,
        content=content_fingerprint(records),
        **vars(surroundings()),
    )


def _training_pictures(records: Records, run: Run) -> tuple[str, tuple[str, ...]]:
    """How the pictures of a data set relate to those that a run was trained on.

    Args:
        records: all records of the data set that is tested on.
        run: the run.

    Returns:
        What the run was trained on, in words, if that is not this data set; otherwise an empty text. Then a warning if
        test pictures or, where identity numbers are comparable, test identities are among the training ones.
    """
    facts = run.facts.data
    kinds = [_kind(facts.layout, facts.generated), _kind(records.layout, datasets.generated(records.root))]
    if kinds[0] != kinds[1]:
        return kinds[0], ()
    try:
        training = datasets.training_records(records)
    except BadInput:  # a table of test pictures
        return "", ()
    if next(trained.training_parts(training, facts), None) is None:
        return f"other pictures of {kinds[0]}", ()
    tested = records.where(split="test")
    pictures = len(np.intersect1d(tested.path.astype(str), training.path.astype(str)))
    if pictures:
        return "", (f"{pictures} of {len(tested)} test pictures are training pictures too: the result is inflated",)
    # RegDB numbers the people of its two lists independently; the other published layouts share nobody.
    known = np.unique(training.identity) if records.layout == "folder" else np.array([], dtype=np.int64)
    asked = np.unique(tested.identity)
    people = len(np.intersect1d(asked, known))
    if people:
        return "", (f"{people} of {len(asked)} test identities are training identities too: the result is inflated",)
    return "", ()


def _kind(layout: str, generated: bool) -> str:
    return f"{layout} (generated)" if generated else layout


def _about_the_training(model: Model, measured: Circumstances) -> tuple[str, ...]:
    """Warnings for the report about how the network was trained and how its checkpoint was chosen."""
    found = []
    planned = model.planned
    if not measured.untrained and (done := _epochs_done(model)) < planned:
        found.append(f"the run is not finished: it was trained for {done} of {_epochs(planned)}")
    if measured.trained_on and not measured.untrained:
        found.append(f"trained on {measured.trained_on}: printed numbers are of networks trained on this data set")
    chosen = model.run.facts.validation
    if measured.untrained or chosen is None:
        return tuple(found)
    if chosen.on == "test":
        best = [f"{BEST_ON_TEST} (epoch {model.epochs})"] if model.checkpoint == "best" else []
    else:
        best = [HELD_OUT] if model.run.facts.data.layout == "sysu-mm01" else []
    return (*found, *best)


def _epochs(number: int) -> str:
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def _epochs_done(model: Model) -> int:
    """How many epochs the run was trained. The best checkpoint may be older than the run."""
    if model.checkpoint == "last":
        return model.epochs
    return max([model.epochs, *(int(line["epoch"]) + 1 for line in model.run.epochs())])


def _with_warnings(measurement: Measurement, warnings: tuple[str, ...]) -> Measurement:
    report = measurement.report
    return replace(measurement, report=replace(report, warnings=(*report.warnings, *warnings)))


def write_features(file: Path, features: np.ndarray, records: Records) -> None:
    """Write features in the form that `vireid score` reads, under exactly this name.

    Raises:
        BadInput: the file cannot be written.
    """
    columns: dict[str, Any] = {
        "features": features,
        "identity": records.identity,
        "camera": records.camera,
        "modality": records.modality,
        "path": records.path.astype(str),
    }
    if records.tracklet is not None:
        columns["tracklet"] = records.tracklet
    try:
        with writing(file) as opened:
            np.savez(opened, **columns)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
