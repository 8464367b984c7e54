"""The user's own pictures, described by a table or by the names of their folders.

    records.csv with columns path, identity, camera, modality[, split, time, tracklet]   (or any CSV file, by its path)
    root/<train|val|test>/<visible|infrared>/<identity>/…                        (with any folders below)
    root/<visible|infrared>/<identity>/…                                         (all pictures count as test)
    pictures.yaml with `scaling: RULE` beside the table or in the root             (optional)

Modalities are words of `vireid.data.modality.MODALITIES`. Without a table, the camera is the part `c<digits>` or
`cam<digits>` of the file name, or 0 (visible) or 1 (infrared) if the name has no such part. If not all identities are
numbers, they are numbered in sorted order, so the same names get the same numbers on every machine. The same holds for
the cameras of a table. An identity that is empty, `-1` or `unlabelled` is a picture of an unknown person.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vireid.data.camera import camera_numbers
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import MODALITIES, Modality, modality_of
from vireid.data.records import SPLITS, UNLABELLED, Records
from vireid.datasets.tree import Entry, Survey, Tree, assemble, folder_names, read_list, report_missing

FOLDS = 1
EXPECTED: dict[str, int] = {}

TABLE = "records.csv"
NEEDED = ("path", "identity", "camera", "modality")
UNKNOWN_PEOPLE = ("", "-1", "unlabelled", "unlabeled")
CAMERA_TOKEN = re.compile(r"(?:^|[^a-z0-9])c(?:am)?(\d{1,9})(?![a-z0-9])", re.IGNORECASE)


def looks_like(root: Path) -> bool:
    """Whether a folder has this layout."""
    names = folder_names(root)
    below = [name for split in names if split in SPLITS for name in os.listdir(root / split)]
    return (root / TABLE).is_file() or any(map(_is_modality, below)) or _without_splits(names)


def read(root: Path, *, fold: int = 1, survey: Survey | None = None) -> Records:
    """Read the records in the order of the table, or sorted by split, modality, identity and path.

    Raises:
        BadInput: columns, modalities, splits or files are not as the layout requires.
    """
    folder, table = place(root)
    return _from_folders(folder) if table is None else _from_table(folder, table, survey)


def place(source: Path) -> tuple[Path, str | None]:
    """The folder that paths are relative to, and the name of the table in it; None if there is no table.

    Raises:
        BadInput: the folder is missing, empty, or cannot be read.
    """
    if source.is_file():
        return source.parent, source.name
    folder_names(source)
    return source, TABLE if (source / TABLE).is_file() else None


def table_lines(
    root: Path, name: str, needed: Sequence[str] = NEEDED
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a table in lower case, and its lines: (number of the line, column → cell without blanks around it).

    Raises:
        BadInput: the table cannot be read, lacks a column or has one twice, has no lines, or a line is too long.
    """
    # A spreadsheet may write line breaks inside quotes. The csv module needs them unchanged.
    reader = csv.DictReader(io.StringIO(read_list(root, name), newline=""), skipinitialspace=True)
    where = root / name
    try:
        header = [(column or "").strip().lower() for column in reader.fieldnames or []]
        reader.fieldnames = header
        missing = [column for column in needed if column not in header]
        if missing:
            present = ", ".join(header) or "none"
            raise BadInput(f"{where} lacks the columns {', '.join(missing)}; present: {present}")
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            raise BadInput(f"{where} has the column '{repeated[0]}' more than once")
        found = [(reader.line_num, cells) for cells in reader]
        for line, cells in found:
            if any(cell.strip() for cell in cells.get(None) or ()):  # type: ignore[call-overload]
                raise BadInput(f"{where}, line {line} has more cells than the {len(header)} columns of the header")
    except csv.Error as error:
        raise BadInput(f"{where}, line {reader.line_num}: {error}") from None
    lines = [(line, {key: (cells.get(key) or "").strip() for key in header if key}) for line, cells in found]
    lines = [(line, cells) for line, cells in lines if any(cells.values())]
    if not lines:
        raise BadInput(f"{where} has no lines below its header")
    return header, lines


def _from_table(root: Path, name: str, survey: Survey | None) -> Records:
    header, lines = table_lines(root, name)
    numbers, notes = identity_numbers([cells["identity"] for _, cells in lines])
    if "split" not in header:
        notes.append("the table has no column 'split'; all pictures count as test")
    entries = [
        _table_entry(cells, identity, root=root, where=f"{root / name}, line {line}")
        for (line, cells), identity in zip(lines, numbers, strict=True)
    ]
    found, about = cameras([cells["camera"] for _, cells in lines], [entry.modality for entry in entries])
    notes += about
    tracklets = _tracklets([cells.get("tracklet", "") for _, cells in lines])
    entries = [
        entry._replace(camera=camera, tracklet=tracklet)
        for entry, camera, tracklet in zip(entries, found, tracklets, strict=True)
    ]
    absent = {entry.path for entry in entries if not os.path.isfile(root / entry.path)}
    gone = [entry.path for entry in entries if entry.path in absent]
    report_missing(gone, root=root, named_by=name, survey=survey)
    return assemble("folder", root, [entry for entry in entries if entry.path not in absent], notes=notes)


