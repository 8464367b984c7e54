"""`vireid test`: measure a checkpoint on a test set by protocols, and keep the measurements in the run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.protocol import (
    Protocol,
    Trial,
    default_protocols,
    draw_trials,
    parse_protocol,
    read_permutation,
)
from vireid.data.records import Records
from vireid.data.settings import Count, Whole, options
from vireid.evaluation.breakdown import break_down
from vireid.evaluation.ranking import Ranking
from vireid.evaluation.scoring import Measured, evaluate, with_both_draws
from vireid.experiments.embedding import Inference, embed_records, used_samples
from vireid.experiments.measurement import Answer, Circumstances, Measurement, RankedList
from vireid.training.progress import Progress, Quiet

if TYPE_CHECKING:
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
        protocols: names of protocols; if empty, the layout's own.
        flip: average with the mirrored picture's feature.
        embedding: `neck`, `pooled` or `both`.
        rerank: `none`, `k-reciprocal` or `query-expansion`.
        checkpoint: `last` or `best`.
        untrained: test the network as it was before its first step.
        fold: RegDB's fold; only the one that the run was trained on.
        batch: pictures embedded at once.
        precision: `off`, `bf16` or `fp16`.
        workers: loading processes.
        cache: folder for resized pictures.
        permutation: SYSU-MM01's `rand_perm_cam.mat`.
        features: also write the features to this `.npz` file.
        breakdown: also compute each result by cameras and identities.
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
    precision: Literal["off", "bf16", "fp16"] = "off"
    workers: Whole = 2
    cache: Path | None = None
    permutation: Path | None = None
    features: Path | None = None
    breakdown: bool = False
    command: str = ""

    __test__: ClassVar[bool] = False  # pytest would collect it, because its name begins with Test


def test(asked: TestOptions, progress: Progress = Quiet()) -> list[Measurement]:  # noqa: B008 has no state
    """Measure a run by every protocol that was asked for, and keep the measurements in its directory.

    The trials are drawn once, each picture is embedded once, and each trial is ranked once.

    Raises:
        BadInput: the run, the data, a protocol or an option cannot be used; for example, the fold is not the run's.
    """
    from vireid.model import EMBEDDINGS, embedder, load
    from vireid.training.run import open_run

    run = open_run(asked.run)
    records, drawn = draw(asked, run)
    model = load(run, untrained=asked.untrained, checkpoint=asked.checkpoint)
    how = Inference(model.size, asked.flip, asked.batch, asked.precision, asked.workers, asked.cache)
    samples = used_samples(trials for _, trials in drawn)
    features = embed_records(embedder(model.network, asked.embedding), model.network, records, samples, how, progress)
    if asked.features:
        write_features(asked.features, features, records)
    measured = Measured(
        rerank=asked.rerank,
        embedding=EMBEDDINGS[asked.embedding],
        flip=asked.flip,
        seed=model.config.training.seed,
    )
    circumstances = _circumstances(model, records, asked)
    found = [_measure(features, records, one, measured, circumstances, asked.breakdown) for one in drawn]
    found = [_with_warnings(one, _about_the_choice(model, asked.untrained)) for one in found]
    for measurement in found:
        try:
            measurement.keep(run)
        except OSError as error:
            progress.say(f"vireid: the report is not kept in {run.reports}: {error.strerror}")
    return found


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it in every file that imports it


Drawn = tuple[Protocol, list[Trial]]


def draw(asked: TestOptions, run: Run) -> tuple[Records, list[Drawn]]:
    """The test records, and each protocol that was asked for with its trials.

    Raises:
        BadInput: a protocol for another layout, another fold than the run's, or data that cannot be read.
    """
    layout, root = datasets.parse_source(asked.data)
    names = with_both_draws(asked.protocols or default_protocols(layout), asked.permutation)
    rules = [parse_protocol(name) for name in names]
    for rule in rules:
        if rule.layout != layout:
            raise BadInput(f"protocol {rule.name} is for layout {rule.layout}, the data are {layout}")
    records = datasets.read(layout, root, fold=own_fold(run, layout, asked.fold)).where(split="test")
    columns = (records.identity, records.camera, records.modality)
    fixed = read_permutation(asked.permutation) if asked.permutation else None
    return records, [(rule, draw_trials(rule, *columns, permutation=fixed)) for rule in rules]


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
    features: np.ndarray,
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
        features,
        records.identity,
        rules,
        trials,
        how,
        reranker=find_reranker(how.rerank),
        camera=records.camera if pieces else None,
        listed=0 if circumstances.untrained else LISTED,
    )
    breakdown = break_down(evaluation, records.identity, records.camera, records.path) if pieces else None
    return Measurement(evaluation.report, circumstances, ranked_lists(evaluation.rankings[0], records), breakdown)


def ranked_lists(ranking: Ranking, records: Records) -> tuple[RankedList, ...]:
    """The ranked lists that a ranking kept, as paths."""
    found = []
    for position, nearest in ranking.lists.items():
        query = int(ranking.trial.query[position])
        correct = records.identity[nearest] == records.identity[query]
        answers = tuple(Answer(str(records.path[s]), bool(c)) for s, c in zip(nearest, correct, strict=True))
        found.append(RankedList(str(records.path[query]), answers))
    return tuple(found)


def _circumstances(model: Model, records: Records, asked: TestOptions) -> Circumstances:
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
        **vars(surroundings()),
    )


def _about_the_choice(model: Model, untrained: bool) -> tuple[str, ...]:
    """Warnings for the report about how the checkpoint was chosen."""
    chosen = model.run.facts.validation
    if untrained or chosen is None:
        return ()
    if chosen.on == "test":
        return (f"{BEST_ON_TEST} (epoch {model.epochs})",) if model.checkpoint == "best" else ()
    return (HELD_OUT,) if model.run.facts.data.layout == "sysu-mm01" else ()


def _with_warnings(measurement: Measurement, warnings: tuple[str, ...]) -> Measurement:
    report = measurement.report
    return replace(measurement, report=replace(report, warnings=(*report.warnings, *warnings)))


def write_features(file: Path, features: np.ndarray, records: Records) -> None:
    """Write features in the form that `vireid score` reads.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        np.savez(file, features=features, identity=records.identity, camera=records.camera, modality=records.modality)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
