"""`vireid test` (a run's checkpoint) and `vireid score` (features of any model)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from vireid.data.protocol import Trial
    from vireid.data.records import Records
    from vireid.data.size import Size
    from vireid.evaluation.breakdown import Breakdown
    from vireid.evaluation.embedding import Embed
    from vireid.evaluation.report import Report
    from vireid.model import Model
    from vireid.training.run import Run

EXAMPLES = 8
RERANKERS = ("none", "k-reciprocal", "query-expansion")
EMBEDDINGS = ("neck", "pooled", "both")
BEST_ON_TEST = (
    "best on test: this checkpoint was chosen by its result on the test set itself, so the result is inflated"
)
HELD_OUT = "trained without the validation identities, which published models of this layout train on as well"


def register(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    test = verbs.add_parser(
        "test",
        help="evaluate a trained run",
        description="Embed every test picture once and "
        "evaluate by the layout's protocols. Plain is the default: the feature after the neck, no flip, no re-ranking.",
    )
    test.add_argument("directory", metavar="RUN", type=Path, help="a run directory")
    test.add_argument("--data", required=True, metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    test.add_argument("--protocol", nargs="+", action="extend", metavar="P", help="default: the layout's own")
    test.add_argument("--flip", action="store_true", help="average with the mirrored picture's feature, and say so")
    test.add_argument(
        "--embedding",
        choices=EMBEDDINGS,
        default="neck",
        help="what is compared: neck (after it, the default), pooled (before it), or both side by side",
    )
    test.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="last (default), or best of a run trained with --validate-every",
    )
    test.add_argument("--untrained", action="store_true", help="the network before its first step, for comparison")
    test.add_argument("--trial", type=console.count, help="RegDB split; only the one the run was trained on")
    test.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    test.add_argument("--precision", choices=("off", "bf16", "fp16"), default="off", help="off, bf16 or fp16")
    console.add_loading(test)
    _add_common(test)
    test.add_argument(
        "--breakdown", metavar="FILE", help="also write rank-1 and mAP by cameras and identities, and the worst queries"
    )
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
    verb.add_argument("--rerank", choices=RERANKERS, default="none", help="re-rank, and say so (default none)")
    verb.add_argument(
        "--permutation",
        metavar="FILE",
        help="SYSU-MM01's rand_perm_cam.mat: evaluate by its draw beside AGW's and print the difference",
    )
    verb.add_argument("--json", metavar="FILE", help="write the report as JSON (a list when there are several)")


def run_score(options: argparse.Namespace) -> None:
    """Score a features file."""
    from vireid.evaluation.reranking import find_reranker
    from vireid.evaluation.scoring import read_features, score

    if options.rerank != "none" and options.distance != "cosine":
        raise BadInput(f"--rerank compares by cosine: leave --distance {options.distance} away")
    columns = read_features(options.features)
    reports = [
        score(
            columns["features"],
            columns["identity"],
            columns["camera"],
            columns["modality"],
            protocol=name,
            distance=options.distance,
            rerank=options.rerank,
            reranker=find_reranker(options.rerank),
            permutation=options.permutation,
        )
        for name in with_both_draws(options.protocol, options.permutation)
    ]
    show(reports, options.json)


def run_test(options: argparse.Namespace) -> None:
    """Embed, evaluate, write down."""
    command = "vireid " + " ".join(sys.argv[1:])
    pieces: list[Breakdown] | None = [] if options.breakdown else None
    reports = test(
        options.directory,
        options.data,
        protocols=options.protocol,
        flip=options.flip,
        embedding=options.embedding,
        rerank=options.rerank,
        which=options.checkpoint,
        untrained=options.untrained,
        trial=options.trial,
        batch=options.batch,
        precision=options.precision,
        workers=options.workers,
        cache=options.cache,
        permutation=options.permutation,
        features_file=options.features,
        breakdowns=pieces,
        command=command,
    )
    show(reports, options.json)
    if pieces is not None:
        from vireid.evaluation.breakdown import lines

        print("\n".join(["", *(lines(one) for one in pieces)]))
        written = [one.to_json() for one in pieces]
        console.write_json(options.breakdown, written[0] if len(written) == 1 else written)


def show(reports: Sequence[Report], json: str | None) -> None:
    """Print the table, how much SYSU-MM01's two draws differ where both are there, and write the `--json` file."""
    from vireid.evaluation.report import table

    print(table(reports))
    for line in draw_differences(reports):
        print(line)
    found = [report.to_json() for report in reports]
    console.write_json(json, found[0] if len(found) == 1 else found)


