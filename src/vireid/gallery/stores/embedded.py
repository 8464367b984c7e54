"""A gallery in a folder: SQLite for the columns and thumbnails, one file of vectors for each modality.

| file | content |
| --- | --- |
| `gallery.sqlite` | facts, documents, rows, thumbnails, and the places of vectors that no row has any more |
| `visible-0.float32`, `infrared-0.float32` | the vectors; a row knows its place |
| `visible-0.int8`, `infrared-0.int8` | the same as codes, see `vireid.gallery.stores.product.encode` |
| `writer.lock` | locked by the one process that writes |

Vectors are written and synced first; then SQLite commits the rows that have their places. So a row that was
acknowledged has its vector, and vectors without a commit are cut off by the next writer. The number in the names of the
files grows with each `compact`. SQLite keeps a write-ahead log: readers see one state while a writer goes on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.stored import sync_folder
from vireid.gallery.private import prepare
from vireid.gallery.row import MODALITIES, Row, Where, checked_ids, last_of_each
from vireid.gallery.store import (
    EVERY_ROW,
    Facts,
    Hit,
    check_document,
    check_facts,
    checked_search,
    ranked,
)
from vireid.gallery.stores.matrix import Matrix, check_regular, remove_others
from vireid.gallery.stores.product import Damaged, best

DATABASE, LOCK = "gallery.sqlite", "writer.lock"
APPLICATION = 0x76697265  # "vire"
FORMAT = 1
UNKNOWN_TIME = -(2**63)
BATCH = 1000  # rows that are read at a time
KEPT = 8  # filters whose rows are kept in memory

_COLUMNS = ("id", "content", "source", "path", "camera", "modality", "time", "tracklet", "person", "place", "checksum")
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE facts (model TEXT NOT NULL, width INTEGER NOT NULL);
CREATE TABLE documents (name TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE matrices (modality INTEGER PRIMARY KEY, generation INTEGER NOT NULL, vectors INTEGER NOT NULL);
CREATE TABLE rows (
    id TEXT PRIMARY KEY, content TEXT NOT NULL, source TEXT NOT NULL, path TEXT NOT NULL, camera TEXT NOT NULL,
    modality INTEGER NOT NULL, time INTEGER NOT NULL, tracklet TEXT, person TEXT,
    place INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE UNIQUE INDEX rows_by_place ON rows (modality, place);
CREATE INDEX rows_by_camera ON rows (modality, camera, time, place);
CREATE INDEX rows_by_content ON rows (content);
CREATE TABLE dead (modality INTEGER, place INTEGER, PRIMARY KEY (modality, place)) WITHOUT ROWID;
CREATE TABLE thumbnails (id TEXT PRIMARY KEY, picture BLOB NOT NULL);
"""


