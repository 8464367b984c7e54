"""One parameter at several values: the curves of a paper's parameter study, from rows named `TABLE/PARAMETER=VALUE`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.stored import write_text
from vireid.experiments.rows import Comparison
from vireid.figures import charts

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
    values = [value for point in points for value in point[1:] if math.isfinite(value)]
    # The axis does not begin at 0, because the results of a sweep differ by a few percent only.
    around = (max(0.0, math.floor(min(values)) - 1.0), min(100.0, math.ceil(max(values)) + 1.0)) if values else None
    chart = charts.lines(
        {"Rank-1": [(v, rank1) for v, rank1, _ in points], "mAP": [(v, mean) for v, _, mean in points]},
        x=parameter,
        y="%",
        y_range=around,
    )
    cells = "".join(f"<tr><td>{v:g}</td><td>{rank1:.2f}</td><td>{mean:.2f}</td></tr>" for v, rank1, mean in points)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(parameter)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>Rank-1 and mAP over {escape(parameter)}</h1>\n"
        + "".join(f"<p>{escape(note)}</p>\n" for note in notes)
        + f"{chart}\n<table><tr><th>{escape(parameter)}</th><th>Rank-1</th><th>mAP</th></tr>{cells}</table>\n"
        "</body>\n</html>\n"
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}") from error
    return out


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