def with_both_draws(names: Sequence[str], permutation: str | None) -> list[str]:
    """The protocols to evaluate: where a permutation is given, a name without a draw stands for both of them.

    Raises:
        BadInput: a permutation for protocols that draw nothing from it.
    """
    from vireid.data.protocol import parse_protocol, protocol_names

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


def draw_differences(reports: Sequence[Report]) -> list[str]:
    """For each question that was asked with both of SYSU-MM01's draws, how much they differ, in percent points."""
    agw = {report.protocol.removesuffix("@agw"): report for report in reports}
    found = []
    for report in reports:
        question, _, draw = report.protocol.partition("@")
        if draw == "official" and question in agw:
            other = agw[question]
            names = {"R1": "rank1", "R10": "rank10", "R20": "rank20", "mAP": "map", "mINP": "minp"}
            numbers = [f"{short} {getattr(report, n) - getattr(other, n):+.2f}" for short, n in names.items()]
            found.append(f"{question}: official permutation minus AGW's draw: {', '.join(numbers)}")
    return found


def test(
    directory: Path,
    source: str,
    *,
    protocols: Sequence[str] | None = None,
    flip: bool = False,
    embedding: str = "neck",
    rerank: str = "none",
    which: str = "last",
    untrained: bool = False,
    trial: int | None = None,
    batch: int = 64,
    precision: str = "off",
    workers: int = 2,
    cache: Path | None = None,
    permutation: str | None = None,
    features_file: str | None = None,
    breakdowns: list[Breakdown] | None = None,
    command: str = "",
) -> list[Report]:
    """What `vireid test` does, for the other verbs that test. Reports are also kept in `RUN/reports`.

    Args:
        breakdowns: a list to fill with each report in pieces; None for none.

    Raises:
        BadInput: whatever the user can get wrong, among it RegDB's other splits: a checkpoint knows its own.
    """
    from vireid.evaluation.breakdown import break_down
    from vireid.evaluation.reranking import find_reranker
    from vireid.evaluation.scoring import score
    from vireid.model import EMBEDDINGS, embedder, load
    from vireid.training.run import open_run

    run = open_run(directory)
    records, drawn = _drawn(run, source, protocols, trial=trial, permutation=permutation)
    model = load(run, untrained=untrained, which=which)
    how = {"flip": flip, "batch": batch, "precision": precision, "workers": workers, "cache": cache}
    embed_rows = embedder(model.network, embedding)
    features = embed(embed_rows, model.network, records, used_rows(drawn), size=model.config.size, **how)
    if features_file:
        _write_features(features_file, features, records)
    said = {"embedding": EMBEDDINGS[embedding], "flip": flip, "seed": model.config.seed, "rerank": rerank}
    reranker, reports = find_reranker(rerank), []
    columns = (records.identity, records.camera)
    for name, trials in drawn.items():
        given = {"protocol": name, "reranker": reranker, "permutation": permutation, **said}
        report = score(features, *columns, records.modality, **given)
        report = replace(report, warnings=(*report.warnings, *_of_choice(model, untrained)))
        pieces = None
        if breakdowns is not None:
            settings = {"protocol": name, "cmc": report.cmc, "reranker": reranker}
            pieces = break_down(features, *columns, records.path, trials, **settings)
            breakdowns.append(pieces)
        lists = [] if untrained or reranker else examples(features, records, trials[0])
        keep(model, report, records, lists, untrained=untrained, command=command, pieces=pieces)
        reports.append(report)
    return reports


