"""The carrier between files on disk and everything else: one row per picture."""

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
    """The pictures of a data set, one row each, validated once and then trusted.

    Rows stand in the data set's own file order; protocols that draw at random depend on it.

    Attributes:
        layout: name of the layout that read them, e.g. `sysu-mm01`.
        root: folder that every `path` is relative to.
        path: N strings, relative to `root`, with forward slashes.
        identity: N int64, the data set's own identity numbers (not 0..n-1: see `labels`).
        camera: N int64, the data set's own camera numbers.
        modality: N int8, values of `Modality` (0 visible, 1 infrared).
        split: N strings, each one of `train`, `val`, `test`.
        time: N float64 seconds, NaN where unknown; None where the layout has no times.
        trial: which of RegDB's ten splits this is; None where a layout has only one split.
    """

    layout: str
    root: Path
    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray
    modality: np.ndarray
    split: np.ndarray
    time: np.ndarray | None = None
    trial: int | None = None
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
        rows = len(columns["path"])
        for name, column in columns.items():
            if column.ndim != 1 or len(column) != rows:
                raise BadInput(f"records: column '{name}' has shape {column.shape}, 'path' has {rows} rows")
            object.__setattr__(self, name, column)
        wrong = ~np.isin(columns["modality"], (0, 1))
        if wrong.any():
            raise BadInput(f"records: modality {columns['modality'][wrong][0]}; choices: 0 (visible), 1 (infrared)")
        strange = set(np.unique(columns["split"])) - set(SPLITS)
        if strange:
            raise BadInput(f"records: split '{sorted(strange)[0]}'; choices: {', '.join(SPLITS)}")

    def __len__(self) -> int:
        return len(self.path)

    def take(self, rows: np.ndarray | Sequence[int]) -> Records:
        """These rows (integers or a mask), in the order given."""
        chosen = {f.name: getattr(self, f.name)[rows] for f in fields(self) if self._is_column(f.name)}
        return replace(self, **chosen)

    def where(self, *, split: str | Sequence[str] | None = None, modality: int | None = None) -> Records:
        """The rows of these splits and this modality, in file order."""
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= np.isin(self.split, [split] if isinstance(split, str) else list(split))
        if modality is not None:
            keep &= self.modality == modality
        return self.take(np.flatnonzero(keep))

    def file(self, row: int) -> Path:
        """Where the picture of this row lies."""
        return self.root / self.path[row]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Identities renumbered for a classifier.

        Returns:
            labels: N int64 in 0..n-1, ascending with the identity, the same map for both modalities.
            identities: n int64, the data set's own number of each label.
        """
        identities, labels = np.unique(self.identity, return_inverse=True)
        return labels.astype(np.int64), identities

    def fingerprint(self) -> str:
        """A hash of every row, so that a run can tell whether it meets the same data again.

        It covers names, identities, cameras, modalities and splits; not the root (data may move) and not the pixels
        (hashing 46,000 files would cost minutes).
        """
        digest = hashlib.sha256(self.layout.encode())
        for row in zip(self.path, self.identity, self.camera, self.modality, self.split, strict=True):
            digest.update("\0".join(map(str, row)).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def _is_column(self, name: str) -> bool:
        return isinstance(getattr(self, name), np.ndarray)