def _tracklets(cells: Sequence[str]) -> list[int]:
    """The number of the tracklet of each line, -1 for an empty cell. Words are numbered in sorted order."""
    number = {word: place for place, word in enumerate(sorted({cell for cell in cells if cell}))}
    return [number[cell] if cell else -1 for cell in cells]


def _table_entry(cells: dict[str, str], identity: int, *, root: Path, where: str) -> Entry:
    """Turn one line of the table into an entry, whose camera is filled in later."""
    if not cells["path"]:
        raise BadInput(f"{where}: 'path' is empty")
    try:
        modality = modality_of(cells["modality"])
        split = cells.get("split", "test").lower()
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    try:
        time = float(cells.get("time") or "nan")
    except ValueError:
        raise BadInput(f"{where}: time '{cells['time'][:40]}' is not a number of seconds") from None
    return Entry(table_path(cells["path"], root), identity, 0, modality, split, time)


def table_path(cell: str, root: Path) -> str:
    """A table's path with forward slashes, relative to the root if it lies below it."""
    path, folder = PurePosixPath(cell.replace("\\", "/")), root.absolute().as_posix()
    return str(path.relative_to(folder)) if path.is_absolute() and path.is_relative_to(folder) else str(path)


def cameras(cells: Sequence[str], modalities: Sequence[Modality]) -> tuple[list[int], list[str]]:
    """The camera of each line, and a note if names were numbered. An empty cell is the one camera of its modality."""
    named = bool(camera_numbers([cell for cell in cells if cell])[1])
    own = [modality.word if named else str(int(modality)) for modality in modalities]
    return camera_numbers([cell or word for cell, word in zip(cells, own, strict=True)])


def _from_folders(root: Path) -> Records:
    tree, names = Tree.scan(root), folder_names(root)
    splits = [name for name in names if name in SPLITS]
    if not splits and not _without_splits(names):
        tables = sorted(p.name for p in root.glob("*.csv"))
        hint = f"; to read the table {tables[0]}, give the path of that file" if tables else ""
        raise BadInput(f"{root} has neither {TABLE} nor folders <train|val|test>/<visible|infrared>/<identity>{hint}")
    found: list[tuple[str, Modality, str, str]] = []
    stray = 0
    for path in tree.pictures:
        parts = path.split("/")
        if splits and len(parts) > 1 and parts[0] not in SPLITS:
            raise unknown("split folder", parts[0], SPLITS)
        split, *rest = parts if splits else ["test", *parts]
        if len(rest) < 3:
            stray += 1
            continue
        found.append((split, modality_of(rest[0]), rest[1], path))
    numbers, notes = identity_numbers([name for _, _, name, _ in found])
    if not splits:
        notes.append("the folders name no split; all pictures count as test")
    entries = [
        Entry(path, identity, _camera_in(path, modality), modality, split)
        for (split, modality, _, path), identity in zip(found, numbers, strict=True)
    ]
    entries.sort(key=lambda e: (SPLITS.index(e.split), e.modality, e.identity, e.path))
    if stray:
        where = f"{'<split>/' if splits else ''}<modality>/<identity>/<name>"
        notes.append(f"{stray} pictures are not at {where} and are left out")
    return assemble("folder", root, entries, notes=notes)


def identity_name(path: str) -> str:
    """The name of the identity's folder in a path of a record that was found without a table.

    >>> identity_name("test/visible/anna/walk/1.jpg"), identity_name("rgb/anna/1.jpg")
    ('anna', 'anna')
    """
    parts = path.split("/")
    return parts[2] if parts[0] in SPLITS else parts[1]


def _camera_in(path: str, modality: Modality) -> int:
    """The camera number in a file name, or the number of the modality if the name has none.

    >>> _camera_in("test/visible/7/cam12_0001.jpg", Modality.VISIBLE)
    12
    >>> _camera_in("test/infrared/cam4/scamp3.jpg", Modality.INFRARED)
    1
    """
    token = CAMERA_TOKEN.search(PurePosixPath(path).stem)
    return int(token[1]) if token else int(modality)


def _is_modality(name: str) -> bool:
    return name.lower() in MODALITIES


def _without_splits(names: Sequence[str]) -> bool:
    """Whether the folders of a root are modalities, and nothing else."""
    return bool(names) and all(map(_is_modality, names))


def is_unlabelled(name: str) -> bool:
    """Whether a table or a folder says with this identity that the person is not known."""
    return name.strip().lower() in UNKNOWN_PEOPLE


def identity_numbers(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Identity numbers and notes: the names if all of them are numbers, otherwise their positions in sorted order."""
    known = sorted({name for name in names if not is_unlabelled(name)})
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in known):
        return [UNLABELLED if is_unlabelled(name) else int(name) for name in names], []
    order = {name: number for number, name in enumerate(known)}
    note = f"{len(order)} identity names were numbered in sorted order"
    return [order.get(name, UNLABELLED) for name in names], [note]
