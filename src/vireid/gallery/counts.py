"""What is counted in one pass over the rows of a gallery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vireid.gallery.row import MODALITIES, Row

ByModality = tuple[int, ...]
"""Pictures of each modality, in the order of `MODALITIES`."""


class Counts:
    """Counts of the rows that were added.

    Attributes:
        cameras, sources: (name, modality) → pictures.
        first, last: the times of the first and the last picture, in milliseconds since 1970; None if none has a time.
        without_time: pictures that have no time.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.cameras: Counter[tuple[str, int]] = Counter()
        self.sources: Counter[tuple[str, int]] = Counter()
        self.first: int | None = None
        self.last: int | None = None
        self.without_time = 0
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.cameras[row.camera, row.modality] += 1
        self.sources[row.source, row.modality] += 1
        if row.time is None:
            self.without_time += 1
        else:
            self.first = row.time if self.first is None else min(self.first, row.time)
            self.last = row.time if self.last is None else max(self.last, row.time)


def by_name(counts: Counter[tuple[str, int]]) -> dict[str, ByModality]:
    """Name → pictures by modality; numbers first and in their order, then names in theirs.

    >>> by_name(Counter({("door", 0): 3, ("10", 1): 2, ("2", 0): 1}))
    {'2': (1, 0), '10': (0, 2), 'door': (3, 0)}
    """
    names = sorted({name for name, _ in counts}, key=_natural)
    return {name: tuple(counts[name, modality] for modality in MODALITIES) for name in names}


def _natural(name: str) -> tuple[int, int, str]:
    # isdecimal alone also holds for the digits of other scripts, which int() reads as well. They stay names.
    return (0, int(name), name) if name.isascii() and name.isdecimal() else (1, 0, name)
