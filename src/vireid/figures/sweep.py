"""Sweeps: their tables, and curves over a number.

A curve also comes from the rows of a paper's parameter study, which are named `TABLE/PARAMETER=VALUE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.evaluation.report import METRICS, SHORT
from vireid.experiments.grouping import Group
from vireid.experiments.rows import Comparison
from vireid.experiments.sweep import Combination, Sweep
from vireid.figures import charts
from vireid.figures.tables import (
    MISSING,
    Code,
    Document,
    Table,
    numbers_of_difference,
    numbers_of_group,
    spread,
    write,
)

COLUMNS = ("rank1", "map", "minp")  # for reading; files have all six metrics
MEAN = "± is the standard deviation over seeds (over folds if there are several)"
STUDENT = "95 % is the half-width of the 95 % interval of the mean over seeds (Student's t)"
PAIRED = "differences are taken seed by seed; ± is the 95 % interval of their mean (Student's t)"
OVER_IDENTITIES = "[ ] is the 95 % interval over the test identities (bootstrap), at these seeds"
WORLD = "measured on a generated world: these numbers must not stand beside published ones"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 0 auto; padding: 24px; max-width: 720px; }
h1 { font-size: 20px; } p { color: #66717e; } td, th { padding: 3px 12px; text-align: right; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #1d2733; }
svg .tick, svg .axis { fill: #66717e; } svg .grid { stroke: #dfe4ea; }
"""


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


def write_curve(
    out: Path, points: Sequence[tuple[float, float, float]], *, parameter: str, notes: Sequence[str] = ()
) -> Path:
    """Rank-1 and mAP over a parameter, as an HTML page that needs no other file.

    Args:
        out: the file; replaced whole or not at all.
        points: (value, Rank-1, mAP) in percent, in any order.
        parameter: what is varied.
        notes: what a reader must know, a paragraph each.

    Raises:
        BadInput: the file cannot be written.
    """
    points = sorted(points)
    chart = _chart({"": points}, parameter)
    cells = "".join(f"<tr><td>{v:g}</td><td>{rank1:.2f}</td><td>{mean:.2f}</td></tr>" for v, rank1, mean in points)
    table = f"<table><tr><th>{escape(parameter)}</th><th>Rank-1</th><th>mAP</th></tr>{cells}</table>"
    return _write_page(out, parameter, notes, f"{chart}\n{table}\n")


def _chart(series: Mapping[str, Sequence[tuple[float, float, float]]], parameter: str) -> str:
    """Rank-1 and mAP over a parameter, for one or several series of (value, Rank-1, mAP), ascending in the value."""
    every = [value for points in series.values() for point in points for value in point[1:] if math.isfinite(value)]
    # The axis does not begin at 0, because the results of a sweep differ by a few percent only.
    around = (max(0.0, math.floor(min(every)) - 1.0), min(100.0, math.ceil(max(every)) + 1.0)) if every else None
    drawn = {}
    for name, points in series.items():
        told = f", {name}" if name else ""
        drawn[f"Rank-1{told}"] = [(value, rank1) for value, rank1, _ in points]
        drawn[f"mAP{told}"] = [(value, mean) for value, _, mean in points]
    return charts.lines(drawn, x=parameter, y="%", y_range=around)


def _write_page(out: Path, parameter: str, notes: Sequence[str], body: str) -> Path:
    """Write a page about one parameter.

    Raises:
        BadInput: the file cannot be written.
    """
    page = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(parameter)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>Rank-1 and mAP over {escape(parameter)}</h1>\n"
        + "".join(f"<p>{escape(note)}</p>\n" for note in notes)
        + f"{body}</body>\n</html>\n"
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}") from error
    return write(out, page)


def write_curves(directory: Path, found: Sequence[Comparison]) -> list[Path]:
    """A page for each parameter that all rows of a table vary.

    Args:
        directory: where the pages are written.
        found: rows with what was measured for them.
    """
    ours = {one.name: one.ours for one in found if one.ours}
    pages = []
    by_table: dict[str, list[str]] = {}
    for one in found:
        by_table.setdefault(one.name.partition("/")[0], []).append(one.name)
    varied = {name: rows for names in by_table.values() for name, rows in swept(names).items()}
    for parameter, rows in varied.items():
        measured = [(value, ours[row]) for value, row in rows if row in ours]
        if len(measured) > 1:
            points = [(value, one.metrics["rank1"], one.metrics["map"]) for value, one in measured]
            protocols = sorted({one.protocol for _, one in measured})
            extents = dict.fromkeys(one.extent for _, one in measured)
            notes = [f"Measured by {', '.join(protocols)}; each point: {'; '.join(extents)}."]
            if any(one.generated for _, one in measured):
                notes.append("On a generated world: these numbers must not stand beside published ones.")
            page = directory / f"{parameter}.html"
            pages.append(write_curve(page, points, parameter=parameter.rpartition("/")[2], notes=notes))
    return pages


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


def numeric(swept: Sweep) -> str | None:
    """The one field that is varied over at least two numbers; None if there is none, or more than one."""
    found = []
    for name in swept.planned.fields:
        values = [group.values.get(name) for groups in swept.groups.values() for group in groups.values()]
        kept = [value for value in values if value is not None]
        if len(set(map(str, kept))) > 1 and all(type(value) in (int, float) for value in kept):
            found.append(name)
    return found[0] if len(found) == 1 else None


def write_sweep(directory: Path, swept: Sweep) -> Path | None:
    """The page of curves `DIRECTORY/FIELD.html`, if exactly one field is varied over numbers.

    There is a chart for each protocol, and in it a pair of lines for each combination of the other fields.

    Raises:
        BadInput: the file cannot be written.
    """
    parameter = numeric(swept)
    if parameter is None:
        return None
    body = ""
    for protocol, measured in swept.groups.items():
        series: dict[str, list[tuple[float, float, float]]] = {}
        for combination in swept.planned.combinations:
            group = measured.get(combination.label)
            if group is None or (value := group.values.get(parameter)) is None:
                continue
            others = {name: text for name, text in combination.values.items() if name != parameter}
            told = ", ".join(f"{name}={text}" for name, text in others.items() if text is not None)
            metrics = group.ours.metrics
            series.setdefault(told, []).append((float(value), metrics["rank1"], metrics["map"]))
        chart = _chart({name: sorted(points) for name, points in series.items()}, parameter)
        body += f"<h2>{escape(protocol)}</h2>\n{chart}\n"
    notes = [
        f"{swept.recipe}; each point is the mean over seeds.",
        *([WORLD.capitalize() + "."] if swept.generated else []),
    ]
    return _write_page(directory / f"{parameter}.html", parameter, notes, body)
