"""What a gallery knows of a picture: its columns, its id, and the filter that decides which pictures are searched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.settings import options

NAME = 64
"""Most characters of a camera, a tracklet and a person."""
LONG = 1024
"""Most bytes of a source and of a path, as UTF-8."""
THUMBNAIL = 256 * 1024
"""Most bytes of a thumbnail."""
VALUES = 10_000
"""Most values of one kind in a filter."""
OFF_LENGTH = 1e-3
"""How far the length of a vector may be from one."""
MODALITIES = (Modality.VISIBLE, Modality.INFRARED)

_ID, _CONTENT = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _milliseconds(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000


EARLIEST, LATEST = _milliseconds(1), _milliseconds(9999)
"""The times that a picture can have: years 1 to 9998, in milliseconds since 1970, UTC."""


def id_of(source: str, path: str) -> str:
    """The id of the picture with this path in this source: half of a SHA-256, as 32 hexadecimal digits.

    It does not depend on the picture's content. So a changed picture replaces its own row, and two equal pictures have
    a row each.

    >>> id_of("entrance", "day1/0001.jpg")
    '3796eaf2a6b4cb1030b6d42ed2350fd8'
    """
    return hashlib.sha256(f"{source}\0{path}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Row:
    """One picture of a gallery.

    Two rows are equal if all columns except vector and thumbnail are.

    Attributes:
        source: the name of the folder or table that the picture came from, up to 1,024 bytes.
        path: the picture, relative to its source, with forward slashes, up to 1,024 bytes.
        content: SHA-256 of the picture's bytes, 64 hexadecimal digits. Equal pictures have equal ones.
        camera: the camera's name or number, as text of up to 64 characters.
        modality: visible or infrared.
        time: milliseconds since 1970, UTC; None if it is not known. A row without a time passes no filter by time.
        tracklet: text of up to 64 characters, or None.
        person: text of up to 64 characters, or None.
        vector: D float32, finite, of length one (±0.001). None only in rows that a store gave back without vectors.
        thumbnail: a small JPEG, up to 256 KiB. None in rows that a store gave back: ask it for the thumbnail.

    Raises (when an instance is made):
        BadInput: a value is not as described.
    """

    source: str
    path: str
    content: str
    camera: str
    modality: Modality
    time: int | None = None
    tracklet: str | None = None
    person: str | None = None
    vector: np.ndarray | None = field(default=None, compare=False, repr=False)
    thumbnail: bytes | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_bytes("source", self.source)
        _check_bytes("path", self.path, control="\0")
        if not isinstance(self.content, str) or not _CONTENT.fullmatch(self.content):
            raise BadInput(f"content must be a SHA-256 with 64 hexadecimal digits, not {_shown(self.content)}")
        check_name("camera", self.camera)
        for name in ("tracklet", "person"):
            if getattr(self, name) is not None:
                check_name(name, getattr(self, name))
        object.__setattr__(self, "modality", _searchable(self.modality))
        if self.time is not None:
            _check_time("time", self.time)
        if self.vector is not None:
            object.__setattr__(self, "vector", checked_vectors(self.vector, dimensions=1))
        if self.thumbnail is not None and not 0 < len(self.thumbnail) <= THUMBNAIL:
            raise BadInput(f"the thumbnail of {self.path} has {len(self.thumbnail)} bytes; from 1 to {THUMBNAIL} fit")

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits, see `id_of`."""
        return id_of(self.source, self.path)


@options
class Where:
    """Which rows count. A row must pass all that is given; None lets every row pass, and an empty tuple none.

    Attributes:
        modality: visible or infrared.
        cameras, sources, tracklets, persons, contents, ids: the row's value is one of these, up to 10,000.
        since: the picture was taken at this time or later, in milliseconds since 1970, UTC.
        until: it was taken before this time. Neither lets a picture without a time pass.

    Raises (when an instance is made):
        BadInput: a value is of a wrong type, or cannot be in any row.
    """

    modality: Modality | None = None
    cameras: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    tracklets: tuple[str, ...] | None = None
    persons: tuple[str, ...] | None = None
    contents: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        if self.modality is not None:
            _searchable(self.modality)
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                _check_time(name, getattr(self, name))
        for column, values in self.members().items():
            if len(values) > VALUES:
                raise BadInput(f"a filter takes up to {VALUES} values of {column}, not {len(values)}")
            for value in values:
                _CHECKS[column](column, value)

    def members(self) -> dict[str, tuple[str, ...]]:
        """Column → its values, of those that are given."""
        given = {column: getattr(self, f"{column}s") for column in _CHECKS}
        return {column: values for column, values in given.items() if values is not None}

    def times(self) -> tuple[int, int] | None:
        """The first time that passes and the first one after it that does not; None if time does not count."""
        if self.since is None and self.until is None:
            return None
        return EARLIEST if self.since is None else self.since, LATEST if self.until is None else self.until

    def passes_none(self) -> bool:
        """Whether no row can pass, because a list of values is empty."""
        return any(not values for values in self.members().values())


