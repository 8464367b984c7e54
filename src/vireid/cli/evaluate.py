"""`vireid test` (a run's checkpoint), `vireid score` (features of any model) and `vireid report` (an HTML page)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from vireid.evaluation.report import Report
    from vireid.figures.drawing import Figure
    from vireid.training.run import Run

Files = Sequence[tuple[str, Path]]
RERANKERS = ("none", "k-reciprocal", "query-expansion")
PROTOCOLS = "one or more, or a layout for its usual ones"
EMBEDDINGS = ("neck", "pooled", "both")


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the three verbs."""
    _register_test(verbs)
    score = verbs.add_parser(
        "score",
        help="evaluate features of any model",
        description="Evaluate features made by any model: an .npz file with features (N×D), identity, camera, modality "
        "(0 or visible, 1 or infrared), in the data set's file order. RegDB's protocols need no camera.",
    )
    score.add_argument("features", metavar="FEATURES.npz", help="the features file")
    score.add_argument("--protocol", nargs="+", action="extend", required=True, metavar="P", help=PROTOCOLS)
    score.add_argument("--distance", choices=("cosine", "euclidean"), default="cosine", help="cosine or euclidean")
    _add_common(score)
    score.set_defaults(verb_function=run_score)

    report = verbs.add_parser(
        "report",
        help="runs side by side as one HTML file, or as tables",
        description="Write one HTML file that needs no other file: which run is better and whether that is certain, "
        "in what the runs differ, results by camera and person, failures, figures, and what every number depends on; "
        "or print or write the numbers as a table.",
    )
    report.add_argument("directories", metavar="RUN", nargs="+", type=Path, help="run directories that were tested")
    pictures = "the pictures, for figures that need them; without them, what needs none is drawn"
    report.add_argument("--data", metavar="LAYOUT:PATH", help=pictures)
    report.add_argument(
        "--figure", nargs="+", action="extend", default=[], metavar="KIND", help="default: all that apply"
    )
    console.add_loading(report)
    console.add_tables(report, html=True, default="; default: RUN/report.html of the first run")
    report.set_defaults(verb_function=run_report)


def _register_test(verbs: argparse._SubParsersAction) -> None:
    test = verbs.add_parser(
        "test",
        help="evaluate a trained run",
        description="Embed every test picture once and evaluate by the layout's protocols. Plain is the default: the "
        "feature after the neck, no flip, no re-ranking.",
    )
    test.add_argument("directory", metavar="RUN", type=Path, help="a run directory")
    console.add_data(test)
    test.add_argument("--protocol", nargs="+", action="extend", metavar="P", help=PROTOCOLS)
    test.add_argument("--flip", action="store_true", help="average with the mirrored picture's feature, and say so")
    test.add_argument(
        "--embedding",
        choices=EMBEDDINGS,
        default="neck",
        help="the compared feature: after the neck (neck, the default), before it (pooled), or both side by side",
    )
    test.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="last (default), or best of a run trained with --validate-every",
    )
    test.add_argument("--untrained", action="store_true", help="the network before its first step, for comparison")
    test.add_argument("--allow-overlap", action="store_true", help="test although people are in more than one split")
    console.add_fold(test, "RegDB's fold; only the one that the run was trained on")
    test.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    console.add_precision(test)
    console.add_loading(test)
    _add_common(test)
    worst = "also write rank-1 and mAP by cameras and identities, and the worst queries"
    console.add_output(test, "--breakdown", worst)
    console.add_output(test, "--features", "also write the features, in the form vireid score reads")
    test.set_defaults(verb_function=run_test)


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--rerank", choices=RERANKERS, default="none", help="re-rank, and say so (default none)")
    verb.add_argument(
        "--permutation",
        metavar="FILE",
        help="SYSU-MM01's rand_perm_cam.mat: evaluate by its draw beside AGW's and print the difference",
    )
    console.add_tables(verb)
    console.add_json(verb, "write the report as JSON (a list when there are several)")


