"""Where the pictures of a gallery come from: folders, tables, labelled data sets. Nothing is opened here but tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.modality import MODALITIES, Modality, modality_of
from vireid.data.records import UNLABELLED
from vireid.datasets import folder as own
from vireid.datasets.tree import folder_names, is_picture, scaling_of
from vireid.experiments.embed import below
from vireid.gallery.row import EARLIEST, LATEST, LONG, Row, check_name
from vireid.gallery.times import parse_time

_AGO = re.compile(r"\d+[a-z]")


class Listed(NamedTuple):
    """One picture of a source, and what the source says of it.

    Attributes:
        path: relative to the source's root, with forward slashes.
        modality: visible or infrared.
        camera: its name.
        time: milliseconds since 1970, UTC; None if it is not known.
        tracklet, person: text, or None.
    """

    path: str
    modality: Modality
    camera: str
    time: int | None = None
    tracklet: str | None = None
    person: str | None = None

    def row(self, source: str, content: str, vector: np.ndarray | None = None, thumbnail: bytes | None = None) -> Row:
        """The row of this picture.

        Raises:
            BadInput: a value cannot be in a row, for example a path that is too long.
        """
        path, modality, camera, time, tracklet, person = self
        return Row(source, path, content, camera, modality, time, tracklet, person, vector, thumbnail)

    def describes(self, row: Row) -> bool:
        """Whether a row says the same of the picture."""
        said = (row.camera, row.modality, row.time, row.tracklet, row.person)
        return said == (self.camera, self.modality, self.time, self.tracklet, self.person)


@dataclass(frozen=True)
class Source:
    """The pictures of one folder, table or data set.

    Attributes:
        name: identifies the source in the gallery, with the path of a picture. By default the absolute path.
        place: what was named, as an absolute path; of a data set `LAYOUT:PATH`.
        root: the folder that every path is relative to.
        pictures: in a fixed order.
        scaling: how grey pictures with 16 bits become 8 bits; `full` if the source does not say.
        modality, camera: what was given for all pictures, or None.
    """

    name: str
    place: str
    root: Path
    pictures: Sequence[Listed]
    scaling: str = "full"
    modality: str | None = None
    camera: str | None = None

    def file(self, picture: Listed) -> Path:
        """The picture's file."""
        return self.root / picture.path


def list_source(
    given: str | Path, *, modality: str | None = None, camera: str | None = None, name: str | None = None
) -> Source:
    """List the pictures of a source.

    - A folder with the folders `visible` and `infrared` (or other words for them), searched at any depth.
    - A folder of one modality, with `modality`.
    - A table (CSV) with the columns `path`, `camera`, `modality`, and optionally `time`, `tracklet` and `person`.
      `modality` and `camera` fill cells that are empty or columns that are not there.
    - `LAYOUT:PATH`: the test pictures of a labelled data set, with its cameras, and its people as persons.

    A picture's camera in a folder is `camera`; without it, the name of the first folder below the one of the modality.
    A picture that is in no such folder has the name of the folder that it is in.

    The times of files are not used: copying and unpacking change them, and a wrong time is worse than none.

    Raises:
        BadInput: there are no pictures, the table cannot be read, or a modality or a camera is missing.
    """
    text = str(given)
    if modality is not None:
        modality = modality_of(modality).word
    if camera is not None:
        check_name("camera", camera)
    if text.partition(":")[0] in datasets.layouts() and not Path(text).exists():
        found = _data_set(text, modality, camera)
    else:
        place = Path(text).expanduser()
        if place.is_file() and is_picture(place.name):
            raise BadInput(f"{place} is a picture: name its folder, or a table that lists it")
        listing = _table if place.is_file() else _folder
        root = place.parent if place.is_file() else place
        pictures = listing(place, None if modality is None else modality_of(modality), camera)
        absolute = str(place.resolve())
        found = Source(absolute, absolute, root.resolve(), pictures, scaling_of(root), modality, camera)
    if name is not None:
        found = Source(name, *(getattr(found, field) for field in list(found.__dataclass_fields__)[1:]))
    _check(found)
    return found


