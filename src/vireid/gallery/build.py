"""`vireid gallery build`: pictures of folders and tables become rows of an index, and only new ones cost time."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from vireid.data.errors import BadInput
from vireid.data.settings import Count, Whole, options
from vireid.evaluation.embedding import Embedder, fastest_device
from vireid.experiments.embed import shown
from vireid.gallery.index import Index, is_url, make_index, open_index
from vireid.gallery.journal import Entry, Journal, Known
from vireid.gallery.reading import Read, Wanted, batches
from vireid.gallery.row import Row, Where, id_of
from vireid.gallery.sources import Listed, Source, list_source
from vireid.training import distributed
from vireid.training.memory import advice_on_full_memory
from vireid.training.progress import Progress, Quiet

PART = 1000
"""Pictures that are looked up at a time."""
BATCHES, SECONDS = 8, 5.0
"""Rows are stored after so many batches, or so many seconds: what a crash costs at most."""


@options
class BuildOptions:
    """What `vireid gallery build` is asked to do.

    Attributes:
        index: a folder, or `milvus://host:port/name`.
        model: a run directory or an exported model.
        sources: folders, tables (CSV) and `LAYOUT:PATH`, see `vireid.gallery.sources.list_source`.
        modality: of all pictures that have none of their own.
        camera: of all pictures that have none of their own.
        name: of the source, if there is one source; None for its absolute path.
        checkpoint: `last` or `best`.
        batch: pictures embedded at once.
        workers: loading processes.
        state: folder of this machine for the journal of an index in Milvus; None for the usual one.
    """

    index: str | Path
    model: Path
    sources: tuple[str | Path, ...]
    modality: str | None = None
    camera: str | None = None
    name: str | None = None
    checkpoint: Literal["last", "best"] = "last"
    batch: Count = 64
    workers: Whole = 2
    state: Path | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise BadInput("a build needs a source: a folder, a table (CSV), or LAYOUT:PATH")
        if self.name is not None and len(self.sources) > 1:
            raise BadInput(f"--name is the name of one source, and there are {len(self.sources)}")


@dataclass
class Built:
    """What a build did.

    Attributes:
        listed: pictures of the sources.
        embedded: pictures that got a vector: new ones, and those whose content or modality changed.
        unchanged: pictures whose file has nothing new.
        updated: pictures whose row got other columns, such as another camera, without being embedded.
        unreadable: source → path → reason.
        duplicates: of the embedded pictures, those whose bytes another picture of the index has as well.
        present: source → pictures of it that have a row.
        gone: source → rows whose picture is not in the source any more. `vireid gallery prune --gone` removes them.
        visible, infrared: rows of the index now.
        seconds: how long it took.
    """

    listed: int = 0
    embedded: int = 0
    updated: int = 0
    unchanged: int = 0
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    duplicates: int = 0
    present: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    visible: int = 0
    infrared: int = 0
    seconds: float = 0.0


def build(asked: BuildOptions, progress: Progress = Quiet()) -> Built:  # noqa: B008 has no state
    """Make an index of pictures, or bring it up to date.

    A file with the size and time that the journal has is not opened. One with the content that the journal has is not
    embedded. What the source says of a picture, such as its camera, is compared with the row and replaced there.
    Pictures that are gone stay in the index and are counted. If it is killed, another call goes on.

    Under torchrun, each process takes the pictures whose ids fall to it. The result is the same in all of them.

    Raises:
        BadInput: the model or a source cannot be used, the index is of another model or is being written, or several
            processes shall write into a folder.
    """
    began = time.monotonic()
    launched = distributed.begin()
    rank, world = launched.process_index, launched.num_processes
    if world > 1 and not is_url(asked.index):
        raise BadInput(
            f"{asked.index} is a folder, which one process writes: start one, or use milvus://host:port/name"
        )
    with distributed.main_process_speaks():
        with distributed.raise_together():
            given = {"modality": asked.modality, "camera": asked.camera, "name": asked.name}
            sources = [list_source(one, **given) for one in asked.sources]
            _check_names(sources)
        with contextlib.ExitStack() as open_files:
            index = open_files.enter_context(_opened(asked, rank))
            with distributed.raise_together():
                journal = open_files.enter_context(Journal(index.folder, rank))
                mine = _Part(asked, index, journal, rank, world, progress if rank == 0 else Quiet())
            with distributed.raise_together():
                for source in sources:
                    mine.look_at(source)
                mine.embed()
            found = _together(distributed.gather_objects(mine.built))
            with distributed.raise_together():
                rows = index.store.facts()
                found.visible, found.infrared = rows.visible, rows.infrared
                gone = {name: _gone(index, name, there) for name, there in found.present.items()}
                found.gone = {name: many for name, many in gone.items() if many}
                for source in sources:
                    journal.finished(source.name)
    found.seconds = time.monotonic() - began
    return found


def _check_names(sources: Sequence[Source]) -> None:
    names = [one.name for one in sources]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"the source {twice[0]} is named twice")


def _opened(asked: BuildOptions, rank: int) -> Index:
    """The index. One process makes it, and the others open it."""
    made: list[Index] = []
    for turn in (True, False):
        with distributed.raise_together():
            if (rank == 0) is not turn:
                continue
            if rank == 0:
                made.append(make_index(asked.index, asked.model, checkpoint=asked.checkpoint, state=asked.state))
            else:
                made.append(open_index(asked.index, model=asked.model, state=asked.state))
                _ = made[0].model  # refused here if it is another one
    return made[0]


def _together(parts: Sequence[Built]) -> Built:
    """What all processes did."""
    found = Built()
    for part in parts:
        for name in ("listed", "embedded", "updated", "unchanged", "duplicates"):
            setattr(found, name, getattr(found, name) + getattr(part, name))
        for source, reasons in part.unreadable.items():
            found.unreadable.setdefault(source, {}).update(reasons)
        for source, many in part.present.items():
            found.present[source] = found.present.get(source, 0) + many
    return found


def _gone(index: Index, source: str, present: int) -> int:
    return max(0, index.store.count(Where(sources=(source,))) - present)


class _Item(NamedTuple):
    """A picture to read.

    Attributes:
        before: the content of its row; empty if it has none.
        known: the content that needs no new vector; empty if there is none.
    """

    source: Source
    picture: Listed
    before: str
    known: str


class _Part:
    """The part of a build that this process does."""

    def __init__(
        self, asked: BuildOptions, index: Index, journal: Journal, rank: int, world: int, progress: Progress
    ) -> None:
        self.asked, self.index, self.journal, self.progress = asked, index, journal, progress
        self.rank, self.world = rank, world
        self.built = Built()
        self._again: list[_Item] = []
        self._new: list[_Item] = []
        self._rows: list[Row] = []
        self._entries: dict[tuple[str, str], Entry] = {}

    # --- what is new --------------------------------------------------------------------------------------------------

    def look_at(self, source: Source) -> None:
        """Find the pictures of a source that must be read, and update the rows of the others."""
        self.journal.keep_source(Known(source.name, source.place, source.modality, source.camera, None))
        self.built.present.setdefault(source.name, 0)
        many = len(source.pictures)
        with self.progress.bar("checking") as advance:
            for start in range(0, many, PART):
                part = [one for one in source.pictures[start : start + PART] if self._is_mine(source, one)]
                self._sort(source, part)
                advance(min(start + PART, many), many)

    def _is_mine(self, source: Source, picture: Listed) -> bool:
        return self.world == 1 or int(id_of(source.name, shown(picture.path)), 16) % self.world == self.rank

    def _sort(self, source: Source, part: list[Listed]) -> None:
        """Look up some pictures in the journal and the store, and note what is to be done with them."""
        self.built.listed += len(part)
        part = [one for one in part if self._can_be_a_row(source, one)]
        entries = self.journal.entries(source.name, [one.path for one in part])
        ids = tuple(id_of(source.name, one.path) for one in part)
        rows = {row.path: row for row in self.index.store.iterate(Where(ids=ids))}
        self.built.present[source.name] += len(rows)
        for one in part:
            self._sort_one(source, one, entries.get(one.path), rows.get(one.path))
        outdated = [(rows[one.path], one) for one in part if one.path in rows and _is_outdated(rows[one.path], one)]
        if outdated:
            self._update(outdated)

    def _can_be_a_row(self, source: Source, picture: Listed) -> bool:
        try:
            picture.row(source.name, "0" * 64)
        except BadInput as error:
            named_wrong = "its name is not UTF-8" if shown(picture.path) != picture.path else str(error)
            self._cannot_read(source, picture, named_wrong)
            return False
        return True

    def _sort_one(self, source: Source, picture: Listed, entry: Entry | None, row: Row | None) -> None:
        how = (picture.modality, self._scaling(source))
        known = ""
        if entry is not None and row is not None and (entry.modality, entry.scaling) == how:
            known = entry.content if (row.content, row.modality) == (entry.content, picture.modality) else ""
        if entry is not None and (entry.size, entry.modified) == _size_and_time(source.file(picture)):
            if entry.error:
                return self._cannot_read(source, picture, entry.error)
            if known:
                self.built.unchanged += 1
                return None
        item = _Item(source, picture, row.content if row else "", known)
        (self._new if entry is None else self._again).append(item)
        return None

    def _scaling(self, source: Source) -> str:
        return self.index.model.scaling if source.scaling == "full" else source.scaling

    def _update(self, outdated: list[tuple[Row, Listed]]) -> None:
        """Replace the columns of rows whose picture is the same."""
        stored = self.index.store.get(row.id for row, _ in outdated)
        fresh = [
            picture.row(row.source, row.content, stored[row.id].vector, self.index.store.thumbnail(row.id))
            for row, picture in outdated
            if row.id in stored
        ]
        self.index.store.upsert(fresh)
        self.built.updated += len(fresh)

    def _cannot_read(self, source: Source, picture: Listed, reason: str) -> None:
        self.built.unreadable.setdefault(source.name, {})[shown(picture.path)] = reason

    # --- reading and embedding ----------------------------------------------------------------------------------------

    def embed(self) -> None:
        """Read the pictures that are new or changed, and store their rows.

        Pictures that are in the journal are read first and by themselves. So the others come in the same batches
        whenever a build was stopped between two of them, and their vectors are the same to the last bit.
        """
        many, done, batch = len(self._again) + len(self._new), 0, self.asked.batch
        stored_at, waiting = time.monotonic(), 0
        with self.progress.bar("embedding") as advance, advice_on_full_memory("--batch (fewer pictures at once)"):
            for items in (self._again, self._new):
                wanted = [
                    Wanted(str(one.source.file(one.picture)), self._scaling(one.source), one.known) for one in items
                ]
                size, workers = self.index.model.size, min(self.asked.workers, -(-len(items) // batch))
                for first, images, found in batches(wanted, size, batch=batch, workers=workers):
                    self._embed_batch(items[first : first + batch], images, found)
                    done, waiting = done + len(found), waiting + 1
                    if waiting >= BATCHES or time.monotonic() > stored_at + SECONDS:
                        self._store()
                        stored_at, waiting = time.monotonic(), 0
                    advance(done, many)
            self._store()

    def _embed_batch(self, items: list[_Item], images: torch.Tensor, found: list[Read]) -> None:
        fresh = [(item, read) for item, read in zip(items, found, strict=True) if read.thumbnail is not None]
        if fresh:
            modality = torch.tensor([int(item.picture.modality) for item, _ in fresh])
            vectors = self._embedder(images, modality).cpu().numpy()
            for (item, read), vector in zip(fresh, vectors, strict=True):
                self._rows.append(item.picture.row(item.source.name, read.content, vector, read.thumbnail))
                self.built.present[item.source.name] += not item.before
            self.built.embedded += len(fresh)
        for item, read in zip(items, found, strict=True):
            if read.error:
                self._cannot_read(item.source, item.picture, read.error)
            elif read.thumbnail is None:
                self.built.unchanged += 1
            content = item.before if read.error else read.content
            how = (item.picture.modality, self._scaling(item.source))
            entry = Entry(read.size, read.modified, content, *how, read.error)
            self._entries[item.source.name, item.picture.path] = entry

    @cached_property
    def _embedder(self) -> Embedder:
        # All pictures of the sources count, not only the new ones: a build that was stopped must go on in the same way.
        device = None if self.index.model.runtime else fastest_device()
        return self.index.model.embedder(device=device, pictures=self.built.listed, batch=self.asked.batch)

    def _store(self) -> None:
        """Store rows, and only then write into the journal that they are there."""
        if self._rows:
            before = self._same_content()
            self.index.store.upsert(self._rows)
            contents = {row.content for row in self._rows} - before
            self.built.duplicates += len(self._rows) - len(contents)
        if self._entries:
            self.journal.record(self._entries)
        self._rows, self._entries = [], {}

    def _same_content(self) -> set[str]:
        """The contents of the rows to store that other pictures of the index have."""
        ids = {row.id for row in self._rows}
        contents = tuple({row.content for row in self._rows})
        return {row.content for row in self.index.store.iterate(Where(contents=contents)) if row.id not in ids}


def _is_outdated(row: Row, picture: Listed) -> bool:
    """Whether a row says something else of its picture than the source, and needs no new vector for it."""
    return row.modality == picture.modality and not picture.describes(row)


def _size_and_time(file: Path) -> tuple[int, int] | None:
    """Bytes and time of change in nanoseconds; None if there is no such file."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
