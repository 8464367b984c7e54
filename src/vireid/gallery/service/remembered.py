"""Searches that the service keeps for a while, so that other filters and further pages need no second upload."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from vireid.gallery.search import Query

MINUTES = 15
MOST = 4096
"""Searches at a time. With 2048 numbers a vector they take 32 MB."""


@dataclass
class Remembered:
    """One search.

    Attributes:
        who: the name of the token that made it. Others do not see it.
        query: the vector. The picture itself is not kept.
        contents: SHA-256 of the bytes of each query picture.
        guessed: whether the modality was guessed.
        picture: id of the row that the search began from; None for an upload.
        reason: why it was made, as it was typed.
        shown: ids of the pictures that it showed.
        id: 32 hexadecimal digits, drawn by chance.
    """

    who: str
    query: Query
    contents: tuple[str, ...]
    guessed: bool = False
    picture: str | None = None
    reason: str | None = None
    shown: set[str] = field(default_factory=set)
    id: str = field(default_factory=lambda: secrets.token_hex(16))


class Searches:
    """The last searches, in memory only. One is forgotten some time after its last use, or when there are too many.

    Args:
        minutes: how long a search is kept after its last use.
        most: how many are kept; the one that was not used for the longest time leaves first.
        clock: seconds that only grow.
    """

    def __init__(self, minutes: float = MINUTES, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = minutes * 60, most, clock
        self._kept: OrderedDict[str, tuple[float, Remembered]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._forget()
            return len(self._kept)

    def keep(self, search: Remembered) -> None:
        """Keep a search, or keep it for longer."""
        with self._lock:
            self._kept[search.id] = self._clock(), search
            self._kept.move_to_end(search.id)
            self._forget()

    def find(self, id: str, who: str) -> Remembered | None:
        """The search with this id, which is then kept for longer; None if it is forgotten or is another user's."""
        with self._lock:
            self._forget()
            _, found = self._kept.get(id, (0.0, None))
            if found is None or found.who != who:
                return None
            self._kept[id] = self._clock(), found
            self._kept.move_to_end(id)
            return found

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        while self._kept:
            used, _ = next(iter(self._kept.values()))
            if used > oldest and len(self._kept) <= self._most:
                return
            self._kept.popitem(last=False)