def run_score(options: argparse.Namespace) -> None:
    """Score a features file."""
    from vireid.evaluation.report import expanded
    from vireid.evaluation.scoring import read_features, score, with_both_draws

    files = console.outputs(options)
    if options.rerank != "none" and options.distance != "cosine":
        raise BadInput(f"--rerank compares by cosine: leave out --distance {options.distance}")
    columns = read_features(options.features)
    how = {"distance": options.distance, "rerank": options.rerank, "permutation": options.permutation}
    names = with_both_draws(expanded(options.protocol), options.permutation)
    reports = [score(**columns, protocol=name, **how) for name in names]
    _show(reports, options, files)


def run_test(options: argparse.Namespace) -> None:
    """Embed and evaluate, then print and write the results."""
    from vireid.evaluation.breakdown import lines
    from vireid.experiments.test import TestOptions, test
    from vireid.training.progress import Terminal

    files = console.outputs(options)
    found = test(
        TestOptions(
            run=options.directory,
            data=options.data,
            protocols=tuple(options.protocol or ()),
            flip=options.flip,
            embedding=options.embedding,
            rerank=options.rerank,
            checkpoint=options.checkpoint,
            untrained=options.untrained,
            fold=options.fold,
            batch=options.batch,
            precision=options.precision,
            workers=options.workers,
            cache=options.cache,
            permutation=options.permutation,
            features=options.features,
            breakdown=options.breakdown is not None,
            allow_overlap=options.allow_overlap,
            command=console.command(),
        ),
        Terminal(),
    )
    _show([one.report for one in found], options, files, [one.title for one in found])
    pieces = [one.breakdown for one in found if one.breakdown]
    if pieces:
        print("\n".join(["", *(lines(one) for one in pieces)]))
        written = [one.to_json() for one in pieces]
        console.write_json(options.breakdown, written[0] if len(written) == 1 else written)


def _show(reports: Sequence[Report], options: argparse.Namespace, files: Files, titles: Sequence[str] = ()) -> None:
    """Print the table and how much SYSU-MM01's two draws differ, and write the files that were asked for."""
    from vireid.evaluation.report import draw_differences, heads, table, warnings
    from vireid.figures import tables

    def render(form: str) -> str:
        if form == "text":
            return "\n".join([table(reports, titles), *draw_differences(reports)])
        notes = [*(f"warning: {warning}" for warning in warnings(reports)), *draw_differences(reports)]
        return tables.render(tables.of_reports(reports, titles or heads(reports), notes), form)

    console.show(options, files, render)
    found = [report.to_json() for report in reports]
    console.write_json(options.json, found[0] if len(found) == 1 else found)


def run_report(options: argparse.Namespace) -> None:
    """Write the page and say where it is, or print or write the tables."""
    from vireid.figures import page, tables
    from vireid.training.run import open_run

    files = console.outputs(options, html=True, usual="html")
    runs = [open_run(directory) for directory in options.directories]
    form = options.format or "html"
    if not files and form == "html":
        files = [(form, options.directories[0] / "report.html")]
    if not files:
        print(tables.render(page.document(runs), form).rstrip("\n"))
    for form, file in files:
        if form == "html":
            figures, notes = figures_of(runs, options)
            page.write_page(file, runs, figures=figures, notes=notes)
        else:
            tables.write(file, tables.render(page.document(runs), form))
        print(file)


def figures_of(runs: list[Run], options: argparse.Namespace) -> tuple[list[Figure], list[str]]:
    """The figures of a page, and what is said about those that are missing."""
    from vireid.experiments.measurement import measurements
    from vireid.figures.drawing import matplotlib
    from vireid.figures.of_runs import draw
    from vireid.figures.page import names_of
    from vireid.training.progress import Terminal

    try:
        matplotlib()
    except BadInput as missing:
        return [], [f"Figures are left out: {missing}."]
    names = list(names_of(runs, {run.path: measurements(run) for run in runs}).values())
    how = {"figures": options.figure, "workers": options.workers, "cache": options.cache, "progress": Terminal()}
    notes: list[str] = []
    return draw(runs, data=options.data, names=names, say=notes.append, **how), notes
