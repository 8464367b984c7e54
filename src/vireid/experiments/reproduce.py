"""`vireid reproduce`: train and test the rows of a table, and put the results beside the printed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid import datasets, recipes
from vireid.data.errors import unknown
from vireid.data.protocol import default_protocols
from vireid.data.settings import Whole, options
from vireid.experiments.rows import Comparison, ours
from vireid.experiments.test import TestOptions, test
from vireid.experiments.train import TrainOptions, train
from vireid.training.progress import Progress, Quiet


@options
class ReproduceOptions:
    """What `vireid reproduce` is asked to do.

    Attributes:
        recipe: the recipe.
        table: `TABLE` or `TABLE/ROW`.
        data: `LAYOUT:PATH`.
        runs: folder below which the run directories are.
        set: changes of every row's configuration, as texts `field=value` or as a mapping.
        workers: loading processes.
        cache: folder for resized pictures.
        command: the command that the runs record.
    """

    recipe: str
    table: str
    data: str
    runs: Path = Path("runs")
    set: tuple[str, ...] | dict[str, Any] = ()
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


def reproduce(asked: ReproduceOptions, progress: Progress = Quiet()) -> list[Comparison]:  # noqa: B008 has no state
    """Train and test each row of the table. A second call continues where the first one stopped.

    Raises:
        BadInput: there is no such table or row, or training or testing raises it.
    """
    layout, _ = datasets.parse_source(asked.data)
    module = recipes.recipe(asked.recipe)
    found = []
    for name in rows_of(asked.table, module.ROWS, asked.recipe):
        row = module.ROWS[name]
        protocols = [row.on] if row.on and row.on.startswith(f"{layout}/") else default_protocols(layout)
        directory = asked.runs / asked.recipe / name / layout
        progress.say(f"{asked.recipe}:{name} → {directory}")
        how = {"workers": asked.workers, "cache": asked.cache, "command": asked.command}
        spec = f"{asked.recipe}:{name}"
        run = train(TrainOptions(spec, asked.data, directory, set=asked.set, resume=True, **how), progress)
        measured = test(TestOptions(directory, asked.data, protocols=tuple(protocols), **how), progress)
        protocol = measured[0].report.protocol.removesuffix("@agw")
        just_measured = ours(((run, one) for one in measured), asked.recipe, name, protocol)
        found.append(Comparison(asked.recipe, name, row, just_measured))
    return found


def rows_of(table: str, names: Sequence[str], recipe: str) -> list[str]:
    """The rows that `TABLE` or `TABLE/ROW` stands for; `TABLE/PARAMETER` stands for all its values.

    Raises:
        BadInput: there is no such table or row.
    """
    table = table.rstrip("/")
    found = [name for name in names if name == table or name.startswith((f"{table}/", f"{table}="))]
    if not found:
        tables = sorted({name.partition("/")[0] for name in names})
        raise unknown(f"table or row of {recipe}", table, [*tables, *names])
    return found
