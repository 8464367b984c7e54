"""Who searched for what, and what they were shown: a log that is complete, and that forgets after a while.

An entry is on disk before the answer is sent. A query's picture is never stored, only a keyed hash: equal queries have
equal hashes. Who holds the key can find the searches for a picture that they have, and nobody else can.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vireid.data.errors import BadInput, unknown
from vireid.data.settings import options
from vireid.gallery.private import PrivateDatabase, forget, read_private, write_private
from vireid.gallery.spreadsheet import table
from vireid.gallery.times import time_text

DATABASE, KEY = "audit.sqlite", "audit.key"
DAY = 86_400_000
REASON = 500
"""Most characters of a reason."""
FORMATS = ("csv", "jsonl")

_APPLICATION = 0x76696175  # "viau"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, who TEXT NOT NULL, query TEXT NOT NULL,
    filters TEXT NOT NULL, shown TEXT NOT NULL, reason TEXT);
CREATE INDEX IF NOT EXISTS entries_by_time ON entries (time);
CREATE INDEX IF NOT EXISTS entries_by_query ON entries (query);
"""
_OWED = 1
"""SQLite's number for the user of a file: bytes of entries that were removed may still be in it."""
_COLUMNS = "number, time, who, query, filters, shown, reason"


@dataclass(frozen=True)
class Entry:
    """One answer that was shown.

    Attributes:
        number: grows by one with each entry. A missing number within the log is an entry that somebody removed.
        time: milliseconds since 1970, UTC.
        who: the name of the token.
        query: keyed hash of the query, 64 hexadecimal digits.
        filters: the filters of the search, and its first rank.
        shown: ids of the pictures that were shown, by rank.
        reason: what the searcher gave as a reason; None if nothing.
    """

    number: int
    time: int
    who: str
    query: str
    filters: Mapping[str, Any]
    shown: tuple[str, ...]
    reason: str | None


@options
class Span:
    """Which entries are read: of a name, since a time, before a time (milliseconds since 1970, UTC)."""

    who: str | None = None
    since: int | None = None
    until: int | None = None


