"""`vireid figures`: the papers' figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from vireid.figures.drawing import Figure

CHOSEN_BY_PAPER = {"figure": [], "names": [], "protocol": None, "checkpoint": "last", "untrained": False}
"""Options that say what --paper decides itself, with what they are if they are not given."""


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "figures",
        help="the papers' figures: attention maps, t-SNE, distances, ranked lists, curves",
        description="Draw figures of one or several runs, and write them with the numbers behind them (figures.json).",
    )
    verb.add_argument("run_directories", nargs="*", type=Path, metavar="RUN", help="run directories")
    verb.add_argument(
        "--paper", metavar="RECIPE", help="the figures of this recipe's paper, from the runs of vireid reproduce"
    )
    verb.add_argument("--runs", type=Path, metavar="DIR", help="where --paper looks for runs (default runs)")
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
    from vireid.figures.drawing import matplotlib
    from vireid.figures.of_runs import draw
    from vireid.training.progress import Terminal

    matplotlib()  # says at once if it is missing
    if options.paper is not None:
        run_paper(options)
        return
    if not options.run_directories:
        raise BadInput("vireid figures needs run directories, or --paper RECIPE")
    if options.runs is not None:
        raise BadInput("--runs is for --paper; run directories are named without an option")
    same = ("data", "set", "names", "protocol", "checkpoint", "untrained", "fold", "workers", "cache")
    asked = {name: getattr(options, name) for name in same}
    _write(draw(options.run_directories, figures=options.figure, **asked, progress=Terminal()), options)


def run_paper(options: argparse.Namespace) -> None:
    """Draw and write what can be drawn, and say which figures of the paper are missing."""
    from vireid.figures.papers import PaperOptions, draw_paper
    from vireid.training.progress import Terminal

    other = ["run directories"] if options.run_directories else []
    other += [f"--{name}" for name, usual in CHOSEN_BY_PAPER.items() if getattr(options, name) != usual]
    if other:
        raise BadInput(f"--paper finds the runs and says what is drawn of them; leave out {', '.join(other)}")
    if options.data is None:
        raise BadInput("--paper needs --data LAYOUT:PATH, the pictures that its rows were trained on")
    same = ("data", "fold", "workers", "cache")
    asked = {name: getattr(options, name) for name in same}
    runs, progress = options.runs or Path("runs"), Terminal()
    drawn = draw_paper(PaperOptions(options.paper, runs=runs, set=tuple(options.set), **asked), progress)
    if drawn.figures:
        _write(drawn.figures, options)
    for name, reason in drawn.missing.items():
        progress.say(f"not drawn: {name}: {reason}")
    if drawn.missing:
        raise BadInput(f"not drawn: {', '.join(drawn.missing)}; the reasons stand above")


def _write(figures: Sequence[Figure], options: argparse.Namespace) -> None:
    from vireid.figures.drawing import Look, write

    for file in write(figures, options.out, Look(options.theme, options.width, tuple(options.format))):
        print(file)
