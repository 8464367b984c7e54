"""`vireid test` (a run's checkpoint) and `vireid score` (features of any model)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from vireid.data.protocol import Trial
    from vireid.data.records import Records
    from vireid.evaluation.report import Report
    from vireid.model import Model

EMBEDDING = "after the neck, length one"
EXAMPLES = 8


def register(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    test = verbs.add_parser(
        "test",
        help="evaluate a trained run",
        description="Embed every test picture once and "
        "evaluate by the layout's protocols. Plain is the default: no flip, no re-ranking.",
    )
    test.add_argument("directory", metavar="RUN", type=Path, help="a run directory")
    test.add_argument("--data", required=True, metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    test.add_argument("--protocol", nargs="+", action="extend", metavar="P", help="default: the layout's own")
    test.add_argument("--flip", action="store_true", help="average with the mirrored picture's feature, and say so")
    test.add_argument("--untrained", action="store_true", help="the network before its first step, for comparison")
    test.add_argument("--trial", type=console.count, help="RegDB split; only the one the run was trained on")
    test.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    test.add_argument("--precision", choices=("off", "bf16", "fp16"), default="off", help="off, bf16 or fp16")
    test.add_argument("--workers", type=console.count, default=2, metavar="N", help="loading processes (default 2)")
    test.add_argument("--cache", type=Path, metavar="DIR", help="keep resized pictures here")
    _add_common(test)
    test.add_argument("--features", metavar="FILE", help="also write the features, in the form vireid score reads")
    test.set_defaults(run=run_test)

    score = verbs.add_parser(
        "score",
        help="evaluate features of any model",
        description="Evaluate features made by "
        "any model: an .npz with features (N×D), identity, camera, modality (0 visible, "
        "1 infrared), rows in the data set's file order.",
    )
    score.add_argument("features", metavar="FEATURES.npz", help="the features file")
    score.add_argument("--protocol", nargs="+", action="extend", required=True, metavar="P", help="one or more")
    score.add_argument("--distance", choices=("cosine", "euclidean"), default="cosine", help="cosine or euclidean")
    _add_common(score)
    score.set_defaults(run=run_score)


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--permutation", metavar="FILE", help="SYSU-MM01's rand_perm_cam.mat, for @official protocols")
    verb.add_argument("--json", metavar="FILE", help="write the report as JSON (a list when there are several)")


def run_score(options: argparse.Namespace) -> None:
    """Score a features file."""
    from vireid.evaluation.scoring import read_features, score

    columns = read_features(options.features)
    reports = [
        score(
            columns["features"],
            columns["identity"],
            columns["camera"],
            columns["modality"],
            protocol=name,
            distance=options.distance,
            permutation=options.permutation,
        )
        for name in options.protocol
    ]
    show(reports, options.json)


def run_test(options: argparse.Namespace) -> None:
    """Embed, evaluate, write down."""
    command = "vireid " + " ".join(sys.argv[1:])
    reports = test(
        options.directory,
        options.data,
        protocols=options.protocol,
        flip=options.flip,
        untrained=options.untrained,
        trial=options.trial,
        batch=options.batch,
        precision=options.precision,
        workers=options.workers,
        cache=options.cache,
        permutation=options.permutation,
        features_file=options.features,
        command=command,
    )
    show(reports, options.json)


def show(reports: Sequence[Report], json: str | None) -> None:
    """Print the table and write the `--json` file."""
    from vireid.evaluation.report import table

    print(table(reports))
    found = [report.to_json() for report in reports]
    console.write_json(json, found[0] if len(found) == 1 else found)


def test(
    directory: Path,
    source: str,
    *,
    protocols: Sequence[str] | None = None,
    flip: bool = False,
    untrained: bool = False,
    trial: int | None = None,
    batch: int = 64,
    precision: str = "off",
    workers: int = 2,
    cache: Path | None = None,
    permutation: str | None = None,
    features_file: str | None = None,
    command: str = "",
) -> list[Report]:
    """What `vireid test` does, for the other verbs that test. Reports are also kept in `RUN/reports`.

    Raises:
        BadInput: whatever the user can get wrong, among it RegDB's other splits: a checkpoint knows its own.
    """
    from vireid import datasets
    from vireid.data.protocol import default_protocols, draw_trials, parse_protocol
    from vireid.evaluation.scoring import score
    from vireid.model import load
    from vireid.training.run import open_run

    run = open_run(directory)
    layout, root = datasets.parse_source(source)
    names = list(protocols or default_protocols(layout))
    rules = [parse_protocol(name) for name in names]
    for rule in rules:
        if rule.layout != layout:
            raise BadInput(f"protocol {rule.name} is for layout {rule.layout}, the data are {layout}")
    records = datasets.read(layout, root, trial=own_trial(run.facts, layout, trial)).where(split="test")
    columns = (records.identity, records.camera, records.modality)
    drawn = {rule.name: draw_trials(rule, *columns, permutation=_permutation(permutation)) for rule in rules}
    model = load(run, untrained=untrained)
    features = embed(model, records, drawn, flip=flip, batch=batch, precision=precision, workers=workers, cache=cache)
    if features_file:
        _write_features(features_file, features, records)
    reports = [
        score(
            features,
            *columns,
            protocol=rule.name,
            embedding=EMBEDDING,
            flip=flip,
            seed=model.config.seed,
            permutation=permutation,
        )
        for rule in rules
    ]
    for report in reports:
        keep(run, report, features, records, drawn[report.protocol], untrained=untrained, command=command, model=model)
    return reports


def own_trial(facts: dict[str, Any], layout: str, asked: int | None) -> int:
    """The RegDB split to test on: the run's own.

    Raises:
        BadInput: another one was asked for. About half of another split's test identities were trained on.
    """
    trained = facts["data"]["trial"] if facts["data"]["layout"] == layout else None
    if trained is not None and asked is not None and asked != trained:
        raise BadInput(
            f"this run was trained on trial {trained} of {layout}; testing it on trial {asked} would inflate the "
            f"result, because about half of those test identities were trained on: train with --trial {asked} first"
        )
    return trained or asked or 1


def embed(
    model: Model,
    records: Records,
    drawn: dict[str, list[Trial]],
    *,
    flip: bool,
    batch: int,
    precision: str,
    workers: int,
    cache: Path | None,
) -> np.ndarray:
    """Features of all rows that some trial uses, each picture embedded once; the other rows stay zero."""
    import numpy as np
    import torch

    from vireid.data.cache import PictureCache
    from vireid.data.loading import inference_batches
    from vireid.evaluation.embedding import embed_pictures

    rows = np.unique(
        np.concatenate([part for trials in drawn.values() for t in trials for part in (t.query, t.gallery)])
    )
    used = records.take(rows)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = model.network.to(device)
    kept = PictureCache(cache, used, model.config.size) if cache else None
    with console.progress("embedding") as progress:
        found = embed_pictures(
            network.embed,  # type: ignore[arg-type]
            inference_batches(used, size=model.config.size, batch=batch, workers=workers, cache=kept),
            flip=flip,
            device=device,
            precision=precision,
            progress=lambda done: progress(done, len(used)),
        )
    features = np.zeros((len(records), found.shape[1]), dtype=np.float32)
    features[rows] = found
    return features


def keep(
    run: Any,
    report: Report,
    features: np.ndarray,
    records: Records,
    trials: list[Trial],
    *,
    untrained: bool,
    command: str,
    model: Model,
) -> None:
    """Write a report into the run, with what it was measured on and a few ranked lists to look at."""
    from vireid import datasets
    from vireid.training.run import surroundings, write_json

    slug = "-".join([report.protocol.replace("/", "-"), *(["flip"] if report.flip else [])])
    slug = f"untrained-{slug}" if untrained else slug
    measured = {
        **surroundings(),
        "command": command,
        "epochs": model.epochs,
        "untrained": untrained,
        "root": str(Path(records.root).resolve()),
        "fingerprint": records.fingerprint(),
        "generated": datasets.generated(records.root),
    }
    lists = [] if untrained else examples(features, records, trials[0])
    try:
        run.reports.mkdir(exist_ok=True)
        write_json(run.reports / f"{slug}.json", {"report": report.to_json(), "measured": measured, "examples": lists})
    except OSError as error:
        print(f"vireid: the report is not kept in {run.reports}: {error.strerror}", file=sys.stderr)


def examples(features: np.ndarray, records: Records, trial: Trial) -> list[dict[str, Any]]:
    """The first ten of a few queries, taken evenly over the query list so that nobody chose them by result."""
    import numpy as np

    from vireid.evaluation.scoring import top_matches

    positions = np.unique(np.linspace(0, len(trial.query) - 1, EXAMPLES).astype(int))
    top, _ = top_matches(features, trial, positions, 10)
    found = []
    for position, rows in zip(positions, top, strict=True):
        query = int(trial.query[position])
        answers = [
            {"path": str(records.path[row]), "correct": bool(records.identity[row] == records.identity[query])}
            for row in rows
            if row >= 0
        ]
        found.append({"query": str(records.path[query]), "answers": answers})
    return found


def _permutation(file: str | None) -> Any:
    from vireid.data.protocol import read_permutation

    return read_permutation(file) if file else None


def _write_features(file: str, features: np.ndarray, records: Records) -> None:
    import numpy as np

    try:
        np.savez(file, features=features, identity=records.identity, camera=records.camera, modality=records.modality)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
