"""Thumbnails in a folder, for stores that have no place for them: one file for each picture, named by its id."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.gallery.row import THUMBNAIL, Row


class Thumbnails:
    """JPEG files below a folder of mode 0700, which several machines may share.

    Raises (when an instance is made):
        BadInput: the folder cannot be made or is not private.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = folder.stat().st_mode
        except OSError as error:
            raise BadInput(f"the thumbnails cannot be kept in {folder}: {error.strerror}") from None
        if os.name == "posix" and mode & 0o077:
            raise BadInput(f"others may read {folder}, where thumbnails are kept: chmod 700 {folder}")

    def _file(self, id: str) -> Path:
        return self._folder / id[:2] / f"{id}.jpg"

    def put(self, rows: Iterable[Row]) -> None:
        """Write the thumbnails of rows; those of rows without one are removed. Several processes may do so at once."""
        for row in rows:
            if row.thumbnail is None:
                self.remove([row.id])
                continue
            file = self._file(row.id)
            try:
                file.parent.mkdir(mode=0o700, exist_ok=True)
                # A name of its own: another process may be writing the same picture's.
                with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as opened:
                    opened.write(row.thumbnail)
                    opened.flush()
                    os.fsync(opened.fileno())
                os.replace(opened.name, file)
            except OSError as error:
                raise BadInput(f"the thumbnail {file} cannot be written: {error.strerror}") from error

    def get(self, id: str) -> bytes | None:
        """A thumbnail. A link in the folder counts as none: it could lead anywhere."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
        with contextlib.suppress(OSError), os.fdopen(os.open(self._file(id), flags), "rb") as file:
            return file.read(THUMBNAIL + 1)[:THUMBNAIL]
        return None

    def remove(self, ids: Iterable[str]) -> None:
        """Delete thumbnails, where there are any."""
        for one in ids:
            self._file(one).unlink(missing_ok=True)
