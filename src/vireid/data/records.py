"""The pictures of a data set and what is known of them, one record for each picture."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput

SPLITS = ("train", "val", "test")
UNLABELLED = -1
"""The identity of a picture of an unknown person. It is not trained on, and is neither a query nor in a gallery."""


@dataclass(frozen=True)
class Records:
    """The pictures of a data set: one array per property, one entry for each picture.

    The arrays are checked once, here. The records are in the file order of the data set, and protocols that draw at
    random depend on this order.

    Attributes:
        layout: name of the layout that read them, e.g. `sysu-mm01`.
        root: the folder that every `path` is relative to.
        path: N strings, relative to `root`, with forward slashes.
        identity: N int64, the data set's own identity numbers (not 0..n-1: see `labels`); `UNLABELLED` where the
            person is not known.
        camera: N int64, the data set's own camera numbers.
        modality: N int8, values of `Modality` (0 visible, 1 infrared).
        split: N strings, each one of `train`, `val`, `test`.
        time: N float64 seconds, NaN where unknown; None where the layout has no times. Training and evaluation do not
            use it: the gallery will.
        fold: which of RegDB's ten folds this is, 1 to 10; None where a layout has only one.
        tracklet: N int64; pictures of one person at one camera with the same number, 0 or more, are one tracklet. -1
            for a picture in none; None where the layout has no tracklets. Only protocols that rank tracklets use it.
        scaling: how grey pictures with 16 bits become 8 bits, see `vireid.data.pictures.Scaling`.
        notes: sentences about the data set for the user, such as how many pictures the reader left out.

    Raises (when an instance is made):
        BadInput: the arrays differ in length, or a modality or a split is not one of the choices.
    """

    layout: str
    root: Path
    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray
    modality: np.ndarray
    split: np.ndarray
    time: np.ndarray | None = None
    fold: int | None = None
    tracklet: np.ndarray | None = None
    scaling: str = "full"
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        columns = {
            "path": np.asarray(self.path, dtype=object),
            "identity": np.asarray(self.identity, dtype=np.int64),
            "camera": np.asarray(self.camera, dtype=np.int64),
            "modality": np.asarray(self.modality, dtype=np.int8),
            "split": np.asarray(self.split, dtype="<U5"),
        }
        if self.time is not None:
            columns["time"] = np.asarray(self.time, dtype=np.float64)
        if self.tracklet is not None:
            columns["tracklet"] = np.asarray(self.tracklet, dtype=np.int64)
        records = len(columns["path"])
        for name, column in columns.items():
            if column.ndim != 1 or len(column) != records:
                raise BadInput(f"records: column '{name}' has shape {column.shape}, 'path' has {records} entries")
            object.__setattr__(self, name, column)
        wrong = ~np.isin(columns["modality"], (0, 1))
        if wrong.any():
            raise BadInput(f"records: modality {columns['modality'][wrong][0]}; choices: 0 (visible), 1 (infrared)")
        strange = set(np.unique(columns["split"])) - set(SPLITS)
        if strange:
            raise BadInput(f"records: split '{sorted(strange)[0]}'; choices: {', '.join(SPLITS)}")
        if self.scaling != "full":
            from vireid.data.pictures import Scaling  # imports Pillow

            Scaling.parse(self.scaling)

    def __len__(self) -> int:
        return len(self.path)

    def take(self, chosen: np.ndarray | Sequence[int]) -> Records:
        """The records at these positions (integers, in the order given) or where this mask is true."""
        columns = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if self._is_column(f.name)}
        return replace(self, **columns)

    def where(self, *, split: str | Sequence[str] | None = None, modality: int | None = None) -> Records:
        """The records of these splits and this modality, in file order; None takes all."""
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= np.isin(self.split, [split] if isinstance(split, str) else list(split))
        if modality is not None:
            keep &= self.modality == modality
        return self.take(np.flatnonzero(keep))

    def file(self, record: int) -> Path:
        """The picture file of a record, by its position."""
        return self.root / self.path[record]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Identity labels for a classifier, which start at 0 and have no gaps.

        Returns:
            labels: N int64 in 0..n-1, in the order of the identity numbers, the same for both modalities; -1 for
                unlabelled pictures.
            identities: n int64, the data set's own identity number of each label.
        """
        known = self.identity != UNLABELLED
        identities, found = np.unique(self.identity[known], return_inverse=True)
        labels = np.full(len(self), -1, dtype=np.int64)
        labels[known] = found.reshape(-1)
        return labels, identities

    def labelled(self) -> Records:
        """The records of known people; the same object if all of them are."""
        known = self.identity != UNLABELLED
        return self if known.all() else self.take(known)

    def with_scaling(self, rule: str) -> Records:
        """The records, read by this scaling, unless the data set itself states one."""
        return replace(self, scaling=rule) if self.scaling == "full" else self

    def shared_identities(self, *splits: str) -> np.ndarray:
        """The people who have pictures in more than one of these splits, as n int64, ascending; without any, of all."""
        people = [np.unique(self.labelled().where(split=split).identity) for split in splits or SPLITS]
        found, times = np.unique(np.concatenate(people), return_counts=True)
        return found[times > 1]

    def refuse_overlap(self, allowed: bool) -> int:
        """Refuse records in which a person is in more than one split, unless it is allowed.

        Returns:
            How many people are in more than one split.

        Raises:
            BadInput: there are some, and it is not allowed.
        """
        shared = self.shared_identities()
        if len(shared) and not allowed:
            own = self.split[self.identity == shared[0]]
            where = " and ".join(split for split in SPLITS if split in own)
            raise BadInput(
                f"{Path(self.root).resolve()}: {len(shared)} identities are in more than one split, such as "
                f"{shared[0]} in {where}, so results would be inflated; vireid data split gives each person one split, "
                "and vireid train and test take --allow-overlap"
            )
        return len(shared)

    def fingerprint(self) -> str:
        """A hash of all records. A run compares it to find out whether it reads the same data again.

        It covers paths, identities, cameras, modalities, splits and the scaling. It does not cover the root, because
        data may be moved, and not the pixels: see `content_fingerprint`.

        Returns:
            16 hexadecimal digits.
        """
        digest = hashlib.sha256(self.layout.encode())
        if self.scaling != "full":
            digest.update(f"\0{self.scaling}\0".encode())
        for record in zip(self.path, self.identity, self.camera, self.modality, self.split, strict=True):
            digest.update("\0".join(map(str, record)).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def _is_column(self, name: str) -> bool:
        return isinstance(getattr(self, name), np.ndarray)


def content_fingerprint(records: Records, *, sample: int = 64) -> str:
    """A hash of the picture files. It tells data sets apart that have equal records but other pictures.

    It covers the size of every file, and all bytes of a sample of the files. The sample depends on the records only. So
    a change that keeps the size of a file is found only if the file is in the sample. 46,000 files take about a second.

    Args:
        records: the records.
        sample: how many files are read completely.

    Returns:
        16 hexadecimal digits. A file that cannot be read counts as one of its own kind, because training or testing
        will report it.
    """
    digest = hashlib.sha256()
    for path in records.path:
        digest.update(b"%d\n" % _size(os.path.join(records.root, path)))
    seed = int(records.fingerprint(), 16)
    chosen = np.random.default_rng(seed).permutation(len(records))[:sample]
    for record in np.sort(chosen).tolist():
        file = records.file(record)
        try:
            digest.update(hashlib.sha256(file.read_bytes() if _size(str(file)) >= 0 else b"").digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def _size(file: str) -> int:
    """Bytes of a file, or -1 if there is none. A pipe counts as none: reading it would wait."""
    try:
        status = os.stat(file)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