def _check(source: Source) -> None:
    """Check the values that many pictures share, so that a mistake is told once and not for each picture."""
    if len(source.name.encode("utf-8", "replace")) > LONG:
        raise BadInput(f"the name of a source has up to {LONG} bytes, which {source.place} has not: give it a --name")
    for what in ("camera", "tracklet", "person"):
        values = {getattr(one, what) for one in source.pictures} - {None}
        for value in sorted(values):
            try:
                check_name(what, value)
            except BadInput as error:
                raise BadInput(f"{source.place}: {error}") from None


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder(folder: Path, modality: Modality | None, camera: str | None) -> list[Listed]:
    paths = below(folder)
    if not paths:
        raise BadInput(f"{folder} holds no pictures; their names end in .jpg, .png, .bmp, .tif, .webp, .ppm or .gif")
    kinds = {name: MODALITIES[name.lower()] for name in folder_names(folder) if name.lower() in MODALITIES}
    if modality is not None and (other := [name for name, kind in kinds.items() if kind != modality]):
        raise BadInput(
            f"{folder} has the folder {other[0]}, and {modality.word} was given for all pictures: leave it out, or "
            "name the folders one by one"
        )
    if modality is None and not kinds:
        raise BadInput(
            f"the pictures of {folder} need a modality, visible or infrared, or folders with these names; a table can "
            "have one for each picture"
        )
    found = []
    for path in paths:
        first, *rest = path.split("/")
        kind = kinds.get(first, modality) if rest else modality
        if kind is None:
            raise BadInput(f"{folder} has {path}, which is in no folder visible or infrared")
        around, rest = (first, rest) if first in kinds and rest else (folder.resolve().name or "root", [first, *rest])
        found.append(Listed(path, kind, camera or (rest[0] if len(rest) > 1 else around)))
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(file: Path, modality: Modality | None, camera: str | None) -> list[Listed]:
    needed = ["path", *(["camera"] if camera is None else []), *(["modality"] if modality is None else [])]
    _, lines = own.table_lines(file.parent, file.name, needed=needed)
    found: list[Listed] = []
    known: dict[str, int] = {}
    for line, cells in lines:
        try:
            one = _listed(cells, file.parent, modality, camera)
        except BadInput as error:
            raise BadInput(f"{file}, line {line}: {error}") from None
        if one.path in known:
            raise BadInput(f"{file}, line {line} has the picture {one.path} of line {known[one.path]} again")
        known[one.path] = line
        found.append(one)
    return found


def _listed(cells: dict[str, str], root: Path, modality: Modality | None, camera: str | None) -> Listed:
    if not cells["path"]:
        raise BadInput("'path' is empty")
    if not (named := cells.get("camera") or camera):
        raise BadInput("'camera' is empty; fill it, or give one for all")
    word = cells.get("modality")
    kind = modality_of(word) if word else modality
    if kind is None:
        raise BadInput("'modality' is empty; fill it, or give one for all: visible or infrared")
    person = cells.get("person") or cells.get("identity") or ""
    return Listed(
        path=own.table_path(cells["path"], root),
        modality=kind,
        camera=named,
        time=table_time(cells.get("time") or ""),
        tracklet=cells.get("tracklet") or None,
        person=None if own.is_unlabelled(person) else person,
    )


def table_time(cell: str) -> int | None:
    """The time in a cell of a table, in milliseconds since 1970, UTC.

    >>> table_time("1772323200.5"), table_time("2026-03-01T03:11:09+01:00"), table_time("")
    (1772323200500, 1772331069000, None)

    Args:
        cell: a number of seconds since 1970, or ISO 8601 (UTC without a zone); empty if it is not known.

    Raises:
        BadInput: it is neither.
    """
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        if _AGO.fullmatch(cell):
            raise BadInput(f"time '{cell[:40]}' is neither seconds since 1970 nor ISO 8601") from None
        return parse_time(cell, "time")
    return _milliseconds(seconds, cell)


def _milliseconds(seconds: float, shown: object) -> int | None:
    if np.isnan(seconds):
        return None
    if not EARLIEST <= seconds * 1000 < LATEST:
        raise BadInput(f"time '{str(shown)[:40]}' is not in the years 1 to 9998")
    return round(seconds * 1000)


# --- labelled data sets -----------------------------------------------------------------------------------------------


def _data_set(text: str, modality: str | None, camera: str | None) -> Source:
    if modality is not None or camera is not None:
        raise BadInput(f"{text} is a labelled data set, which says modality and camera of each picture: leave them out")
    layout, place = datasets.parse_source(text)
    records = datasets.read(layout, place).where(split="test")
    if not len(records):
        raise BadInput(f"{text} has no test pictures")
    times: Iterable[float] = np.full(len(records), np.nan) if records.time is None else records.time
    tracklets = np.full(len(records), -1) if records.tracklet is None else records.tracklet
    columns = (records.path, records.modality, records.camera, times, tracklets, records.identity)
    pictures = [
        Listed(
            path=str(path),
            modality=Modality(int(modality_)),
            camera=str(camera_),
            time=_milliseconds(float(time), time),
            tracklet=None if tracklet < 0 else str(tracklet),
            person=None if identity == UNLABELLED else str(identity),
        )
        for path, modality_, camera_, time, tracklet, identity in zip(*columns, strict=True)
    ]
    name = f"{layout}:{place.resolve()}"
    return Source(name, name, Path(records.root).resolve(), pictures, records.scaling)
