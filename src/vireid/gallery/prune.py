"""Remove pictures from an index for good: rows, vectors, thumbnails, what the journal knows and what people said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vireid.data.errors import BadInput, unknown
from vireid.data.settings import options
from vireid.gallery.feedback import DATABASE as FEEDBACK
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import Index, is_url, open_index
from vireid.gallery.journal import Journal, Known
from vireid.gallery.row import Row, Where, checked_ids
from vireid.gallery.sources import list_source
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_store
from vireid.gallery.stores.embedded import DATABASE
from vireid.gallery.times import parse_time

AT_ONCE = 1000
TRIES = 3
"""How often bytes are removed again if somebody was reading."""


@options
class PruneOptions:
    """What `vireid gallery prune` is asked to do. A row is removed if all that is given holds for it.

    Attributes:
        index: a folder, or `milvus://host:port/name`.
        gone: its picture is not in its source any more. The sources are listed again for this.
        older_than: it was taken before this time: ISO 8601, or how long ago, such as `30d`. Rows without a time are
            kept.
        source: it is of this source.
        person: it is of this person.
        ids_from: its id is a line of this text file.
        dry_run: only count.
        state: as for `build`.
    """

    index: str | Path
    gone: bool = False
    older_than: str | None = None
    source: str | None = None
    person: str | None = None
    ids_from: Path | None = None
    dry_run: bool = False
    state: Path | None = None

    def __post_init__(self) -> None:
        if not (self.gone or self.older_than or self.source or self.person or self.ids_from):
            raise BadInput("say what to remove: --gone, --older-than, --source, --person or --ids-from")


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        rows: rows with vectors and thumbnails.
        entries: pictures that only the journal knew, because they could not be read.
        without_time: rows that nothing but `older_than` keeps, because they have no time.
        verdicts: what people said of them on the page.
        dry_run: whether nothing was removed.
        later: whether the server removes the bytes by itself, later.
    """

    rows: int
    entries: int
    without_time: int
    verdicts: int
    dry_run: bool
    later: bool


def prune(asked: PruneOptions) -> Pruned:
    """Remove rows, and their bytes from all files of the index.

    If it is interrupted, another call with the same options does the rest.

    Raises:
        BadInput: there is no index, it is being written, or a source cannot be listed.
    """
    before = None if asked.older_than is None else parse_time(asked.older_than, "--older-than")
    with open_index(asked.index, state=asked.state) as index, Journal(index.folder) as journal:
        known = {one.name: one for one in journal.sources()}
        if asked.source is not None and asked.source not in known and not _has_source(index.store, asked.source):
            raise unknown("source", asked.source, sorted(known))
        chosen, lonely, without_time = _chosen(asked, before, index.store, journal, known)
        verdicts = 0
        if not asked.dry_run:
            index.store.delete([])  # it is refused here if another process writes
            whole = asked.source is not None and not (asked.gone or before or asked.person or asked.ids_from)
            if whole and asked.source is not None:
                journal.forget_source(asked.source)
            journal.forget(lonely)
            verdicts = _forget_verdicts(index.folder, index.store, chosen)
            _remove(index.store, journal, chosen)
            _remove_bytes(index.store, journal)
    return Pruned(len(chosen), len(lonely), without_time, verdicts, asked.dry_run, is_url(asked.index))


def expire(index: Index, before: int) -> int:
    """Remove the rows of an open index whose pictures were taken before a time; those without a time stay.

    Searches may go on meanwhile, also in this process. The index is locked for other writers only until this returns.

    Args:
        index: an index that is open for reading.
        before: milliseconds since 1970, UTC.

    Returns:
        The number of rows that were removed.

    Raises:
        BadInput: another process writes, or somebody read for so long that bytes of removed rows are still on disk.
            The next call removes them.
    """
    where = Where(until=before)
    if not index.store.count(where) and not _has_log(index):
        return 0
    # A store keeps its lock until it is closed. So this is another one, and a build can run afterwards.
    with open_store(index.url) as store:
        try:
            store.delete([])
        except BadInput:
            store = index.store  # it may hold the lock itself
            store.delete([])
        with Journal(index.folder) as journal:
            chosen = [_picture(row) for row in store.iterate(where)]
            _forget_verdicts(index.folder, store, chosen)
            _remove(store, journal, chosen)
            _remove_bytes(store, journal)
    return len(chosen)


def _has_log(index: Index) -> bool:
    """Whether a log of the gallery or the journal has something, which may be what an earlier call could not remove."""
    if is_url(index.url):
        return False
    logs = (index.folder / f"{DATABASE}-wal", *index.folder.glob("journal-*.sqlite-wal"))
    return any(file.stat().st_size for file in logs if file.exists())


