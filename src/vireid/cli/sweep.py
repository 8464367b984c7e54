"""`vireid sweep`: every combination of some values of fields."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid.cli import console
from vireid.data.errors import BadInput


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "sweep",
        help="train and test combinations of settings",
        description="Train and test a recipe with every combination of some values, and compare the combinations over "
        "seeds. Trainings that are there are used; a second call goes on where the first stopped.",
    )
    verb.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw, or peca:table3/m1")
    console.add_data(verb)
    verb.add_argument("--runs", required=True, type=Path, metavar="DIR", help="where runs are kept, and looked for")
    verb.add_argument(
        "--over",
        nargs="+",
        action="extend",
        required=True,
        metavar="FIELD=A,B",
        help="values of a field, e.g. optimiser.lr=0.1,0.01 erasing=null,RandomErasing seed=0-2; may be repeated",
    )
    console.add_set(verb, "change fields of every combination")
    verb.add_argument(
        "--protocol",
        nargs="+",
        action="extend",
        default=[],
        metavar="P",
        help="one or more, or a layout for its usual ones (default: the data's)",
    )
    verb.add_argument("--folds", metavar="1-3", help="RegDB's folds, e.g. 1-3 or 1,3,5-7 (default 1)")
    verb.add_argument("--jobs", type=console.count, default=1, metavar="N", help="trainings at once (default 1)")
    console.add_loading(verb)
    console.add_tables(verb)
    console.add_json(verb, "write everything as JSON")
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """Do what is missing, then print and write the tables."""
    from vireid.experiments.sweep import SweepOptions, sweep
    from vireid.figures import tables
    from vireid.figures.sweep import document, of_sweep, write_curves
    from vireid.training.progress import Terminal

    files = console.outputs(options)
    same = ("recipe", "data", "runs", "folds", "jobs", "workers", "cache")
    lists = {"over": options.over, "set": options.set, "protocols": options.protocol}
    asked = {**{name: getattr(options, name) for name in same}, **{name: tuple(given) for name, given in lists.items()}}
    progress = Terminal()
    found = sweep(SweepOptions(**asked, command=console.command()), progress)
    made = document(found)
    console.show(options, files, lambda form: tables.render(made, form))
    console.write_json(options.json, found.to_json())
    write_curves(options.runs / "figures", of_sweep(found), progress.say)
    if found.failed:
        raise BadInput(f"failed: {', '.join(found.failed)}; the reasons stand below the table")
