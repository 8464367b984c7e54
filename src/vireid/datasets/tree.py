"""Shared by the readers: find the pictures below a root, read lists, and turn entries into `Records`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.pictures import Scaling
from vireid.data.records import Records

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
# No layout has more than four levels of folders. The limit ends the search if links form a circle.
DEEPEST = 8
DESCRIPTION = "pictures.yaml"


class Entry(NamedTuple):
    """One picture as its layout describes it. `path` is relative to the root, with forward slashes."""

    path: str
    identity: int
    camera: int
    modality: Modality
    split: str
    time: float = float("nan")
    tracklet: int = -1


@dataclass
class Survey:
    """What a reader collects for the dataset doctor, instead of raising an exception at the first missing file.

    Attributes:
        missing: (list, entry) for every entry of a list without a file.
        known: paths that a list names although no record uses them.
    """

    missing: list[tuple[str, str]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Tree:
    """The picture files below some folders of a root. They are found without opening or querying single files.

    Attributes:
        root: the folder.
        pictures: paths relative to the root, with forward slashes, sorted.
    """

    root: Path
    pictures: tuple[str, ...]
    _present: frozenset[str] = field(repr=False, compare=False)
    _by_stem: dict[str, list[str]] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def scan(cls, root: Path, folders: Iterable[str] | None = None) -> Tree:
        """Search these folders of the root (None: all). A folder that does not exist counts as empty.

        Raises:
            BadInput: the root is missing, is not a folder, is empty, or cannot be read.
        """
        tops = folder_names(root) if folders is None else folders
        found = []
        if folders is None:
            found += [name for name in _file_names(root) if is_picture(name)]
        for top in tops:
            if (root / top).is_dir():
                found += _walk(str(root / top), top, DEEPEST)
        found.sort()
        return cls(root=root, pictures=tuple(found), _present=frozenset(found))

    def find(self, path: str) -> str | None:
        """The file of a list's entry: the entry itself, or the only picture that differs from it by its extension."""
        if path in self._present:
            return path
        if not self._by_stem and self.pictures:
            for picture in self.pictures:
                self._by_stem.setdefault(picture.rpartition(".")[0], []).append(picture)
        candidates = self._by_stem.get(path.rpartition(".")[0], [])
        return candidates[0] if len(candidates) == 1 else None

    def find_all(self, paths: Sequence[str], *, named_by: str, survey: Survey | None) -> list[str | None]:
        """The files of the entries of a list, in the order of the list. An entry without a file gives None.

        Raises:
            BadInput: entries have no file and there is no survey; the sentence names the first and their number.
        """
        found = [self.find(path) for path in paths]
        missing = [path for path, file in zip(paths, found, strict=True) if file is None]
        report_missing(missing, root=self.root, named_by=named_by, survey=survey)
        return found


def report_missing(missing: list[str], *, root: Path, named_by: str, survey: Survey | None) -> None:
    """Add entries without a file to the survey, or raise an exception if there is none.

    Raises:
        BadInput: there are such entries and no survey.
    """
    if survey is not None:
        survey.missing += [(named_by, path) for path in missing]
    elif missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(f"{named_by} names {missing[0]}{others} ({len(missing)} in all), which {root} does not hold")


def assemble(
    layout: str, root: Path, entries: Sequence[Entry], *, notes: Sequence[str] = (), fold: int | None = None
) -> Records:
    """Turn entries into `Records`, in the order given.

    Notes tell how many pictures are unlabelled, and which identities have one modality only.

    Raises:
        BadInput: there are no entries.
    """
    if not entries:
        raise BadInput(f"{root} holds no pictures in the {layout} layout")
    columns = list(zip(*entries, strict=True))
    time = np.asarray(columns[5], dtype=np.float64)
    tracklet = np.asarray(columns[6], dtype=np.int64)
    records = Records(
        layout=layout,
        root=root,
        path=np.asarray(columns[0], dtype=object),
        identity=np.asarray(columns[1], dtype=np.int64),
        camera=np.asarray(columns[2], dtype=np.int64),
        modality=np.asarray(columns[3], dtype=np.int8),
        split=np.asarray(columns[4]),
        time=None if np.isnan(time).all() else time,
        fold=fold,
        tracklet=None if (tracklet < 0).all() else tracklet,
        notes=tuple(notes),
    )
    added = []
    if unlabelled := len(records) - len(records.labelled()):
        added.append(f"{unlabelled} unlabelled pictures are not trained on, and are neither queries nor in a gallery")
    lonely = [f"{identity} ({split})" for split, identity, _ in one_modality_only(records)]
    if lonely:
        shown = ", ".join(lonely[:5]) + (" …" if len(lonely) > 5 else "")
        added.append(f"{len(lonely)} identities have pictures of one modality only: {shown}")
    return replace(records, notes=(*records.notes, *added))


