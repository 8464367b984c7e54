"""Galleries: building, searching and serving, against NumPy, faiss, pymilvus and bare loops."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from vireid.bench.gallery import service, stores
from vireid.bench.gallery.options import PARTS, QUICK, SearchOptions
from vireid.bench.measure import Line, Missing
from vireid.bench.run import Bench

__all__ = ["QUICK", "Options", "measure"]

Options = SearchOptions
LONG = "large"
MEASURED: Mapping[str, Callable[[Bench], list[Line]]] = {
    "build": service.build_lines,
    "matrix": stores.matrix_lines,
    "large": stores.large_lines,
    "service": service.service_lines,
    "milvus": stores.milvus_lines,
}


def measure(bench: Bench) -> Iterator[Line]:
    """The parts that were asked for, each in a folder of its own."""
    for part in PARTS:
        if part not in (bench.options.parts or PARTS):
            continue
        if part == LONG and not (bench.named or bench.quick or bench.options.parts):
            bench.leave_out(f"search, {part}", "it takes minutes; vireid bench search measures it")
            continue
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            try:
                yield from MEASURED[part](replace(bench, folder=Path(folder)))
            except Missing as why:
                bench.leave_out(f"search, {part}", str(why))
