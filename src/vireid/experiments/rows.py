"""`vireid rows`: every row of a paper's tables, with the printed numbers and the numbers that were measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.data.stored import as_json
from vireid.evaluation.report import METRICS
from vireid.experiments.measurement import Measurement, measurements
from vireid.recipes import Row
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run, open_run


@dataclass(frozen=True)
class Ours:
    """What was measured for a row.

    Attributes:
        metrics: metric → percent.
        protocol: the protocol's name.
        seed: seed of the training.
        set: what `--set` changed in the row's configuration.
        generated: whether the data are a generated world.
        hardware: the hardware of the training, in words.
        run: the run directory.
        measured_at: date and time of the measurement in UTC, ISO 8601.
    """

    metrics: Mapping[str, float]
    protocol: str
    seed: int | None
    set: tuple[str, ...]
    generated: bool
    hardware: str
    run: str
    measured_at: str

    def to_json(self) -> dict[str, Any]:
        """One flat object: the metrics beside the other fields."""
        found = as_json(self)
        return {**found.pop("metrics"), **found}


@dataclass(frozen=True)
class Comparison:
    """A row with its printed numbers, our numbers, and the command that measures it.

    Attributes:
        recipe, name: names of the recipe and of the row.
        row: its configuration and printed numbers.
        ours: the newest plain measurement, or None.
    """

    recipe: str
    name: str
    row: Row
    ours: Ours | None

    @property
    def command(self) -> str:
        """The command that trains and tests this row."""
        layout = self.row.on.partition("/")[0] if self.row.on else "LAYOUT"
        return f"vireid reproduce {self.recipe} {self.name} --data {layout}:PATH"

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "recipe": self.recipe,
            "row": self.name,
            "on": self.row.on,
            "where": self.row.where,
            "note": self.row.note,
            "published": dict(self.row.published),
            "ours": self.ours.to_json() if self.ours else None,
            "command": self.command,
        }


def rows(recipe: str | None = None, *, runs: Path = Path("runs"), progress: Progress = Quiet()) -> list[Comparison]:  # noqa: B008
    """Every row of one recipe, or of all, with what was measured for it below `runs`.

    Raises:
        BadInput: no such recipe.
    """
    names = [recipe] if recipe else recipes.recipes()
    tables = {name: recipes.recipe(name).ROWS for name in names}
    found = plain_measurements(runs, progress)
    return [
        Comparison(name, row_name, row, ours(found, name, row_name, row.on))
        for name, table in tables.items()
        for row_name, row in table.items()
    ]


def plain_measurements(folder: Path, progress: Progress = Quiet()) -> list[tuple[Run, Measurement]]:  # noqa: B008
    """Every plain measurement of every run below a folder. A run that cannot be read is left out, with a message."""
    found = []
    for file in sorted(folder.glob("**/run.json")) if folder.is_dir() else ():
        try:
            run = open_run(file.parent)
            found += [(run, one) for one in measurements(run) if one.plain]
        except BadInput as error:
            progress.say(f"left out: {error}")
    return found


def ours(found: Iterable[tuple[Run, Measurement]], recipe: str, row: str, on: str | None) -> Ours | None:
    """The newest measurement of a row, or None. If `on` is given, only this protocol counts."""
    fitting = [
        (run, one)
        for run, one in found
        if (run.facts.recipe, run.facts.row) == (recipe, row)
        and (on is None or one.report.protocol.removesuffix("@agw") == on)
    ]
    if not fitting:
        return None
    # `max` takes the first of equally new measurements, so the order of the files decides.
    run, newest = max(fitting, key=lambda pair: pair[1].measured.started)
    return Ours(
        metrics={name: getattr(newest.report, name) for name in METRICS},
        protocol=newest.report.protocol,
        seed=newest.report.seed,
        set=run.facts.set,
        generated=newest.measured.generated,
        hardware=run.facts.hardware.words,
        run=str(run.path),
        measured_at=newest.measured.started,
    )
