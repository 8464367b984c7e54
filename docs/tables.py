"""Write the tables of settings into the pages: `python docs/tables.py`; with `--check` only compare.

A page says `<!-- fields -->` and `<!-- end -->`; the text between them is made from the notes below the fields, so each
value, its source and its reason are written once, in the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vireid.data.settings import hints, parts_of
from vireid.recipes import recipe, recipes
from vireid.training.configuration import Field, describe
from vireid.training.settings import Training

ROOT = Path(__file__).resolve().parents[1]
SHARED = "docs/fields.md"
MARKED = re.compile(r"(?<=<!-- fields -->\n).*?(?=<!-- end -->)", re.DOTALL)
NOTHING = "–"


def pages() -> dict[str, Callable[[], str]]:
    """Page, as a path below the root, to the function that makes the table on it."""
    papers = {f"docs/papers/{name}.md": functools.partial(recipe_table, name) for name in recipes()}
    return {SHARED: shared_table} | papers


def of_a_paper() -> list[str]:
    """The recipes with printed numbers in their rows."""
    return [name for name in recipes() if any(row.published for row in recipe(name).ROWS.values())]


def recipe_table(name: str) -> str:
    """Every field of a recipe's configuration, fields of parts that are not chosen included."""
    found = describe(recipe(name).PAPER)
    rows = ([_name(f), _value(f.default) if f.chosen else NOTHING, f.source, f.meaning] for f in found)
    return table(["field", "value", "source", "meaning"], rows)


def shared_table() -> str:
    """The fields that every recipe shares, with the defaults of their classes instead of one recipe's values."""
    example = recipe("agw").PAPER.training
    rows = ([_name(f), f.takes, _default(f), f.source, f.meaning] for f in describe(example))
    return table(["field", "takes", "default", "source", "meaning"], rows)


def _name(field: Field) -> str:
    """The path in code type, and the class of a part that is not chosen."""
    return f"`{field.path}`" if field.chosen else f"`{field.path}` ({field.part})"


def _value(value: Any) -> str:
    """As `--set` takes it."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _default(field: Field) -> str:
    """The default of the class that the field belongs to, or a dash where each recipe states its own value."""
    first, _, rest = field.path.partition(".")
    kind = parts_of(hints(Training)[first])[field.part] if rest else Training
    held = next(f.default for f in dataclasses.fields(kind) if f.name == (rest or first))
    return NOTHING if held is dataclasses.MISSING else _value(held)


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table, with an empty line before and after it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "".join(f"| {' | '.join(map(_cell, cells))} |\n" for cells in lines) + "\n"


def _cell(text: str) -> str:
    """One line, with its pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def corrected(name: str) -> tuple[str, str]:
    """The text of a page as it is, and as it should be.

    Raises:
        ValueError: the page has no table, is missing, or does not have the two markers exactly once.
    """
    if name not in pages():
        raise ValueError(f"{name} has no table; choices: {', '.join(pages())}")
    page = ROOT / name
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if len(MARKED.findall(text)) != 1:
        raise ValueError(f"{name} needs the lines <!-- fields --> and <!-- end -->, once each")
    made = pages()[name]()
    return text, MARKED.sub(lambda _: made, text)


def main() -> int:
    """Rewrite the pages, or with `--check` say which ones differ. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Tables of settings in the pages, made from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page differs")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as docs/papers/agw.md; default: all of them")
    options = parser.parse_args()
    wrong = 0
    for name in options.pages or pages():
        try:
            text, wanted = corrected(name)
        except ValueError as error:
            print(error, file=sys.stderr)
            wrong += 1
            continue
        if text != wanted:
            wrong += options.check
            print(f"{name} {'differs from the code; run make tables' if options.check else 'is rewritten'}")
            if not options.check:
                (ROOT / name).write_text(wanted, encoding="utf-8")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