def one_modality_only(records: Records) -> list[tuple[str, int, Modality]]:
    """The identities with pictures of one modality only in a split: (split, identity, the modality it has), sorted."""
    lonely, records = [], records.labelled()
    for split in np.unique(records.split):
        inside = records.split == split
        seen = {m: np.unique(records.identity[inside & (records.modality == m)]) for m in (0, 1)}
        for m in (0, 1):
            lonely += [(str(split), int(i), Modality(m)) for i in np.setdiff1d(seen[m], seen[1 - m])]
    return sorted(lonely)


def read_list(root: Path, name: str) -> str:
    """Read the text of a list file, without a byte-order mark.

    Raises:
        BadInput: the file is missing, cannot be read, or is not text.
    """
    try:
        return (root / name).read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{root} has no {name}, which this layout needs") from None
    except UnicodeDecodeError:
        raise BadInput(f"{root / name} is not a text file in UTF-8") from None
    except OSError as error:
        raise BadInput(f"{root / name} cannot be read: {error.strerror}") from None


def scaling_of(folder: Path) -> str:
    """The rule for grey pictures with 16 bits that `pictures.yaml` in the folder states; `full` without it.

    Raises:
        BadInput: the description cannot be read, or has another entry or an unknown rule.
    """
    import yaml

    file = folder / DESCRIPTION
    if not file.exists():
        return "full"
    try:
        said = yaml.safe_load(read_list(folder, DESCRIPTION))
    except yaml.YAMLError as error:
        raise BadInput(f"{file} is not YAML: {' '.join(str(error).split())[:160]}") from None
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise BadInput(f"{file} holds no entries; it takes a line such as scaling: percentile")
    if strange := [name for name in said if name != "scaling"]:
        raise unknown(f"entry in {file}", strange[0], ["scaling"])
    try:
        Scaling.parse(str(said.get("scaling", "full")))
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    return str(said.get("scaling", "full"))


def labelled_paths(root: Path, name: str) -> list[str]:
    """Read the paths of a list with lines "relative path, blank, label".

    Raises:
        BadInput: the list is missing or empty, or a line does not have this form.
    """
    paths = []
    for number, line in enumerate(read_list(root, name).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.rsplit(None, 1)
        if len(parts) != 2 or not parts[1].isdecimal():
            raise BadInput(f"{root / name}, line {number}: expected 'path label', found '{line.strip()[:80]}'")
        paths.append(str(PurePosixPath(parts[0].strip().replace("\\", "/"))))
    if not paths:
        raise BadInput(f"{root / name} is empty")
    return paths


def folder_names(root: Path) -> list[str]:
    """The names of the folders in a root that are not hidden, sorted.

    Raises:
        BadInput: the root is missing, is not a folder, is empty, or cannot be read.
    """
    try:
        with os.scandir(root) as listing:
            entries = [(entry.name, entry.is_dir()) for entry in listing if not entry.name.startswith(".")]
    except FileNotFoundError:
        raise BadInput(f"{root} does not exist") from None
    except NotADirectoryError:
        raise BadInput(f"{root} is not a folder") from None
    except OSError as error:
        raise BadInput(f"{root} cannot be read: {error.strerror}") from None
    if not entries:
        raise BadInput(f"{root} is empty")
    return sorted(name for name, is_folder in entries if is_folder)


def is_picture(name: str) -> bool:
    """Whether a file name has a picture's extension and is not hidden (macOS creates hidden `._name.jpg` files)."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _file_names(root: Path) -> list[str]:
    with os.scandir(root) as listing:
        return [entry.name for entry in listing if entry.is_file()]


def _walk(folder: str, relative: str, depth: int) -> list[str]:
    """The pictures below `folder`, as `relative/…`. Only the folders are read; no picture is opened."""
    found, below = [], []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if entry.name.startswith("."):
                    continue
                if _leads_down(entry, folder):
                    below.append(entry.name)
                elif is_picture(entry.name):
                    found.append(f"{relative}/{entry.name}")
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from None
    if depth > 1:
        for name in below:
            found += _walk(f"{folder}/{name}", f"{relative}/{name}", depth - 1)
    return found


def _leads_down(entry: os.DirEntry[str], folder: str) -> bool:
    """Whether an entry of `folder` is a folder to search. A link to a folder above it is not."""
    try:
        if not entry.is_dir():
            return False
    except OSError:  # a link to itself; if it is named like a picture, `read_picture` refuses it
        return False
    if not entry.is_symlink():
        return True
    here, there = os.path.realpath(folder), os.path.realpath(entry.path)
    return os.path.commonpath([here, there]) != there
