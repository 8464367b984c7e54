"""The pictures of a data set and what is known of them, one record for each picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Records:
    """The pictures of a data set: one array per property, one entry for each picture.

    The arrays are checked once, here. The records are in the file order of the data set, and protocols that draw at
    random depend on this order.

    Attributes:
        layout: name of the layout that read them, e.g. `sysu-mm01`.
        root: the folder that every `path` is relative to.
        path: N strings, relative to `root`, with forward slashes.
        identity: N int64, the data set's own identity numbers (not 0..n-1: see `labels`).
        camera: N int64, the data set's own camera numbers.
        modality: N int8, values of `Modality` (0 visible, 1 infrared).
        split: N strings, each one of `train`, `val`, `test`.
        time: N float64 seconds, NaN where unknown; None where the layout has no times. Training and evaluation do not
            use it: the gallery will.
        fold: which of RegDB's ten folds this is, 1 to 10; None where a layout has only one.
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
            labels: N int64 in 0..n-1, in the order of the identity numbers, the same for both modalities.
            identities: n int64, the data set's own identity number of each label.
        """
        identities, labels = np.unique(self.identity, return_inverse=True)
        return labels.astype(np.int64), identities

    def fingerprint(self) -> str:
        """A hash of all records. A run compares it to find out whether it reads the same data again.

        It covers paths, identities, cameras, modalities and splits. It does not cover the root, because data may be
        moved, and not the pixels, because hashing 46,000 files takes minutes.

        Returns:
            16 hexadecimal digits.
        """
        digest = hashlib.sha256(self.layout.encode())
        for record in zip(self.path, self.identity, self.camera, self.modality, self.split, strict=True):
            digest.update("\0".join(map(str, record)).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def _is_column(self, name: str) -> bool:
        return isinstance(getattr(self, name), np.ndarray)
