"""The process that fills a store until it is killed: `python -m vireid.bench.gallery.writer URL ROWS WIDTH DONE`.

It is a file of its own because it is started again after each kill, and must not import more than it needs.
"""

from __future__ import annotations

import sys

from vireid.bench.gallery.vectors import BATCH, MODEL, part_of, rows_of
from vireid.gallery.store import open as open_gallery


def write(url: str, rows: int, width: int, done: int) -> None:
    """Write all but the first `done` rows, and print how many are acknowledged after each batch."""
    with open_gallery(url, model=MODEL, width=width) as store:
        for first in range(done - done % BATCH, rows, BATCH):
            part = part_of(first, rows, width)
            store.upsert(rows_of(first, part))
            print(first + len(part), flush=True)


if __name__ == "__main__":
    write(sys.argv[1], *map(int, sys.argv[2:]))
