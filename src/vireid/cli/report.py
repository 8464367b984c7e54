"""`vireid report`."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "report",
        help="runs side by side as one HTML file",
        description="Write one HTML file "
        "that needs nothing beside it: results of several runs side by side, with intervals.",
    )
    verb.add_argument("directories", metavar="RUN", nargs="+", type=Path, help="run directories that were tested")
    verb.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html of the first run")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the page and say where it is."""
    from vireid.figures.page import write_page
    from vireid.training.run import open_run

    runs = [open_run(directory) for directory in options.directories]
    print(write_page(options.out or options.directories[0] / "report.html", runs))
