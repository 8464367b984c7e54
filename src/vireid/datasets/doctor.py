"""The dataset doctor: count what a data set holds, compare it with the published counts, and find bad files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.pictures import Scaling, deep_values, is_picture_start, read_picture, without_waiting
from vireid.data.records import SPLITS, Records
from vireid.datasets.tree import DESCRIPTION, Survey, Tree, one_modality_only

Progress = Callable[[int, int], None]

KINDS = {
    "missing": "entries of lists without a file",
    "empty": "empty files",
    "not a picture": "files that are not pictures",
    "unreadable": "pictures that cannot be decoded",
    "duplicate": "files with the same content as an earlier one",
    "shared identity": "identities in more than one split",
    "unlisted": "folders with pictures that no list names",
    "one modality": "identities with one modality only",
}
UNREADABLE = ("missing", "empty", "not a picture", "unreadable")
FEW_LEVELS = 64  # of 256 grey levels: a picture with fewer has lost most of its contrast


class Problem(NamedTuple):
    """One finding: its kind (a key of `KINDS`), the path relative to the root, and a short explanation."""

    kind: str
    path: str
    detail: str


@dataclass(frozen=True)
class Checkup:
    """What the doctor found.

    Attributes:
        layout: the layout's name.
        root: the folder.
        counts: the counts found, by name (see `counts`).
        expected: the published counts, by the same names; empty for own data.
        differences: one sentence for each count that is not as expected. They are not errors, because a part of a data
            set can be used too.
        problems: all findings about single files or identities.
        usable: number of records with a usable picture.
        decoded: whether every picture was decoded.
        notes: the notes of the reader.
    """

    layout: str
    root: Path
    counts: dict[str, int]
    expected: dict[str, int]
    differences: list[str]
    problems: list[Problem]
    usable: int
    decoded: bool
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[str]:
        """Why this data set should not be used as it is, one sentence each; empty for a healthy one."""
        unreadable = sum(problem.kind in UNREADABLE for problem in self.problems)
        shared = sum(problem.kind == "shared identity" for problem in self.problems)
        found = [f"{unreadable} pictures cannot be read"] if unreadable else []
        return found + ([f"{shared} identities are in more than one split"] if shared else [])

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values. A problem is an object with `kind`, `path` and `detail`."""
        return {
            "layout": self.layout,
            "root": str(self.root),
            "counts": self.counts,
            "expected": self.expected,
            "differences": self.differences,
            "problems": [problem._asdict() for problem in self.problems],
            "usable": self.usable,
            "decoded": self.decoded,
            "notes": list(self.notes),
            "failures": self.failures,
        }

    def remarks(self, *, shown: int = 5) -> list[str]:
        """Notes, differences, and up to `shown` problems of each kind, as lines of text."""
        text = [f"note: {note}" for note in self.notes]
        text += [f"differs: {difference}" for difference in self.differences]
        for kind, words in KINDS.items():
            found = [problem for problem in self.problems if problem.kind == kind]
            if found:
                text.append(f"{len(found)} {words}:")
                text += [f"  {problem.path}: {problem.detail}" for problem in found[:shown]]
            if len(found) > shown:
                text.append(f"  … and {len(found) - shown} more")
        how = "every picture was decoded" if self.decoded else "no picture was decoded"
        text.append(f"{self.usable} of {self.counts['pictures']} pictures are usable ({how})")
        return text


def counts(records: Records) -> dict[str, int]:
    """Count pictures, identities, cameras and identity-camera pairs, by split, modality and camera.

    Pictures of unknown people are counted apart, and only there.
    """
    everything, records = records, records.labelled()
    unlabelled = len(everything) - len(records)
    found = {
        "pictures": len(everything),
        **({"unlabelled pictures": unlabelled} if unlabelled else {}),
        "identities": len(np.unique(records.identity)),
        "cameras": len(np.unique(everything.camera)),
    }
    pairs = np.stack([records.identity, records.camera], axis=1)
    for split in [s for s in ("train", "val", "test") if (records.split == s).any()]:
        inside = records.split == split
        found[f"{split} identities"] = len(np.unique(records.identity[inside]))
        for modality in (Modality.VISIBLE, Modality.INFRARED):
            chosen = inside & (records.modality == modality)
            found[f"{split} {modality.word} pictures"] = int(chosen.sum())
            found[f"{split} {modality.word} identity-camera pairs"] = len(np.unique(pairs[chosen], axis=0))
        for camera in np.unique(records.camera[inside]):
            chosen = inside & (records.camera == camera)
            found[f"{split} camera {camera} identities"] = len(np.unique(records.identity[chosen]))
            found[f"{split} camera {camera} pictures"] = int(chosen.sum())
    return found


def examine(
    records: Records, *, expected: dict[str, int], survey: Survey, decode: bool, progress: Progress | None = None
) -> Checkup:
    """Examine the records that a reader found, and the files that it did not use.

    Args:
        records: the records of the reader.
        expected: the counts to compare with.
        survey: what the reader did not find.
        decode: decode every picture.
        progress: called as `progress(done, total)` about a hundred times.
    """
    # A table may be in a folder with many other files. So only folders with records are searched for unlisted pictures.
    tops = sorted({path.split("/")[0] for path in records.path if "/" in path and not path.startswith(("/", ".."))})
    tree = Tree.scan(records.root, tops)
    found = {"picture files": len(tree.pictures), **counts(records)}
    problems = [Problem("missing", path, f"named by {named_by}") for named_by, path in survey.missing]
    ill, identical = _look_at_files(records, decode=decode, progress=progress)
    problems += ill + identical + _unlisted(tree, {*records.path, *survey.known})
    for split, identity, modality in one_modality_only(records):
        problems.append(Problem("one modality", f"identity {identity}", f"only {modality.word} pictures in {split}"))
    problems += _shared(records)
    differences = [
        f"{name}: {found.get(name, 0)} found, {number} expected"
        for name, number in expected.items()
        if found.get(name, 0) != number
    ]
    for name in expected:
        found.setdefault(name, 0)
    unusable = {problem.path for problem in ill}
    return Checkup(
        layout=records.layout,
        root=records.root,
        counts=found,
        expected=dict(expected),
        differences=differences,
        problems=problems,
        usable=sum(path not in unusable for path in records.path),
        decoded=decode,
        notes=(*records.notes, *depth_notes(records)),
    )


