"""CSV that spreadsheets can open: what is in a cell is never run as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV with lines that end as RFC 4180 wants.

    A text that a spreadsheet could take for a formula gets an apostrophe in front. Numbers are written as they are.
    """
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return made.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULAS):
        return f"'{value}"
    return "" if value is None else value
