"""A cache of resized pictures on disk, in one memory-mapped file. It is optional and fills itself.

On the first read, a picture is decoded, resized, stored and returned. Later reads, also by other processes, only copy
the stored pixels, which is much faster. The pixels are bit for bit those of `read_picture`.

    <directory>/<fingerprint>-<size>-<resample>/
        header.json    version, size, resample, number of records, fingerprint of the records
        pixels.bin     records × 3 × height × width uint8, one colour plane after another, as in a batch
        stamps.bin     records × (size, mtime in ns) int64 of the picture file that the pixels were made from
        state.bin      records × uint8: 1 when the pixels and the stamp of a record are complete

The state of a record is written after its pixels and its stamp. So if a process is killed while it writes a record, the
record stays marked as absent. A power cut is different: the system may have stored the state and lost the pixels. In
that case, delete the directory.
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
from vireid.data.resampling import write_planes
from vireid.data.size import Size

VERSION = 2


class PictureCache:
    """Resized pictures of some records on disk. Many workers and processes may use one cache at the same time.

    Attributes:
        records: the records that the pictures belong to.
        folder: the folder of this cache's files, below the directory given.
        size: height and width of the pictures.
        resample: how they are resized, see `read_picture`.
        fingerprint: the fingerprint of the records.
    """

    def __init__(self, directory: str | Path, records: Records, size: Size, resample: Resample = "lanczos") -> None:
        """Open the cache of these records, or create an empty one.

        If the header of an existing cache differs from what is asked for, the cache is not read, but replaced by an
        empty one.

        Raises:
            BadInput: there are no records, the directory cannot be created or written, or the disk has too little
                space.
        """
        if not len(records):
            raise BadInput("there are no records to make a picture cache of")
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

    def read(self, record: int) -> np.ndarray:
        """The picture of a record, from the cache if the file has not changed since it was stored.

        Returns:
            H×W×3 uint8, a writable copy. In memory, one colour plane follows another (3×H×W).

        Raises:
            BadInput: the picture cannot be read, or the cache cannot be written (a full disk).
        """
        file = self.records.file(record)
        try:
            status = os.stat(file)
        except OSError:
            # read_picture raises an exception that says what is wrong with the file.
            return self._decoded(record)
        stamp = (status.st_size, status.st_mtime_ns)
        if self._holds(record, stamp):
            planes = np.array(self._pixels[record])
            # Another process may have started to replace the pixels while they were copied, so check again.
            if self._holds(record, stamp):
                return planes.transpose(1, 2, 0)
        planes = np.empty((3, *self.size), np.uint8)
        write_planes(planes, self._decoded(record))
        self._store(record, planes, stamp)
        return planes.transpose(1, 2, 0)

    def _decoded(self, record: int) -> np.ndarray:
        """The picture of a record, from its file."""
        scaling = self.records.scaling
        return read_picture(self.records.file(record), self.size, resample=self.resample, scaling=scaling)

    def _holds(self, record: int, stamp: tuple[int, int]) -> bool:
        """Whether the picture of a record is stored and was made from a file with this stamp."""
        return self._state[record] == 1 and (self._stamps[record, 0], self._stamps[record, 1]) == stamp

    def _store(self, record: int, planes: np.ndarray, stamp: tuple[int, int]) -> None:
        # With write calls, not through the memory map: on a full disk, a write to the map kills the process without a
        # message.
        try:
            os.pwrite(self._files["state"], b"\0", record)
            _write_all(self._files["pixels"], planes.tobytes(), record * planes.nbytes)
            _write_all(self._files["stamps"], np.asarray(stamp, dtype=np.int64).tobytes(), record * 16)
            os.pwrite(self._files["state"], b"\1", record)
        except OSError as error:
            raise BadInput(f"the picture cache {self.folder} cannot be written: {error.strerror}") from None

    def _header(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "size": [self.size.height, self.size.width],
            "resample": self.resample,
            "records": len(self.records),
            "fingerprint": self.fingerprint,
        }

    def _sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        records = len(self.records)
        return {"pixels": records * 3 * self.size.height * self.size.width, "stamps": records * 16, "state": records}

    def _is_ours(self) -> bool:
        """Whether the folder holds a cache with exactly our header, and files of the right sizes."""
        try:
            header = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        if header != self._header():
            return False
        return all(_file_size(self.folder / f"{name}.bin") == size for name, size in self._sizes().items())

    def _begin(self) -> None:
        """Create an empty cache under another name, then rename it, so that no process sees an incomplete cache."""
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
            # Another process has created the same cache in the meantime. Use that one.
            shutil.rmtree(fresh, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self._is_ours():
                raise

    def _open(self) -> None:
        records, (height, width) = len(self.records), self.size
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._files = {name: os.open(self.folder / f"{name}.bin", flags) for name in self._sizes()}
        shapes = {"pixels": (records, 3, height, width), "stamps": (records, 2), "state": (records,)}
        types = {"pixels": np.uint8, "stamps": np.int64, "state": np.uint8}
        self._pixels, self._stamps, self._state = (
            np.asarray(np.memmap(self.folder / f"{name}.bin", dtype=types[name], mode="r", shape=shapes[name]))
            for name in ("pixels", "stamps", "state")
        )

    def __getstate__(self) -> dict[str, object]:
        # Memory maps and file descriptors belong to one process. After unpickling, the new process opens its own.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of the data: a single `pwrite` may write less."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _file_size(file: Path) -> int:
    """Bytes of a file, or -1 if it does not exist or cannot be read."""
    try:
        return file.stat().st_size
    except OSError:
        return -1
