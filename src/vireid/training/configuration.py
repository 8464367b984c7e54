"""Configurations as text and as JSON: for `--set`, for `run.json`, and for `vireid fields`.

A configuration is an instance of a settings class (`vireid.data.settings`). A field holds a value, another settings
instance (a part), or a choice between parts and None. Some classes of parts are marked as `flat`, for example
`vireid.training.settings.Training`. Paths do not name such a part: `epochs=3`, not `training.epochs=3`.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from vireid.data.errors import BadInput, unknown
from vireid.data.settings import STRICT, Note, alternatives, hints, in_words, note, parts_of, read_note
from vireid.data.size import Size

Config = TypeVar("Config")


class NotChosen(BadInput):
    """A field was set that belongs to a part which is not the chosen one."""


# --- text and values to a configuration -------------------------------------------------------------------------------


def with_fields(config: Config, assignments: Iterable[str] | Mapping[str, Any]) -> Config:
    """A copy of `config` in which the fields named by dotted paths have new values.

    Parts are chosen before their fields are set, whatever the order: `optimiser.lr=0.01 optimiser=SGD` is SGD at 0.01.
    A field never chooses its part. So no part can be exchanged unnoticed.

    Args:
        config: an instance of a settings class.
        assignments: texts such as `epochs=3`, `size=128x64`, `erasing=null`, `erasing.p=0.3`,
            `schedule.milestones=[20,50]`, with values in YAML; or a mapping from path to value, where a value may be
            text as well. Of several values for one path the last one counts.

    Raises:
        NotChosen: the field belongs to a part that is not the chosen one; the sentence names the part to choose.
        BadInput: no `=`, an unknown field, or a value of a wrong type; the sentence names the choices.
    """
    full = [(full_path(config, path), value, path) for path, value in _pairs(assignments)]
    for path, value, shown in sorted(full, key=lambda one: one[0].count(".")):
        config = _assigned(config, path, value, shown)
    return config


def _pairs(assignments: Iterable[str] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(assignments, Mapping):
        for path, value in assignments.items():
            yield str(path), str(value) if isinstance(value, Path) else value
        return
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path.strip():
            raise BadInput(f"'{assignment}' is not FIELD=VALUE, such as epochs=3 or size=128x64")
        if not value.strip():
            raise BadInput(f"'{assignment}' has no value; null means none")
        yield path.strip(), value.strip()


def as_assignments(given: Iterable[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """The assignments of `with_fields` as texts for `--set`.

    >>> as_assignments({"epochs": 2, "size": "96x48", "exchange": None, "schedule.milestones": [10, 15]})
    ('epochs=2', 'size=96x48', 'exchange=null', 'schedule.milestones=[10, 15]')
    """
    if not isinstance(given, Mapping):
        return tuple(given)
    return tuple(text for path, value in given.items() for text in _texts(str(path), value))


def _texts(path: str, value: Any) -> Iterator[str]:
    if is_dataclass(value):
        yield f"{path}={type(value).__name__}"
        for f in fields(value):
            yield from _texts(f"{path}.{f.name}", getattr(value, f.name))
    else:
        yield f"{path}={value if isinstance(value, (str, Size, Path)) else json.dumps(value)}"


def full_path(config: Any, path: str) -> str:
    """The path, with the name of the flat part in front if the field belongs to it: `epochs` → `training.epochs`.

    Raises:
        BadInput: a name in the path is not a field; the sentence lists the fields at this place.
    """
    parts = path.split(".")
    kinds: tuple[Any, ...] = (type(config),)
    for depth, name in enumerate(parts):
        here = [kind for kind in kinds if is_dataclass(kind)]
        if not here:
            raise BadInput(f"field '{'.'.join(parts[:depth])}' has no fields of its own, so '{path}' cannot be set")
        known = {field: hint for kind in here for field, hint in _flattened(kind).items()}  # type: ignore[arg-type]
        if name not in known:
            prefix = parts[:depth]
            raise unknown("field", ".".join([*prefix, name]), [".".join([*prefix, choice]) for choice in known])
        kinds = alternatives(known[name])
    flat = _flat(type(config))
    return path if flat is None or parts[0] in hints(type(config)) else f"{flat}.{path}"


def _flat(kind: type) -> str | None:
    """The name of the flat part of a settings class, if it has one."""
    return next((name for name, hint in hints(kind).items() if getattr(hint, "flat", False)), None)


def _flattened(kind: type) -> dict[str, Any]:
    """Field name → annotation, including the fields of a flat part."""
    own, flat = dict(hints(kind)), _flat(kind)
    return own if flat is None else {**hints(own.pop(flat)), **own}


def _assigned(config: Any, path: str, value: Any, shown: str) -> Any:
    """A copy of `config` with one field changed; `shown` is the path as the user wrote it."""
    name, dot, rest = path.partition(".")
    hint = hints(type(config))[name]
    if not dot:
        return replace(config, **{name: _read(hint, value, shown)})
    inner, first = getattr(config, name), rest.partition(".")[0]
    if not is_dataclass(inner) or first not in hints(type(inner)):  # type: ignore[arg-type]
        part = shown.removesuffix(f".{rest}")
        there = "null" if inner is None else type(inner).__name__
        choices = " or ".join(f"{part}={word}" for word, kind in parts_of(hint).items() if first in hints(kind))
        raise NotChosen(f"field '{part}' is {there}; to use '{first}' set {choices} as well")
    return replace(config, **{name: _assigned(inner, rest, value, shown)})


def _read(hint: Any, value: Any, shown: str) -> Any:
    """One value of a field with this annotation, from text or from Python."""
    parts = parts_of(hint)
    if isinstance(value, str) and value in parts:
        return parts[value]()
    if parts and type(value) in parts.values():
        return value
    if Size in alternatives(hint):
        try:
            return Size.parse(value)
        except BadInput as error:
            raise BadInput(f"field '{shown}': {error}") from None
    if not isinstance(value, str) or hint is str or value in _words(hint):
        return _checked(hint, value, shown)
    import yaml

    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        raise _refused(hint, value, shown) from None
    if isinstance(read, str):  # YAML 1.1 reads 3e-4, which has no point, as text
        with contextlib.suppress(ValueError):
            read = float(read) if _takes_number(hint) else read
    elif isinstance(read, list):
        read = [_number(item) for item in read]
    return _checked(hint, read, shown, value)


def _number(item: Any) -> Any:
    """An item of a list; `3e-4` is a number here too."""
    with contextlib.suppress(ValueError):
        return float(item) if isinstance(item, str) else item
    return item


def _takes_number(hint: Any) -> bool:
    """Whether some alternative of an annotation is a float, with or without a range."""
    bare = [typing.get_args(one)[0] if typing.get_origin(one) is Annotated else one for one in alternatives(hint)]
    return float in bare and str not in bare


def _words(hint: Any) -> set[str]:
    """The texts that an annotation takes as they are; YAML would read `off` as false."""
    literals = (member for member in alternatives(hint) if typing.get_origin(member) is typing.Literal)
    return {word for literal in literals for word in typing.get_args(literal) if isinstance(word, str)}


def _checked(hint: Any, value: Any, shown: str, given: Any = None) -> Any:
    """The value if the annotation allows it; lists become tuples. `given` is what the user wrote, for the sentence."""
    given = value if given is None else given
    if any(isinstance(kind, type) and is_dataclass(kind) for kind in alternatives(hint)):
        if value is None and type(None) in alternatives(hint):
            return None
        raise _refused(hint, given, shown)
    if isinstance(value, bool) and bool not in alternatives(hint):  # True equals 1, and would be taken for Literal[1]
        raise _refused(hint, given, shown)
    try:
        # JSON, not Python values: from JSON, pydantic's strict mode also accepts a list for a tuple.
        return pydantic.TypeAdapter(hint, config=STRICT).validate_json(json.dumps(value))
    except (pydantic.ValidationError, TypeError, ValueError):
        raise _refused(hint, given, shown) from None


def _refused(hint: Any, value: Any, shown: str) -> BadInput:
    return BadInput(f"field '{shown}' cannot be '{value}'; it takes {in_words(hint)}")


# --- JSON -------------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A configuration as JSON values. `type` is the name of each part's class; the fields of a flat part are merged."""
    if is_dataclass(value) and not isinstance(value, type):
        flat = _flat(type(value))
        found = {"type": type(value).__name__}
        for f in fields(value):
            own = getattr(value, f.name)
            # What equals the default is written as the default is: 0 and 0.0 would be two configurations for `digest`.
            inner = to_json(f.default if own == f.default else own)
            found |= {k: v for k, v in inner.items() if k != "type"} if f.name == flat else {f.name: inner}
        return found
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Config], stored: Mapping[str, Any], prefix: str = "") -> Config:
    """The configuration that `to_json` wrote.

    Raises:
        BadInput: a field is missing, unknown or of a wrong type, or names a part that is not a choice. All of these
            happen when a run was made by another version; nothing is filled in.
    """
    own, flat = hints(kind), _flat(kind)
    known = _flattened(kind)
    values: dict[str, Any] = {}
    for name in stored:
        if name != "type" and name not in known:
            raise unknown(f"field of {kind.__name__} in this run", f"{prefix}{name}", known)
    if missing := [name for name in known if name not in stored]:
        raise BadInput(f"this run has no field '{prefix}{missing[0]}'; another version of vireid made it")
    if flat is not None:
        values[flat] = from_json(own[flat], {name: stored[name] for name in hints(own[flat])}, prefix)
    for name, hint in own.items():
        if name != flat:
            values[name] = _from_json_value(hint, stored[name], f"{prefix}{name}")
    return kind(**values)


