"""Read data sets from disk as `Records`, with one file for each layout.

A layout is a file of this folder with

    read(root, *, fold) -> Records      the records in the data set's own file order
    FOLDS: int                          how many folds the data set has
    EXPECTED: dict[str, int]            the published counts, by the names of `doctor.counts`

The name of the layout is the name of the file, with hyphens: `sysu_mm01.py` is `sysu-mm01`. To add a data set, add such
a file, or `register` a module from outside the package. Three more things are optional:

    looks_like(root) -> bool            whether a folder has this layout; used in error messages
    read(root, *, fold, survey)         tells the dataset doctor all missing files, instead of raising at the first
    TRAINING: tuple[str, ...]           the splits to train on, if not `train` alone

A module from outside may also have `PROTOCOLS`, a list of `vireid.data.protocol.Protocol`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from vireid.data import protocol
from vireid.data.errors import BadInput, unknown
from vireid.data.outside import entry_points, load_entry_point
from vireid.data.records import Records
from vireid.datasets.doctor import Checkup, Progress, examine
from vireid.datasets.tree import Survey, scaling_of

__all__ = [
    "Checkup",
    "check",
    "folds",
    "generated",
    "layouts",
    "parse_source",
    "read",
    "training_records",
    "unlike_published",
]

GENERATED = "GENERATED.json"


_outside: dict[str, ModuleType] = {}


@functools.cache
def _inside() -> dict[str, ModuleType]:
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "EXPECTED") and hasattr(module, "FOLDS"):
            found[info.name.replace("_", "-")] = module
    return found


def register(layout: str, module: ModuleType) -> None:
    """Make a module from outside the package known as a layout, with its protocols.

    Without `PROTOCOLS`, the layout gets two: all visible test pictures search all infrared ones, and the reverse.

    Raises:
        BadInput: the package has this layout, or the module lacks something that a layout needs.
    """
    if layout in _inside():
        raise BadInput(f"the package has a layout '{layout}' already; give yours another name")
    if lacking := [name for name in ("read", "FOLDS", "EXPECTED") if not hasattr(module, name)]:
        raise BadInput(f"layout '{layout}' has no {lacking[0]}; a layout needs read, FOLDS and EXPECTED")
    protocol.register(getattr(module, "PROTOCOLS", None) or protocol.both_directions(layout), layout)
    _outside[layout] = module


def forget(layout: str) -> None:
    """Remove a registered layout. Its protocols are removed by `vireid.data.protocol.forget`."""
    _outside.pop(layout, None)


def layouts() -> tuple[str, ...]:
    """The names of all layouts, sorted.

    >>> layouts()
    ('folder', 'llcm', 'regdb', 'sysu-mm01')
    """
    return tuple(sorted({*_inside(), *_outside, *entry_points("vireid.datasets")}))


def parse_source(source: str) -> tuple[str, Path]:
    """Split `LAYOUT:PATH` into the layout and the path.

    >>> layout, path = parse_source("regdb:data/RegDB")
    >>> layout, path.as_posix()
    ('regdb', 'data/RegDB')

    Raises:
        BadInput: the layout or the path is missing, or the layout is unknown.
    """
    layout, colon, path = source.partition(":")
    if not colon or not path.strip():
        raise BadInput(f"'{source}' is not LAYOUT:PATH; layouts: {', '.join(layouts())}")
    _module(layout)
    return layout, Path(path.strip()).expanduser()


def read(layout: str, root: str | Path, *, fold: int = 1) -> Records:
    """Read the records of a data set, without opening its pictures.

    Args:
        layout: one of `layouts()`.
        root: the folder of the data set; for `folder` also the path of a CSV file.
        fold: which fold, from 1 to `folds(layout)`. RegDB has ten, the other layouts have one.

    Raises:
        BadInput: the layout or the fold is unknown, or the root has another layout; the sentence names the layout that
            the root looks like.
    """
    return _read(layout, Path(root), fold=fold, survey=None)


def check(
    layout: str, root: str | Path, *, fold: int = 1, decode: bool = False, progress: Progress | None = None
) -> Checkup:
    """Examine a data set on disk: count what is there, compare it with the published counts, and find bad files.

    Args:
        layout, root, fold: as in `read`.
        decode: also decode every picture, which takes minutes for a large data set. Otherwise only sizes and first
            bytes are read, and the contents of files that could be equal.
        progress: called as `progress(done, total)` from time to time.

    Raises:
        BadInput: as in `read`, but a missing file of a list is a finding and not an error.
    """
    survey = Survey()
    records = _read(layout, Path(root), fold=fold, survey=survey)
    expected = _module(layout).EXPECTED
    return examine(records, expected=expected, survey=survey, decode=decode, progress=progress)


def folds(layout: str) -> int:
    """The number of folds of a layout.

    >>> folds("regdb")
    10

    Raises:
        BadInput: the layout is unknown.
    """
    return _module(layout).FOLDS


def unlike_published(layout: str, identity: np.ndarray, modality: np.ndarray) -> str | None:
    """A warning if the pictures of a test set are not as many as were published, or None.

    >>> unlike_published("regdb", np.arange(4), np.array([0, 0, 1, 1]))
    'regdb has 206 test identities, 2060 visible and 2060 infrared test pictures as published; here 4, 2 and 2'

    Args:
        layout: one of `layouts()`. Nothing was published about the layout `folder`.
        identity: N integers, of all test pictures.
        modality: N integers, 0 visible or 1 infrared.
    """
    expected = _module(layout).EXPECTED
    names = ("test identities", "test visible pictures", "test infrared pictures")
    published = [expected.get(name) for name in names]
    found = [len(np.unique(identity)), int((modality == 0).sum()), int((modality == 1).sum())]
    if None in published or found == published:
        return None
    people, visible, infrared = published
    return (
        f"{layout} has {people} test identities, {visible} visible and {infrared} infrared test pictures as published; "
        f"here {found[0]}, {found[1]} and {found[2]}"
    )


def training_records(records: Records) -> Records:
    """The labelled records that papers train on.

    For SYSU-MM01 these are `train` and `val` together, for the other layouts `train`.

    Raises:
        BadInput: there are none.
    """
    splits = getattr(_module(records.layout), "TRAINING", ("train",))
    found = records.where(split=splits).labelled()
    if not len(found):
        raise BadInput(f"{records.root} has no pictures to train on (splits {', '.join(splits)})")
    return found


def generated(root: str | Path) -> bool:
    """Whether a folder holds a generated world. `synthesis.world` writes a file into it that says so."""
    return (Path(root) / GENERATED).is_file()


def _module(layout: str) -> ModuleType:
    if layout in _inside():
        return _inside()[layout]
    if layout not in _outside:
        found = load_entry_point("vireid.datasets", layout)
        if found is None:
            raise unknown("layout", layout, layouts())
        register(layout, found.module)
    return _outside[layout]


def _read(layout: str, root: Path, *, fold: int, survey: Survey | None) -> Records:
    module = _module(layout)
    if fold not in range(1, module.FOLDS + 1):
        choices = f"1 to {module.FOLDS}" if module.FOLDS > 1 else "1"
        raise BadInput(f"{layout} has no fold {fold}; choices: {choices}")
    surveyed = survey is not None and "survey" in inspect.signature(module.read).parameters
    try:
        records = module.read(root, fold=fold, **({"survey": survey} if surveyed else {}))
    except BadInput as error:
        hint = _hint(layout, root)
        raise BadInput(f"{error}; {hint}" if hint else str(error)) from None
    if not isinstance(records, Records) or records.layout != layout:
        given = f"layout '{records.layout}'" if isinstance(records, Records) else type(records).__name__
        raise BadInput(f"the reader of layout '{layout}' must return Records of this layout, not {given}")
    stated = scaling_of(root.parent if root.is_file() else root)
    return records if stated == "full" else replace(records, scaling=stated)


def _hint(layout: str, root: Path) -> str:
    """A hint for the error message: the layout that the root looks like, or the folder below it that was meant."""
    if not root.is_dir() or _looks_like(layout, root):
        return ""
    known = sorted({*_inside(), *_outside})  # an installed package is not executed for a hint
    others = [other for other in known if other != layout and _looks_like(other, root)]
    if others:
        return f"it looks like the layout {' or '.join(others)}"
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _looks_like(layout, folder)]
    return f"did you mean {below[0]}?" if below else ""


def _looks_like(layout: str, root: Path) -> bool:
    looks_like = getattr(_module(layout), "looks_like", None)
    try:
        return looks_like is not None and looks_like(root)
    except BadInput:
        return False
