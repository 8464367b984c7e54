"""One thread owns the model. Requests wait in a queue, and those that wait together are computed together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from vireid.data.modality import Modality
from vireid.gallery.row import Where
from vireid.gallery.search import Answer, Query, query_of_vectors
from vireid.gallery.store import EVERY_ROW

WAITING = 64
"""Most jobs in the queue."""
MOST = 16
"""Most pictures that are embedded together."""
PATIENCE = 0.005
"""Seconds for which a lonely picture waits for others."""


class Full(Exception):
    """There is no place in the queue.

    Attributes:
        seconds: about how long it takes until there is one.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full for about {seconds:.1f} s")
        self.seconds = seconds


class Closed(Exception):
    """The worker ends and takes no more jobs."""


class Searcher(Protocol):
    """What the worker calls, in its thread only."""

    def warm(self) -> None:
        """Load the model and compute something, so that the first search is as quick as the others."""
        ...

    def embed(self, pictures: Sequence[np.ndarray], modality: Modality) -> np.ndarray:
        """Vectors of pictures, N×D float32 of length one."""
        ...

    def search(self, queries: Sequence[Query], where: Where, top: int, start: int) -> Sequence[Answer]:
        """An answer for each query."""
        ...


@dataclass
class Job:
    """One search that waits.

    Attributes:
        pictures: of one person in one modality, each H×W×3 uint8 of the model's size; empty if `query` is given.
        modality: of the pictures.
        query: what is searched for, if it is known already.
        where, top, start: as in `vireid.gallery.search.search`.
        done: gets the query and its answer.
    """

    pictures: Sequence[np.ndarray] = ()
    modality: Modality = Modality.VISIBLE
    query: Query | None = None
    where: Where = EVERY_ROW
    top: int = 20
    start: int = 0
    done: Future[tuple[Query, Answer]] = field(default_factory=Future)


class Worker:
    """A thread that computes jobs.

    It takes the first job, waits up to `patience` for others of the same modality, embeds the pictures of all together,
    and searches once for all that have the same filter and page.

    Args:
        searcher: what computes.
        waiting: most jobs in the queue.
        most: most pictures that are embedded together. A job with more pictures is embedded alone.
        patience: seconds from the arrival of the first job.
        seen: is told the pictures and jobs of each batch, and the seconds it took.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        waiting: int = WAITING,
        most: int = MOST,
        patience: float = PATIENCE,
        seen: Callable[[int, int, float], None] | None = None,
    ) -> None:
        self._searcher, self._seen = searcher, seen
        self._waiting, self._most, self._patience = waiting, most, patience
        self._queue: deque[tuple[float, Job]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds = 0.1  # for one job, as it was lately
        self._failed: Callable[[], None] | None = None
        self.ready = threading.Event()
        """Set when the first job can be computed."""
        self.trouble: Exception | None = None
        """Why the worker could not begin."""
        self._thread = threading.Thread(target=self._run, name="searches", daemon=True)

    def start(self, failed: Callable[[], None] | None = None) -> None:
        """Begin to work. `failed` is called by the thread if the searcher cannot be warmed up; see `trouble`."""
        self._failed = failed
        self._thread.start()

    def submit(self, job: Job) -> Future[tuple[Query, Answer]]:
        """Let a job wait for its turn. Who does not want the answer any more cancels the future that this returns.

        Raises:
            Full: too many wait.
            Closed: the worker ends.
        """
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._queue) >= self._waiting:
                self._leave()
            if len(self._queue) >= self._waiting:
                raise Full(self._seconds * len(self._queue))
            self._queue.append((time.monotonic(), job))
            self._changed.notify()
        return job.done

    def waiting(self) -> int:
        """How many jobs wait."""
        with self._changed:
            return sum(not job.done.cancelled() for _, job in self._queue)

    def close(self, seconds: float | None = None) -> None:
        """Take no more jobs, compute those that wait, and end.

        Args:
            seconds: after this time, jobs that still wait are cancelled. None to wait for all.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is None:
            self._abandon()
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._abandon()

    def _abandon(self) -> None:
        with self._changed:
            while self._queue:
                self._queue.popleft()[1].done.cancel()

    def _leave(self) -> None:
        """Cancelled jobs give their places to others."""
        self._queue = deque(entry for entry in self._queue if not entry[1].done.cancelled())

    def _run(self) -> None:
        try:
            self._searcher.warm()
        except Exception as error:
            self.trouble = error
            with self._changed:
                self._closing = True
            self._abandon()
            if self._failed is not None:
                self._failed()
            return
        self.ready.set()
        while batch := self._next():
            began = time.monotonic()
            pictures = sum(len(job.pictures) for job in batch)
            self._compute(batch)
            seconds = time.monotonic() - began
            self._seconds += (seconds / len(batch) - self._seconds) / 4
            if self._seen is not None:
                self._seen(pictures, len(batch), seconds)

    def _next(self) -> list[Job]:
        """The jobs of the next batch. It is empty at the end."""
        with self._changed:
            while True:
                self._leave()
                if self._queue:
                    until = self._queue[0][0] + self._patience
                    left = until - time.monotonic()
                    if left <= 0 or self._closing or sum(len(job.pictures) for _, job in self._queue) >= self._most:
                        if batch := self._take():
                            return batch
                        continue
                    self._changed.wait(left)
                elif self._closing:
                    return []
                else:
                    self._changed.wait()

    def _take(self) -> list[Job]:
        """Take the first job out of the queue, and all that fit to it, in their order."""
        batch: list[Job] = []
        rest: deque[tuple[float, Job]] = deque()
        modality: Modality | None = None
        pictures = 0
        for since, job in self._queue:
            fits = not job.pictures or (
                (modality is None or job.modality == modality)
                and (pictures == 0 or pictures + len(job.pictures) <= self._most)
            )
            if not fits:
                rest.append((since, job))
            elif job.done.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                batch.append(job)
                pictures += len(job.pictures)
                modality = job.modality if job.pictures else modality
        self._queue = rest
        return batch

    def _compute(self, batch: list[Job]) -> None:
        """Embed the pictures of all jobs, and search once for each filter and page."""
        try:
            vectors = self._embedded(batch)
        except Exception as error:  # whatever it is, the requests get it, and the thread goes on
            _fail(batch, error)
            return
        groups: dict[tuple[Where, int, int], list[tuple[Job, Query]]] = {}
        for job, own in zip(batch, vectors, strict=True):
            try:
                query = query_of_vectors(own, job.modality) if job.query is None else job.query
            except Exception as error:
                _fail([job], error)
                continue
            groups.setdefault((job.where, job.top, job.start), []).append((job, query))
        for (where, top, start), members in groups.items():
            try:
                found = self._searcher.search([query for _, query in members], where, top, start)
                for (job, query), answer in zip(members, found, strict=True):
                    job.done.set_result((query, answer))
            except Exception as error:
                _fail([job for job, _ in members], error)

    def _embedded(self, batch: list[Job]) -> list[np.ndarray]:
        """The vectors of each job's pictures."""
        pictures = [picture for job in batch for picture in job.pictures]
        if not pictures:
            return [np.empty((0, 0), np.float32) for _ in batch]
        modality = next(job.modality for job in batch if job.pictures)
        vectors = self._searcher.embed(pictures, modality)
        return np.split(vectors, np.cumsum([len(job.pictures) for job in batch])[:-1])


def _fail(jobs: Sequence[Job], error: BaseException) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error)
