"""Write dataclasses as JSON, and read them back with a strict check of their fields and types."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from vireid.data.errors import BadInput

Kind = TypeVar("Kind")


def as_json(value: Any) -> Any:
    """Turn a dataclass, also a nested one, into JSON values. Numbers that are not finite become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_values(kind: type[Kind], values: Any, where: str) -> Kind:
    """Build a dataclass from the values of `as_json`.

    Args:
        kind: the dataclass. Fields without a default must be present.
        values: JSON values.
        where: the name of the source in the error message, for example a file name.

    Raises:
        BadInput: a field is missing, unknown or of a wrong type; the sentence names the field.
    """
    import pydantic

    # From JSON text, pydantic's strict mode accepts a list for a tuple, which it does not do with Python values.
    try:
        found = _adapter(kind).validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        what = f"lacks the field '{place}'" if first["type"] == "missing" else f"has a wrong '{place}' ({first['msg']})"
        raise BadInput(f"{where} {what}; another version of vireid may have written it") from None
    if strange := _unknown(values, as_json(found)):
        raise BadInput(f"{where} has an unknown field '{strange}'; another version of vireid may have written it")
    return found


@cache
def _adapter(kind: type) -> Any:
    """pydantic's reader of a dataclass. Making one takes 6 ms, which counts where a thousand reports are read."""
    import pydantic

    return pydantic.TypeAdapter(kind)


def _unknown(given: Any, known: Any, path: str = "") -> str | None:
    """The first name in `given`, nested ones included, that is not in `known`; None if there is none."""
    if isinstance(given, Mapping) and isinstance(known, Mapping):
        inner = ((name, value, f"{path}{name}") for name, value in given.items())
        for name, value, place in inner:
            strange = place if name not in known else _unknown(value, known[name], f"{place}.")
            if strange:
                return strange
    elif isinstance(given, list) and isinstance(known, list):
        pairs = enumerate(zip(given, known, strict=True))
        return next((found for n, (g, k) in pairs if (found := _unknown(g, k, f"{path}{n}."))), None)
    return None


def read_json(file: Path) -> Any:
    """Read the JSON values of a file.

    Raises:
        BadInput: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}") from None


def check_output(path: Path) -> Path:
    """Check that a file can be made under this name, before any work is done for it.

    Returns:
        The path as it was given.

    Raises:
        BadInput: it is a folder, or the folder that it would be in is not there or cannot be written.
    """
    if path.is_dir():
        raise BadInput(f"cannot write {path}: it is a folder, and the name of a file is needed")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise BadInput(f"cannot write {path}: there is no folder {folder}")
    if not path.exists() and not os.access(folder, os.W_OK):
        raise BadInput(f"cannot write {path}: no permission to write in {folder}")
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written completely or not at all.

    A link is kept, and the file that it leads to is written. A device, a pipe and the program's own output cannot be
    replaced: what is written goes into them directly.

    Raises:
        OSError: the file cannot be written.
    """
    if (stream := _own_stream(path)) is not None or (path.exists() and not path.is_file()):
        with open(path if stream is None else stream, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with open(unfinished, "wb") as file:
            yield file
        os.replace(unfinished, target)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _own_stream(path: Path) -> int | None:
    """A new descriptor of standard output or standard error, if this file is one of them."""
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(stream)):
                return os.dup(stream)
    return None


def sync_folder(folder: Path) -> None:
    """Flush the names of files to disk, so that new, renamed and removed files survive a power cut.

    Does nothing except on POSIX systems.
    """
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all, see `writing`."""
    with writing(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all, see `writing`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
