"""What the verbs share in talking to a person: progress, tables, JSON files."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput

Progress = Callable[[int, int], None]


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar with time left on a terminal; in a log file, a line at every tenth.

    Yields:
        a function of (done, total).
    """
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    from rich.console import Console

    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str) -> Progress:
    tenths = -1

    def show(done: int, total: int) -> None:
        nonlocal tenths
        now = 10 * done // max(total, 1)
        if now > tenths:
            tenths = now
            print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return show


def write_json(path: str | None, value: Any) -> None:
    """Write the `--json` file, if one was asked for.

    Raises:
        BadInput: it cannot be written.
    """
    if path is None:
        return
    from vireid.training.run import write_json as write

    try:
        write(Path(path), value)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned under their heads: the first left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * w for w in widths))
    return "\n".join(lines)


def add_sets(verb: argparse.ArgumentParser, help: str) -> None:
    """The option `--set FIELD=VALUE …`, kept as `sets`."""
    verb.add_argument("--set", dest="sets", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help=help)


def add_loading(verb: argparse.ArgumentParser, cache: str = "keep resized pictures here") -> None:
    """The options `--workers` and `--cache`; `cache` says what the latter is for."""
    verb.add_argument("--workers", type=count, default=2, metavar="N", help="loading processes (default 2)")
    verb.add_argument("--cache", type=Path, metavar="DIR", help=cache)


def count(text: str) -> int:
    """An option's whole number of 0 or more."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise BadInput(f"'{text}' is not a whole number of 0 or more")
    return value