class FolderStore:
    """The store of `vireid.gallery.store.Store` in a folder, for one writing process and any number of readers.

    The folder is made with mode 0700, since vectors and thumbnails are as sensitive as the pictures. It must be on a
    local disk: SQLite's log does not work over a network.

    Raises (when an instance is made, and by all methods):
        BadInput: there is no gallery, another process writes, or the files are damaged or were altered.
    """

    def __init__(self, folder: Path, made: Facts | None) -> None:
        self._folder = folder
        self._idle: list[sqlite3.Connection] = []
        self._matrices: dict[Modality, Matrix] = {}
        self._filtered: dict[tuple[Where, int, int, int], np.ndarray] = {}
        self._writer = threading.Lock()
        self._lock: IO[str] | None = None
        try:
            if not _there(folder / DATABASE):
                if made is None:
                    raise BadInput(f"there is no gallery in {folder}: vireid gallery build makes one")
                self._create(made)
            for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK):
                check_regular(folder / name)
            self._model, self._width = self._made()
            check_facts(str(folder), Facts(self._model, self._width, 0, 0), made)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let another process write."""
        while self._idle:
            self._idle.pop().close()
        if self._lock is not None:
            _release(self._folder, self._lock)
            self._lock = None

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Iterable[Row]) -> None:
        rows = last_of_each(rows)
        for row in rows:
            if row.vector is not None and len(row.vector) != self._width:
                raise BadInput(f"the vector of {row.path} has {len(row.vector)} numbers, and the gallery {self._width}")
        with self._writing() as sql:
            _mark_dead(sql, [row.id for row in rows])
            for modality in MODALITIES:
                if chosen := [row for row in rows if row.modality == modality]:
                    self._append(sql, modality, chosen)

    def _append(self, sql: sqlite3.Connection, modality: Modality, rows: list[Row]) -> None:
        generation, count = self._matrix(sql, modality)
        vectors = np.stack([row.vector for row in rows if row.vector is not None])
        self._open(modality, generation).append(count, vectors)
        values = [(*_values(row), count + n, zlib.crc32(vectors[n].data)) for n, row in enumerate(rows)]
        marks = ", ".join("?" * len(_COLUMNS))
        sql.executemany(f"INSERT OR REPLACE INTO rows ({', '.join(_COLUMNS)}) VALUES ({marks})", values)
        sql.execute("UPDATE matrices SET vectors = ? WHERE modality = ?", (count + len(rows), modality))
        sql.executemany("DELETE FROM thumbnails WHERE id = ?", [(row.id,) for row in rows])
        pictures = [(row.id, row.thumbnail) for row in rows if row.thumbnail is not None]
        sql.executemany("INSERT INTO thumbnails VALUES (?, ?)", pictures)

    def delete(self, ids: Iterable[str]) -> None:
        ids = checked_ids(ids)
        with self._writing() as sql:
            _mark_dead(sql, ids)
            for table in ("rows", "thumbnails"):
                sql.executemany(f"DELETE FROM {table} WHERE id = ?", [(one,) for one in ids])

    def keep(self, name: str, text: str) -> None:
        check_document(name)
        with self._writing() as sql:
            sql.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, text))

    def compact(self) -> None:
        """Write the files again without the vectors, rows and thumbnails that were deleted or replaced.

        It checks every vector that it copies. If it is interrupted, the gallery is as before, or finished.

        Raises:
            BadInput: a vector is damaged, or readers held on to the old state for too long. Deleted bytes are then
                still in the log, and another call removes them.
        """
        with self._writing() as sql:
            for modality in MODALITIES:
                self._rewrite(sql, modality)
        with self._writer, self._connected() as sql:
            sql.execute("VACUUM")
            if not self._forget(sql):
                raise BadInput(f"{self._folder} is being read, so deleted rows are still on disk: compact it again")

    def _rewrite(self, sql: sqlite3.Connection, modality: Modality) -> None:
        """Copy the vectors that rows have into the next generation of files."""
        if not sql.execute("SELECT EXISTS (SELECT 1 FROM dead WHERE modality = ?)", (modality,)).fetchone()[0]:
            return
        generation, count = self._matrix(sql, modality)
        vectors, _ = self._open(modality, generation).read(count)
        fresh = Matrix(self._folder, modality, generation + 1, self._width)
        rows = sql.execute("SELECT place, checksum FROM rows WHERE modality = ? ORDER BY place", (modality,)).fetchall()
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            copied = vectors[self._checked([place for place, _ in part], count)]
            self._check(copied, [checksum for _, checksum in part])
            fresh.append(start, copied)
        # Places only move forward, so in ascending order none is taken when a vector comes to it.
        moved = [(new, modality, old) for new, (old, _) in enumerate(rows) if new != old]
        sql.executemany("UPDATE rows SET place = ? WHERE modality = ? AND place = ?", moved)
        sql.execute("DELETE FROM dead WHERE modality = ?", (modality,))
        values = (generation + 1, len(rows), modality)
        sql.execute("UPDATE matrices SET generation = ?, vectors = ? WHERE modality = ?", values)

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, ids: Iterable[str]) -> dict[str, Row]:
        ids = checked_ids(ids)
        found = {}
        for start in range(0, len(ids), BATCH):
            part = Where(ids=tuple(ids[start : start + BATCH]))
            with self._reading() as sql:
                found |= {row.id: row for row in self._rows(sql, *_condition(part), vectors=True)}
        return {one: found[one] for one in ids if one in found}

    def search(self, vectors: np.ndarray, top: int, where: Where) -> list[list[Hit]]:
        queries = checked_search(vectors, top, where, self._width)
        if where.passes_none() or where.modality is None or not len(queries):
            return [[] for _ in queries]
        with self._reading() as sql:
            generation, count = self._matrix(sql, where.modality)
            stored, codes = self._open(where.modality, generation).read(count)
            places = self._places(sql, where, generation, count)
            try:
                found = best(queries, stored, codes, places, top)
            except Damaged:
                raise self._damaged() from None
            ids = self._names(sql, where.modality, stored, np.concatenate([at for at, _ in found]))
        ends = np.cumsum([len(at) for at, _ in found])[:-1]
        return [ranked(some.tolist(), score, top) for some, (_, score) in zip(np.split(ids, ends), found, strict=True)]

    def count(self, where: Where = EVERY_ROW) -> int:
        condition, values = _condition(where)
        with self._reading() as sql:
            return sql.execute(f"SELECT count(*) FROM rows WHERE {condition}", values).fetchone()[0]

    def iterate(self, where: Where = EVERY_ROW, *, vectors: bool = False) -> Iterator[Row]:
        condition, values = _condition(where)
        last = ""
        while True:
            with self._reading() as sql:
                after = f"{condition} AND id > ? ORDER BY id LIMIT {BATCH}"
                rows = self._rows(sql, after, [*values, last], vectors=vectors)
            yield from rows
            if len(rows) < BATCH:
                return
            last = rows[-1].id

    def thumbnail(self, id: str) -> bytes | None:
        checked_ids([id])
        with self._reading() as sql:
            found = sql.execute("SELECT picture FROM thumbnails WHERE id = ?", (id,)).fetchone()
        return None if found is None else bytes(found[0])

    def kept(self, name: str) -> str | None:
        check_document(name)
        with self._reading() as sql:
            found = sql.execute("SELECT text FROM documents WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def facts(self) -> Facts:
        with self._reading() as sql:
            counts = dict(sql.execute("SELECT modality, count(*) FROM rows GROUP BY modality"))
            dead = sql.execute("SELECT count(*) FROM dead").fetchone()[0]
        return Facts(self._model, self._width, counts.get(0, 0), counts.get(1, 0), dead)

    def _rows(self, sql: sqlite3.Connection, condition: str, values: list, *, vectors: bool) -> list[Row]:
        found = sql.execute(f"SELECT {', '.join(_COLUMNS)} FROM rows WHERE {condition}", values).fetchall()
        of_place: dict[tuple[int, int], np.ndarray] = {}
        for modality in MODALITIES if vectors else ():
            chosen = [(one[9], one[10]) for one in found if one[5] == modality]
            generation, count = self._matrix(sql, modality)
            stored = self._open(modality, generation).read(count)[0]
            taken = stored[self._checked([place for place, _ in chosen], count)]
            self._check(taken, [checksum for _, checksum in chosen])
            of_place |= {(modality, place): vector for (place, _), vector in zip(chosen, taken, strict=True)}
        return [_row(one, of_place.get((one[5], one[9]))) for one in found]

    def _places(self, sql: sqlite3.Connection, where: Where, generation: int, count: int) -> np.ndarray:
        """The places of the rows that pass, ascending int64.

        Those of the last filters are kept. A change of the rows adds a vector or a dead one, or makes a new generation.
        """
        own = (int(where.modality or 0),)
        if where == Where(modality=where.modality):
            dead = sql.execute("SELECT place FROM dead WHERE modality = ?", own).fetchall()
            alive = np.ones(count, bool)
            alive[self._checked([place for (place,) in dead], count)] = False
            return np.flatnonzero(alive)
        dead = sql.execute("SELECT count(*) FROM dead WHERE modality = ?", own).fetchone()[0]
        state = where, generation, count, dead
        if (known := self._filtered.get(state)) is not None:
            return known
        places = np.sort(self._checked(self._passing(sql, where), count))
        self._filtered[state] = places
        for old in list(self._filtered)[:-KEPT]:
            self._filtered.pop(old, None)
        return places

    def _passing(self, sql: sqlite3.Connection, where: Where) -> np.ndarray:
        """The places of the rows that pass, as the database has them."""
        condition, values = _condition(where)
        # As one text: a list of rows takes several times as long to pass through Python.
        command = f"SELECT count(*), group_concat(place) FROM rows WHERE {condition}"
        many, text = sql.execute(command, values).fetchone()
        try:
            places = np.fromstring(text or "", np.int64, sep=",")
        except ValueError:
            raise self._damaged() from None
        if len(places) != many:  # older NumPy stops at what is no number
            raise self._damaged()
        return places

    def _names(self, sql: sqlite3.Connection, modality: Modality, stored: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The ids of the rows with these places, after a check of their vectors."""
        different, which = np.unique(places, return_inverse=True)
        known: dict[int, tuple[str, int]] = {}
        for start in range(0, len(different), BATCH):
            part = different[start : start + BATCH].tolist()
            marks = ", ".join("?" * len(part))
            command = f"SELECT place, id, checksum FROM rows WHERE modality = ? AND place IN ({marks})"
            known |= {place: (id, checksum) for place, id, checksum in sql.execute(command, (int(modality), *part))}
        if len(known) != len(different):
            raise self._damaged()
        self._check(stored[different], [known[place][1] for place in different.tolist()])
        return np.array([known[place][0] for place in different.tolist()])[which]

    # --- connections, locks, checks -----------------------------------------------------------------------------------

    def _open(self, modality: Modality, generation: int) -> Matrix:
        known = self._matrices.get(modality)
        if known is None or known.generation != generation:
            known = Matrix(self._folder, modality, generation, self._width)
            self._matrices[modality] = known
        return known

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile. What goes wrong with files is told in a sentence."""
        sql = None
        try:
            with contextlib.suppress(IndexError):
                sql = self._idle.pop()
            sql = sql or self._connect()
            yield sql
        except FileNotFoundError as error:
            raise BadInput(f"the gallery in {self._folder} is damaged: there is no {error.filename}") from None
        except (OSError, sqlite3.Error) as error:
            raise BadInput(f"the gallery in {self._folder} cannot be used: {error}") from error
        finally:
            if sql is not None:
                self._idle.append(sql)

    def _connect(self) -> sqlite3.Connection:
        location = f"{(self._folder / DATABASE).absolute().as_uri()}?mode=rw"  # never makes one
        sql = sqlite3.connect(location, uri=True, isolation_level=None, check_same_thread=False)
        prepare(sql)
        return sql

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, whatever a writer does meanwhile."""
        with self._connected() as sql, _transaction(sql, "BEGIN"):
            yield sql

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The database for this process and thread alone. What is done is committed at the end, or undone."""
        with self._writer, self._connected() as sql:
            if self._lock is None:
                self._lock = _hold(self._folder)
                self._tidy(sql)
            with _transaction(sql, "BEGIN IMMEDIATE"):
                yield sql

    def _tidy(self, sql: sqlite3.Connection) -> None:
        """Remove what a writer left that was stopped: vectors without a commit, and files of another generation."""
        for modality in MODALITIES:
            generation, count = self._matrix(sql, modality)
            self._open(modality, generation).cut(count)
        self._forget(sql)

    def _forget(self, sql: sqlite3.Connection) -> bool:
        """Empty the log, and then delete files of other generations: nobody reads in an old state any more.

        Returns:
            Whether it was done. It is not while somebody reads.
        """
        if sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return False
        remove_others(self._folder, [self._open(one, self._matrix(sql, one)[0]) for one in MODALITIES])
        sync_folder(self._folder)
        return True

    def _create(self, made: Facts) -> None:
        unfinished = [self._folder / f"{DATABASE}.unfinished{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ours = {LOCK, *(file.name for file in unfinished)}
            if others := sorted(one.name for one in self._folder.iterdir() if one.name not in ours):
                raise BadInput(
                    f"{self._folder} is no gallery and not empty (it has {others[0]}): choose another folder"
                )
            self._folder.chmod(0o700)
            self._lock = _hold(self._folder)
            if _there(self._folder / DATABASE):  # another process has just made it
                return
            for file in unfinished:
                file.unlink(missing_ok=True)
            os.close(os.open(unfinished[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with contextlib.closing(sqlite3.connect(unfinished[0], isolation_level=None)) as sql:
                sql.executescript(_SCHEMA)
                sql.execute("INSERT INTO facts VALUES (?, ?)", (made.model, made.width))
                sql.executemany("INSERT INTO matrices VALUES (?, 0, 0)", [(int(one),) for one in MODALITIES])
                sql.execute("PRAGMA journal_mode = WAL")  # the file itself remembers it
            os.replace(unfinished[0], self._folder / DATABASE)
            sync_folder(self._folder)
        except (OSError, sqlite3.Error) as error:
            raise BadInput(f"cannot make a gallery in {self._folder}: {error}") from error

    def _made(self) -> tuple[str, int]:
        """The model and the width."""
        with self._reading() as sql:
            kind = [sql.execute(f"PRAGMA {one}").fetchone()[0] for one in ("application_id", "user_version")]
            if kind != [APPLICATION, FORMAT]:
                raise BadInput(f"{self._folder / DATABASE} is no gallery of this version of vireid")
            found = sql.execute("SELECT model, width FROM facts").fetchone()
        if found is None or not isinstance(found[0], str) or not isinstance(found[1], int) or found[1] < 1:
            raise self._damaged()
        return found

    def _matrix(self, sql: sqlite3.Connection, modality: Modality) -> tuple[int, int]:
        """The generation and the number of vectors, deleted ones included."""
        command = "SELECT generation, vectors FROM matrices WHERE modality = ?"
        found = sql.execute(command, (int(modality),)).fetchone()
        # A generation is part of a file's name, so it must be a number.
        if found is None or not all(isinstance(one, int) and one >= 0 for one in found):
            raise self._damaged()
        return found

    def _checked(self, places: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
        try:
            found = np.array(places, np.int64)
        except (TypeError, ValueError, OverflowError):
            raise self._damaged() from None
        if len(found) and not (found.min() >= 0 and found.max() < count):
            raise self._damaged()
        return found

    def _check(self, vectors: np.ndarray, checksums: list[int]) -> None:
        if any(zlib.crc32(one.data) != known for one, known in zip(vectors, checksums, strict=True)):
            raise self._damaged()

    def _damaged(self) -> BadInput:
        return BadInput(f"the gallery in {self._folder} is damaged: its vectors are not those that were written")


@contextlib.contextmanager
def _transaction(sql: sqlite3.Connection, begin: str) -> Iterator[None]:
    sql.execute(begin)
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:
            sql.execute("ROLLBACK")
        raise


def _mark_dead(sql: sqlite3.Connection, ids: list[str]) -> None:
    command = "INSERT INTO dead SELECT modality, place FROM rows WHERE id = ?"
    sql.executemany(command, [(one,) for one in ids])


def _condition(where: Where) -> tuple[str, list]:
    """An SQL condition with its values. Values are never part of the text."""
    parts, values = ["1"], []
    if where.modality is not None:
        parts.append("modality = ?")
        values.append(int(where.modality))
    for column, choices in where.members().items():
        parts.append(f"{column} IN ({', '.join('?' * len(choices))})")
        values += choices
    if (times := where.times()) is not None:
        parts.append("time >= ? AND time < ?")
        values += times
    return " AND ".join(parts), values


def _values(row: Row) -> tuple:
    """The columns of a row, without place and checksum."""
    time = UNKNOWN_TIME if row.time is None else row.time
    return (row.id, row.content, row.source, row.path, row.camera, int(row.modality), time, row.tracklet, row.person)


def _row(values: tuple, vector: np.ndarray | None) -> Row:
    _, content, source, path, camera, modality, time, tracklet, person, *_ = values
    known = None if time == UNKNOWN_TIME else time
    return Row(source, path, content, camera, modality, known, tracklet, person, vector)


def _there(file: Path) -> bool:
    return file.exists() or file.is_symlink()


# --- one writer -------------------------------------------------------------------------------------------------------

_HELD: set[str] = set()  # POSIX locks are the process's: a second lock by the same process would be granted


def _hold(folder: Path) -> IO[str]:
    """Lock the folder for writing, until `_release` or the end of the process.

    Raises:
        BadInput: another process or another store of this process has locked it.
    """
    check_regular(folder / LOCK)
    key = os.path.realpath(folder)
    busy = BadInput(f"another process writes into the gallery {folder}: wait for it")
    if key in _HELD:
        raise busy
    lock = os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    if os.name == "posix":  # on other systems nothing prevents a second writer
        import fcntl

        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise busy from None
    _HELD.add(key)
    return lock


def _release(folder: Path, lock: IO[str]) -> None:
    _HELD.discard(os.path.realpath(folder))
    lock.close()
