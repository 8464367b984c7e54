"""The paper's numbers beside ours, as tables and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vireid.evaluation.report import METRICS, SHORT
from vireid.experiments.cited import Cited
from vireid.experiments.rows import Comparison
from vireid.figures.tables import MISSING, Code, Document, Table, number, spread
from vireid.figures.tables import render as tables_render

GENERATED = "generated"
SPREAD = "ours ± is the standard deviation over folds, or over seeds if there is one fold"
INTERVAL = "the 95 % interval is of the mean over seeds (Student's t)"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff; margin: 0 auto; padding: 24px;
  max-width: 1100px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin: 28px 0 6px; } p, li { color: #4a5663; max-width: 80ch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th { font-weight: 600; }
td, th { padding: 3px 10px; text-align: right; white-space: nowrap; } .name { text-align: left; }
tbody tr.row > * { border-top: 1px solid #dfe4ea; } .paper { color: #66717e; } .gain { color: #0b6e4f; }
.loss { color: #a4343a; } .scroll { overflow-x: auto; }
@media (prefers-color-scheme: dark) { body { color: #e4e9ee; background: #14191f; } p, li, .paper { color: #a3afbb; }
  tbody tr.row > * { border-color: #2d3742; } .gain { color: #58c9a0; } .loss { color: #ef8f93; } }
"""


def shown(comparisons: Sequence[Comparison]) -> list[str]:
    """The metrics that the paper prints for some of these rows; Rank-1 and mAP where it prints none."""
    printed = [name for name in METRICS if any(name in one.published for one in comparisons)]
    return printed or ["rank1", "map"]