def depth_notes(records: Records, *, sample: int = 32) -> list[str]:
    """Notes about grey pictures with more than 8 bits which the data set's scaling makes nearly black or uniform.

    Args:
        records: the records.
        sample: how many pictures of each modality are decoded.

    Returns:
        At most one sentence for each modality.
    """
    found = []
    for modality in (Modality.VISIBLE, Modality.INFRARED):
        own = records.where(modality=modality)
        chosen = np.sort(np.random.default_rng(0).permutation(len(own))[:sample])
        ranges = [one for record in chosen.tolist() if (one := _deep_values(own.file(record))) is not None]
        if not ranges or records.scaling.startswith("percentile"):
            continue
        low, high = min(one[0] for one in ranges), max(one[1] for one in ranges)
        dark, bright = Scaling.parse(records.scaling).apply(np.array([low, high])).astype(int).tolist()
        if bright - dark >= FEW_LEVELS:
            continue
        values = f"reach only {high:,}" if low < 257 else f"lie between {low:,} and {high:,}"
        how = "black" if bright < FEW_LEVELS else "white" if dark > 255 - FEW_LEVELS else "uniform"
        found.append(
            f"{len(ranges)} of {len(chosen)} sampled {modality.word} pictures have 16 bits, and their values {values} "
            f"of 65,535: with scaling '{records.scaling}' they will be nearly {how}; write scaling: percentile or "
            f"scaling: window:{low}-{max(high, low + 1)} into {records.root / DESCRIPTION}"
        )
    return found


def _deep_values(file: Path) -> tuple[int, int] | None:
    try:
        return deep_values(file)
    except BadInput:  # found and named by `_look_at_files`, or by training
        return None


def _shared(records: Records) -> list[Problem]:
    """One problem for each identity that has pictures in more than one split."""
    problems = []
    for identity in records.shared_identities().tolist():
        own = records.split[records.identity == identity]
        splits = " and ".join(split for split in SPLITS if split in own)
        problems.append(Problem("shared identity", f"identity {identity}", f"has pictures in {splits}"))
    return problems


def _look_at_files(records: Records, *, decode: bool, progress: Progress | None) -> tuple[list[Problem], list[Problem]]:
    """Find the files that cannot be used, and the files with the same content as an earlier one."""
    ill: list[Problem] = []
    repeated: list[Problem] = []
    # Many JPEGs have the same size by chance. Some bytes from the middle distinguish nearly all of them, so only few
    # files are read completely.
    alike: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)
    every = max(1, len(records) // 100)
    seen: set[str] = set()
    for done, path in enumerate(records.path):
        if progress is not None and done % every == 0:
            progress(done, len(records))
        if path in seen:
            repeated.append(Problem("duplicate", path, "has more than one record"))
            continue
        seen.add(path)
        problem, key = _look_at_file(records.root / path, path)
        if problem is None and decode:
            try:
                read_picture(records.root / path)
            except BadInput as error:
                problem = Problem("unreadable", path, str(error))
        if problem is not None:
            ill.append(problem)
        elif key is not None:
            alike[key].append(path)
    if progress is not None:
        progress(len(records), len(records))
    return ill, repeated + _duplicates(records.root, alike.values())


def _look_at_file(file: Path, path: str) -> tuple[Problem | None, tuple[int, bytes] | None]:
    """The problem of a file, or a key that is the same for files with the same content."""
    try:
        with open(file, "rb", opener=without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Problem("not a picture", path, "is not a regular file"), None
            if status.st_size == 0:
                return Problem("empty", path, "has no bytes"), None
            head = stream.read(32)
            stream.seek(status.st_size // 2)
            middle = stream.read(64)
    except OSError as error:
        return Problem("unreadable", path, error.strerror or "cannot be opened"), None
    if not is_picture_start(head):
        return Problem("not a picture", path, f"begins with {head[:8]!r}"), None
    return None, (status.st_size, head + middle)


def _duplicates(root: Path, groups: Iterable[list[str]]) -> list[Problem]:
    """One problem for each file that has the content of an earlier file of its group."""
    problems = []
    for group in groups:
        if len(group) < 2:
            continue
        first: dict[bytes, str] = {}
        for path in group:
            digest = hashlib.blake2b((root / path).read_bytes(), digest_size=16).digest()
            original = first.setdefault(digest, path)
            if original != path:
                problems.append(Problem("duplicate", path, f"same content as {original}"))
    return problems


def _unlisted(tree: Tree, known: set[str]) -> list[Problem]:
    """One problem for each folder with pictures that are not in `known`."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in tree.pictures:
        if path not in known:
            folders[path.rpartition("/")[0]].append(path)
    return [
        Problem("unlisted", folder, f"{len(paths)} pictures without an entry, such as {paths[0].rpartition('/')[2]}")
        for folder, paths in sorted(folders.items())
    ]
