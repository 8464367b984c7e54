"""`vireid rows`, `vireid reproduce` and `vireid cost`: the papers' numbers beside ours."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vireid.cli import console
from vireid.data.errors import BadInput, unknown
from vireid.data.size import Size

SHOWN = ("rank1", "rank10", "rank20", "map", "minp")
MISSING = "–"
EMBEDDING = "after the neck, length one"  # what a plain report compared; `vireid.model.EMBEDDINGS` would bring torch


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the three verbs."""
    rows = verbs.add_parser(
        "rows",
        help="every table row, paper | ours",
        description="Every table row: the paper's "
        "number beside ours, and the command that makes it. What was not measured is shown as –.",
    )
    rows.add_argument("recipe", nargs="?", metavar="RECIPE", help="default: all recipes")
    rows.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where to look for ours (runs)")
    rows.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    rows.set_defaults(run=run_rows)

    again = verbs.add_parser(
        "reproduce",
        help="train and test a table's rows",
        description="Train and test a table's "
        "rows, one after another; a second call goes on where the first one stopped.",
    )
    again.add_argument("recipe", metavar="RECIPE", help="e.g. agw")
    again.add_argument("table", metavar="TABLE[/ROW]", help="e.g. sysu-mm01 or sysu-mm01/all")
    again.add_argument("--data", required=True, metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    again.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs)")
    console.add_sets(again, "change fields of every row's configuration; shown beside the result")
    console.add_loading(again)
    again.add_argument("--json", metavar="FILE", help="write paper and ours as JSON")
    again.set_defaults(run=run_reproduce)

    cost = verbs.add_parser(
        "cost",
        help="parameters, MACs, memory, embedding width",
        description="What one picture's path through a recipe costs, and what a checkpoint stores; no classifier.",
    )
    cost.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw")
    cost.add_argument("--size", type=Size.parse, metavar="HxW", help="default: the row's own")
    console.add_sets(cost, "change fields of the configuration")
    cost.add_argument("--json", metavar="FILE", help="write the counts as JSON")
    cost.set_defaults(run=run_cost)


def run_rows(options: argparse.Namespace) -> None:
    """Print every row, with what was measured for it under `--runs`."""
    from vireid import recipes

    names = [options.recipe] if options.recipe else recipes.recipes()
    found = []
    for name in names:
        for row_name, row in recipes.recipe(name).ROWS.items():
            found.append(row_facts(name, row_name, row, measured_for(options.runs, name, row_name, row.on)))
    print(rows_table(found))
    console.write_json(options.json, found)


def row_facts(recipe: str, name: str, row: Any, ours: dict[str, Any] | None) -> dict[str, Any]:
    """One row as data: printed, measured, and the command."""
    layout = row.on.partition("/")[0] if row.on else "LAYOUT"
    return {
        "recipe": recipe,
        "row": name,
        "on": row.on,
        "where": row.where,
        "note": row.note,
        "published": dict(row.published),
        "ours": ours,
        "command": f"vireid reproduce {recipe} {name} --data {layout}:PATH",
    }


def measured_for(runs: Path, recipe: str, row: str, on: str | None) -> dict[str, Any] | None:
    """The newest plain report of this row under `runs`, with seed, hardware and what it was measured on; or None."""
    best: dict[str, Any] | None = None
    for file in sorted(runs.glob("**/run.json")) if runs.is_dir() else ():
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            reports = [
                json.loads(r.read_text(encoding="utf-8")) for r in sorted((file.parent / "reports").glob("*.json"))
            ]
        except (OSError, ValueError):
            continue  # a run that is being written, or somebody else's file
        if facts.get("recipe") != recipe or facts.get("row") != row:
            continue
        for kept in reports:
            report, measured = kept["report"], kept["measured"]
            plain = not measured["untrained"] and not report["flip"] and report["rerank"] == "none"
            plain &= report["embedding"] == EMBEDDING and measured.get("checkpoint", "last") == "last"
            right = on is None or report["protocol"].removesuffix("@agw") == on
            if plain and right and (best is None or measured["started"] > best["measured_at"]):
                best = {
                    **{name: report[name] for name in ("rank1", "rank5", "rank10", "rank20", "map", "minp")},
                    "protocol": report["protocol"],
                    "seed": report["seed"],
                    "set": facts["set"],
                    "generated": measured["generated"],
                    "hardware": _hardware(facts),
                    "run": str(file.parent),
                    "measured_at": measured["started"],
                }
    return best


def rows_table(found: list[dict[str, Any]]) -> str:
    """The rows for a terminal, then what a reader must know about single ones."""
    header = ["row", "on", *(f"{name} paper | ours" for name in ("rank1", "map")), "seed", "measured on", "printed in"]
    lines, notes = [], []
    for row in found:
        ours = row["ours"]
        cells = [f"{_number(row['published'], name)} | {_number(ours, name)}" for name in ("rank1", "map")]
        label = f"{row['recipe']}:{row['row']}"
        if ours:
            world = "generated world" if ours["generated"] else "data as given"
            changed = f", {' '.join(ours['set'])}" if ours["set"] else ""
            measured = [str(ours["seed"]), world + changed]
        else:
            measured = [MISSING, MISSING]
        lines.append(
            [label, row["on"] or (ours or {}).get("protocol", MISSING), *cells, *measured, row["where"] or MISSING]
        )
        notes += [f"{label}: {row['note']}"] if row["note"] else []
        notes += [f"{label}: ours on {ours['hardware']}, {ours['run']}"] if ours else []
        notes += [f"{label}: {row['command']}"]
    return "\n".join([console.table(header, lines), "", *notes])


