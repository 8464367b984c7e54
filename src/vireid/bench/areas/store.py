"""One store: filled by a process that is killed, filled to the end, and compared with a plain loop (needs --store).

What the store answers must be equal to what a plain loop over all vectors gives: ids and float64 scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vireid.bench.gallery import resume
from vireid.bench.measure import Line
from vireid.bench.run import Bench
from vireid.data.stored import as_json

__all__ = ["ON_REQUEST", "QUICK", "Options", "measure"]

ON_REQUEST = True
Options, QUICK = resume.StoreOptions, resume.QUICK


def measure(bench: Bench) -> Iterator[Line]:
    """Fill a store in spite of kills, compare its answers, and measure its searches."""
    asked: resume.StoreOptions = bench.options
    found = resume.fill(bench)
    size = f"{asked.rows:,} × {asked.width}"
    figures = {
        "rows_per_second": found.rows_per_second,
        "killed": as_json(found.killed),
        "seconds": {name: found.searches.median(name) for name in found.searches.spent},
        "disk": found.disk,
    }
    first = found.searches.line(f"a filter, {size}", baseline=resume.ONE, ours=resume.SIXTH, larger=False)
    yield replace(first, figures=figures, notes=(*_told(size, found),))
    yield found.searches.line(f"queries together, {size}", baseline=resume.ONE, ours=resume.TOGETHER, larger=False)


def _told(size: str, found: resume.Filled) -> Iterator[str]:
    yield f"store of {size}: {found.rows_per_second:,.0f} rows a second"
    for one in found.killed:
        yield f"killed: {one.acknowledged:,} acknowledged, {one.stored:,} there, open in {one.seconds:.2f} s"
    for name in found.searches.spent:
        yield f"{name}: {1000 * found.searches.median(name):,.1f} ms"
    if found.disk is not None:
        yield f"on disk: {found.disk / 1e9:.2f} GB"
    yield "the answers are those of a plain loop over all vectors: ids and float64 scores are equal"
