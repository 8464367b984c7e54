"""`vireid figures`: the papers' figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid.cli import console


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "figures",
        help="the papers' figures: attention maps, t-SNE, distances, ranked lists, curves",
        description="Draw figures of one or several runs, and write them with the numbers behind them (figures.json).",
    )
    verb.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    verb.add_argument("--data", metavar="LAYOUT:PATH", help="the pictures; without them, what needs none is drawn")
    verb.add_argument(
        "--figure", nargs="+", action="extend", default=[], metavar="KIND", help="default: all that apply"
    )
    verb.add_argument("--names", nargs="+", default=[], metavar="NAME", help="what the runs are called, one for each")
    verb.add_argument("--protocol", metavar="P", help="default: the first of the data's layout")
    verb.add_argument("--checkpoint", choices=("last", "best"), default="last", help="default last")
    verb.add_argument("--untrained", action="store_true", help="the network before its first step")
    console.add_fold(verb, "RegDB's fold (default: the one that the run was trained on)")
    console.add_set(verb, "choices of a kind, as KIND.FIELD=VALUE")
    verb.add_argument("--theme", choices=("light", "dark"), default="light", help="default light")
    verb.add_argument("--width", choices=("column", "page"), default="column", help="84 mm (default) or 174 mm")
    verb.add_argument(
        "--format", nargs="+", choices=("png", "svg", "pdf"), default=["png", "svg"], help="default png svg"
    )
    verb.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR", help="default figures")
    console.add_loading(verb)
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """Draw, write, and say what was written."""
    from vireid.figures.draw import draw
    from vireid.figures.drawing import Look, matplotlib, write
    from vireid.training.progress import Terminal

    matplotlib()  # says at once if it is missing
    same = ("data", "set", "names", "protocol", "checkpoint", "untrained", "fold", "workers", "cache")
    asked = {name: getattr(options, name) for name in same}
    made = draw(options.runs, figures=options.figure, **asked, progress=Terminal())
    for file in write(made, options.out, Look(options.theme, options.width, tuple(options.format))):
        print(file)
