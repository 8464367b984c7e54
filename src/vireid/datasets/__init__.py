"""Files on disk → `Records`, one file per layout.

A layout is a file of this folder that holds

    read(root, *, trial) -> Records     rows in the data set's own file order
    TRIALS: int                         how many ready-made splits it has
    EXPECTED: dict[str, int]            what it should hold, by the names that `doctor.counts` uses

and is called by its file name, with hyphens: `sysu_mm01.py` → `sysu-mm01`. Adding a data set is adding such a file.
Three things are optional: `looks_like(root) -> bool`, by which a mistaken layout is named; a keyword `survey` of
`read`, by which the doctor lists every missing file instead of hearing of the first; and `TRAINING`, the splits that
the field trains on where that is not `train` alone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

from vireid.data.errors import BadInput, unknown
from vireid.data.records import Records
from vireid.datasets.doctor import Checkup, Progress, examine
from vireid.datasets.tree import Survey

__all__ = ["Checkup", "check", "generated", "layouts", "parse_source", "read", "training_rows", "trials"]


@functools.cache
def _modules() -> dict[str, ModuleType]:
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "EXPECTED") and hasattr(module, "TRIALS"):
            found[info.name.replace("_", "-")] = module
    return found


def layouts() -> tuple[str, ...]:
    """Names of the layouts, sorted.

    >>> layouts()
    ('folder', 'llcm', 'regdb', 'sysu-mm01')
    """
    return tuple(sorted(_modules()))


def parse_source(source: str) -> tuple[str, Path]:
    """Split `LAYOUT:PATH`.

    >>> layout, path = parse_source("regdb:data/RegDB")
    >>> layout, path.as_posix()
    ('regdb', 'data/RegDB')

    Raises:
        BadInput: there is no layout or no path, or no such layout.
    """
    layout, colon, path = source.partition(":")
    if not colon or not path.strip():
        raise BadInput(f"'{source}' is not LAYOUT:PATH; layouts: {', '.join(layouts())}")
    if layout not in _modules():
        raise unknown("layout", layout, layouts())
    return layout, Path(path.strip()).expanduser()


def read(layout: str, root: str | Path, *, trial: int = 1) -> Records:
    """The pictures of a data set, without opening any of them.

    Args:
        layout: one of `layouts()`.
        root: the data set's folder; for `folder` also the path of a CSV file.
        trial: which ready-made split, 1 to the layout's number of them (RegDB has ten, the others one).

    Raises:
        BadInput: unknown layout or trial, or the root does not hold that layout; says which one it looks like.
    """
    return _read(layout, Path(root), trial=trial, survey=None)


def check(
    layout: str, root: str | Path, *, trial: int = 1, decode: bool = False, progress: Progress | None = None
) -> Checkup:
    """Examine a data set on disk: what is there, what should be, and what is wrong with single files.

    Args:
        layout, root, trial: as for `read`.
        decode: also decode every picture (minutes on a large data set); otherwise only sizes, first bytes and, where
            two files could be the same, contents are read.
        progress: called as `progress(done, total)` now and then.

    Raises:
        BadInput: as `read`; missing files of lists are findings here, not errors.
    """
    survey = Survey()
    records = _read(layout, Path(root), trial=trial, survey=survey)
    expected = _modules()[layout].EXPECTED
    return examine(records, expected=expected, survey=survey, decode=decode, progress=progress)


def trials(layout: str) -> int:
    """How many ready-made splits a layout has.

    >>> trials("regdb")
    10

    Raises:
        BadInput: unknown layout.
    """
    if layout not in _modules():
        raise unknown("layout", layout, layouts())
    return _modules()[layout].TRIALS


def training_rows(records: Records) -> Records:
    """The rows that the field trains on: for SYSU-MM01 `train` and `val` together, elsewhere `train`.

    Raises:
        BadInput: there are none.
    """
    splits = getattr(_modules()[records.layout], "TRAINING", ("train",))
    rows = records.where(split=splits)
    if not len(rows):
        raise BadInput(f"{records.root} has no pictures to train on (splits {', '.join(splits)})")
    return rows


def generated(root: str | Path) -> bool:
    """Whether the data are a generated world: its writer leaves a file that says so, see `synthesis.world`."""
    return (Path(root) / GENERATED).is_file()


GENERATED = "GENERATED.json"


def _read(layout: str, root: Path, *, trial: int, survey: Survey | None) -> Records:
    if layout not in _modules():
        raise unknown("layout", layout, layouts())
    module = _modules()[layout]
    if trial not in range(1, module.TRIALS + 1):
        choices = f"1 to {module.TRIALS}" if module.TRIALS > 1 else "1"
        raise BadInput(f"{layout} has no trial {trial}; choices: {choices}")
    surveyed = survey is not None and "survey" in inspect.signature(module.read).parameters
    try:
        return module.read(root, trial=trial, **({"survey": survey} if surveyed else {}))
    except BadInput as error:
        hint = _hint(layout, root)
        raise BadInput(f"{error}; {hint}" if hint else str(error)) from None


def _hint(layout: str, root: Path) -> str:
    """What the root may be instead: another layout, or one folder too high."""
    if not root.is_dir():
        return ""
    if _looks_like(layout, root):
        return ""
    others = [other for other in layouts() if other != layout and _looks_like(other, root)]
    if others:
        return f"it looks like the layout {' or '.join(others)}"
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _looks_like(layout, folder)]
    return f"did you mean {below[0]}?" if below else ""


def _looks_like(layout: str, root: Path) -> bool:
    looks_like = getattr(_modules()[layout], "looks_like", None)
    try:
        return looks_like is not None and looks_like(root)
    except BadInput:
        return False
