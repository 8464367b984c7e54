"""`vireid rows`, `vireid reproduce` and `vireid cost`: recipes and their tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.errors import BadInput
from vireid.data.size import Size

if TYPE_CHECKING:
    from vireid.experiments.rows import Comparison

RUNS = Path("runs")  # where runs are, unless --runs says otherwise


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the three verbs."""
    rows = verbs.add_parser(
        "rows",
        help="every table row, paper and ours",
        description="Every table row: the paper's numbers, and ours below them. What was not measured is shown as –.",
    )
    rows.add_argument("recipe", nargs="?", metavar="RECIPE", help="default: all recipes")
    _add_runs(rows, "where to look for ours (default runs)")
    rows.add_argument("--commands", action="store_true", help="also print the command that makes each row")
    rows.add_argument("--cited", action="store_true", help="the numbers that the papers print for other methods")
    _add_files(rows)
    rows.set_defaults(verb_function=run_rows)

    again = verbs.add_parser(
        "reproduce",
        help="train and test a table's rows",
        description="Train and test the rows of a table, and compare with the paper. Rows of equal configuration share "
        "a training. Trainings that are there are used; a second call goes on where the first stopped.",
    )
    again.add_argument("recipe", metavar="RECIPE", help="e.g. agw")
    again.add_argument("table", metavar="TABLE[/ROW]", nargs="?", default="", help="e.g. table3/m1; default: all")
    console.add_data(again)
    _add_runs(again, "where runs are kept, and looked for (default runs)")
    again.add_argument("--seeds", metavar="0,1,2", help="default: the seed of the configuration")
    again.add_argument("--jobs", type=console.count, default=1, metavar="N", help="trainings at once (default 1)")
    again.add_argument("--folds", metavar="1-10", help="RegDB's folds, e.g. 1-10 (default) or 1,3,5-7")
    console.add_set(again, "change fields of every row's configuration; shown beside the result")
    console.add_loading(again)
    _add_files(again)
    again.set_defaults(verb_function=run_reproduce)

    cost = verbs.add_parser(
        "cost",
        help="parameters, MACs, memory, embedding width",
        description="What one picture's path through a recipe costs, and what a checkpoint stores; no classifier.",
    )
    cost.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw")
    cost.add_argument("--size", type=Size.parse, metavar="HxW", help="default: the row's own")
    console.add_set(cost, "change fields of the configuration")
    console.add_json(cost, "write the counts as JSON")
    cost.set_defaults(verb_function=run_cost)


def _add_runs(verb: argparse.ArgumentParser, help: str) -> None:
    verb.add_argument("--runs", type=Path, metavar="DIR", help=help)


def _add_files(verb: argparse.ArgumentParser) -> None:
    console.add_json(verb, "write the rows as JSON, commands included")
    console.add_tables(verb, html=True)


def run_rows(options: argparse.Namespace) -> None:
    """Print every row, with what was measured for it under `--runs`."""
    from vireid.experiments.rows import rows
    from vireid.figures import comparison, tables
    from vireid.training.progress import Terminal

    files = console.outputs(options, html=not options.cited)
    if options.cited:
        from vireid.experiments.cited import cited

        numbers = cited(options.recipe)
        console.show(options, files, lambda form: tables.render(comparison.cited(numbers), form))
        console.write_json(options.json, [one.to_json() for one in numbers])
        return
    if options.runs is not None and not options.runs.is_dir():
        raise BadInput(f"--runs {options.runs} is not a folder")
    found = rows(options.recipe, runs=options.runs or RUNS, progress=Terminal())
    _show(found, options, files, f"vireid rows {options.recipe or ''}".strip())
    if options.commands:
        print("\n".join(["", *(f"{one.recipe}:{one.name}: {one.command}" for one in found)]))


def run_reproduce(options: argparse.Namespace) -> None:
    """Train and test each row that belongs to the table."""
    from vireid.experiments.reproduce import ReproduceOptions, reproduce
    from vireid.figures.sweep import of_rows, write_curves
    from vireid.training.progress import Terminal

    names = ("recipe", "table", "data", "folds", "seeds", "jobs", "workers", "cache")
    asked = {name: getattr(options, name) for name in names}
    files = console.outputs(options, html=True)
    runs, changes = options.runs or RUNS, tuple(options.set)
    progress = Terminal()
    found = reproduce(ReproduceOptions(**asked, runs=runs, set=changes, command=console.command()), progress)
    _show(found, options, files, f"vireid reproduce {options.recipe} {options.table}".strip())
    write_curves(runs / options.recipe / "figures", of_rows(found), progress.say)
    failed = [one.name for one in found if one.failed]
    if failed:
        raise BadInput(f"failed: {', '.join(failed)}; the reasons stand below the table")


def _show(
    found: Sequence[Comparison], options: argparse.Namespace, files: Sequence[tuple[str, Path]], title: str
) -> None:
    """Print the tables, and write the files that were asked for."""
    from vireid.figures import comparison

    console.show(options, files, lambda form: comparison.render(found, form, title))
    console.write_json(options.json, [one.to_json() for one in found])


def run_cost(options: argparse.Namespace) -> None:
    """Count, and print beside what the paper printed."""
    from vireid.experiments.cost import cost

    found = cost(options.recipe, size=options.size, set=options.set)
    print(f"{options.recipe} at {found.size}")
    for key, unit, scale in (
        ("parameters_stored", "M", 1e6),
        ("parameters_path", "M", 1e6),
        ("macs_path", "G", 1e9),
        ("memory_weights", "MB", 1e6),
        ("memory_activations", "MB a picture", 1e6),
        ("embedding", "wide", 1),
    ):
        printed = found.published.get(key)
        beside = f"   paper {printed / scale:.2f} {unit}" if printed is not None else ""
        value = f"{found.counts[key] / scale:,.3f}" if scale > 1 else f"{found.counts[key]}"
        print(f"  {key.replace('_', ' '):20} {value:>12} {unit}{beside}")
    console.write_json(options.json, found.to_json())
