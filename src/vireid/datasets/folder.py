"""The user's own pictures, described by a table or by the names of their folders.

    records.csv with columns path, identity, camera, modality[, split, time]     (or any CSV file, given by its path)
    root/<train|val|test>/<visible|infrared>/<identity>/…                        (with any folders below)

Modalities are written `visible` and `infrared`. Without a table, the camera is the part `c<digits>` or `cam<digits>` of
the file name, or 0 (visible) or 1 (infrared) if the name has no such part. If not all identities are numbers, they are
numbered in sorted order, so the same names get the same numbers on every machine.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.records import SPLITS, Records
from vireid.datasets.tree import Entry, Survey, Tree, assemble, folder_names, read_list, report_missing

FOLDS = 1
EXPECTED: dict[str, int] = {}

TABLE = "records.csv"
NEEDED = ("path", "identity", "camera", "modality")
MODALITIES = {"visible": Modality.VISIBLE, "infrared": Modality.INFRARED}
CAMERA_TOKEN = re.compile(r"(?:^|[^a-z0-9])c(?:am)?(\d{1,9})(?![a-z0-9])", re.IGNORECASE)
CAMERA_CELL = re.compile(r"(?:c|cam)?(\d{1,9})", re.IGNORECASE)


def looks_like(root: Path) -> bool:
    """Whether a folder has this layout."""
    splits = [name for name in folder_names(root) if name in SPLITS]
    return (root / TABLE).is_file() or any((root / s / m).is_dir() for s in splits for m in MODALITIES)


def read(root: Path, *, fold: int = 1, survey: Survey | None = None) -> Records:
    """Read the records in the order of the table, or sorted by split, modality, identity and path.

    Raises:
        BadInput: columns, modalities, splits or files are not as the layout requires.
    """
    if root.is_file():
        return _from_table(root.parent, root.name, survey)
    folder_names(root)
    if (root / TABLE).is_file():
        return _from_table(root, TABLE, survey)
    return _from_folders(root)


def _from_table(root: Path, name: str, survey: Survey | None) -> Records:
    # A spreadsheet may write line breaks inside quotes. The csv module needs them unchanged.
    reader = csv.DictReader(io.StringIO(read_list(root, name), newline=""), skipinitialspace=True)
    where = root / name
    try:
        header = [(column or "").strip().lower() for column in reader.fieldnames or []]
        reader.fieldnames = header
        missing = [column for column in NEEDED if column not in header]
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
    numbers, notes = _number([cells["identity"] for _, cells in lines])
    if "split" not in header:
        notes.append("the table has no column 'split'; all pictures count as test")
    entries = [
        _table_entry(cells, identity, root=root, where=f"{where}, line {line}")
        for (line, cells), identity in zip(lines, numbers, strict=True)
    ]
    absent = {entry.path for entry in entries if not os.path.isfile(root / entry.path)}
    gone = [entry.path for entry in entries if entry.path in absent]
    report_missing(gone, root=root, named_by=name, survey=survey)
    return assemble("folder", root, [entry for entry in entries if entry.path not in absent], notes=notes)


def _table_entry(cells: dict[str, str], identity: int, *, root: Path, where: str) -> Entry:
    """Turn one line of the table into an entry."""
    for column in ("path", "identity"):
        if not cells[column]:
            raise BadInput(f"{where}: '{column}' is empty")
    try:
        modality = _modality(cells["modality"])
        split = cells.get("split", "test").lower()
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    camera = CAMERA_CELL.fullmatch(cells["camera"]) if cells["camera"] else None
    if camera is None and cells["camera"]:
        raise BadInput(f"{where}: camera '{cells['camera'][:40]}' is not a number")
    try:
        time = float(cells.get("time") or "nan")
    except ValueError:
        raise BadInput(f"{where}: time '{cells['time'][:40]}' is not a number of seconds") from None
    path = PurePosixPath(cells["path"].replace("\\", "/"))
    if path.is_absolute() and path.is_relative_to(root.absolute().as_posix()):
        path = path.relative_to(root.absolute().as_posix())
    return Entry(str(path), identity, int(camera[1]) if camera else int(modality), modality, split, time)


def _from_folders(root: Path) -> Records:
    tree = Tree.scan(root)
    splits = [name for name in folder_names(root) if name in SPLITS]
    if not splits:
        tables = sorted(p.name for p in root.glob("*.csv"))
        hint = f"; to read the table {tables[0]}, give the path of that file" if tables else ""
        raise BadInput(f"{root} has neither {TABLE} nor folders <train|val|test>/<visible|infrared>/<identity>{hint}")
    found: list[tuple[str, Modality, str, str]] = []
    stray = 0
    for path in tree.pictures:
        parts = path.split("/")
        if len(parts) > 1 and parts[0] not in SPLITS:
            raise unknown("split folder", parts[0], SPLITS)
        if len(parts) < 4:
            stray += 1
            continue
        found.append((parts[0], _modality(parts[1]), parts[2], path))
    numbers, notes = _number([name for _, _, name, _ in found])
    entries = [
        Entry(path, identity, _camera_in(path, modality), modality, split)
        for (split, modality, _, path), identity in zip(found, numbers, strict=True)
    ]
    entries.sort(key=lambda e: (SPLITS.index(e.split), e.modality, e.identity, e.path))
    if stray:
        notes.append(f"{stray} pictures are not at <split>/<modality>/<identity>/<name> and are left out")
    return assemble("folder", root, entries, notes=notes)


def _camera_in(path: str, modality: Modality) -> int:
    """The camera number in a file name, or the number of the modality if the name has none.

    >>> _camera_in("test/visible/7/cam12_0001.jpg", Modality.VISIBLE)
    12
    >>> _camera_in("test/infrared/cam4/scamp3.jpg", Modality.INFRARED)
    1
    """
    token = CAMERA_TOKEN.search(PurePosixPath(path).stem)
    return int(token[1]) if token else int(modality)


def _modality(word: str) -> Modality:
    found = MODALITIES.get(word.lower())
    if found is None:
        raise unknown("modality", word, MODALITIES)
    return found


def _number(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Identity numbers and notes: the names if all of them are numbers, otherwise their positions in sorted order."""
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in names):
        return [int(name) for name in names], []
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    return [order[name] for name in names], [f"{len(order)} identity names were numbered in sorted order"]
