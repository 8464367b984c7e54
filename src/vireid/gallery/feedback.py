"""What people said of matches: same person or different. It can be exported, as labels for training.

It is no data for a calibration: only pictures near the top of a list were looked at, and they are not like all others.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vireid.data.errors import BadInput, unknown
from vireid.gallery.private import PrivateDatabase, forget, write_private
from vireid.gallery.spreadsheet import table
from vireid.gallery.times import time_text

DATABASE = "feedback.sqlite"
VERDICTS = ("same", "different", "none")
Opinion = Literal["same", "different", "none"]
HEADER = ("query", "picture", "verdict", "who", "when")

_CONTENT = re.compile(r"[0-9a-f]{64}")
_APPLICATION = 0x76696662  # "vifb"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    query TEXT NOT NULL, picture TEXT NOT NULL, who TEXT NOT NULL, verdict TEXT NOT NULL, search TEXT NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (query, picture, who)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdicts_by_picture ON verdicts (picture);
"""


@dataclass(frozen=True)
class Said:
    """What one person said of two pictures.

    Attributes:
        query, picture: SHA-256 of the bytes of the query's picture, and of the match.
        verdict: same or different.
        who: the name of the token.
        search: the search in which it was said.
        time: milliseconds since 1970, UTC.
    """

    query: str
    picture: str
    verdict: Opinion
    who: str
    search: str
    time: int


class Feedback(PrivateDatabase):
    """The verdicts in a folder, in `feedback.sqlite` with mode 0600.

    All methods may be called by several threads, and several processes may use one file.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            folder: a private folder of this machine, see `vireid.gallery.index.Index.folder`.
            clock: seconds since 1970.

        Raises:
            BadInput: the file cannot be opened, is a link, or others may read it.
        """
        super().__init__(folder / DATABASE, _SCHEMA, _APPLICATION)
        self._clock = clock

    def put(self, search: str, query_content: str, picture_content: str, verdict: Opinion, who: str) -> None:
        """Write down a verdict. It replaces what the same person said of these two pictures; `none` takes it back.

        When this returns, it is on disk.

        Raises:
            BadInput: a content is no SHA-256, the verdict is unknown, or the file cannot be written.
        """
        for content in (query_content, picture_content):
            if not _CONTENT.fullmatch(content):
                raise BadInput(f"the content of a picture has 64 hexadecimal digits: {content[:80]!a} has not")
        if verdict not in VERDICTS:
            raise unknown("verdict", str(verdict)[:40], VERDICTS)
        if verdict == "none":
            command = "DELETE FROM verdicts WHERE query = ? AND picture = ? AND who = ?"
            values: tuple = (query_content, picture_content, who)
        else:
            command = "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)"
            values = (query_content, picture_content, who, verdict, search, int(self._clock() * 1000))
        self._run(command, values)

    def said(self, query_content: str, who: str) -> dict[str, str]:
        """What one person said of one query: the match's content → `same` or `different`."""
        command = "SELECT picture, verdict FROM verdicts WHERE query = ? AND who = ?"
        return dict(self._run(command, (query_content, who)))

    def all(self) -> Iterator[Said]:
        """All verdicts, by query, picture and name."""
        command = "SELECT query, picture, verdict, who, search, time FROM verdicts ORDER BY query, picture, who"
        for values in self._run(command):
            yield Said(*values)

    def contents(self) -> set[str]:
        """The contents of all pictures on which there is a verdict, queries among them."""
        return {one for pair in self._run("SELECT query, picture FROM verdicts") for one in pair}

    def forget(self, contents: Iterable[str]) -> int:
        """Remove the verdicts on pictures that leave the gallery. No byte of them is left in the file.

        Returns:
            How many were removed.

        Raises:
            BadInput: the file cannot be written, or somebody reads it for too long.
        """
        count = 0
        for content in contents:
            count += self._run("DELETE FROM verdicts WHERE picture = ? OR query = ? RETURNING 1", (content,) * 2, True)
        with self._lock:
            forget(self._sql, self._file)
        return count

    def export(self, file: Path) -> int:
        """Write `feedback.csv`: query, picture (SHA-256 of both files), verdict, who, when. It is a private file.

        Returns:
            How many verdicts it has.

        Raises:
            BadInput: it cannot be written.
        """
        rows = [(one.query, one.picture, one.verdict, one.who, time_text(one.time)) for one in self.all()]
        write_private(file, table(HEADER, rows).encode("utf-8", "replace"))
        return len(rows)

    def _run(self, command: str, values: tuple = (), counted: bool = False) -> Any:
        try:
            with self._lock:
                found = self._sql.execute(command, values).fetchall()
        except sqlite3.Error as error:
            raise BadInput(f"the feedback in {self._file} cannot be used: {error}") from error
        return len(found) if counted else found
