"""What a gallery holds, by camera, source and time: the choices of a filter."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from vireid.gallery.counts import ByModality, Counts, by_name
from vireid.gallery.row import MODALITIES
from vireid.gallery.store import Facts, Store
from vireid.gallery.times import time_text

FRESH = 5.0
"""Seconds for which counts are given again without a look at the gallery."""
SHARE = 0.05
"""Counting takes at most this share of the time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counted:
    """The counts of a gallery.

    Attributes:
        facts: how the gallery was before it was counted.
        cameras, sources: name → pictures by modality, in the order of `MODALITIES`.
        first, last: the times of the first and the last picture; None if none has a time.
        without: pictures that have no time.
    """

    facts: Facts
    cameras: dict[str, ByModality]
    sources: dict[str, ByModality]
    first: int | None
    last: int | None
    without: int

    def as_values(self) -> dict[str, Any]:
        """JSON values, as `vireid.gallery.service.answers.Facets` has them."""
        return {
            "pictures": {"visible": self.facts.visible, "infrared": self.facts.infrared},
            "cameras": _groups(self.cameras),
            "sources": _groups(self.sources),
            "times": {"first": time_text(self.first), "last": time_text(self.last), "without": self.without},
        }


def count(store: Store) -> Counted:
    """Count the rows of a store. It reads all of them."""
    facts = store.facts()
    found = Counts(store.iterate())
    return Counted(facts, by_name(found.cameras), by_name(found.sources), found.first, found.last, found.without_time)


class Facets:
    """The counts of a store that others write into. They are counted again when the number of rows has changed.

    A large gallery takes seconds to count. So the old counts are given meanwhile, and only the first call waits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._kept: Counted | None = None
        self._due = 0.0

    def begin(self) -> None:
        """Count for the first time, in a thread."""
        threading.Thread(target=self._first, name="facets", daemon=True).start()

    def now(self) -> Counted:
        """The counts, some seconds old."""
        with self._lock:
            if self._kept is None:
                self._count()
            elif time.monotonic() >= self._due and self._counting.acquire(blocking=False):
                threading.Thread(target=self._count_again, name="facets", daemon=True).start()
            assert self._kept is not None
            return self._kept

    def _first(self) -> None:
        try:
            self.now()
        except Exception:  # who asks for the counts will be told
            log.exception("the gallery cannot be counted")

    def _count(self) -> None:
        began = time.monotonic()
        self._kept = count(self._store)
        ended = time.monotonic()
        self._due = ended + max(FRESH, (ended - began) / SHARE)

    def _count_again(self) -> None:
        try:
            if self._kept is not None and self._store.facts() == self._kept.facts:
                self._due = time.monotonic() + FRESH
            else:
                self._count()
        except Exception:
            log.exception("the gallery cannot be counted")
            self._due = time.monotonic() + FRESH
        finally:
            self._counting.release()


def _groups(counts: dict[str, ByModality]) -> list[dict[str, Any]]:
    words = [one.word for one in MODALITIES]
    return [{"name": name, **dict(zip(words, numbers, strict=True))} for name, numbers in counts.items()]
