"""Every field of every recipe changes what it says, and nothing else.

Recipes and fields are found through `describe`. What a field changes stands in `wiring.yaml`. A recipe that has no
section there is tested too: each of its fields must change something.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.recipes.wiring import SMALL, as_text, changes, other_values, shown
from vireid.recipes import recipe, recipes
from vireid.training.configuration import Field, describe

TABLE = yaml.safe_load(Path(__file__).with_name("wiring.yaml").read_text(encoding="utf-8"))
ELSEWHERE: Mapping[str, str] = TABLE["elsewhere"]
ALIASES = ("network", "fused", "coloured")  # of several things that change together
NO_FIELDS = (*ALIASES, "base")
ROOT = Path(__file__).resolve().parents[2]

# A part that cannot be exchanged or switched off has no other value. Its fields are tested.
FIELDS = [
    (name, shown(field), field)
    for name in recipes()
    for field in describe(recipe(name).PAPER)
    if field.takes != field.default
]


def entry(name: str, key: str, value: str) -> dict[str, Any] | None:
    """What the table says of a field at a value: of the value, of the field, of its part, …; own section first."""
    path, _, part = key.partition(" ")
    paths = [path[:end] for end in range(len(path), 0, -1) if end == len(path) or path[end] == "."]
    keys = [f"{path}={value}", f"{key}={value}", key, *([f"{path} {part}"] if part else []), *paths]
    for wanted in keys:
        for section in (TABLE.get(name, {}), TABLE["shared"]):
            if wanted in section and wanted not in NO_FIELDS:
                found = section[wanted] if isinstance(section[wanted], dict) else {"changes": section[wanted]}
                # What is said of a part holds for its fields, but not its values and its context.
                return found if wanted.startswith(path) else {"changes": found["changes"]}
    return None


def meant(name: str, said: str | list[str]) -> set[str]:
    """The things that an entry names, with the aliases written out."""
    names = [said] if isinstance(said, str) else said
    section = TABLE.get(name, {})
    return {one for word in names for one in (section[word] if word in ALIASES else [word])}


def values_of(name: str, key: str, field: Field) -> list[str]:
    """The other values that a field is tested at."""
    said = entry(name, key, "")
    own = said.get("values", []) if said else []
    found = [str(value) for value in own] or [as_text(value) for value in other_values(name, field)]
    small = dict(text.split("=", 1) for text in SMALL)  # the value that it is compared with here
    return [value for value in found if value != small.get(field.path, as_text(field.default)) or not field.chosen]


@pytest.mark.parametrize(("name", "key", "field"), FIELDS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_field_changes_what_it_says_and_nothing_else(name, key, field):
    if field.path in ELSEWHERE:
        assert (ROOT / ELSEWHERE[field.path]).is_file()
        return
    context = tuple(TABLE.get(name, {}).get("base", ()))
    if not field.chosen:
        context += (f"{field.path.rpartition('.')[0]}={field.part}",)
    values = values_of(name, key, field)
    assert values, f"say in wiring.yaml which other value {name}'s {key} can have"
    for value in values:
        said = entry(name, key, value) or {}
        before = (*context, *(text for text in said.get("with", ()) if applies(name, text)))
        found = changes(name, before, (*before, f"{field.path}={value}"))
        if name not in TABLE:
            assert found, f"{name}: {key}={value} changes nothing"
            continue
        assert "changes" in said, f"say in wiring.yaml what {name}'s {key}={value} changes; it changed {sorted(found)}"
        assert found == meant(name, said["changes"]), f"{name}: {key}={value}"


def applies(name: str, assignment: str) -> bool:
    """Whether a recipe has the field of an assignment in the shared section."""
    return assignment.partition("=")[0] in {field.path for field in describe(recipe(name).PAPER)}


def test_the_table_names_no_field_that_is_gone():
    known = {name: {shown(field) for field in describe(recipe(name).PAPER)} for name in recipes()}
    paths = {name: {key.partition(" ")[0] for key in keys} for name, keys in known.items()}
    for name, section in TABLE.items():
        if name == "elsewhere":
            assert set(section) <= set().union(*paths.values())
            continue
        for key in section:
            path = key.partition("=")[0]
            everywhere = recipes() if name == "shared" else (name,)
            there = any(path in known[one] or path in paths[one] for one in everywhere)
            assert there or path in NO_FIELDS, f"{name}: {key}"
