"""One file per area of `vireid bench`, found by its file name. To add an area, add a file.

An area is a module with

- a docstring, whose first line `vireid bench --help` shows;
- `measure(bench) -> lines`: it measures, and yields one `vireid.bench.measure.Line` after another. It gets a
  `vireid.bench.run.Bench`, which says how large the sizes are to be;
- `growth(bench) -> lines`, if the time grows with a size: lines made by `vireid.bench.growth.grown`, for `--growth`;
- `Options`, if the user can choose something: a class made by `vireid.data.settings.options`; `QUICK`, its values for
  `--quick`; and the options themselves in `vireid.cli.bench`;
- `ON_REQUEST = True`, if it is measured only when it is named.

`losses.py` is a short one to start from.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from types import ModuleType

from vireid.data.errors import unknown


def areas() -> tuple[str, ...]:
    """The names of all areas, in alphabetical order.

    >>> "losses" in areas()
    True
    """
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def area(name: str) -> ModuleType:
    """The module of an area.

    Raises:
        BadInput: there is no such area.
    """
    if name not in areas():
        raise unknown("area of the benchmark", name, areas())
    return importlib.import_module(f"{__name__}.{name}")


def about(name: str) -> str:
    """The first line of an area's docstring. Nothing is imported for it.

    >>> about("losses")
    'Losses with their gradients, against loops over the samples.'
    """
    found = importlib.util.find_spec(f"{__name__}.{name}")
    assert found is not None and found.origin is not None
    with open(found.origin, encoding="utf-8") as file:
        return file.readline().strip().strip('"')