def _from_json_value(hint: Any, value: Any, path: str) -> Any:
    parts = parts_of(hint)
    if isinstance(value, dict):
        if value.get("type") not in parts:
            raise unknown(f"choice for field '{path}'", str(value.get("type")), parts)
        return from_json(parts[value["type"]], value, f"{path}.")
    if Size in alternatives(hint) and isinstance(value, str):
        return Size.parse(value)
    return _checked(hint, value, path)


def digest(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name a configuration in JSON values. The seed has no influence.

    >>> digest({"type": "Config", "epochs": 2, "seed": 0}) == digest({"seed": 5, "epochs": 2, "type": "Config"})
    True
    """
    told = json.dumps({name: value for name, value in config.items() if name != "seed"}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def differences(before: Any, after: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields in which two configurations differ, as path → (before, after) in JSON values."""
    if type(before) is type(after) and is_dataclass(before):
        found: dict[str, tuple[Any, Any]] = {}
        flat = _flat(type(before))
        for f in fields(before):
            inner = prefix if f.name == flat else f"{prefix}{f.name}."
            found |= differences(getattr(before, f.name), getattr(after, f.name), inner)
        return found
    return {} if before == after else {prefix.rstrip("."): (to_json(before), to_json(after))}


def changes(before: Any, after: Any) -> tuple[str, ...]:
    """The texts for `--set` that make one configuration of another: `with_fields(before, changes(…)) == after`.

    >>> from vireid.recipes import agw
    >>> changes(agw.PAPER, with_fields(agw.PAPER, ["seed=3", "erasing=ChannelErasing", "erasing.p=1"]))
    ('seed=3', 'erasing=ChannelErasing', 'erasing.p=1.0')
    """
    return tuple(_changes(before, after, ""))


def _changes(before: Any, after: Any, prefix: str) -> Iterator[str]:
    if before == after:
        return
    if not is_dataclass(after) or isinstance(after, type):
        yield from _texts(prefix.rstrip("."), after)
        return
    if type(before) is not type(after):
        yield f"{prefix.rstrip('.')}={type(after).__name__}"
        before = type(after)()
    for f in fields(after):
        inner = prefix if f.name == _flat(type(after)) else f"{prefix}{f.name}."
        yield from _changes(getattr(before, f.name), getattr(after, f.name), inner)


# --- descriptions of fields -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """The description of one field of a configuration.

    Attributes:
        path: what `--set` takes.
        takes: type, range and choices in words.
        default: the value in this configuration, as JSON; None where the field belongs to a part that is not chosen.
        source: where the value comes from: `paper, section 4.1`, `code`, `not stated`, `ours`.
        meaning: what the field does, and the reason for the value.
        part: the class of the part that the field belongs to; empty at the top.
        chosen: whether that part is the one in this configuration.
        usual: where it is not chosen, the value that the field gets when it is, as JSON.
        choices: the parts that the field takes, each with what it is.
    """

    path: str
    takes: str
    default: Any
    source: str
    meaning: str
    part: str = ""
    chosen: bool = True
    usual: Any = None
    choices: Mapping[str, str] = field(default_factory=dict)


def describe(config: Any) -> list[Field]:
    """Every field that `--set` takes, those of parts and of parts that are not chosen included."""
    return list(_described(type(config), config, "", "", "", {}))


def _described(
    kind: type, value: Any, prefix: str, part: str, source: str, notes: Mapping[str, Note]
) -> Iterator[Field]:
    """The fields of one settings class.

    Args:
        kind: the class.
        value: an instance, or None where the part is not chosen.
        prefix: of the paths.
        part: name of the class, empty at the top.
        source: where the values come from that differ from the defaults of the class.
        notes: what the recipe says about single fields, by path, in place of the class's own notes.
    """
    chosen = value is not None
    for f in fields(kind):
        hint, inner = hints(kind)[f.name], getattr(value, f.name) if chosen else None
        if f.name == _flat(kind):
            text = kind.__pydantic_fields__[f.name].description or ""  # type: ignore[attr-defined]
            yield from _described(hint, inner, prefix, part, source, _notes_by_name(text, kind.__name__))
            continue
        told = notes.get(f.name) or note(kind, f.name)
        changed = chosen and source and inner != f.default and f.name not in notes
        stored = to_json(inner)
        default = stored["type"] if isinstance(stored, dict) else stored
        path, parts = f"{prefix}{f.name}", parts_of(hint)
        usual = None if chosen else _usual(f.default)
        where = source if changed else told.source
        choices = {word: _first_line(alternative) for word, alternative in parts.items()}
        yield Field(path, _takes(hint), default, where, told.meaning, part, chosen, usual, choices)
        for word, alternative in parts.items():
            held = inner if type(inner) is alternative else None
            below = {name.partition(".")[2]: one for name, one in notes.items() if name.startswith(f"{f.name}.")}
            yield from _described(alternative, held, f"{path}.", word, told.source, below)


def _usual(default: Any) -> Any:
    """A default of a class as JSON; a part by its name."""
    stored = None if default is MISSING else to_json(default)
    return stored["type"] if isinstance(stored, dict) else stored


def _first_line(kind: type) -> str:
    """What a part is: the first sentence of its docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0].partition(". ")[0].rstrip(".")


def _takes(hint: Any) -> str:
    """As `in_words`, but a part is named without its fields, because they have lines of their own."""
    return " or ".join(member.__name__ if is_dataclass(member) else in_words(member) for member in alternatives(hint))  # type: ignore[union-attr]


def _notes_by_name(text: str, where: str) -> dict[str, Note]:
    """The notes that a recipe gives for the fields of a flat part: where each of its own values comes from.

    Each entry begins at the left margin with the fields it is about: `epochs, size: paper, section 4.1: …`, or
    `schedule.warm_up_steps: not stated: …`. Lines that go on are indented.
    """
    found: dict[str, Note] = {}
    for entry in re.split(r"\n(?=\S)", inspect.cleandoc(text)):
        names, colon, said = entry.partition(": ")
        if colon:
            found |= dict.fromkeys(re.split(r",\s*", names), read_note(said, f"{where}, {names}"))
    return found
