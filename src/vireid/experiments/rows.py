"""Which measurements stand beside which printed number. `vireid rows` and `vireid reproduce` show them.

A measurement is shown for a row if its run has the configuration of the row, and if the protocol is the one that the
numbers of the row were printed for. The name of the row that a run was started as has no influence on that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vireid import datasets, recipes
from vireid.data.errors import BadInput
from vireid.data.stored import as_json
from vireid.evaluation.report import METRICS, Report
from vireid.evaluation.spread import interval
from vireid.experiments.measurement import Measurement, measurements
from vireid.experiments.trainings import runs_below
from vireid.recipes import Row
from vireid.training.configuration import digest, full_path, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run

Found = tuple[Run, Measurement]
"""A run and one of its measurements."""


@dataclass(frozen=True)
class Ours:
    """What was measured for a row, over all seeds and folds.

    Attributes:
        protocol: the protocol's name.
        metrics: metric → percent: the mean over folds of each seed, then the mean over seeds.
        std: metric → population standard deviation over folds, if there are several; otherwise over seeds. Empty for
            one run.
        interval: metric → half-width of the 95 % interval of the mean over seeds (Student's t). Empty for one seed.
        seeds: seeds of the trainings.
        folds: folds that were measured; empty for a layout without folds.
        of_folds: how many folds the layout has.
        set: changes of the row's configuration, without the seed.
        generated: whether the data are a generated world.
        hardware: the machines of the trainings, in words.
        runs: the run directories.
        measured_at: date and time of the newest measurement in UTC, ISO 8601.
        others: how many more groups of runs there are, with other changes or other data.
        commits: git commits of the code that trained; empty for an installed package.
    """

    protocol: str
    metrics: Mapping[str, float]
    std: Mapping[str, float]
    interval: Mapping[str, float]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    of_folds: int
    set: tuple[str, ...]
    generated: bool
    hardware: str
    runs: tuple[str, ...]
    measured_at: str
    others: int = 0
    commits: tuple[str, ...] = ()

    @property
    def measured_folds(self) -> str:
        """How many folds were measured, in words; empty for a layout without folds.

        >>> Ours("regdb/v2i", {}, {}, {}, (0,), (1, 2), 10, (), True, "", (), "").measured_folds
        '2 of 10 folds'
        """
        many = len(self.folds)
        return "" if not many else f"{many} folds" if many == self.of_folds else f"{many} of {self.of_folds} folds"

    @property
    def extent(self) -> str:
        """How many folds and seeds the numbers are the mean of.

        >>> Ours("regdb/v2i", {}, {}, {}, (0, 1), (1, 2), 10, (), True, "", (), "").extent
        '2 of 10 folds, seeds 0, 1'
        """
        seeds = f"{'seed' if len(self.seeds) == 1 else 'seeds'} {', '.join(map(str, self.seeds))}"
        return ", ".join(part for part in (self.measured_folds, seeds) if part)

    def to_json(self) -> dict[str, Any]:
        """One object: the metrics beside the other fields."""
        found = as_json(self)
        return {**found.pop("metrics"), **found}


@dataclass(frozen=True)
class Comparison:
    """A row with its printed numbers and ours.

    Attributes:
        recipe, name: names of the recipe and of the row.
        row: its configuration and printed numbers.
        ours: what was measured for it, or None.
        skipped: why the row was not measured, or None.
        failed: why training or testing stopped, or None.
        notes: what a reader has to know about `ours`.
    """

    recipe: str
    name: str
    row: Row
    ours: Ours | None = None
    skipped: str | None = None
    failed: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def published(self) -> Mapping[str, float | None]:
        """The printed numbers, unless ours were measured by another protocol."""
        comparable = self.ours is None or self.ours.protocol == self.row.on
        return self.row.published if comparable else {}

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
            "published": dict(self.published),
            "ours": self.ours.to_json() if self.ours else None,
            "skipped": self.skipped,
            "failed": self.failed,
            "notes": list(self.notes),
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
        Comparison(name, row_name, row, ours(found, name, row))
        for name, table in tables.items()
        for row_name, row in table.items()
    ]


def plain_measurements(folder: Path, progress: Progress = Quiet()) -> list[Found]:  # noqa: B008
    """Every plain measurement of every run below a folder. What cannot be read is left out, with a message."""
    found = []
    for run in runs_below(folder, progress.say):
        try:
            found += [(run, one) for one in measurements(run) if one.plain]
        except BadInput as error:
            progress.say(f"left out: {error}")
    return found


def ours(found: Iterable[Found], recipe: str, row: Row) -> Ours | None:
    """What was measured for a row by the protocol that its numbers were printed for, or None.

    Measurements that differ only in seed and fold are one group. If there are several groups, those without a change of
    the row's configuration come first, and then the group with the newest measurement.
    """
    groups: dict[tuple[Any, ...], list[Found]] = {}
    for run, one in found:
        if run.facts.recipe != recipe or (row.on is not None and protocol_of(one) != row.on):
            continue
        if (changed := changes(run, row)) is not None:
            groups.setdefault((changed, protocol_of(one), one.measured.root), []).append((run, one))
    if not groups:
        return None
    (changed, _, _), chosen = max(groups.items(), key=lambda group: (not group[0][0], _newest(group[1])))
    return combined(chosen, changed, others=len(groups) - 1)


def protocol_of(one: Measurement) -> str:
    """The name of a measurement's protocol. `@agw` is a second name of the usual draw and is left out."""
    return one.report.protocol.removesuffix("@agw")


def changes(run: Run, row: Row) -> tuple[str, ...] | None:
    """What `--set` changed in the row's configuration for this run, without the seed; None if the run is not the row's.

    A run is the row's if it has the row's configuration. It is also the row's if it was started from this configuration
    and `--set` changed it. A run that was started without a row counts only if the changes are settings that all
    recipes share (such as `epochs`), or the crop: a changed method is no row of a table.
    """
    facts = run.facts
    if run.settings == row.settings:
        return ()
    base = recipes.recipe(facts.recipe)
    begun = base.ROWS.get(facts.row) if facts.row else Row(base.PAPER)
    if begun is None or begun.settings != row.settings:
        return None
    changed = tuple(text for text in facts.set if not text.startswith("seed="))
    paths = [text.partition("=")[0] for text in changed]
    try:
        if digest(to_json(with_fields(row.config, changed))) != run.settings:
            return None
        shared = all(full_path(row.config, path).startswith(("training.", "crop.")) for path in paths)
    except BadInput:  # the run is of another version
        return None
    return changed if shared or facts.row else None


def combined(found: Sequence[Found], changed: tuple[str, ...], *, others: int = 0) -> Ours:
    """The mean of measurements that differ in seed and fold only.

    Of several measurements of one seed and fold the newest counts. Every seed must have the same folds: the seeds with
    the most folds are taken.

    Args:
        found: runs with a measurement each, of one protocol.
        changed: changes of the row's configuration.
        others: how many more groups of runs there are.
    """
    by_seed: dict[int, dict[int, Found]] = {}
    for run, one in sorted(found, key=lambda pair: pair[1].measured.started):
        by_seed.setdefault(run.facts.seed, {})[run.facts.data.fold or 1] = (run, one)
    folds = max((tuple(sorted(each)) for each in by_seed.values()), key=len)
    seeds = tuple(sorted(seed for seed, each in by_seed.items() if tuple(sorted(each)) == folds))
    used = [by_seed[seed][fold] for seed in seeds for fold in folds]
    first, of_folds = used[0][0].facts, _folds(used[0][1].report.protocol)
    numbers = {name: _table([one.report for _, one in used], name, len(seeds)) for name in METRICS}
    return Ours(
        protocol=protocol_of(used[0][1]),
        metrics={name: float(table.mean()) for name, table in numbers.items()},
        std={name: _deviation(table) for name, table in numbers.items() if table.size > 1},
        interval={name: half for name, table in numbers.items() if (half := _half_width(table)) is not None},
        seeds=seeds,
        folds=folds if of_folds > 1 else (),
        of_folds=of_folds,
        set=changed,
        generated=any(one.measured.generated for _, one in used) or first.data.generated,
        hardware=" and ".join(dict.fromkeys(run.facts.hardware.words for run, _ in used)),
        runs=tuple(str(run.path) for run, _ in used),
        measured_at=_newest(used),
        others=others,
        commits=tuple(dict.fromkeys(run.facts.git_commit for run, _ in used if run.facts.git_commit)),
    )


def _folds(protocol: str) -> int:
    """How many folds the layout of a protocol has; 1 if it is given by lists, or for a plug-in that is not loaded."""
    layout = protocol.partition("/")[0]
    return datasets.folds(layout) if layout in datasets.layouts() else 1


def _newest(found: Sequence[Found]) -> str:
    return max(one.measured.started for _, one in found)


def _table(reports: Sequence[Report], metric: str, seeds: int) -> np.ndarray:
    """Percent, seeds × folds."""
    return np.array([getattr(report, metric) for report in reports]).reshape(seeds, -1)


def _deviation(table: np.ndarray) -> float:
    """Population standard deviation over folds, or over seeds where there is one fold."""
    return float(table.mean(0).std() if table.shape[1] > 1 else table.mean(1).std())


def _half_width(table: np.ndarray) -> float | None:
    found = interval(table.mean(1).tolist())
    return None if found is None else found[1]
