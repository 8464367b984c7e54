"""`vireid rows`, `vireid reproduce`, `vireid cost` and `vireid fields`: recipes and their tables."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli import console
from vireid.data.size import Size

if TYPE_CHECKING:
    from vireid.experiments.rows import Comparison
    from vireid.training.configuration import Field

MISSING = "–"


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the four verbs."""
    fields = verbs.add_parser(
        "fields",
        help="every setting of a recipe",
        description="Every field that --set takes: type, range or choices, value, where the value comes from, and what "
        "it means.",
    )
    fields.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw, or peca:table3/m1")
    console.add_json(fields, "write the fields as JSON")
    fields.set_defaults(verb_function=run_fields)

    rows = verbs.add_parser(
        "rows",
        help="every table row, paper | ours",
        description="Every table row: the paper's number beside ours. What was not measured is shown as –.",
    )
    rows.add_argument("recipe", nargs="?", metavar="RECIPE", help="default: all recipes")
    rows.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where to look for ours (runs)")
    rows.add_argument("--commands", action="store_true", help="also print the command that makes each row")
    console.add_json(rows, "write the rows as JSON, commands included")
    rows.set_defaults(verb_function=run_rows)

    again = verbs.add_parser(
        "reproduce",
        help="train and test a table's rows",
        description="Train and test a table's rows, one after another; a second call goes on where the first stopped.",
    )
    again.add_argument("recipe", metavar="RECIPE", help="e.g. agw")
    again.add_argument("table", metavar="TABLE[/ROW]", help="e.g. sysu-mm01 or sysu-mm01/all")
    console.add_data(again)
    again.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs)")
    console.add_set(again, "change fields of every row's configuration; shown beside the result")
    console.add_loading(again)
    console.add_json(again, "write paper and ours as JSON")
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


def run_fields(options: argparse.Namespace) -> None:
    """Print every field of a recipe's configuration."""
    from vireid import recipes
    from vireid.data.stored import as_json
    from vireid.training.configuration import describe

    _, _, row = recipes.find_row(options.recipe)
    found = describe(row.config)
    print("\n".join(_field(field) for field in found))
    console.write_json(options.json, [as_json(field) for field in found])


def _field(field: Field) -> str:
    """One field in two to four lines."""
    value = field.default if field.chosen else f"(with {field.path.rpartition('.')[0]}={field.part})"
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    head = f"{field.path} = {shown}" if field.chosen else f"{field.path} {shown}"
    body = textwrap.wrap(f"{field.source}: {field.meaning}", 92, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([head, f"    takes {field.takes}", *body])


def run_rows(options: argparse.Namespace) -> None:
    """Print every row, with what was measured for it under `--runs`."""
    from vireid.experiments.rows import rows
    from vireid.training.progress import Terminal

    found = rows(options.recipe, runs=options.runs, progress=Terminal())
    print(_rows_table(found))
    if options.commands:
        print("\n".join(["", *(f"{one.recipe}:{one.name}: {one.command}" for one in found)]))
    console.write_json(options.json, [one.to_json() for one in found])


def _rows_table(found: Sequence[Comparison]) -> str:
    """The rows for a terminal, table by table, then what a reader must know about them."""
    header = ["row", "protocol", "R1 paper | ours", "mAP paper | ours", "seed"]
    lines, headings, notes = [], [], {}
    where = {(one.recipe, one.name.partition("/")[0]): one.row.where for one in found if one.row.where}
    for one in found:
        ours, row = one.ours, one.row
        metrics = ours.metrics if ours else None
        cells = [f"{_number(row.published, name)} | {_number(metrics, name)}" for name in ("rank1", "map")]
        protocol = row.on or (ours.protocol if ours else MISSING)
        table, _, name = one.name.partition("/")
        lines.append([f"  {name or table}", protocol, *cells, str(ours.seed) if ours else MISSING])
        printed = where.get((one.recipe, table))
        headings.append(f"{one.recipe}:{table}" + (f" ({printed})" if printed else ""))
        if row.note:
            notes.setdefault(row.note, []).append(f"{one.recipe}:{one.name}")
        if ours:
            world = "a generated world" if ours.generated else "the data as given"
            changed = f" with {' '.join(ours.set)}" if ours.set else ""
            measured = f"ours on {world}{changed}, {ours.hardware}, {ours.run}"
            notes.setdefault(measured, []).append(f"{one.recipe}:{one.name}")
    head, rule, *body = console.table(header, lines, left=2).splitlines()
    text = [head, rule]
    for number, line in enumerate(body):
        text += [headings[number], line] if number == 0 or headings[number] != headings[number - 1] else [line]
    return "\n".join([*text, *([""] if notes else []), *(f"{', '.join(who)}: {note}" for note, who in notes.items())])


def run_reproduce(options: argparse.Namespace) -> None:
    """Train and test each row that belongs to the table."""
    from vireid.experiments.reproduce import ReproduceOptions, reproduce
    from vireid.figures.sweep import write_curves
    from vireid.training.progress import Terminal

    asked = ReproduceOptions(
        recipe=options.recipe,
        table=options.table,
        data=options.data,
        runs=options.runs,
        set=tuple(options.set),
        workers=options.workers,
        cache=options.cache,
        command=console.command(),
    )
    found = reproduce(asked, Terminal())
    print(_rows_table(found))
    for page in write_curves(options.runs / options.recipe, found):
        print(f"curve: {page}")
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


def _number(values: Mapping[str, Any] | None, name: str) -> str:
    if values is None or name not in values:
        return MISSING
    return "not legible" if values[name] is None else f"{values[name]:.2f}"
