"""Sweeps: their tables, and curves over a number.

A curve also comes from the rows of a paper's parameter study, which are named `TABLE/PARAMETER=VALUE`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.evaluation.report import METRICS, SHORT
from vireid.experiments.grouping import Group
from vireid.experiments.rows import Comparison
from vireid.experiments.sweep import Combination, Sweep
from vireid.figures import drawing
from vireid.figures.drawing import Figure
from vireid.figures.kinds import DoesNotApply, curves
from vireid.figures.measured import Point, says
from vireid.figures.tables import (
    MISSING,
    Code,
    Document,
    Table,
    numbers_of_difference,
    numbers_of_group,
    spread,
)

COLUMNS = ("rank1", "map", "minp")  # for reading; files have all six metrics
MEAN = "± is the standard deviation over seeds (over folds if there are several)"
STUDENT = "95 % is the half-width of the 95 % interval of the mean over seeds (Student's t)"
PAIRED = "differences are taken seed by seed; ± is the 95 % interval of their mean (Student's t)"
OVER_IDENTITIES = "[ ] is the 95 % interval over the test identities (bootstrap), at these seeds"
WORLD = "measured on a generated world: these numbers must not stand beside published ones"


def swept(rows: Iterable[str]) -> dict[str, list[tuple[float, str]]]:
    """Group the rows of a table by the parameter that they vary, if every row varies one.

    Returns:
        `TABLE/PARAMETER` → (value, row name), ascending; empty unless every name is `TABLE/PARAMETER=NUMBER`.

    >>> swept(["figure4/theta1=1.0", "figure4/theta1=0.6", "figure4/theta2=0.4"])
    {'figure4/theta1': [(0.6, 'figure4/theta1=0.6'), (1.0, 'figure4/theta1=1.0')], 'figure4/theta2': [(0.4, 'figure4/theta2=0.4')]}
    >>> swept(["table1/full", "table1/k=3"])
    {}
    """  # noqa: E501
    found: dict[str, list[tuple[float, str]]] = {}
    for row in rows:
        parameter, equals, text = row.rpartition("=")
        value = _number(text)
        if not equals or value is None:
            return {}
        found.setdefault(parameter, []).append((value, row))
    return {parameter: sorted(points) for parameter, points in found.items()}


def of_rows(found: Sequence[Comparison]) -> list[Figure]:
    """A curve for each parameter that all rows of a table vary, from the rows that were measured.

    The paper's numbers are drawn too, but not beside those of a generated world.
    """
    by_name = {one.name: one for one in found if one.ours}
    tables: dict[str, list[str]] = {}
    for one in found:
        tables.setdefault(one.name.partition("/")[0], []).append(one.name)
    varied = {name: rows for names in tables.values() for name, rows in swept(names).items()}
    drawn = {name: [(value, by_name[row]) for value, row in rows if row in by_name] for name, rows in varied.items()}
    return [_of_parameter(name, points) for name, points in drawn.items() if len(points) > 1]


def _of_parameter(name: str, rows: Sequence[tuple[float, Comparison]]) -> Figure:
    table, _, parameter = name.rpartition("/")
    ours = [(value, one.ours) for value, one in rows if one.ours]
    told = {value: {name: one for name, one in row.published.items() if one is not None} for value, row in rows}
    generated = any(one.generated for _, one in ours)
    said = says([one for _, one in ours], "interval")
    return curves.curves(
        {"": [Point.of(value, one, "interval") for value, one in ours]},
        x=parameter,
        printed=[] if generated else [Point(value, metrics) for value, metrics in told.items() if metrics],
        name=f"curves-{name.replace('/', '-')}",
        caption=f"Rank-1 and mAP over {parameter}: {rows[0][1].recipe}, rows {table}. {said}",
    )


def write_curves(directory: Path, figures: Sequence[Figure], say: Callable[[str], None]) -> None:
    """Write curves into a folder, and say where; without matplotlib, say how to have them.

    The tables are what the verbs are asked for, so they do not fail where only the curves cannot be drawn.

    Raises:
        BadInput: a file cannot be written.
    """
    if not figures:
        return
    try:
        drawing.matplotlib()
    except BadInput as missing:
        say(f"no curves: {missing}")
        return
    for file in drawing.write(figures, directory):
        say(f"curves: {file}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- a sweep of `vireid sweep` ----------------------------------------------------------------------------------------


def document(swept: Sweep) -> Document:
    """A table of means and one of differences for each protocol, and what a reader has to know."""
    tables, numbers = [], []
    for protocol, measured in swept.groups.items():
        tables.append(_means(swept, protocol, measured))
        numbers += [_with_values(swept, row["group"], row) for row in _runs(measured.values())]
        numbers += [_with_values(swept, label, numbers_of_group(group)) for label, group in measured.items()]
        if found := swept.differences(protocol):
            tables.append(_differences(swept, protocol))
            numbers += [_with_values(swept, one.second, numbers_of_difference(one, protocol)) for one in found]
    return Document(tuple(tables), tuple(numbers), tuple(_notes(swept)))


def _with_values(swept: Sweep, label: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a CSV file with the values of the combination in columns of their own."""
    values = next(one.values for one in swept.planned.combinations if one.label == label)
    return {**row, **values}


