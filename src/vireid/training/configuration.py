"""Configurations are frozen dataclasses; here they meet text: `--set a.b=value` and a run's JSON.

A field may be a value, a nested dataclass, or a choice between dataclasses and None (a swapped part or an absent term).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from vireid.data.errors import BadInput, unknown
from vireid.data.size import Size

Config = TypeVar("Config")


def with_fields(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of `config` in which fields named by dotted paths have new values.

    Args:
        config: a dataclass instance, possibly nested.
        assignments: texts such as `epochs=3`, `size=128x64`, `exchange=null`, `exchange.grey=false`,
            `schedule.milestones=[20,50]`. Values are read as YAML and checked against the field's type.

    Raises:
        BadInput: no `=`, an unknown field (names the choices), a value of the wrong type.
    """
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path.strip():
            raise BadInput(f"'{assignment}' is not FIELD=VALUE, such as epochs=3 or size=128x64")
        expected = _expected_type(config, path.strip())
        config = _assign(config, path.strip(), value.strip(), expected)
    return config


def to_json(value: Any) -> Any:
    """A configuration as JSON values; each dataclass carries its name under `type`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Config], stored: dict[str, Any]) -> Config:
    """The configuration that `to_json` wrote.

    Raises:
        BadInput: a field that `kind` does not have, or a type name that none of its fields allows; both happen when a
            run was made by another version.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in stored.items():
        if name == "type":
            continue
        if name not in hints:
            raise unknown(f"field of {kind.__name__} in this run", name, hints)
        values[name] = _from_json_value(hints[name], value, name)
    return kind(**values)


def differences(before: Any, after: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields in which two configurations differ, as dotted path → (before, after), JSON values."""
    if type(before) is type(after) and is_dataclass(before):
        found: dict[str, tuple[Any, Any]] = {}
        for f in fields(before):
            found |= differences(getattr(before, f.name), getattr(after, f.name), f"{prefix}{f.name}.")
        return found
    return {} if before == after else {prefix.rstrip("."): (to_json(before), to_json(after))}


def _from_json_value(hint: Any, value: Any, name: str) -> Any:
    if isinstance(value, dict):
        kinds: dict[str, Any] = {k.__name__: k for k in _alternatives(hint) if isinstance(k, type) and is_dataclass(k)}
        if value.get("type") not in kinds:
            raise unknown(f"choice for field '{name}'", str(value.get("type")), kinds)
        return from_json(kinds[value["type"]], value)
    if isinstance(value, list):
        return tuple(_from_json_value(hint, item, name) for item in value)
    if Size in _alternatives(hint) and isinstance(value, str):
        return Size.parse(value)
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def _expected_type(config: Any, path: str) -> Any:
    """The type annotation at the end of a dotted path.

    Raises:
        BadInput: some name on the way is not a field; the sentence lists the fields there.
    """
    kinds: tuple[Any, ...] = (type(config),)
    hint: Any = type(config)
    for depth, name in enumerate(parts := path.split(".")):
        here = [kind for kind in kinds if is_dataclass(kind)]
        if not here:
            raise BadInput(f"field '{'.'.join(parts[:depth])}' has no fields of its own, so '{path}' cannot be set")
        hints = {field: hint for kind in here for field, hint in typing.get_type_hints(kind).items()}
        if name not in hints:
            raise unknown(
                "field", ".".join(parts[: depth + 1]), [".".join([*parts[:depth], choice]) for choice in hints]
            )
        hint = hints[name]
        kinds = _alternatives(hint)
    return hint


def _assign(config: Any, path: str, value: str, expected: Any, full: str = "") -> Any:
    """A copy of `config` with one field changed; `full` is the whole path, for the sentence."""
    full = full or path
    name, dot, rest = path.partition(".")
    if dot:
        inner = getattr(config, name)
        if not is_dataclass(inner) or rest.partition(".")[0] not in {f.name for f in fields(inner)}:
            # The field holds None, or another alternative: setting a field of one chooses that one, at its defaults.
            kinds: tuple[Any, ...] = _alternatives(typing.get_type_hints(type(config))[name])
            inner = next(k for k in kinds if rest.partition(".")[0] in getattr(k, "__dataclass_fields__", ()))()
        return replace(config, **{name: _assign(inner, rest, value, expected, full)})

    if (choice := _dataclass_named(expected, value)) is not None:
        return replace(config, **{name: choice()})
    from jsonargparse import ArgumentParser  # 80 ms, and only commands with --set need it
    from jsonargparse.typing import register_type

    register_type(Size, serializer=str, deserializer=Size.parse, fail_already_registered=False)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=expected)
    try:
        return replace(config, **{name: parser.parse_args([f"--value={value}"]).value})
    except BadInput as error:
        raise error from None
    except Exception as error:  # jsonargparse lets whatever a type's own parser raised through
        raise BadInput(f"field '{full}' cannot be '{value}'; it takes {_in_words(expected)}") from error


def _dataclass_named(expected: Any, value: str) -> type | None:
    return next((kind for kind in _alternatives(expected) if is_dataclass(kind) and kind.__name__ == value), None)  # type: ignore[return-value]


def _in_words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_in_words(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list such as [20, 50] of {_in_words(typing.get_args(hint)[0]).removeprefix('a ')}s"
    if hint is Size:
        return "HEIGHTxWIDTH in pixels, such as 384x144"
    if is_dataclass(hint):
        return f"{hint.__name__} (fields: {', '.join(f.name for f in fields(hint))})"  # type: ignore[union-attr]
    return words.get(hint, str(hint))


def check_common_fields(config: Any) -> None:
    """Check the fields that every recipe has, where a wrong value would only show much later.

    Raises:
        BadInput: a count below 1, or a rate out of range.
    """
    counts = ("epochs", "identities_per_batch", "visible_per_identity", "infrared_per_identity", "epoch_length")
    for name in counts:
        value = getattr(config, name)
        if isinstance(value, int) and value < 1:
            raise BadInput(f"field '{name}' is {value}; it takes a whole number of 1 or more")
    if config.seed < 0:
        raise BadInput(f"field 'seed' is {config.seed}; it takes a whole number of 0 or more")
    if config.gradient_clip is not None and not config.gradient_clip > 0:
        raise BadInput(f"field 'gradient_clip' is {config.gradient_clip}; it takes a number above 0, or null")
