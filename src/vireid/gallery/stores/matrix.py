"""The vectors of one modality on disk: an append-only file of float32, and one of int8 codes beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.stored import sync_folder
from vireid.gallery.stores.product import code_type, encode

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Matrix:
    """N vectors of one modality, in one generation of files.

    N is known to the database, not to the files. What lies behind the N-th vector was never acknowledged, and the next
    writer overwrites it. A place, once given, keeps its vector; `compact` of the store begins a new generation.
    """

    def __init__(self, folder: Path, modality: Modality, generation: int, width: int) -> None:
        stem = f"{modality.word}-{generation}"
        self.files = (
            (folder / f"{stem}.float32", np.dtype(("<f4", (width,)))),
            (folder / f"{stem}.int8", code_type(width)),
        )
        self.generation = generation
        self._mapped: tuple[int, np.ndarray, np.ndarray] | None = None

    def append(self, count: int, vectors: np.ndarray) -> None:
        """Write vectors (M×D float32) behind the first `count` ones. When this returns, they are on disk."""
        for (file, kind), values in zip(self.files, (vectors, encode(vectors)), strict=True):
            with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600), "r+b") as opened:
                _check(file, opened.fileno(), count * kind.itemsize)
                opened.seek(count * kind.itemsize)
                opened.write(np.ascontiguousarray(values).data)
                opened.truncate()
                opened.flush()
                os.fsync(opened.fileno())
        if count == 0:
            sync_folder(self.files[0][0].parent)

    def cut(self, count: int) -> None:
        """Remove what lies behind the first `count` vectors: a writer was stopped before it could commit."""
        for file, kind in self.files:
            if file.exists() and file.stat().st_size > count * kind.itemsize:
                with os.fdopen(os.open(file, os.O_RDWR | _NO_LINKS), "r+b") as opened:
                    opened.truncate(count * kind.itemsize)

    def read(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` vectors (N×D float32) and their codes, mapped from the files.

        Raises:
            BadInput: a file is shorter, or is a link.
            FileNotFoundError: a file is not there.
        """
        mapped = self._mapped
        if mapped is None or mapped[0] < count:
            mapped = count, self._map(0, count), self._map(1, count)
            self._mapped = mapped
        return mapped[1][:count], mapped[2][:count]

    def _map(self, which: int, count: int) -> np.ndarray:
        file, kind = self.files[which]
        if count == 0:
            return np.empty(0, kind)
        with os.fdopen(os.open(file, os.O_RDONLY | _NO_LINKS), "rb") as opened:
            _check(file, opened.fileno(), count * kind.itemsize)
            # A plain array over the mapped bytes: subclasses of arrays make each small operation slower.
            return np.asarray(np.memmap(opened, kind.base, "r", shape=(count, *kind.shape)))


def remove_others(folder: Path, current: Sequence[Matrix]) -> None:
    """Delete files of vectors that are of no current generation: those of an interrupted or a finished `compact`."""
    known = {file.name for matrix in current for file, _ in matrix.files}
    for suffix in ("float32", "int8"):
        for file in folder.glob(f"*-*.{suffix}"):
            if file.name not in known:
                file.unlink(missing_ok=True)


def check_regular(file: Path) -> None:
    """Check that a file of a gallery is no link and no device, if it exists.

    Raises:
        BadInput: it is one.
    """
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise BadInput(f"{file} is a link or no regular file: this gallery was altered, and is not opened")


def _check(file: Path, descriptor: int, least: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{file} is no regular file: this gallery was altered, and is not opened")
    if found.st_size < least:
        raise BadInput(f"{file} has {found.st_size} bytes, and at least {least} were written: the gallery is damaged")
