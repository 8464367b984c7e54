"""The kinds of figures, one file each, found by file name. `vireid figures --figure NAME` draws the kind of that file.

A kind is a module with

- a docstring, whose first line `vireid figures --help` shows;
- `Choices`: a settings class with what a user can choose (`--set NAME.FIELD=VALUE`); its fields have notes;
- `figures(subjects, choices) -> [Figure]`: the figures of one or several runs. It raises `DoesNotApply`, with the
  reason, where a kind cannot be drawn of these runs; without `--figure`, such a kind is left out.

Beside it stands a public function on arrays, named as the kind, that draws the figure of somebody else's network. It
can be called as `vireid.figures.NAME`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vireid.data.errors import BadInput, unknown


class DoesNotApply(BadInput):
    """A kind of figure cannot be drawn of these runs. The message says why."""


def kinds() -> list[str]:
    """The names of all kinds, in alphabetical order."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def kind(name: str) -> ModuleType:
    """The module of a kind.

    Raises:
        BadInput: there is no such kind.
    """
    if name not in kinds():
        raise unknown("figure", name, kinds())
    return importlib.import_module(f"{__name__}.{name}")
