"""Tables of results as text, Markdown, LaTeX and CSV, made from one model.

A `Document` has tables to read, with rounded numbers, and the same numbers in full for a CSV file, one row for each set
of numbers.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput, unknown
from vireid.data.stored import write_text
from vireid.evaluation.report import METRICS, MISSING, SHORT, Report, mixed_legend, of_mixed_galleries
from vireid.experiments.grouping import Difference, Group

ENDINGS = {"text": (".txt",), "csv": (".csv",), "markdown": (".md", ".markdown"), "latex": (".tex",)}
"""Format → endings of its files."""
HTML = {"html": (".html", ".htm")}


class Code(str):
    """A cell for a name of the program, such as a protocol. Markdown and LaTeX show it in code type."""


@dataclass(frozen=True)
class Table:
    """A table to read.

    Attributes:
        title: its heading, or empty.
        head: the headings of the columns.
        lines: the cells, each line as long as `head`.
        left: how many columns, from the left, hold words; the others hold numbers.
        where: a remark for the heading, or empty.
    """

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    left: int = 1
    where: str = ""


@dataclass(frozen=True)
class Document:
    """Tables with what a reader has to know about them.

    Attributes:
        tables: for reading.
        numbers: column → value for each row of the CSV file, in full precision.
        notes: sentences, below the tables.
    """

    tables: tuple[Table, ...]
    numbers: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def render(document: Document, form: str) -> str:
    """The document in one of the formats, ending with a line break.

    Raises:
        BadInput: there is no such format.
    """
    made = {"text": as_text, "csv": as_csv, "markdown": as_markdown, "latex": as_latex}
    if form not in made:
        raise unknown("format", form, made)
    return made[form](document).rstrip("\n") + "\n"


def format_of(file: Path, *, html: bool, usual: str) -> str:
    """The format that the ending of a file's name stands for; `usual` for a name without an ending.

    >>> format_of(Path("a/t.MD"), html=False, usual="text"), format_of(Path("t"), html=False, usual="text")
    ('markdown', 'text')

    Raises:
        BadInput: another ending.
    """
    ending, known = file.suffix.lower(), {**ENDINGS, **(HTML if html else {})}
    if not ending:
        return usual
    for form, endings in known.items():
        if ending in endings:
            return form
    choices = ", ".join(one for endings in known.values() for one in endings)
    raise BadInput(f"{file}: no format has the ending '{file.suffix}'; give --format, or one of {choices}")


def write(file: Path, text: str) -> Path:
    """Write a file, whole or not at all.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
    return file


# --- the formats ------------------------------------------------------------------------------------------------------


def as_text(document: Document) -> str:
    """For a terminal: columns under their headings, notes wrapped."""
    text: list[str] = []
    for one in document.tables:
        indent = "  " if one.title else ""
        rows = [one.head, *((f"{indent}{line[0]}" if line[0] else "", *line[1:]) for line in one.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(one.head))]
        text += ["", *([one.title + (f" ({one.where})" if one.where else "")] if one.title else [])]
        for row in rows:
            cells = [
                cell.ljust(width) if place < one.left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text.append("  ".join(cells).rstrip())
    fill = textwrap.TextWrapper(110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False).fill
    wrapped = [fill(note) for note in document.notes]
    return "\n".join([*text, *(["", *wrapped] if wrapped else [])]).lstrip("\n")


def as_markdown(document: Document) -> str:
    """Tables of GitHub's Markdown; the notes are a list below them."""
    text: list[str] = []
    for one in document.tables:
        if one.title:
            text += [f"### {_markdown(one.title)}", "", *([f"{_markdown(one.where)}.", ""] if one.where else [])]
        text.append("| " + " | ".join(map(_markdown, one.head)) + " |")
        text.append("|" + " --- |" * one.left + " ---: |" * (len(one.head) - one.left))
        text += ["| " + " | ".join(map(_markdown, line)) + " |" for line in one.lines]
        text.append("")
    text += [f"- {_markdown(note)}" for note in document.notes]
    return "\n".join(text).rstrip() + "\n"


def _markdown(cell: str) -> str:
    """A cell on one line, in which nothing is markup."""
    text = " ".join(cell.split())
    if isinstance(cell, Code):
        return f"`{text.replace('|', chr(92) + '|')}`" if text else ""
    return re.sub(r"([\\|*`])", r"\\\1", text).replace("<", "&lt;")


def as_latex(document: Document) -> str:
    """Tables with the rules of the package booktabs; the notes are small print below them."""
    text = ["% needs \\usepackage{booktabs}"]
    for one in document.tables:
        caption = one.title + (f" ({one.where})" if one.where else "")
        text += ["\\begin{table}", "\\centering"]
        text += [f"\\caption{{{escaped(caption)}}}"] if caption else []
        text.append(f"\\begin{{tabular}}{{{'l' * one.left}{'r' * (len(one.head) - one.left)}}}")
        text += ["\\toprule", _latex_line(one.head), "\\midrule", *map(_latex_line, one.lines), "\\bottomrule"]
        text += ["\\end{tabular}", "\\end{table}"]
    text += [f"\\noindent{{\\footnotesize {escaped(note)}\\par}}" for note in document.notes]
    return "\n".join(text) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    shown = [f"\\texttt{{{escaped(cell)}}}" if isinstance(cell, Code) and cell else escaped(cell) for cell in cells]
    # A line that begins with [ would be taken for an argument of the line break before it.
    first = f"{{}}{shown[0]}" if shown[0].startswith(("[", "*")) else shown[0]
    return " & ".join([first, *shown[1:]]) + " \\\\"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "#$%&_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "–": "--",
    "−": "$-$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    '"': r"\textquotedbl{}",
}


