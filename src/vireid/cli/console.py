"""What the verbs share: options, tables for the terminal, JSON files, the command that is recorded."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.data.stored import check_output
from vireid.data.stored import write_json as write

_arguments: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Keep the arguments that the program was called with, by a shell or by a Python function, for `command`."""
    _arguments[:] = arguments


def command() -> str:
    """The command as it was given, for runs and reports to record."""
    return shlex.join(["vireid", *_arguments])


def write_json(path: str | Path | None, value: Any) -> None:
    """Write the `--json` file, if one was asked for.

    Raises:
        BadInput: it cannot be written.
    """
    if path is None:
        return
    sys.stdout.flush()  # the file may be standard output itself, and then it comes after what is printed
    try:
        write(Path(path), value)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def table(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned under their heads: the first `left` columns to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    text = []
    for line in [header, *lines]:
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "  ".join("─" * w for w in widths))
    return "\n".join(text)


def add_data(verb: argparse.ArgumentParser, example: str = "sysu-mm01:/data/SYSU-MM01") -> None:
    """The option `--data LAYOUT:PATH`."""
    verb.add_argument("--data", required=True, metavar="LAYOUT:PATH", help=f"e.g. {example}")


def add_set(verb: argparse.ArgumentParser, help: str) -> None:
    """The option `--set FIELD=VALUE …`."""
    verb.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help=help)


def add_loading(verb: argparse.ArgumentParser, cache: str = "keep resized pictures here") -> None:
    """The options `--workers` and `--cache`; `cache` says what the latter is for."""
    verb.add_argument("--workers", type=count, default=2, metavar="N", help="loading processes (default 2)")
    verb.add_argument("--cache", type=Path, metavar="DIR", help=cache)


def add_precision(verb: argparse.ArgumentParser) -> None:
    """The option `--precision`, of features."""
    words = "off (default), bf16, fp16, or auto: bf16 where it is clearly faster"
    verb.add_argument("--precision", choices=("off", "bf16", "fp16", "auto"), default="off", help=words)


def add_fold(verb: argparse.ArgumentParser, help: str, default: int | None = None) -> None:
    """The option `--fold N`, which was called `--trial`."""
    verb.add_argument("--fold", "--trial", dest="fold", type=count, default=default, metavar="N", help=help)


def add_json(verb: argparse.ArgumentParser, help: str) -> None:
    """The option `--json FILE`."""
    add_output(verb, "--json", help)


def add_tables(verb: argparse.ArgumentParser, *, html: bool = False, default: str = "") -> None:
    """The options `--format` and `--out FILE`, for the tables that a verb prints.

    Args:
        verb: the verb.
        html: whether HTML is one of the formats.
        default: what is written without `--out`, for its help.
    """
    choices = ("text", "csv", "markdown", "latex", *(["html"] if html else []))
    verb.add_argument("--format", choices=choices, help=f"of what is printed or written: {', '.join(choices)}")
    verb.add_argument(
        "--out",
        action="append",
        type=lambda text: check_output(Path(text)),
        metavar="FILE",
        help=f"write a file, in --format or that of its ending; may be repeated{default}",
    )


def outputs(options: argparse.Namespace, *, html: bool = False, usual: str = "text") -> list[tuple[str, Path]]:
    """The files of `--out`, each with its format. Call it before the work, because an ending may be unknown.

    Raises:
        BadInput: no format has the ending of a file, and there is no `--format`.
    """
    from vireid.figures.tables import format_of

    return [(options.format or format_of(file, html=html, usual=usual), file) for file in options.out or ()]


def show(options: argparse.Namespace, files: Sequence[tuple[str, Path]], render: Callable[[str], str]) -> None:
    """Print tables and write the files.

    Args:
        options: `--format` says how the tables are printed, if there is no file.
        files: what `outputs` gave.
        render: makes the text of a format.
    """
    from vireid.figures.tables import write as write_table

    print(render("text" if files else options.format or "text").rstrip("\n"))
    sys.stdout.flush()  # a file may be standard output itself
    for form, file in files:
        write_table(file, render(form))


def add_output(verb: argparse.ArgumentParser, option: str, help: str, *, required: bool = False) -> None:
    """An option for a file to write. What makes writing impossible is said before the work begins."""
    verb.add_argument(option, required=required, type=lambda text: check_output(Path(text)), metavar="FILE", help=help)


def count(text: str) -> int:
    """An option's whole number of 0 or more."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise BadInput(f"'{text}' is not a whole number of 0 or more")
    return value
