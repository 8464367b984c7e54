"""`vireid gallery`: calibrate a model, build an index, search it, serve it, and look after it."""

from __future__ import annotations

import argparse

from vireid.cli.gallery import build, calibrate, demo, records, search, serve

GROUPS = (demo, calibrate, build, search, serve, records)


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb group."""
    what = "Search pictures of two modalities: calibrate a model, build an index, search it, serve it."
    group = verbs.add_parser("gallery", help="build, search and serve an index of pictures", description=what)
    group.set_defaults(verb_function=lambda options: group.print_help())
    nouns = group.add_subparsers(dest="noun", metavar="VERB")
    for one in GROUPS:
        one.register(nouns)