def escaped(text: str) -> str:
    r"""Text for LaTeX, on one line, in which nothing is a command.

    >>> escaped("50 % of a_b ± 1"), escaped("-2.5"), escaped("θ=1")
    ('50 \\% of a\\_b $\\pm$ 1', '$-$2.5', '$\\theta$=1')
    """
    text = " ".join(text.split())
    signed = re.match(r"[+-](?=\d)", text)
    told = "".join(_LATEX.get(sign) or _greek(sign) for sign in text[1 if signed else 0 :])
    return f"${signed[0]}${told}" if signed else told


def _greek(sign: str) -> str:
    """A Greek small letter as LaTeX writes it; any other sign as it is."""
    name = unicodedata.name(sign, "")
    return f"$\\{name.rpartition(' ')[2].lower()}$" if name.startswith("GREEK SMALL LETTER ") else sign


def as_csv(document: Document) -> str:
    """A heading, and a row for each set of numbers, in full precision. What is not known is empty."""
    columns = list(dict.fromkeys(column for row in document.numbers for column in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in document.numbers:
        writer.writerow({column: _plain(value) for column, value in row.items()})
    return file.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool) else value


# --- the tables that have no file of their own ------------------------------------------------------------------------


def of_reports(reports: Sequence[Report], titles: Sequence[str], notes: Sequence[str] = ()) -> Document:
    """Reports of one model, one line for each.

    Args:
        reports: the reports.
        titles: the first cell of each line: the protocol, and what is not plain about the measurement.
        notes: what a reader has to know.
    """
    head = ("protocol", *SHORT.values(), "chance R1", "queries", "gallery", "trials")
    lines = []
    for report, title in zip(reports, titles, strict=True):
        many = len(report.trials) > 1
        numbers = [spread(getattr(report, name), report.std[name] if many else None) for name in METRICS]
        counts = (f"{report.valid_queries}", f"{report.gallery}", f"{len(report.trials)}")
        lines.append((Code(title), *numbers, number(report.chance_rank1), *counts))
    tables = [Table("", head, tuple(lines))]
    if besides := of_mixed_galleries(reports, titles):
        tables.append(mixed_table([besides[0], *((Code(title), *cells) for title, *cells in besides[1:])]))
    return Document(tuple(tables), tuple(map(numbers_of, reports)), tuple(notes))


def mixed_table(besides: Sequence[Sequence[str]]) -> Table:
    """What reports of a gallery of both modalities say besides, from `of_mixed_galleries`."""
    head, *lines = besides
    title = head[0][0].upper() + head[0][1:]
    return Table(title, ("", *head[1:]), tuple(map(tuple, lines)), where=mixed_legend(besides))


def numbers_of(report: Report) -> dict[str, Any]:
    """The row of a report in a CSV file: its numbers, and what they depend on."""
    stored = report.to_json()
    rest = ("chance_rank1", "valid_queries", "queries", "gallery")
    how = ("embedding", "flip", "rerank", "distance", "cmc", "seed", "warnings")
    return {
        "protocol": report.protocol,
        **{name: getattr(report, name) for name in METRICS},
        **{f"{name}_std": report.std[name] for name in METRICS},
        "trials": len(report.trials),
        **{name: stored[name] for name in (*rest, *how)},
        **_numbers_of_mixed(report),
    }


def _numbers_of_mixed(report: Report) -> dict[str, float]:
    """The columns that only a gallery of both modalities has."""
    if report.own_modality is None:
        return {}
    found = {"own_modality": report.own_modality}
    for one in report.alarms or ():
        name = f"alarms_{one.strangers:g}"
        found |= {name: one.share, f"{name}_lower": one.lower, f"{name}_upper": one.upper}
    return found


def number(value: float | None) -> str:
    """Two digits; a dash for what is not known.

    >>> number(3.14159), number(None), number(float("nan"))
    ('3.14', '–', '–')
    """
    return MISSING if value is None or value != value else f"{value:.2f}"


def spread(value: float, around: float | None, *, sign: bool = False) -> str:
    """A number and what lies around it.

    >>> spread(50, None), spread(50, 1.255), spread(2, 0.5, sign=True), spread(-0.001, None, sign=True)
    ('50.00', '50.00 ± 1.25', '+2.00 ± 0.50', '+0.00')
    """
    value = round(value, 2) + 0.0  # so that no zero has a minus
    shown = f"{value:+.2f}" if sign else f"{value:.2f}"
    return shown if around is None else f"{shown} ± {around:.2f}"


def numbers_of_group(group: Group) -> dict[str, Any]:
    """The row of a group in a CSV file: the means with their standard deviations and intervals."""
    ours = group.ours
    return {
        "protocol": ours.protocol,
        "numbers": "mean",
        "group": group.label,
        "minus": None,
        "seed": ours.seeds,
        "fold": ours.folds,
        "run": ours.runs,
        **ours.metrics,
        **{f"{name}_std": value for name, value in ours.std.items()},
        **{f"{name}_interval": value for name, value in ours.interval.items()},
    }


def numbers_of_difference(one: Difference, protocol: str) -> dict[str, Any]:
    """The row of a difference in a CSV file, in percentage points, with its intervals."""
    found: dict[str, Any] = {"protocol": protocol, "numbers": "difference", "group": one.second, "minus": one.first}
    found["seed"] = one.seeds
    found |= {name: value.mean for name, value in one.metrics.items()}
    found |= {f"{name}_interval": value.half for name, value in one.metrics.items()}
    for name, (low, high) in one.identities.items():
        found |= {f"{name}_identities_low": low, f"{name}_identities_high": high}
    return found
