"""Code from outside the package: Python files that the user names, and entry points of installed packages.

A plug-in is code. It runs with the rights of the user. A file is executed only if the user names it, and an entry point
only if its name is asked for. `vireid.plugins` says what a plug-in may hold.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import keyword
import linecache
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from vireid.data.errors import BadInput

PREFIX = "vireid_plugin_"
"""The module of `my_recipe.py` is called `vireid_plugin_my_recipe`, so that it can hide no other module."""

GROUPS = ("vireid.recipes", "vireid.datasets", "vireid.protocols", "vireid.augment")


@dataclass(frozen=True)
class Outside:
    """Code from outside the package that was executed in this process.

    Attributes:
        name: name of the file without `.py`, or of the entry point.
        file: the file, absolute.
        source: content of the file.
        module: what executing it gave.
        package: name and version of the installed package; empty for a file that the user named.
    """

    name: str
    file: Path
    source: bytes = field(repr=False)
    module: ModuleType
    package: str = ""

    @property
    def sha256(self) -> str:
        """The hash of the file, as hexadecimal digits."""
        return hashlib.sha256(self.source).hexdigest()


_loaded: dict[str, Outside] = {}


def loaded() -> tuple[Outside, ...]:
    """Everything from outside that was executed in this process, in this order."""
    return tuple(_loaded.values())


def load_file(file: str | Path) -> Outside:
    """Execute a Python file as a module, unless it was executed and has not changed since then.

    Raises:
        BadInput: there is no such file, its name is not one of a module, another file of this name was executed, or it
            raises an exception. The sentence names the line.
    """
    path = Path(file).expanduser().absolute()
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise BadInput(f"plug-in {file}: the name of the file must be a Python name and .py, such as my_recipe.py")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadInput(f"plug-in {file} cannot be read: {error.strerror}") from None
    known = _loaded.get(PREFIX + name)
    if known is not None and known.source == source:
        return known
    if known is not None and known.file != path:
        raise BadInput(f"plug-in {file}: {known.file} is loaded already under the name '{name}'; rename one of them")
    found = Outside(name, path, source, _executed(source, path, PREFIX + name))
    _loaded[PREFIX + name] = found
    return found


def _executed(source: bytes, path: Path, name: str) -> ModuleType:
    """The module that these bytes give. They are read once, so that the hash is of what was executed."""
    module = ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    linecache.checkcache(str(path))  # the notes below fields are read from the file
    # It must be there before it is executed: dataclasses look up their annotations in it.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise BadInput(f"plug-in {path}{_line(error, path)}: {_told(error)}") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """`, line N`: the last line of the file that the exception came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _told(error: BaseException) -> str:
    if isinstance(error, BadInput):
        return str(error)
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Needed:
    """The files that this process has executed, for a process that is started afresh.

    A loading process may be started without memory of this one. It receives the objects that it works with by pickle,
    and the classes of a plug-in are found there only if its file was executed first. So an instance of this class
    travels in front of such objects, and unpickling it executes the files.
    """

    def __init__(self) -> None:
        self.files = tuple((str(one.file), one.sha256) for one in loaded() if not one.package)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _needed, (self.files,)


def _needed(files: tuple[tuple[str, str], ...]) -> Needed:
    for file, sha256 in files:
        if load_file(file).sha256 != sha256:
            raise BadInput(f"plug-in {file} changed while the program was running; start again")
    return Needed()


@functools.cache
def entry_points(group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Name → entry point, of the packages that are installed. Nothing of them is executed."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def load_entry_point(group: str, name: str) -> Outside | None:
    """Execute the module of an entry point; None if there is no entry point of this name.

    Raises:
        BadInput: it cannot be imported, or it is not a module.
    """
    point = entry_points(group).get(name)
    if point is None:
        return None
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    where = f"entry point {group} '{name}' of {package}"
    try:
        module = point.load()
    except Exception as error:
        raise BadInput(f"{where} cannot be loaded: {_told(error)}") from error
    if not isinstance(module, ModuleType) or not getattr(module, "__file__", None):
        raise BadInput(f"{where} must name a module, such as {name} = my_package.{name}")
    file = Path(str(module.__file__)).absolute()
    found = Outside(name, file, file.read_bytes(), module, package)
    return _loaded.setdefault(module.__name__, found)
