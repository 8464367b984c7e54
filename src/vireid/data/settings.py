"""Settings: frozen dataclasses in which each field states its type, its range and its meaning.

    @settings
    class Flip:
        p: Share = 0.5
        '''code: probability of the mirrored picture.'''

The text below a field is its note. It begins with the source of the value (`paper`, `supplement`, `code`, `not stated`
or `ours`, with the place if there is one), then a colon, then the meaning. `vireid fields` and the tables in
`docs/papers/` are made from these notes. Types and ranges are checked by pydantic whenever an instance is made.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
from annotated_types import Interval

from vireid.data.errors import BadInput, unknown
from vireid.data.size import Size

Count = Annotated[int, Interval(ge=1)]
Whole = Annotated[int, Interval(ge=0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Positive = Annotated[float, Interval(gt=0)]
NonNegative = Annotated[float, Interval(ge=0)]
Temperature = Annotated[float, Interval(gt=0, le=1000)]
Width = Annotated[int, Interval(ge=1, le=16384)]
"""Channels of a layer. The limit keeps a slip from asking for more memory than there is."""
Few = Annotated[int, Interval(ge=1, le=64)]
"""Parts of a map, or positions on a side of it."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first is above the second")
    return pair


_ASCENDING = pydantic.AfterValidator(_ascending)
ShareRange = Annotated[tuple[Share, Share], _ASCENDING]
PositiveRange = Annotated[tuple[Positive, Positive], _ASCENDING]
"""The smallest and the largest value of what is drawn."""

Kind = TypeVar("Kind", bound=type)
STRICT = pydantic.ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)
_NOTE = re.compile(r"(?P<source>(?:paper|supplement|code|not stated|ours)\b[^:]*): +(?P<meaning>.*)", re.DOTALL)


LAX = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass_transform(frozen_default=True)
def settings(kind: Kind) -> Kind:
    """Make a frozen dataclass whose values are checked against the types and ranges of its fields.

    Raises (when an instance is made):
        BadInput: an unknown field, or a value of a wrong type or outside the range; the sentence names the choices.
    """
    return _checked(kind, STRICT)


@dataclass_transform(frozen_default=True)
def options(kind: Kind) -> Kind:
    """Like `settings`, for the options of a verb: a path may be given as text, and fields need no note."""
    return _checked(kind, LAX)


def _checked(kind: Kind, config: pydantic.ConfigDict) -> Kind:
    made = pydantic.dataclasses.dataclass(frozen=True, config=config)(kind)
    _inherit_notes(made)
    checked = made.__init__

    @functools.wraps(checked)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except pydantic.ValidationError as error:
            raise _refusal(made, error) from None

    made.__init__ = __init__
    return made  # type: ignore[return-value]


def _inherit_notes(kind: type) -> None:
    """Give the fields that a settings class inherits their notes. pydantic reads only the class's own text."""
    for base in kind.__mro__[1:]:
        for name, inherited in getattr(base, "__pydantic_fields__", {}).items():
            field = kind.__pydantic_fields__[name]  # type: ignore[attr-defined]
            field.description = field.description or inherited.description


def _refusal(kind: type, error: pydantic.ValidationError) -> BadInput:
    """Turn the first mistake that pydantic found into one sentence."""
    found = error.errors()[0]
    if isinstance(cause := found.get("ctx", {}).get("error"), BadInput):  # raised by `__post_init__` of the class
        return cause
    names = [f.name for f in fields(kind)]
    place = found["loc"][0] if found["loc"] else ""
    name = names[place] if isinstance(place, int) and place < len(names) else str(place)
    if found["type"] == "missing":
        return BadInput(f"{kind.__name__} needs {name}")
    if name not in names:
        return unknown(f"field of {kind.__name__}", name, names)
    # The class of a verb's options is ours. A user knows the option.
    owner = f"{kind.__name__}: " if getattr(kind, "__pydantic_config__", {}).get("strict") else ""
    return BadInput(f"{owner}{name} cannot be {found['input']!r}; it takes {in_words(hints(kind)[name])}")


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """Field name → its type annotation, ranges included."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {f.name: found[f.name] for f in fields(kind)}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def parts_of(hint: Any) -> dict[str, type]:
    """The settings classes among the alternatives of an annotation, by name."""
    return {kind.__name__: kind for kind in alternatives(hint) if isinstance(kind, type) and is_dataclass(kind)}


def all_but(part: Any, *names: str) -> dict[str, Any]:
    """The fields of a settings object as keyword arguments, except `names`. A call cannot forget one of the others."""
    return {f.name: getattr(part, f.name) for f in fields(part) if f.name not in names}


@dataclass(frozen=True)
class Note:
    """The note below a field: where the value comes from, and what the field means."""

    source: str
    meaning: str


def note(kind: type, name: str) -> Note:
    """The note of one field.

    Raises:
        ValueError: there is no text below the field, or it does not begin with a source and a colon.
    """
    return read_note(kind.__pydantic_fields__[name].description or "", f"{kind.__name__}.{name}")  # type: ignore[attr-defined]


def read_note(text: str, where: str) -> Note:
    """Split `paper, section 3: the margin` into source and meaning. `where` names the field in the error message.

    >>> read_note("not stated: 512, as in SimSiam.", "GSL.hidden")
    Note(source='not stated', meaning='512, as in SimSiam.')
    """
    found = _NOTE.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(f"{where}: the text below the field must be 'SOURCE: meaning', not '{text}'")
    return Note(found["source"], found["meaning"])


def in_words(hint: Any) -> str:
    """Describe the values that a type annotation accepts, for an error message.

    >>> in_words(Share), in_words(Count | None)
    ('a number from 0 to 1', 'a whole number of 1 or more or null')
    """
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if len(members := alternatives(hint)) > 1:
        return " or ".join(in_words(member) for member in members)
    if origin is Annotated:
        if _ASCENDING in arguments:
            return f"{in_words(arguments[0])}, the smaller one first"
        return in_words(arguments[0]) + "".join(_range(mark) for mark in arguments[1:] if isinstance(mark, Interval))
    if origin is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list [a, b, …], each {in_words(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, each {in_words(arguments[0])}"
    if hint is Size:
        return "HEIGHTxWIDTH in pixels, such as 384x144"
    if is_dataclass(hint):
        return f"{hint.__name__} (fields: {', '.join(f.name for f in fields(hint))})"  # type: ignore[union-attr]
    return "a path" if hint is Path else words.get(hint, str(hint))


def _range(allowed: Interval) -> str:
    if allowed.ge is not None and allowed.le is not None:
        return f" from {allowed.ge} to {allowed.le}"
    if allowed.gt is not None:
        return f" above {allowed.gt}" + (f" and up to {allowed.le}" if allowed.le is not None else "")
    if allowed.ge is not None:
        return f" of {allowed.ge} or more" + (f" and below {allowed.lt}" if allowed.lt is not None else "")
    return ""