def _drawn(
    run: Run, source: str, protocols: Sequence[str] | None, *, trial: int | None, permutation: str | None
) -> tuple[Records, dict[str, list[Trial]]]:
    """The test rows, and the draws of every protocol asked for."""
    from vireid import datasets
    from vireid.data.protocol import default_protocols, draw_trials, parse_protocol, read_permutation

    layout, root = datasets.parse_source(source)
    rules = [parse_protocol(n) for n in with_both_draws(protocols or default_protocols(layout), permutation)]
    for rule in rules:
        if rule.layout != layout:
            raise BadInput(f"protocol {rule.name} is for layout {rule.layout}, the data are {layout}")
    records = datasets.read(layout, root, trial=own_trial(run.facts, layout, trial)).where(split="test")
    columns = (records.identity, records.camera, records.modality)
    fixed = read_permutation(permutation) if permutation else None
    return records, {rule.name: draw_trials(rule, *columns, permutation=fixed) for rule in rules}


def _of_choice(model: Model, untrained: bool) -> list[str]:
    """What a reader must know about how this checkpoint was come by."""
    chosen = model.run.facts.get("validation")
    if untrained or not chosen:
        return []
    if chosen["on"] == "test":
        return [f"{BEST_ON_TEST} (epoch {model.epochs})"] if model.checkpoint == "best" else []
    return [HELD_OUT] if model.run.facts["data"]["layout"] == "sysu-mm01" else []


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


def used_rows(drawn: dict[str, list[Trial]]) -> np.ndarray:
    """The rows that some trial uses, ascending."""
    import numpy as np

    return np.unique(
        np.concatenate([part for trials in drawn.values() for t in trials for part in (t.query, t.gallery)])
    )


def embed(
    embed_images: Embed,
    network: Any,
    records: Records,
    rows: np.ndarray,
    *,
    size: Size,
    flip: bool = False,
    batch: int = 64,
    precision: str = "off",
    workers: int = 2,
    cache: Path | None = None,
    title: str = "embedding",
    device: Any = None,
) -> np.ndarray:
    """Features of these rows, each picture embedded once; the other rows stay zero. None is the GPU if there is one."""
    import numpy as np
    import torch

    from vireid.data.cache import PictureCache
    from vireid.data.loading import inference_batches
    from vireid.evaluation.embedding import embed_pictures

    used = records.take(rows)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    kept = PictureCache(cache, used, size) if cache else None
    with console.progress(title) as progress:
        found = embed_pictures(
            embed_images,
            inference_batches(used, size=size, batch=batch, workers=workers, cache=kept),
            flip=flip,
            device=device,
            precision=precision,
            progress=lambda done: progress(done, len(used)),
        )
    features = np.zeros((len(records), found.shape[1]), dtype=np.float32)
    features[rows] = found
    return features


def keep(
    model: Model,
    report: Report,
    records: Records,
    lists: list[dict[str, Any]],
    *,
    untrained: bool,
    command: str,
    pieces: Breakdown | None,
) -> None:
    """Write a report into the run, with what it was measured on and a few ranked lists to look at."""
    from vireid import datasets
    from vireid.training.run import surroundings, write_json

    run: Run = model.run
    measured = {
        **surroundings(),
        "command": command,
        "epochs": model.epochs,
        "checkpoint": model.checkpoint,
        "untrained": untrained,
        "root": str(Path(records.root).resolve()),
        "fingerprint": records.fingerprint(),
        "generated": datasets.generated(records.root),
    }
    stored = {"report": report.to_json(), "measured": measured, "examples": lists}
    if pieces is not None:
        stored["breakdown"] = pieces.to_json()
    try:
        run.reports.mkdir(exist_ok=True)
        write_json(run.reports / f"{_slug(report, model, untrained)}.json", stored)
    except OSError as error:
        print(f"vireid: the report is not kept in {run.reports}: {error.strerror}", file=sys.stderr)


def _slug(report: Report, model: Model, untrained: bool) -> str:
    """A file name that no other way of measuring has."""
    from vireid.model import EMBEDDINGS

    embedding = next(name for name, words in EMBEDDINGS.items() if words == report.embedding)
    marks = {
        "flip": report.flip,
        embedding: embedding != "neck",
        report.rerank: report.rerank != "none",
        "best": model.checkpoint == "best",
    }
    slug = "-".join([report.protocol.replace("/", "-"), *(mark for mark, shown in marks.items() if shown)])
    return f"untrained-{slug}" if untrained else slug


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


def _write_features(file: str, features: np.ndarray, records: Records) -> None:
    import numpy as np

    try:
        np.savez(file, features=features, identity=records.identity, camera=records.camera, modality=records.modality)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
