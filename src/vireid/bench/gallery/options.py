"""What the user chooses for the area `search`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vireid.data.errors import BadInput, unknown
from vireid.data.settings import Count, options

PARTS = ("build", "matrix", "large", "service", "milvus")


@options
class SearchOptions:
    """The options of `vireid bench search`.

    Attributes:
        parts: what is measured, of `PARTS`: building an index from pictures; a search in `rows` × `width` and a filter
            there; a search in `large_rows` × `large_width`; requests over HTTP; the adapter of Milvus. Empty for all of
            them; without `large`, which takes minutes, if the area was not named.
        rows, width: of the part `matrix`.
        large_rows, large_width: of the part `large`.
        milvus_rows: rows of the part `milvus`, of `large_width`.
        pictures: how many pictures are built into an index.
        requests: how many searches are sent at the same time.
        store: `milvus://host:port/name` of the part `milvus`, a name that is free; None starts milvus-lite's server if
            it is installed.
        model: a run, or an exported model, for the parts `build` and `service`; None makes a small untrained one.
        workers: loading processes of the part `build`.
    """

    parts: tuple[str, ...] = ()
    rows: Count = 100_000
    width: Count = 2048
    large_rows: Count = 1_000_000
    large_width: Count = 512
    milvus_rows: Count = 20_000
    pictures: Count = 1000
    requests: Count = 64
    store: str | None = None
    model: Path | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if strange := sorted(set(self.parts) - set(PARTS)):
            raise unknown("area of the benchmark", strange[0], PARTS)
        if self.store is not None and "://" not in self.store:
            raise BadInput(
                f"--store names a server, milvus://host:port/name; the folders are made here: '{self.store}'"
            )


QUICK: Mapping[str, int] = {
    "rows": 2000,
    "width": 64,
    "large_rows": 3000,
    "large_width": 32,
    "milvus_rows": 500,
    "pictures": 24,
    "requests": 8,
}
"""The sizes of `--quick`. They show that everything works, and no ratio."""
