"""The journal of a build: which file was read when, what it held, and what could not be read.

It is an SQLite file in the index's folder, or in the state folder of this machine for an index in Milvus. A picture is
written into it after the store has acknowledged its row. So after a crash some work may be repeated, and nothing is
missing. A journal that was deleted costs time only.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.private import forget, open_database

APPLICATION = 0x7669726A  # "virj"
AT_ONCE = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    source TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL, content TEXT NOT NULL,
    modality INTEGER NOT NULL, scaling TEXT NOT NULL, error TEXT NOT NULL, written INTEGER NOT NULL,
    PRIMARY KEY (source, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
    name TEXT PRIMARY KEY, place TEXT NOT NULL, modality TEXT, camera TEXT, built INTEGER);
"""
_COLUMNS = "path, size, modified, content, modality, scaling, error, written"


@dataclass(frozen=True)
class Entry:
    """What a build knows of one picture file.

    Attributes:
        size, modified: bytes and time of change in nanoseconds, as they were when it was read. -1 if this says
            nothing about the content: the file was not there, or had been changed only a moment ago.
        content: SHA-256 of the bytes of the picture that the gallery has; empty if it has none.
        modality, scaling: how it was embedded.
        error: why it cannot be read; empty if it can.
    """

    size: int
    modified: int
    content: str
    modality: Modality
    scaling: str
    error: str = ""


@dataclass(frozen=True)
class Known:
    """A source of an earlier build.

    Attributes:
        name, place, modality, camera: as in `vireid.gallery.sources.Source`.
        built: when a build last went through it to the end, in milliseconds since 1970; None if never.
    """

    name: str
    place: str
    modality: str | None
    camera: str | None
    built: int | None


class Journal:
    """The journals of an index on this machine: one is written, the others are read.

    Under a launcher, each process has its own: two processes of one build never wait for each other, and if there are
    more processes next time, what the others did is known.

    Args:
        folder: where they are.
        rank: the number of this process, which builds; None to look and forget only.

    Raises (also by all methods):
        BadInput: a file cannot be used, or is no journal.
    """

    def __init__(self, folder: Path, rank: int | None = None) -> None:
        own = [] if rank is None else [folder / f"journal-{rank}.sqlite"]
        files = [*own, *sorted(set(folder.glob("journal-*.sqlite")) - {*own})]
        self._files: list[tuple[Path, sqlite3.Connection]] = []
        try:
            for file in files:
                self._files.append((file, open_database(file, _SCHEMA, APPLICATION)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.pop()[1].close()

    # --- building -----------------------------------------------------------------------------------------------------

    def entries(self, source: str, paths: Sequence[str]) -> dict[str, Entry]:
        """What is known of these pictures, by path: the newest of what the journals have."""
        found: dict[str, tuple] = {}
        for file, sql in self._files:
            for start in range(0, len(paths), AT_ONCE):
                part = paths[start : start + AT_ONCE]
                marks = ", ".join("?" * len(part))
                command = f"SELECT {_COLUMNS} FROM entries WHERE source = ? AND path IN ({marks})"
                with _said(file):
                    lines = sql.execute(command, (source, *part)).fetchall()
                for line in lines:
                    found[line[0]] = max(found.get(line[0], line), line, key=lambda one: one[-1])
        return {path: _entry(line) for path, line in found.items()}

    def record(self, entries: Mapping[tuple[str, str], Entry]) -> None:
        """Keep what is known of pictures, by source and path. When it returns, they are on disk."""
        now = time.time_ns()
        values = [
            (source, path, one.size, one.modified, one.content, int(one.modality), one.scaling, one.error, now)
            for (source, path), one in entries.items()
        ]
        with self._writing() as sql:
            sql.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def keep_source(self, known: Known) -> None:
        """Keep what a source is. Without `built`, the earlier one stays."""
        before = {one.name: one.built for one in self.sources()}.get(known.name)
        known = replace(known, built=known.built or before)
        with self._writing() as sql:
            values = (known.name, known.place, known.modality, known.camera, known.built)
            sql.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)", values)

    def finished(self, source: str) -> None:
        """A build went through a source to the end."""
        with self._writing() as sql:
            sql.execute("UPDATE sources SET built = ? WHERE name = ?", (int(time.time()) * 1000, source))

    # --- what is known ------------------------------------------------------------------------------------------------

    def sources(self) -> list[Known]:
        """The sources of all builds, by name."""
        found: dict[str, Known] = {}
        for file, sql in reversed(self._files):
            with _said(file):
                lines = sql.execute("SELECT name, place, modality, camera, built FROM sources").fetchall()
            found |= {line[0]: Known(*line) for line in lines}
        return [found[name] for name in sorted(found)]

    def unreadable(self) -> Iterator[tuple[str, str, str]]:
        """(source, path, reason) of the pictures that could not be read when a build last looked at them."""
        failed: dict[str, set[str]] = {}
        for file, sql in self._files:
            with _said(file):
                for source, path in sql.execute("SELECT source, path FROM entries WHERE error != ''"):
                    failed.setdefault(source, set()).add(path)
        for source, paths in sorted(failed.items()):
            for path, entry in self.entries(source, sorted(paths)).items():
                if entry.error:
                    yield source, path, entry.error

    def paths(self, source: str) -> list[str]:
        """The paths of a source that any journal has."""
        found: set[str] = set()
        for file, sql in self._files:
            with _said(file):
                found |= {path for (path,) in sql.execute("SELECT path FROM entries WHERE source = ?", (source,))}
        return sorted(found)

    # --- forgetting ---------------------------------------------------------------------------------------------------

    def forget(self, pictures: Iterable[tuple[str, str]]) -> None:
        """Remove pictures, given by source and path, from all journals. `compact` removes their bytes."""
        chosen = list(pictures)
        for file, sql in self._files:
            with _said(file), _transaction(sql):
                sql.executemany("DELETE FROM entries WHERE source = ? AND path = ?", chosen)

    def forget_source(self, name: str) -> None:
        """Remove a source and its pictures from all journals."""
        for file, sql in self._files:
            with _said(file), _transaction(sql):
                sql.execute("DELETE FROM entries WHERE source = ?", (name,))
                sql.execute("DELETE FROM sources WHERE name = ?", (name,))

    def compact(self) -> None:
        """Remove the bytes of what was deleted."""
        for file, sql in self._files:
            forget(sql, file)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        file, sql = self._files[0]
        with _said(file), _transaction(sql):
            yield sql


def _entry(line: tuple) -> Entry:
    _, size, modified, content, modality, scaling, error, _ = line
    return Entry(size, modified, content, Modality(modality), scaling, error)


@contextmanager
def _said(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise BadInput(
            f"the journal {file} cannot be used: {error}; without this file, the next build repeats its work"
        ) from error


@contextmanager
def _transaction(sql: sqlite3.Connection) -> Iterator[None]:
    sql.execute("BEGIN IMMEDIATE")
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:
            sql.execute("ROLLBACK")
        raise
