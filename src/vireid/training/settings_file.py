"""A configuration as a YAML file: read for `--config`, written by `vireid fields --yaml`.

Parts are nested, and `type` chooses one. Dotted names mean the same:

    epochs: 20
    optimiser:
      type: Adam
      lr: 3e-4
    erasing.p: 0.3
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vireid.data.errors import BadInput
from vireid.training.configuration import Field, describe

LARGEST = 2**18  # bytes; the file of a whole configuration has some 15,000
DEPTH = 8
WIDTH = 110


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does: `off` is a text, and `3e-4` is a number. Refuses aliases and repeated keys."""

    yaml_implicit_resolvers: dict[str, list] = {}  # noqa: RUF012 declared so by the class above

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*) are not read here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if twice := _twice(str(key.value) for key, _ in node.value):
            raise yaml.YAMLError(f"'{twice}' stands there twice")
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), _first)


def read_settings(path: Path) -> dict[str, Any]:
    """The fields that a file sets, as the mapping that `vireid.training.configuration.with_fields` takes.

    Whether the fields exist and what they take is checked there.

    Raises:
        BadInput: the file cannot be read, has more than 256 KiB, is not YAML, or is not a mapping from names to values.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"--config {path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise BadInput(f"--config {path} has more than {LARGEST:,} bytes, so it is no file of settings")
    try:
        found = yaml.load(content.decode("utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"--config {path} is not YAML ({_reason(error)})") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadInput(f"--config {path} holds no FIELD: VALUE lines; 'vireid fields RECIPE --yaml' prints an example")
    pairs = list(_flat(found, "", str(path)))
    if twice := _twice(name for name, _ in pairs):
        raise BadInput(f"--config {path}: '{twice}' is set twice")
    return dict(pairs)


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes a second time."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def _reason(error: Exception) -> str:
    """One line of what a parser says, with the place."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or (str(error).splitlines() or ["cannot be read"])[0]
    return f"line {mark.line + 1}: {said}" if mark else said


def _flat(values: Mapping[Any, Any], prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted paths. A part's `type` becomes the value of the part."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if not isinstance(key, str) or path.count(".") > DEPTH:
            raise BadInput(f"--config {where}: '{path}' is not the name of a field")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}.", where)
        elif key == "type" and prefix:
            yield prefix.rstrip("."), value
        else:
            yield path, value


# --- writing ----------------------------------------------------------------------------------------------------------


def settings_text(config: Any, title: str) -> str:
    """A file with every field of a configuration, its meaning and its choices; read back, it gives the same.

    Parts that are not chosen are comments, with the values that they would have.
    """
    lines = [
        *_comment(f"Every setting of {title}, for --config; --set changes single fields on top of it.", ""),
        *_comment("A line may be left out: then the value is that of the recipe.", ""),
    ]
    part = ("", "")
    for one in describe(config):
        above = one.path.rpartition(".")[0]
        if not one.chosen and (above, one.part) != part:
            indent = "  " * above.count(".")
            lines += [f"# {indent}{above.rpartition('.')[2]}:", f"# {indent}  type: {one.part}"]
        part = (above, one.part)
        lines += _chosen(one) if one.chosen else [_other(one)]
    return "\n".join(lines) + "\n"


def _chosen(one: Field) -> Iterator[str]:
    """The lines of a field that counts: what it means, what it takes, and its value."""
    indent, name = "  " * one.path.count("."), one.path.rpartition(".")[2]
    if not indent:
        yield ""
    yield from _comment(f"{one.source}: {one.meaning}", indent)
    yield from _comment(f"It takes {one.takes}.", indent)
    for word, what in one.choices.items():
        yield from _comment(f"{word}: {what}.", indent)
    if isinstance(one.default, str) and one.default in one.choices:
        yield f"{indent}{name}:"
        yield f"{indent}  type: {one.default}"
    else:
        yield f"{indent}{name}: {_scalar(one.default)}"


def _other(one: Field) -> str:
    """The line of a field whose part is not chosen, as a comment."""
    line = f"# {'  ' * one.path.count('.')}{one.path.rpartition('.')[2]}: {_scalar(one.usual)}"
    told = f"{line}  # {one.source}: {one.meaning}"
    return told if len(told) <= WIDTH else told[: WIDTH - 1].rpartition(" ")[0] + " …"


def _comment(text: str, indent: str) -> Iterable[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")


def _scalar(value: Any) -> str:
    """As YAML 1.2 and `--set` read it. Texts are bare words where that is safe."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./][\w./ -]*", value):
        return value if yaml.load(value, _Loader) == value else json.dumps(value)
    return json.dumps(value)
