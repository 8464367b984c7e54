"""`vireid bench search` and `vireid bench store`: how fast a gallery is, on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console

if TYPE_CHECKING:
    from vireid.gallery.bench.ratios import Benched

SIZES = {
    "rows": "vectors of the area matrix (100000)",
    "width": "their numbers (2048)",
    "large_rows": "vectors of the area large (1000000)",
    "large_width": "their numbers (512)",
    "milvus_rows": "vectors of the area milvus (20000)",
    "pictures": "pictures of the area build (1000)",
    "requests": "searches at the same time, area service (64)",
    "rounds": "how often each contender is measured (7)",
}


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb group."""
    what = "Measure how fast a gallery is, as ratios to baselines of the same run."
    group = verbs.add_parser("bench", help="measure how fast a gallery is", description=what)
    group.set_defaults(verb_function=lambda options: group.print_help())
    nouns = group.add_subparsers(dest="noun", metavar="VERB")

    search = nouns.add_parser(
        "search",
        help="ratios to named baselines",
        description="Compare building, searching and serving a gallery with named baselines: NumPy, faiss, pymilvus, a "
        "bare loop, requests one after another. The contenders run in turns, and the median of the rounds counts. An "
        "area that lacks memory, disk or a package is left out, and said. What is written is removed afterwards.",
    )
    search.add_argument("--area", nargs="+", metavar="AREA", help="build, matrix, large, service, milvus; default: all")
    search.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, and no ratio")
    for name, meaning in SIZES.items():
        search.add_argument(f"--{name.replace('_', '-')}", type=console.count, metavar="N", help=meaning)
    search.add_argument("--store", metavar="URL", help="a server for the area milvus; default: milvus-lite, if there")
    search.add_argument(
        "--model", type=Path, metavar="RUN", help="for build and service; default: a small untrained one"
    )
    search.add_argument("--workers", type=console.count, default=0, metavar="N", help="loading processes (default 0)")
    console.add_json(search, "write the ratios as JSON")
    search.set_defaults(verb_function=run_search)

    store = nouns.add_parser(
        "store",
        help="fill a store, kill the writer, go on, compare",
        description="Fill a store from a process that is killed at random moments, go on each time where it was, "
        "compare the answers with a plain loop over all vectors, and print rates, times and sizes.",
    )
    store.add_argument("--store", required=True, metavar="URL", help="a new folder, or milvus://host:port/name")
    store.add_argument("--rows", type=console.count, default=100_000, metavar="N", help="vectors (100000)")
    store.add_argument("--width", type=console.count, default=2048, metavar="N", help="their numbers (2048)")
    store.add_argument("--kills", type=console.count, default=1, metavar="N", help="how often (1)")
    store.add_argument("--rounds", type=console.count, default=7, metavar="N", help="how often a search is timed (7)")
    store.add_argument("--seed", type=console.count, default=0, metavar="S", help="of the moments of the kills")
    store.add_argument("--keep", action="store_true", help="leave the store there at the end")
    console.add_json(store, "write the figures as JSON")
    store.set_defaults(verb_function=run_store)


def run_search(options: argparse.Namespace) -> None:
    """Measure, and print the ratios."""
    from vireid.gallery.bench.ratios import QUICK, BenchOptions, bench
    from vireid.training.progress import Terminal

    sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    areas = {} if options.area is None else {"areas": tuple(options.area)}
    kept = {"store": options.store, "model": options.model, "workers": options.workers}
    found = bench(BenchOptions(**{**(QUICK if options.quick else {}), **sizes, **areas, **kept}), Terminal())
    print_ratios(found, quick=options.quick)
    console.write_json(options.json, {**found.to_json(), "command": console.command()})


def print_ratios(found: Benched, *, quick: bool) -> None:
    """The table, what is missing, and the machine."""
    marks = {True: "met", False: "not met", None: ""} if not quick else {}
    lines = []
    for one in found.ratios:
        wanted = "–" if one.target is None else f"{'≥' if one.speed else '≤'} {one.target:.3g}"
        times = [f"{1000 * seconds:,.2f}" for seconds in (one.baseline_seconds, one.ours_seconds)]
        lines.append(
            [one.area, one.what, one.baseline, one.ours, *times, f"{one.value:.2f}", wanted, marks.get(one.met, "")]
        )
    if lines:
        header = ["area", "what", "baseline", "ours", "baseline ms", "ours ms", "ratio", "target", ""]
        print(console.table(header, lines, left=4))
    for area, why in found.missing.items():
        print(f"{area}: not measured: {why}")
    machine = found.surroundings.hardware
    threads = f"{machine.cores} cores, {machine.threads} threads"
    print(f"{machine.processor}, {threads}; ratios are medians over rounds, times are medians too")
    if quick:
        print("--quick: the sizes are too small to say anything about speed")


def run_store(options: argparse.Namespace) -> None:
    """Fill, kill, go on, compare, and print the figures."""
    from vireid.data.stored import as_json
    from vireid.gallery.bench.resume import StoreOptions, bench_store
    from vireid.training.progress import Terminal

    names = ("store", "rows", "width", "kills", "rounds", "seed", "keep")
    found = bench_store(StoreOptions(**{name: getattr(options, name) for name in names}), Terminal())
    lines = [["rows", f"{found.rows:,} × {found.width}"], ["rows a second", f"{found.rows_per_second:,.0f}"]]
    for one in found.killed:
        told = f"{one.acknowledged:,} acknowledged, {one.stored:,} there, open in {one.seconds:.2f} s"
        lines.append(["killed", told])
    lines += [[name, f"{1000 * seconds:,.1f} ms"] for name, seconds in found.seconds.items()]
    if found.disk is not None:
        lines.append(["on disk", f"{found.disk / 1e9:.2f} GB"])
    print(console.table(["what", "measured"], lines))
    print("the answers are those of a plain loop over all vectors: ids and float64 scores are equal")
    console.write_json(options.json, {**as_json(found), "command": console.command()})
