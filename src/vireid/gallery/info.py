"""`vireid gallery info`: what an index holds, where it came from, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vireid.gallery.counts import Counts, by_name
from vireid.gallery.index import Index, ModelFacts, is_url, open_index
from vireid.gallery.journal import Journal
from vireid.gallery.recall import Recall, recall_of
from vireid.gallery.times import time_text
from vireid.training.progress import Progress, Quiet


@dataclass(frozen=True)
class CameraFacts:
    """The rows of one camera."""

    camera: str
    visible: int
    infrared: int


@dataclass(frozen=True)
class SourceFacts:
    """The rows of one source.

    Attributes:
        name: of the source.
        place: what was named in the build; empty if another machine built it.
        rows: pictures.
        unreadable: pictures that could not be read when a build last looked at them.
        built: when a build last went through it to the end, ISO 8601; None if never, or not on this machine.
    """

    name: str
    place: str
    rows: int
    unreadable: int
    built: str | None


@dataclass(frozen=True)
class CalibrationFacts:
    """The calibration of an index: the data, the number of people, and warnings."""

    data: str
    people: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Info:
    """What an index is.

    Attributes:
        index: its URL or folder.
        model: the model that its vectors are from.
        calibration: None if the model was not calibrated.
        visible, infrared: rows.
        cameras: by name.
        sources: by name.
        first, last: times of the pictures, ISO 8601; None if no picture has one.
        without_time: rows without a time.
        persons: different persons; rows without one do not count.
        duplicates: rows whose bytes an earlier row has already.
        dead: vectors of deleted and replaced rows that are still in the files; `vireid gallery prune` removes them.
        bytes: size of the index's folder; None for one in a server.
        unreadable: source → path → reason.
        recall: what an approximate index finds; None of an exact one.
    """

    index: str
    model: ModelFacts
    calibration: CalibrationFacts | None
    visible: int
    infrared: int
    cameras: tuple[CameraFacts, ...]
    sources: tuple[SourceFacts, ...]
    first: str | None
    last: str | None
    without_time: int
    persons: int
    duplicates: int
    dead: int
    bytes: int | None
    unreadable: dict[str, dict[str, str]]
    recall: Recall | None = None


def info(url: str | Path, *, state: Path | None = None, progress: Progress = Quiet()) -> Info:  # noqa: B008 no state
    """Look through all rows of an index, without their vectors.

    Raises:
        BadInput: there is no index, or it cannot be read.
    """
    with open_index(url, state=state) as index, Journal(index.folder) as journal:
        looked = _Looked(index, progress)
        counts = looked.counts
        cameras, sources = by_name(counts.cameras), by_name(counts.sources)
        unreadable: dict[str, dict[str, str]] = {}
        for source, path, reason in journal.unreadable():
            unreadable.setdefault(source, {})[path] = reason
        known = {one.name: one for one in journal.sources()}
        names = sorted({*known, *sources})
        calibration = index.calibration
        return Info(
            index=str(url),
            model=index.facts,
            calibration=calibration
            and CalibrationFacts(calibration.data, calibration.people, tuple(calibration.warnings)),
            visible=sum(one[0] for one in cameras.values()),
            infrared=sum(one[1] for one in cameras.values()),
            cameras=tuple(CameraFacts(name, *numbers) for name, numbers in cameras.items()),
            sources=tuple(
                SourceFacts(
                    name=name,
                    place=known[name].place if name in known else "",
                    rows=sum(sources.get(name, ())),
                    unreadable=len(unreadable.get(name, {})),
                    built=time_text(known[name].built) if name in known else None,
                )
                for name in names
            ),
            first=time_text(counts.first),
            last=time_text(counts.last),
            without_time=counts.without_time,
            persons=len(looked.persons),
            duplicates=looked.duplicates,
            dead=index.store.facts().dead,
            bytes=None if is_url(url) else _size(index.folder),
            unreadable=unreadable,
            recall=recall_of(index.store),
        )


def _size(folder: Path) -> int:
    """The bytes of an index's files, without the logs that SQLite has while a database is open."""
    return sum(
        file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.name.endswith(("-wal", "-shm"))
    )


class _Looked:
    """What one pass over the rows finds: the counts, different persons, and rows whose bytes came before."""

    def __init__(self, index: Index, progress: Progress) -> None:
        self.counts = Counts()
        self.persons: set[str] = set()
        self.duplicates = 0
        contents: set[int] = set()
        many = index.store.count()
        with progress.bar("counting") as advance:
            for done, row in enumerate(index.store.iterate(), 1):
                self.counts.add(row)
                if row.person is not None:
                    self.persons.add(row.person)
                content = int(
                    row.content[:15], 16
                )  # 60 bits: of 100 million, two are equal by chance once in 200 times
                self.duplicates += content in contents
                contents.add(content)
                if done % 1000 == 0:
                    advance(done, many)