class Audit(PrivateDatabase):
    """The log in a folder: `audit.sqlite` and `audit.key`, both with mode 0600.

    All methods may be called by several threads, and several processes may use one log.
    """

    def __init__(self, folder: Path, keep_days: float = 90, *, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            folder: a private folder of this machine, see `vireid.gallery.index.Index.folder`.
            keep_days: entries older than this are removed by `expire`.
            clock: seconds since 1970.

        Raises:
            BadInput: the log cannot be opened, is a link, or others may read it; or `keep_days` is not above 0.
        """
        if not 0 < keep_days <= 36_500:
            raise BadInput(f"an audit log keeps its entries for up to 36500 days, and not {keep_days}")
        super().__init__(folder / DATABASE, _SCHEMA, _APPLICATION)
        self._keep = int(keep_days * DAY)
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        try:
            self._sql.execute("BEGIN IMMEDIATE")  # of two processes, one makes the key
            self._key = _key(folder / KEY)
            self._sql.execute("COMMIT")
        except BaseException:
            self._sql.close()
            raise

    def record(
        self,
        who: str,
        query: str | bytes,
        filters: Mapping[str, Any],
        shown: Sequence[str],
        reason: str | None = None,
    ) -> None:
        """Write down one answer. When this returns, the entry is on disk; only then may the answer be sent.

        Entries that wait at the same time are written together, so that many searches share one wait for the disk.

        Args:
            who: the name of the token.
            query: what tells the query from others: the SHA-256 of its picture's bytes as 64 hexadecimal digits (of a
                picture of the gallery its `content`), or of several pictures these, sorted and joined. It is hashed
                with the log's key and not stored.
            filters: JSON values.
            shown: ids of the pictures that are shown.
            reason: up to 500 characters.

        Raises:
            BadInput: the entry cannot be written. The answer must not be sent then.
        """
        text = None if reason is None else checked_reason(reason)
        now = int(self._clock() * 1000)
        values = (now, who, self.hashed(query), json.dumps(filters, sort_keys=True), json.dumps(list(shown)), text)
        waiting = _Waiting(values)
        self._waiting.append(waiting)
        with self._lock:
            if not waiting.done:
                self._write()
        if waiting.error is not None:
            raise BadInput(f"the audit log {self._file} cannot be written: {waiting.error}") from waiting.error

    def _write(self) -> None:
        """Write all entries that wait, in one transaction."""
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        error = None
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            command = "INSERT INTO entries (time, who, query, filters, shown, reason) VALUES (?, ?, ?, ?, ?, ?)"
            self._sql.executemany(command, [one.values for one in batch])
            self._sql.execute("COMMIT")
        except Exception as problem:  # all who wait must be told, whatever it is
            error = problem
            with contextlib.suppress(sqlite3.Error):
                self._sql.rollback()
        for one in batch:
            one.error, one.done = error, True

    def hashed(self, query: str | bytes) -> str:
        """The keyed hash of a query: HMAC-SHA-256, 64 hexadecimal digits."""
        data = query.encode("utf-8", "surrogatepass") if isinstance(query, str) else query
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()

    def entries(self, span: Span | None = None) -> Iterator[Entry]:
        """The entries, by number. Each is read when it is asked for; new ones may come meanwhile."""
        yield from self._found("1", [], span or Span())

    def searches_for(self, query: str | bytes) -> list[Entry]:
        """The entries of one query, see `record`."""
        return list(self._found("query = ?", [self.hashed(query)], Span()))

    def _found(self, condition: str, values: list[Any], span: Span) -> Iterator[Entry]:
        for text, value in (("who = ?", span.who), ("time >= ?", span.since), ("time < ?", span.until)):
            if value is not None:
                condition, values = f"{condition} AND {text}", [*values, value]
        last = -1
        while True:
            command = f"SELECT {_COLUMNS} FROM entries WHERE {condition} AND number > ? ORDER BY number LIMIT 1000"
            try:
                with self._lock:
                    rows = self._sql.execute(command, [*values, last]).fetchall()
                found = [_entry(row) for row in rows]
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise BadInput(f"the audit log {self._file} cannot be read: {error}") from error
            yield from found
            if len(rows) < 1000:
                return
            last = found[-1].number

    def expire(self, now: float | None = None) -> int:
        """Remove the entries that are older than `keep_days`. No byte of them is left in the folder.

        Args:
            now: seconds since 1970; None for the clock.

        Returns:
            How many were removed.

        Raises:
            BadInput: somebody read the log for so long that the bytes could not be removed. Calling again does it.
        """
        before = int((self._clock() if now is None else now) * 1000) - self._keep
        with self._lock:
            try:
                self._sql.execute("BEGIN IMMEDIATE")
                count = self._sql.execute("DELETE FROM entries WHERE time < ?", (before,)).rowcount
                if count:
                    self._sql.execute(f"PRAGMA user_version = {_OWED}")
                self._sql.execute("COMMIT")
                owed = self._sql.execute("PRAGMA user_version").fetchone()[0] == _OWED
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._sql.rollback()
                raise BadInput(f"the audit log {self._file} cannot be written: {error}") from error
            if owed:
                forget(self._sql, self._file)
                self._sql.execute("PRAGMA user_version = 0")
        return count

    def export(self, file: Path, format: Literal["csv", "jsonl"] = "csv", span: Span | None = None) -> int:
        """Write entries into a private file, as CSV or as one JSON object in each line.

        Returns:
            How many.

        Raises:
            BadInput: the format is unknown, or the file cannot be written.
        """
        if format not in FORMATS:
            raise unknown("format of the audit log", str(format), FORMATS)
        found = [_values(one) for one in self.entries(span)]
        if format == "jsonl":
            text = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in found)
        else:
            header = ("number", "time", "who", "query", "filters", "shown", "reason")
            text = table(header, [_flat(one) for one in found])
        write_private(file, text.encode("utf-8", "replace"))
        return len(found)


def checked_reason(reason: str) -> str:
    """A reason without space around it.

    Raises:
        BadInput: it is empty, longer than 500 characters, or has control characters.
    """
    text = reason.strip()
    if not 0 < len(text) <= REASON or not text.isprintable():
        raise BadInput(f"a reason is a line of 1 to {REASON} characters")
    return text


class _Waiting:
    """An entry that is not on disk yet."""

    __slots__ = ("done", "error", "values")

    def __init__(self, values: tuple) -> None:
        self.values = values
        self.done = False
        self.error: Exception | None = None


def _key(file: Path) -> bytes:
    """The key of a log; it is made at the first use."""
    if not os.path.lexists(file):
        write_private(file, secrets.token_bytes(32))
    key = read_private(file, 32)
    if len(key) != 32:
        raise BadInput(f"{file} must have 32 bytes: without the key of the log, searches for a picture are not found")
    return key


def _entry(row: tuple) -> Entry:
    number, when, who, query, filters, shown, reason = row
    return Entry(number, when, who, query, json.loads(filters), tuple(json.loads(shown)), reason)


def _values(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "time": time_text(entry.time)}


def _flat(values: Mapping[str, Any]) -> list[Any]:
    filters, shown = json.dumps(values["filters"], ensure_ascii=False), " ".join(values["shown"])
    return list({**values, "filters": filters, "shown": shown}.values())