def last_of_each(rows: Iterable[Row]) -> list[Row]:
    """The rows without those whose id comes again later: as if they were stored one after another.

    Raises:
        BadInput: a row has no vector.
    """
    kept = {row.id: row for row in rows}
    for row in kept.values():
        if row.vector is None:
            raise BadInput(f"the row of {row.path} has no vector")
    return list(kept.values())


def checked_vectors(vectors: Any, *, dimensions: int, width: int | None = None) -> np.ndarray:
    """Vectors as float32, D or N×D, after a check that all are finite and of length one.

    Raises:
        BadInput: another shape, a value that is not finite, or a length other than one.
    """
    found = np.ascontiguousarray(vectors, dtype=np.float32)
    if found.ndim != dimensions or (width is not None and found.shape[-1] != width) or not found.shape[-1]:
        wanted = f"{'N×' * (dimensions - 1)}{width or 'D'}"
        raise BadInput(f"vectors must have the shape {wanted}, not {'×'.join(map(str, found.shape)) or 'one number'}")
    lengths = np.linalg.norm(found.astype(np.float64), axis=-1)
    if not np.all(np.abs(lengths - 1) <= OFF_LENGTH):  # not true for NaN either
        wrong = lengths[~(np.abs(lengths - 1) <= OFF_LENGTH)].flat[0]
        raise BadInput(f"a vector must be finite and of length one; one has the length {wrong:g}")
    return found


def checked_ids(ids: Iterable[str]) -> list[str]:
    """The different ids, in the order given.

    Raises:
        BadInput: one of them is not an id.
    """
    found = list(dict.fromkeys(ids))
    for one in found:
        _check_id("id", one)
    return found


def check_name(what: str, value: str) -> None:
    """Check the name of a camera, a tracklet or a person.

    Raises:
        BadInput: it is not text, is empty, too long, or has control characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= NAME or _CONTROL.search(value) or not _is_utf8(value):
        raise BadInput(f"{what} must be text of 1 to {NAME} characters on one line, not {_shown(value)}")


def _check_bytes(what: str, value: str, control: str = "") -> None:
    wrong = not isinstance(value, str) or not value or not _is_utf8(value)
    wrong = wrong or (control in value if control else _CONTROL.search(value) is not None)
    if wrong or len(value.encode()) > LONG:
        raise BadInput(f"{what} must be text of 1 to {LONG} bytes as UTF-8, not {_shown(value)}")


def _check_id(what: str, value: str) -> None:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise BadInput(f"{what} of a picture must have 32 hexadecimal digits, not be {_shown(value)}")


def _check_content(what: str, value: str) -> None:
    if not _CONTENT.fullmatch(value):
        raise BadInput(f"{what} must be a SHA-256 with 64 hexadecimal digits, not {_shown(value)}")


def _check_time(what: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not EARLIEST <= value < LATEST:
        raise BadInput(f"{what} must be milliseconds since 1970 in the years 1 to 9998, not {_shown(value)}")


def _searchable(modality: Modality) -> Modality:
    if modality not in MODALITIES:
        raise BadInput(f"the modality of a gallery's picture is visible or infrared, not {_shown(modality)}")
    return Modality(modality)


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= NAME else f"{text[:NAME]}…"


_CHECKS = {
    "camera": check_name,
    "source": _check_bytes,
    "tracklet": check_name,
    "person": check_name,
    "content": _check_content,
    "id": _check_id,
}
"""Column → the check of a value of it in a filter. The filter's field is the column's name with an s."""