def run_reproduce(options: argparse.Namespace) -> None:
    """Train and test each row that belongs to the table."""
    from vireid import datasets, recipes
    from vireid.cli.evaluate import test
    from vireid.cli.train import train
    from vireid.data.protocol import default_protocols

    layout, _ = datasets.parse_source(options.data)
    module = recipes.recipe(options.recipe)
    table = options.table.rstrip("/")
    wanted = [n for n in module.ROWS if n == table or n.startswith((f"{table}/", f"{table}="))]
    if not wanted:
        tables = sorted({name.partition("/")[0] for name in module.ROWS})
        raise unknown(f"table or row of {options.recipe}", options.table, [*tables, *module.ROWS])
    found = []
    for name in wanted:
        row = module.ROWS[name]
        protocols = [row.on] if row.on and row.on.startswith(f"{layout}/") else default_protocols(layout)
        directory = options.runs / options.recipe / name / layout
        print(f"{options.recipe}:{name} → {directory}", file=sys.stderr)
        train(
            f"{options.recipe}:{name}",
            options.data,
            directory,
            sets=options.sets,
            resume=True,
            workers=options.workers,
            cache=options.cache,
            command="vireid " + " ".join(sys.argv[1:]),
        )
        reports = test(directory, options.data, protocols=protocols, workers=options.workers, cache=options.cache)
        ours = measured_for(directory, options.recipe, name, reports[0].protocol.removesuffix("@agw"))
        found.append(row_facts(options.recipe, name, row, ours))
    print(rows_table(found))
    for page in write_curves(options.runs / options.recipe, found):
        print(f"curve: {page}")
    console.write_json(options.json, found)


def write_curves(directory: Path, found: list[dict[str, Any]]) -> list[Path]:
    """A page for each parameter that the rows vary, if varying one is what all of them do."""
    from vireid.figures.sweep import swept, write_curve

    ours = {row["row"]: row["ours"] for row in found if row["ours"]}
    pages = []
    for parameter, rows in swept(row["row"] for row in found).items():
        points = [(value, ours[row]["rank1"], ours[row]["map"]) for value, row in rows if row in ours]
        if len(points) > 1:
            measured = [ours[row] for _, row in rows if row in ours]
            notes = [f"Measured by {', '.join(sorted({m['protocol'] for m in measured}))}, one run a point."]
            if any(m["generated"] for m in measured):
                notes.append("On a generated world: these numbers must not stand beside published ones.")
            page = directory / f"{parameter}.html"
            pages.append(write_curve(page, points, parameter=parameter.rpartition("/")[2], notes=notes))
    return pages


def run_cost(options: argparse.Namespace) -> None:
    """Count, and print beside what the paper printed."""
    import torch

    from vireid import recipes
    from vireid.data.modality import Modality
    from vireid.networks.cost import measure
    from vireid.training.configuration import with_fields

    name, row_name, row = recipes.find_row(options.recipe)
    config = with_fields(row.config, options.sets)
    size = options.size or config.size
    network = recipes.build(name, config, identities=2, pretrained=False)
    visible = torch.tensor([int(Modality.VISIBLE)])
    try:
        cost = measure(network, lambda images: network.embed(images, visible), torch.zeros(1, 3, *size))  # type: ignore[operator]
    except RuntimeError as error:
        raise BadInput(f"{options.recipe} cannot take pictures of {size}: {str(error).splitlines()[0]}") from error
    facts = {"recipe": name, "row": row_name, "size": str(size), **asdict(cost), "published": dict(row.published)}
    print(f"{options.recipe} at {size}")
    for key, unit, scale in (
        ("parameters_stored", "M", 1e6),
        ("parameters_path", "M", 1e6),
        ("macs_path", "G", 1e9),
        ("memory_weights", "MB", 1e6),
        ("memory_activations", "MB a picture", 1e6),
        ("embedding", "wide", 1),
    ):
        printed = row.published.get(key)
        beside = f"   paper {printed / scale:.2f} {unit}" if printed is not None else ""
        value = f"{facts[key] / scale:,.3f}" if scale > 1 else f"{facts[key]}"
        print(f"  {key.replace('_', ' '):20} {value:>12} {unit}{beside}")
    console.write_json(options.json, facts)


def _number(values: dict[str, Any] | None, name: str) -> str:
    if values is None or name not in values:
        return MISSING
    return "not legible" if values[name] is None else f"{values[name]:.2f}"


def _hardware(facts: dict[str, Any]) -> str:
    hardware = facts["hardware"]
    return ", ".join(hardware["gpus"]) or f"{hardware['cores']} cores {hardware['processor']}"
