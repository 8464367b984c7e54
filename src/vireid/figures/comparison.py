"""The paper's numbers beside ours, as text, Markdown and HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.stored import write_text
from vireid.evaluation.report import METRICS, SHORT
from vireid.experiments.rows import Comparison

MISSING = "–"
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
    yield f"{kind}{partly}", [_spread(ours.metrics[name], ours.std.get(name)) for name in metrics]
    if ours.interval:
        yield "95 % interval", [f"± {ours.interval[name]:.2f}" for name in metrics]
    if not ours.generated and any(one.published.get(name) is not None for name in metrics):
        yield "difference", [_difference(ours.metrics[name], one.published.get(name)) for name in metrics]


def _number(values: Mapping[str, float | None], name: str) -> str:
    if name not in values:
        return MISSING
    value = values[name]
    return "not legible" if value is None else f"{value:.2f}"


def _spread(value: float, deviation: float | None) -> str:
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"


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


def as_text(found: Sequence[Comparison]) -> str:
    """The rows for a terminal, table by table, and then what a reader has to know about them."""
    text: list[str] = []
    for table, rows in tables(found).items():
        metrics = shown(rows)
        where = heading(rows)
        cells = [["", "", "", *(SHORT[name] for name in metrics)]]
        for one in rows:
            for place, (kind, numbers) in enumerate(lines(one, metrics)):
                first = [f"  {_name(one)}", protocol(one)] if place == 0 else ["", ""]
                cells.append([*first, kind, *numbers])
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        text += ["", table + (f" ({where})" if where else "")]
        for line in cells:
            padded = [
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ]
            text.append("  ".join(padded).rstrip())
    notes = [*legend(found), *(f"{_listed(who)}: {note}" for note, who in remarks(found).items())]
    fill = textwrap.TextWrapper(110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False).fill
    wrapped = [fill(note) for note in notes]
    return "\n".join([*text, *(["", *wrapped] if wrapped else [])]).lstrip("\n")


def _listed(names: Sequence[str]) -> str:
    """Names of rows; the recipe is said once."""
    found, before = [], ""
    for name in names:
        recipe, _, row = name.partition(":")
        found.append(row if recipe == before else name)
        before = recipe
    return ", ".join(found)


def as_markdown(found: Sequence[Comparison]) -> str:
    """The rows as Markdown tables: a line for the paper, for ours and for the difference."""
    text: list[str] = []
    for table, rows in tables(found).items():
        metrics = shown(rows)
        text += [f"### {table}", "", *([f"{heading(rows)}.", ""] if heading(rows) else [])]
        text.append("| " + " | ".join(["row", "protocol", "", *(SHORT[name] for name in metrics)]) + " |")
        text.append("|" + " --- |" * 3 + " ---: |" * len(metrics))
        for one in rows:
            for place, (kind, numbers) in enumerate(lines(one, metrics)):
                first = [_name(one), f"`{protocol(one)}`"] if place == 0 else ["", ""]
                text.append("| " + " | ".join([*first, kind, *numbers]) + " |")
        text.append("")
    text += [f"- {sentence}" for sentence in legend(found)]
    text += [f"- {_listed(who)}: {note}" for note, who in remarks(found).items()]
    return "\n".join(text).rstrip() + "\n"


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
    for number in numbers:
        sign = {"+": " class=gain", "-": " class=loss"}.get(number[:1], "") if kind == "difference" else ""
        cells += f"<td{sign}>{escape(number)}</td>"
    heads = "".join(f"<td class=name>{escape(cell)}</td>" for cell in (name, on, kind))
    classes = " ".join([*(["row"] if first else []), *(["paper"] if kind == "paper" else [])])
    return f'<tr class="{classes}">{heads}{cells}</tr>'


def write(file: Path, text: str) -> Path:
    """Write a page, whole or not at all.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
    return file