def _runs(measured: Iterable[Group]) -> Iterator[dict[str, Any]]:
    """The rows of single runs."""
    for group in measured:
        for run, one in group.found:
            report = one.report
            yield {
                "protocol": group.ours.protocol,
                "numbers": "run",
                "group": group.label,
                "minus": None,
                "seed": run.facts.seed,
                "fold": run.facts.data.fold,
                "run": str(run.path),
                **{name: getattr(report, name) for name in METRICS},
            }


def _first_cells(swept: Sweep, combination: Combination) -> tuple[str, ...]:
    """The cells that say which combination a line is about."""
    values = tuple(MISSING if value is None else Code(value) for value in combination.values.values())
    return values or (Code(swept.recipe),)


def _head(swept: Sweep) -> tuple[str, ...]:
    return (*(swept.planned.fields or ("recipe",)), "seeds")


def _means(swept: Sweep, protocol: str, measured: Mapping[str, Group]) -> Table:
    """A line for each combination, also for one of which nothing was measured."""
    several = any(group.ours.interval for group in measured.values())
    head, lines = _head(swept), []
    for combination in swept.planned.combinations:
        group, cells = measured.get(combination.label), _first_cells(swept, combination)
        if group is None:
            lines.append((*cells, *[MISSING] * (1 + len(COLUMNS) * (1 + several))))
            continue
        ours = group.ours
        seeds = ", ".join(map(str, ours.seeds)) + (f" ({ours.measured_folds})" if ours.folds else "")
        numbers = []
        for name in COLUMNS:
            numbers.append(spread(ours.metrics[name], ours.std.get(name)))
            numbers += [f"{ours.interval[name]:.2f}" if ours.interval else MISSING] if several else []
        lines.append((*cells, seeds, *numbers))
    titles = [title for name in COLUMNS for title in ([SHORT[name], "95 %"] if several else [SHORT[name]])]
    return Table(f"{swept.recipe} on {protocol}", (*head, *titles), tuple(lines), left=len(head))


def _differences(swept: Sweep, protocol: str) -> Table:
    """A line for each combination, minus the first one."""
    found = swept.differences(protocol)
    lines, first = [], swept.planned.combinations[0].label
    for one in found:
        combination = next(other for other in swept.planned.combinations if other.label == one.second)
        numbers = []
        for name in COLUMNS:
            numbers.append(spread(one.metrics[name].mean, one.metrics[name].half, sign=True))
            if name in found[0].identities:
                low, high = one.identities.get(name, (math.nan, math.nan))
                numbers.append(f"[{low:+.2f}, {high:+.2f}]" if name in one.identities else MISSING)
        lines.append((*_first_cells(swept, combination), ", ".join(map(str, one.seeds)), *numbers))
    titles = [
        title for name in COLUMNS for title in ([SHORT[name], ""] if name in found[0].identities else [SHORT[name]])
    ]
    head = _head(swept)
    return Table(f"minus {first}, on {protocol}", (*head, *titles), tuple(lines), left=len(head))


def _notes(swept: Sweep) -> Iterator[str]:
    measured = [group for groups in swept.groups.values() for group in groups.values()]
    different = [one for protocol in swept.groups for one in swept.differences(protocol)]
    if any(group.ours.std for group in measured):
        yield MEAN
    if any(group.ours.interval for group in measured):
        yield STUDENT
    if different:
        yield PAIRED
    if any(one.identities for one in different):
        yield OVER_IDENTITIES
    if swept.generated:
        yield WORLD
    warnings = (w for group in measured for _, one in group.found for w in one.report.warnings)
    yield from (f"warning: {warning}" for warning in dict.fromkeys(warnings))
    yield from swept.notes
    yield from (f"failed: {title}: {reason}" for title, reason in swept.failed.items())


def of_sweep(swept: Sweep) -> list[Figure]:
    """A figure for each protocol and each number that is varied, with a line for each combination of the other fields.

    There is none where no two combinations differ in one number only.
    """
    made = []
    for protocol, groups in swept.groups.items():
        own = f"-{protocol.replace('/', '-')}" if len(swept.groups) > 1 else ""
        with contextlib.suppress(DoesNotApply):
            found = curves.of_groups(list(groups.values()), curves.Choices())
            made += [replace(figure, name=f"{figure.name}{own}") for figure in found]
    return made
