"""The numbers that the three papers print for other methods, with a note where a number is doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid import recipes
from vireid.data.errors import BadInput, unknown
from vireid.data.protocol import parse_protocol
from vireid.data.stored import as_json
from vireid.evaluation.report import METRICS

FILE = Path(__file__).with_name("cited.yaml")


@dataclass(frozen=True)
class Cited:
    """What one paper prints for another method by one protocol. Nobody measured it with this package.

    Attributes:
        recipe: the recipe of the paper that prints the numbers.
        table: the paper's table, e.g. `table1`.
        method: the name of the method, as printed.
        protocol: the name of the protocol.
        published: metric name (see `vireid.evaluation.report.METRICS`) → percent as printed; a cell that is empty or
            holds a dash is left out.
        where: where the numbers stand, e.g. "PECA table 1".
        note: what is doubtful about the numbers; empty if nothing is.
        ref: conference or journal and year of the method, as printed; empty if the table has none.
    """

    recipe: str
    table: str
    method: str
    protocol: str
    published: Mapping[str, float]
    where: str
    note: str = ""
    ref: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return as_json(self)


def cited(recipe: str | None = None) -> list[Cited]:
    """The numbers for other methods, in the order of the tables: of one recipe's paper, or of all papers.

    >>> deen = next(one for one in cited("wrim_net") if one.method == "DEEN" and one.protocol == "llcm/v2i")
    >>> deen.where, deen.published
    ('WRIM-Net table 2', {'rank1': 62.5, 'map': 65.8})

    Args:
        recipe: a recipe, e.g. `peca`. The list is empty for a recipe that none of the three papers proposes.

    Raises:
        BadInput: no recipe of that name.
    """
    import yaml

    if recipe is not None:
        recipes.recipe(recipe)
    papers = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    chosen = {name: tables for name, tables in papers.items() if recipe in (None, name)}
    return [
        one for name, tables in chosen.items() for table, said in tables.items() for one in _read(name, table, said)
    ]


def _read(recipe: str, table: str, said: Mapping[str, Any]) -> Iterator[Cited]:
    """The methods of one table of the file.

    Raises:
        BadInput: the file names an unknown metric or protocol, or a method lacks a number for some metric.
    """
    metrics = said["metrics"]
    if strange := [metric for metric in metrics if metric not in METRICS]:
        raise unknown("metric", strange[0], METRICS)
    for method, cells in said["methods"].items():
        notes = cells.get("notes", {})
        printed = {name: numbers for name, numbers in cells.items() if name not in ("ref", "notes")}
        if strange := [name for name in notes if name not in printed]:
            raise BadInput(f"{FILE.name}, {recipe}:{table} {method}: a note about {strange[0]}, which has no numbers")
        for name, numbers in printed.items():
            if len(numbers) != len(metrics):
                raise BadInput(
                    f"{FILE.name}, {recipe}:{table} {method}: {len(numbers)} printed numbers for {len(metrics)} metrics"
                )
            known = {metric: float(value) for metric, value in zip(metrics, numbers, strict=True) if value is not None}
            both = [note for note in (notes.get(name, ""), said.get("notes", {}).get(name, "")) if note]
            protocol = parse_protocol(name).name
            yield Cited(recipe, table, method, protocol, known, said["where"], "; ".join(both), cells.get("ref", ""))
