"""Files that only their owner may read: tokens, keys, the audit log, feedback."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from vireid.data.errors import BadInput
from vireid.data.stored import sync_folder
from vireid.gallery.stores.matrix import check_regular

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
WAIT = 30_000
"""Milliseconds until a locked database is given up."""


def read_private(file: Path, most: int) -> bytes:
    """The bytes of a private file.

    Args:
        file: the file.
        most: bytes that it may have.

    Raises:
        BadInput: it is not there, is a link or no regular file, is longer, or others may read or write it.
    """
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | _NO_LINKS), "rb") as opened:
            check_mode(file, os.fstat(opened.fileno()))
            data = opened.read(most + 1)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise BadInput(f"{file} has more than {most} bytes, which is too long for what it should be")
    return data


def check_mode(file: Path, status: os.stat_result) -> None:
    """Check that a file is regular, and that nobody but its owner may use it. Only POSIX systems can tell the latter.

    Raises:
        BadInput: it is not so.
    """
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{file} is a link or no regular file")
    if others_may_use(status):
        raise BadInput(f"others may use {file}, which must be private: chmod 600 {file}")


def others_may_use(status: os.stat_result) -> bool:
    """Whether a file or a folder is open to other users of the machine. Only POSIX systems can tell."""
    return os.name == "posix" and bool(status.st_mode & 0o077)


def write_private(file: Path, data: bytes) -> None:
    """Write a file with mode 0600, completely or not at all. When this returns, it is on disk.

    Raises:
        BadInput: it cannot be written, or there is a link or a device with this name.
    """
    check_regular(file)
    unfinished = None
    try:
        # mkstemp makes files with mode 0600, and two processes never share one.
        descriptor, unfinished = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".unfinished", dir=file.parent)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(unfinished, file)
        sync_folder(file.parent)
    except OSError as error:
        if unfinished is not None:
            with suppress(OSError):
                os.unlink(unfinished)
        raise BadInput(f"{file} cannot be written: {error.strerror}") from None


class PrivateDatabase:
    """An SQLite file with mode 0600 that the threads of a process use in turns, see `open_database`."""

    def __init__(self, file: Path, schema: str, application: int) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._sql = open_database(file, schema, application)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()


def open_database(file: Path, schema: str, application: int) -> sqlite3.Connection:
    """Open an SQLite file with mode 0600, or make it. Deleted values are overwritten, and commits are on disk.

    Args:
        file: the file.
        schema: the statements that make its tables; they may be run again.
        application: a number that says whose file it is.

    Raises:
        BadInput: it cannot be opened, is a link, is readable by others, or is a database of something else.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        check_regular(file.with_name(file.name + suffix))
    sql = None
    try:
        # SQLite would make it with the process's usual mode. Its log gets the mode of the file.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600))
        check_mode(file, file.stat())
        location = f"{file.absolute().as_uri()}?mode=rw"
        sql = sqlite3.connect(location, uri=True, isolation_level=None, check_same_thread=False)
        prepare(sql)
        found = sql.execute("PRAGMA application_id").fetchone()[0]
        empty = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if found != application and not (found == 0 and empty):
            raise BadInput(f"{file} is a database of something else")
        sql.execute("PRAGMA journal_mode = WAL").close()
        sql.executescript(f"BEGIN IMMEDIATE; PRAGMA application_id = {application}; {schema} COMMIT;")
        return sql
    except BaseException as error:
        if sql is not None:
            sql.close()
        if isinstance(error, (OSError, sqlite3.Error)):
            raise BadInput(f"{file} cannot be used: {error}") from None
        raise


def prepare(sql: sqlite3.Connection) -> None:
    """Set up a connection: wait for others, trust no schema, overwrite what is deleted, have commits on disk."""
    for setting in (f"busy_timeout = {WAIT}", "trusted_schema = OFF", "secure_delete = ON", "synchronous = FULL"):
        sql.execute(f"PRAGMA {setting}").close()


def forget(sql: sqlite3.Connection, file: Path) -> None:
    """Remove the bytes of deleted rows from a database and its log.

    Raises:
        BadInput: somebody held on to an old state for longer than `WAIT`. Calling again removes them.
    """
    try:
        sql.execute("VACUUM")
        busy = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise BadInput(f"deleted entries are still in {file}: {error}") from None
    if busy:
        raise BadInput(f"{file} is being read, so deleted entries are still in its log")