# --- which rows -------------------------------------------------------------------------------------------------------

Picture = tuple[str, str, str, str]
"""Id, source, path and content."""


def _picture(row: Row) -> Picture:
    return row.id, row.source, row.path, row.content


def _chosen(
    asked: PruneOptions, before: int | None, store: Store, journal: Journal, known: dict[str, Known]
) -> tuple[list[Picture], list[tuple[str, str]], int]:
    """The rows to remove, the pictures that only the journal knows, and how many rows have no time."""
    there = _Listings(asked, known)
    chosen, without_time = [], 0
    for where in _filters(asked):
        for row in store.iterate(where):
            if asked.gone and there.has(row.source, row.path):
                continue
            if before is not None and (row.time is None or row.time >= before):
                without_time += row.time is None
                continue
            chosen.append(_picture(row))
    lonely = []
    if asked.gone and not (before or asked.person or asked.ids_from):
        removed = {(source, path) for _, source, path, _ in chosen}
        names = [asked.source] if asked.source else list(known)
        pairs = ((name, path) for name in names for path in journal.paths(name))
        lonely = [one for one in pairs if one not in removed and not there.has(*one)]
    return chosen, lonely, without_time


def _filters(asked: PruneOptions) -> Iterator[Where]:
    where = Where(
        sources=None if asked.source is None else (asked.source,),
        persons=None if asked.person is None else (asked.person,),
    )
    if asked.ids_from is None:
        yield where
        return
    ids = _ids(asked.ids_from)
    for start in range(0, len(ids), AT_ONCE):
        yield replace(where, ids=tuple(ids[start : start + AT_ONCE]))


def _ids(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").split()
        return checked_ids(lines)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"{file} should have one id on each line: {error}") from None


class _Listings:
    """Which pictures the sources have now. A source is listed when it is first asked for."""

    def __init__(self, asked: PruneOptions, known: dict[str, Known]) -> None:
        self._asked, self._known = asked, known
        self._roots: dict[str, Path] = {}
        self._paths: dict[str, frozenset[str]] = {}

    def has(self, source: str, path: str) -> bool:
        """Whether a source has a picture, and its file is there."""
        if source not in self._paths:
            self._list(source)
        if path not in self._paths[source]:
            return False
        try:
            os.stat(self._roots[source] / path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass  # it is there, and cannot be looked at
        return True

    def _list(self, source: str) -> None:
        known = self._known.get(source)
        remove = f"to remove all of its pictures: vireid gallery prune {self._asked.index} --source {source}"
        if known is None:
            raise BadInput(f"where the source {source} is stands in the journal of the machine that built it; {remove}")
        try:
            listed = list_source(known.place, modality=known.modality, camera=known.camera, name=source)
        except BadInput as error:
            # Most likely a disk is not mounted. Then nothing is gone.
            raise BadInput(f"the source {source} cannot be listed, so nothing was removed: {error}; {remove}") from None
        self._roots[source], self._paths[source] = listed.root, frozenset(one.path for one in listed.pictures)


def _has_source(store: Store, source: str) -> bool:
    return store.count(Where(sources=(source,))) > 0


# --- removing ---------------------------------------------------------------------------------------------------------


def _remove(store: Store, journal: Journal, chosen: Sequence[Picture]) -> None:
    """Remove rows. The journal goes first: what it has forgotten is only read once more if this is interrupted."""
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        journal.forget((source, path) for _, source, path, _ in part)
        store.delete(id for id, *_ in part)


def _forget_verdicts(folder: Path, store: Store, chosen: Sequence[Picture]) -> int:
    """Remove what people said of pictures that are about to be removed, and return how many verdicts that were.

    A picture that has another row, such as one that was renamed, keeps its verdicts.
    """
    if not chosen or not (folder / FEEDBACK).exists():
        return 0
    with Feedback(folder) as feedback:
        going = {id for id, *_ in chosen}
        said = sorted(feedback.contents() & {content for *_, content in chosen})
        staying: set[str] = set()
        for start in range(0, len(said), AT_ONCE):
            where = Where(contents=tuple(said[start : start + AT_ONCE]))
            staying.update(row.content for row in store.iterate(where) if row.id not in going)
        gone = [one for one in said if one not in staying]
        return feedback.forget(gone) if gone else 0


def _remove_bytes(store: Store, journal: Journal) -> None:
    journal.compact()
    for left in reversed(range(TRIES)):
        try:
            return store.compact()
        except BadInput:
            if not left:
                raise
            time.sleep(0.1)
    return None