def lines(one: Comparison, metrics: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What is shown of a row: its kind (`paper`, `ours` or `difference`), and a cell for each metric.

    Results on a generated world are called `generated`. They have no difference from the paper's, because the papers
    did not use these pictures.
    """
    if one.published:
        yield "paper", [_number(one.published, name) for name in metrics]
    ours = one.ours
    if ours is None:
        yield "ours", [MISSING for _ in metrics]
        return
    kind = GENERATED if ours.generated else "ours"
    partly = f", {ours.measured_folds}" if len(ours.folds) < ours.of_folds and ours.folds else ""
    yield f"{kind}{partly}", [spread(ours.metrics[name], ours.std.get(name)) for name in metrics]
    if ours.interval:
        yield "95 % interval", [f"± {ours.interval[name]:.2f}" for name in metrics]
    if not ours.generated and any(one.published.get(name) is not None for name in metrics):
        yield "difference", [_difference(ours.metrics[name], one.published.get(name)) for name in metrics]


def _number(values: Mapping[str, float | None], name: str) -> str:
    if name not in values:
        return MISSING
    value = values[name]
    return "not legible" if value is None else f"{value:.2f}"


def _difference(ours: float, paper: float | None) -> str:
    return MISSING if paper is None else f"{ours - paper:+.2f}"


def tables(found: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """The rows that were not skipped, by `recipe:table`."""
    grouped: dict[str, list[Comparison]] = {}
    for one in found:
        if one.skipped is None:
            grouped.setdefault(f"{one.recipe}:{one.name.partition('/')[0]}", []).append(one)
    return grouped


def heading(rows: Sequence[Comparison]) -> str:
    """Where the numbers of a table stand, in words; empty if its rows do not say."""
    return "; ".join(dict.fromkeys(one.row.where for one in rows if one.row.where))


def protocol(one: Comparison) -> str:
    """The protocol of a row's numbers."""
    return one.ours.protocol if one.ours else one.row.on or MISSING


def remarks(found: Sequence[Comparison]) -> dict[str, list[str]]:
    """Sentences that a reader has to know, each with the rows that it is about."""
    notes: dict[str, list[str]] = {}
    for one in found:
        said = [one.row.note] if one.row.note and one.published and not one.skipped else []
        if one.ours:
            ours = one.ours
            world = "a generated world" if ours.generated else "the data as given"
            changed = f", with {' '.join(ours.set)}" if ours.set else ""
            others = f"; {ours.others} more with other settings or data" if ours.others else ""
            first = Path(ours.runs[0])
            where = first.parent if len(ours.runs) > 1 else first
            kind = GENERATED if ours.generated else "ours"
            made = f", commit {' and '.join(ours.commits)}" if ours.commits else ""
            said.append(f"{kind}: {ours.extent}, on {world}{changed}; {ours.hardware}{made}; {where}{others}")
        said += [f"failed: {one.failed}"] if one.failed else []
        said += [f"skipped: {one.skipped}"] if one.skipped else []
        for sentence in (*said, *one.notes):
            notes.setdefault(sentence, []).append(f"{one.recipe}:{one.name}")
    return notes


def legend(found: Sequence[Comparison]) -> list[str]:
    """What the signs of the tables mean."""
    ours = [one.ours for one in found if one.ours]
    spread = [SPREAD] if any(one.std for one in ours) else []
    return [*spread, *([INTERVAL] if any(one.interval for one in ours) else [])]


def _name(one: Comparison) -> str:
    return one.name.partition("/")[2] or one.name


def render(found: Sequence[Comparison], form: str, title: str) -> str:
    """The rows in a format: `html`, or one of `vireid.figures.tables`. `title` is the heading of the HTML page."""
    return as_html(found, title) if form == "html" else tables_render(document(found), form)


def document(found: Sequence[Comparison]) -> Document:
    """The rows table by table, and what a reader has to know about them."""
    made = []
    for table, rows in tables(found).items():
        metrics = shown(rows)
        cells: list[tuple[str, ...]] = []
        for one in rows:
            for place, (kind, numbers) in enumerate(lines(one, metrics)):
                first = (_name(one), Code(protocol(one))) if place == 0 else ("", "")
                cells.append((*first, kind, *numbers))
        head = ("row", "protocol", "", *(SHORT[name] for name in metrics))
        made.append(Table(table, head, tuple(cells), left=3, where=heading(rows)))
    notes = [*legend(found), *(f"{_listed(who)}: {note}" for note, who in remarks(found).items())]
    return Document(tuple(made), tuple(row for one in found for row in _numbers(one)), tuple(notes))


def _numbers(one: Comparison) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file: the paper's numbers and ours, each in a row of its own."""
    place = {"recipe": one.recipe, "row": one.name}
    if one.published:
        yield {**place, "protocol": one.row.on, "numbers": "paper", **one.published, "note": one.row.note}
    ours = one.ours
    if ours is not None:
        yield {
            **place,
            "protocol": ours.protocol,
            "numbers": GENERATED if ours.generated else "ours",
            **ours.metrics,
            **{f"{name}_std": value for name, value in ours.std.items()},
            **{f"{name}_interval": value for name, value in ours.interval.items()},
            "seeds": ours.seeds,
            "folds": ours.folds,
            "set": ours.set,
            "hardware": ours.hardware,
            "runs": ours.runs,
            "note": one.notes,
        }
    elif one.failed or one.skipped or not one.published:
        why = f"failed: {one.failed}" if one.failed else f"skipped: {one.skipped}" if one.skipped else "not measured"
        yield {**place, "protocol": one.row.on, "numbers": "none", "note": why}


def cited(found: Sequence[Cited]) -> Document:
    """What the papers print for other methods, and the notes about single rows."""
    head = ("", "protocol", *SHORT.values())
    cells, numbers, notes = [], [], {}
    for one in found:
        who = f"{one.where} {one.method}"
        cells.append((who, Code(one.protocol), *(number(one.published.get(name)) for name in SHORT)))
        numbers.append({"where": one.where, "method": one.method, "protocol": one.protocol, **one.published})
        if one.note:
            numbers[-1]["note"] = one.note
            notes.setdefault((one.note, one.where, one.protocol), []).append(one.method)
    told = [f"{where}, {protocol} ({', '.join(who)}): {note}" for (note, where, protocol), who in notes.items()]
    return Document((Table("", head, tuple(cells), left=2),), tuple(numbers), tuple(told))


def _listed(names: Sequence[str]) -> str:
    """Names of rows; the recipe is said once."""
    found, before = [], ""
    for name in names:
        recipe, _, row = name.partition(":")
        found.append(row if recipe == before else name)
        before = recipe
    return ", ".join(found)


def as_html(found: Sequence[Comparison], title: str) -> str:
    """The rows as an HTML page that needs no other file."""
    body = [f"<h1>{escape(title)}</h1>"]
    for table, rows in tables(found).items():
        metrics = shown(rows)
        where = f"<p>{escape(heading(rows))}</p>" if heading(rows) else ""
        head = "".join(f"<th>{SHORT[name]}</th>" for name in metrics)
        body.append(f"<h2>{escape(table)}</h2>{where}<div class=scroll><table><thead><tr><th class=name>row</th>")
        body.append(f"<th class=name>protocol</th><th class=name></th>{head}</tr></thead><tbody>")
        body += [
            _html_line(one, kind, numbers, first=place == 0)
            for one in rows
            for place, (kind, numbers) in enumerate(lines(one, metrics))
        ]
        body.append("</tbody></table></div>")
    said = [*legend(found), *(f"{_listed(who)}: {note}" for note, who in remarks(found).items())]
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    body.append(f"<ul>{notes}</ul>" if notes else "")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _html_line(one: Comparison, kind: str, numbers: Sequence[str], *, first: bool) -> str:
    name, on = (_name(one), protocol(one)) if first else ("", "")
    cells = ""
    for cell in numbers:
        sign = {"+": " class=gain", "-": " class=loss"}.get(cell[:1], "") if kind == "difference" else ""
        cells += f"<td{sign}>{escape(cell)}</td>"
    heads = "".join(f"<td class=name>{escape(cell)}</td>" for cell in (name, on, kind))
    classes = " ".join([*(["row"] if first else []), *(["paper"] if kind == "paper" else [])])
    return f'<tr class="{classes}">{heads}{cells}</tr>'
