"""`vireid fields`, and the fields that `vireid train RECIPE --help` lists."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vireid.cli import console

if TYPE_CHECKING:
    from vireid.training.configuration import Field


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "fields",
        help="every setting of a recipe",
        description="Every field that --set takes: type, range or choices, value, where the value comes from, and what "
        "it means.",
    )
    verb.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw, or peca:table3/m1")
    verb.add_argument("--yaml", action="store_true", help="print a file for train --config, with every field")
    console.add_set(verb, "show the configuration with these changes")
    console.add_json(verb, "write the fields as JSON")
    verb.set_defaults(verb_function=run_fields)


def run_fields(options: argparse.Namespace) -> None:
    """Print every field of a recipe's configuration."""
    from vireid import recipes
    from vireid.data.stored import as_json
    from vireid.training.configuration import describe, with_fields
    from vireid.training.settings_file import settings_text

    _, _, row = recipes.find_row(options.recipe)
    config = with_fields(row.config, options.set)
    found = describe(config)
    if options.yaml:
        print(settings_text(config, options.recipe), end="")
    else:
        print("\n".join(_in_full(field) for field in found))
    console.write_json(options.json, [as_json(field) for field in found])


def _in_full(field: Field) -> str:
    """One field in two lines or more."""
    head = f"{field.path} = {_value(field)}" if field.chosen else f"{field.path} {_value(field)}"
    choices = (f"  {part}: {what}" for part, what in field.choices.items())
    lines = [f"takes {field.takes}", *choices, *textwrap.wrap(f"{field.source}: {field.meaning}", 92)]
    return "\n".join([head, *(f"    {line}" for line in lines)])


def _value(field: Field) -> str:
    """The value, or what has to be chosen so that the field counts."""
    if not field.chosen:
        return f"(with {field.path.rpartition('.')[0]}={field.part})"
    value = field.default
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class HelpOnRecipe(argparse.Action):
    """`--help`, and below it the fields of the recipe that stands before or after it."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, default=argparse.SUPPRESS, **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print and end the program.

        Raises:
            BadInput: there is no such recipe or row.
        """
        recipe = values or getattr(namespace, "recipe", None)
        fields = in_short(recipe) if recipe else ""
        parser.print_help()
        if fields:
            print(f"\nthe fields of {recipe}, for --set and --config:\n{fields}")
        parser.exit()


def in_short(recipe: str) -> str:
    """Path, value and what it takes: a line for each field."""
    from vireid import recipes
    from vireid.training.configuration import describe

    _, _, row = recipes.find_row(recipe)
    found = [(field.path, _value(field), field.takes) for field in describe(row.config)]
    paths, values = (max(len(line[i]) for line in found) for i in (0, 1))
    return "\n".join(f"  {path:{paths}}  {value:{values}}  {takes}" for path, value, takes in found)
