"""`vireid gallery calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vireid.cli import console


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = nouns.add_parser(
        "calibrate",
        help="measure what the cosines of a model say",
        description="Compare pictures of people that a run was not trained on, and write RUN/calibration.json. With it "
        "a search puts visible and infrared matches into one list, and says how many strangers to expect.",
    )
    verb.add_argument("directory", metavar="RUN|EXPORT", type=Path, help="a run directory, or an exported model")
    console.add_data(verb)
    verb.add_argument("--split", choices=("test", "val"), default="test", help="whose people: test (default) or val")
    verb.add_argument("--checkpoint", choices=("last", "best"), default="last", help="last (default) or best")
    rates = "false match rates whose thresholds are shown (default 0.01 0.001)"
    verb.add_argument("--fmr", nargs="+", type=float, metavar="R", help=rates)
    verb.add_argument(
        "--index", metavar="INDEX", help="also keep the calibration in this index: a folder or milvus://…"
    )
    verb.add_argument("--seed", type=console.count, default=0, metavar="S", help="of drawing people again (default 0)")
    verb.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    console.add_loading(verb)
    console.add_json(verb, "write what is printed as JSON")
    verb.set_defaults(verb_function=run_calibrate)


def run_calibrate(options: argparse.Namespace) -> None:
    """Calibrate, and print the numbers of each kind of pairs."""
    from vireid.evaluation.calibration import FILE
    from vireid.gallery.calibrate import RATES, CalibrateOptions, calibrate, summary
    from vireid.training.progress import Terminal

    names = ("data", "split", "checkpoint", "index", "seed", "batch", "workers", "cache")
    given = {name: getattr(options, name) for name in names}
    rates = tuple(RATES if options.fmr is None else options.fmr)
    asked = CalibrateOptions(run=options.directory, fmr=rates, command=console.command(), **given)
    found = calibrate(asked, Terminal())
    said = summary(found, rates)
    kinds = said["pairs"]
    print(f"{options.directory / FILE}: {found.people} people of {found.data}\n")
    print(_pairs(kinds))
    print(f"\n{_thresholds(kinds)}\n")
    for warning in found.warnings:
        print(f"warning: {warning}")
    if options.index is not None:
        print(f"kept in {options.index}")
    console.write_json(options.json, {"file": str(options.directory / FILE), **said})


def _pairs(kinds: dict[str, Any]) -> str:
    header = ["pairs", "people", "of one person", "of two people", "log-likelihood ratio", "equal error rate"]
    lines = [
        [
            kind,
            f"{one['people']}",
            f"{one['same']:,}",
            f"{one['different']:,}",
            f"{one['slope']:.2f}·s {one['intercept']:+.2f}",
            f"{100 * one['equal_error_rate']:.1f}%",
        ]
        for kind, one in kinds.items()
    ]
    return console.table(header, lines)


def _thresholds(kinds: dict[str, Any]) -> str:
    header = ["false match rate", "pairs", "cosine s", "95% interval", "true ones missed"]
    lines = []
    for kind, one in kinds.items():
        for at in one["thresholds"]:
            if "cosine" in at:
                between = f"{at['lower']:.3f} to {at['upper']:.3f}"
                lines.append([f"{at['fmr']:g}", kind, f"{at['cosine']:.3f}", between, f"{100 * at['missed']:.1f}%"])
            else:
                need = f"needs {at['needs']:,} pairs of two people" if at["needs"] else "no number of pairs resolves 0"
                lines.append([f"{at['fmr']:g}", kind, "not resolved", need, ""])
    return console.table(header, lines, left=2)
