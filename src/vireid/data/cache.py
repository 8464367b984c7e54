"""Resized pictures in one memory-mapped file: an optional shortcut past decoding, filled while it is used.

There is nothing to prepare. A row that is not there yet is decoded, resized, stored and returned; the next epoch, or
another process, reads it in a fraction of the time. What it returns is bit for bit what `read_picture` returns.

    <directory>/<fingerprint>-<size>-<resample>/
        header.json    what this is: version, size, resample, rows, the records' fingerprint
        pixels.bin     rows × 3 × height × width uint8, one colour plane after another, as batches want them
        stamps.bin     rows × (size, mtime in ns) int64 of the picture file that a row was made from
        state.bin      rows × uint8: 1 once a row is whole

A row's state is written after its pixels and its stamp, so a process that is killed in the middle of a row leaves it
marked as absent. (A power cut is another matter: the system may then have stored a state and lost the pixels. Delete
the directory after one.)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.pictures import Resample, read_picture
from vireid.data.records import Records
from vireid.data.size import Size

VERSION = 1


class PictureCache:
    """Pictures of some records, resized, on disk; safe to use from many workers and processes at once.

    Attributes:
        folder: where this cache's files lie, below the directory given.
        size: height and width of the pictures.
        resample: how they were resized.
        fingerprint: of the records it belongs to.
    """

    def __init__(self, directory: str | Path, records: Records, size: Size, resample: Resample = "lanczos") -> None:
        """Open the cache of these records, or begin one.

        A cache whose header does not say exactly what is asked for is never read, and begun anew.

        Raises:
            BadInput: there are no rows, the directory cannot be made or written, or its disk has too little room.
        """
        if not len(records):
            raise BadInput("there are no rows to make a picture cache of")
        self.records, self.size = records, size
        self.resample: Resample = resample
        self.fingerprint = records.fingerprint()
        self.folder = Path(directory) / f"{self.fingerprint}-{size}-{resample}"
        try:
            if not self._is_ours():
                self._begin()
            self._open()
        except OSError as error:
            raise BadInput(f"the picture cache {self.folder} cannot be written: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self.records)

    def read(self, row: int) -> np.ndarray:
        """The picture of a row, from the cache where the file has not changed since it was stored.

        Returns:
            H×W×3 uint8, writable, a copy; its memory is laid out plane by plane (3×H×W).

        Raises:
            BadInput: the picture cannot be read, or the cache cannot be written (a full disk).
        """
        file = self.records.file(row)
        try:
            status = os.stat(file)
        except OSError:
            # read_picture says what is wrong with it.
            return read_picture(file, self.size, resample=self.resample)
        stamp = (status.st_size, status.st_mtime_ns)
        if self._holds(row, stamp):
            planes = np.array(self._pixels[row])
            # Somebody else may have begun to replace the row while it was copied.
            if self._holds(row, stamp):
                return planes.transpose(1, 2, 0)
        planes = np.ascontiguousarray(read_picture(file, self.size, resample=self.resample).transpose(2, 0, 1))
        self._store(row, planes, stamp)
        return planes.transpose(1, 2, 0)

    def filled(self) -> int:
        """How many rows are stored."""
        return int(np.count_nonzero(self._state))

    def _holds(self, row: int, stamp: tuple[int, int]) -> bool:
        return self._state[row] == 1 and (self._stamps[row, 0], self._stamps[row, 1]) == stamp

    def _store(self, row: int, planes: np.ndarray, stamp: tuple[int, int]) -> None:
        # Written by calls, not through the map: on a full disk a store into a map ends the process without a word.
        try:
            os.pwrite(self._files["state"], b"\0", row)
            _write_all(self._files["pixels"], planes.tobytes(), row * planes.nbytes)
            _write_all(self._files["stamps"], np.asarray(stamp, dtype=np.int64).tobytes(), row * 16)
            os.pwrite(self._files["state"], b"\1", row)
        except OSError as error:
            raise BadInput(f"the picture cache {self.folder} cannot be written: {error.strerror}") from None

    def _header(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "size": [self.size.height, self.size.width],
            "resample": self.resample,
            "rows": len(self.records),
            "fingerprint": self.fingerprint,
        }

    def _sizes(self) -> dict[str, int]:
        rows = len(self.records)
        return {"pixels": rows * 3 * self.size.height * self.size.width, "stamps": rows * 16, "state": rows}

    def _is_ours(self) -> bool:
        try:
            header = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        if header != self._header():
            return False
        return all(_file_size(self.folder / f"{name}.bin") == size for name, size in self._sizes().items())

    def _begin(self) -> None:
        """Make an empty cache under another name and move it into place, so that no other process sees half of one."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        needed, free = sum(self._sizes().values()), shutil.disk_usage(self.folder.parent).free
        if needed > free:
            raise BadInput(
                f"the picture cache needs {needed / 2**30:.1f} GiB in {self.folder.parent}, which has "
                f"{free / 2**30:.1f} GiB left"
            )
        fresh = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}")
        fresh.mkdir()
        for name, size in self._sizes().items():
            with open(fresh / f"{name}.bin", "wb") as stream:
                stream.truncate(size)
        (fresh / "header.json").write_text(json.dumps(self._header(), indent=2), encoding="utf-8")
        if self.folder.exists() and not self._is_ours():
            old = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):
                self.folder.rename(old)
                shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
        try:
            fresh.rename(self.folder)
        except OSError as error:
            # Another process was faster; its cache is as good as ours.
            shutil.rmtree(fresh, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self._is_ours():
                raise

    def _open(self) -> None:
        rows, (height, width) = len(self.records), self.size
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._files = {name: os.open(self.folder / f"{name}.bin", flags) for name in self._sizes()}
        shapes = {"pixels": (rows, 3, height, width), "stamps": (rows, 2), "state": (rows,)}
        types = {"pixels": np.uint8, "stamps": np.int64, "state": np.uint8}
        self._pixels, self._stamps, self._state = (
            np.asarray(np.memmap(self.folder / f"{name}.bin", dtype=types[name], mode="r", shape=shapes[name]))
            for name in ("pixels", "stamps", "state")
        )

    def __getstate__(self) -> dict[str, object]:
        # Maps and descriptors belong to one process; another one opens its own.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
