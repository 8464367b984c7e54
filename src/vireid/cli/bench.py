"""`vireid bench`: how fast vireid is on this machine, as ratios to baselines of the same run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from vireid.bench.comparison import Compared
    from vireid.bench.measure import Line
    from vireid.bench.run import Benched

# Option → the areas that take it.
TAKEN_BY = {
    "parts": ("search",),
    "large_rows": ("search",),
    "large_width": ("search",),
    "milvus_rows": ("search",),
    "pictures": ("search",),
    "requests": ("search",),
    "workers": ("search",),
    "model": ("search",),
    "store": ("search", "store"),
    "rows": ("search", "store"),
    "width": ("search", "store"),
    "kills": ("store",),
    "seed": ("store",),
    "keep": ("store",),
}
OPTIONS = {"parts": "--area"}  # those whose option has another name


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    from vireid.bench.areas import about, areas

    verb = verbs.add_parser(
        "bench",
        help="measure how fast vireid is here, as ratios to baselines",
        description="Compare vireid with named baselines that do the same work. The contenders run in turns, and the "
        "median of the rounds counts. What cannot be measured here is left out, and said. What is written is removed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="areas:\n" + "\n".join(f"  {name:12}{about(name)}" for name in areas()),
    )
    verb.add_argument("areas", nargs="*", metavar="AREA", help="what is measured; default: all but store")
    verb.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, and no ratio")
    verb.add_argument("--growth", action="store_true", help="also measure how the time grows with sizes")
    verb.add_argument("--rounds", type=console.count, metavar="N", help="how often each contender is measured")
    verb.add_argument(
        "--compare", type=Path, metavar="FILE", help="name what is slower than in this earlier --json file"
    )
    console.add_json(verb, "write the ratios as JSON, with the seconds of each round")
    _add_search(verb)
    _add_store(verb)
    verb.set_defaults(verb_function=run)


def _add_search(verb: argparse.ArgumentParser) -> None:
    both = verb.add_argument_group("for search and store")
    both.add_argument("--rows", type=console.count, metavar="N", help="vectors (100000)")
    both.add_argument("--width", type=console.count, metavar="N", help="numbers of a vector (2048)")
    both.add_argument(
        "--store",
        metavar="URL",
        help="store: a new folder, or milvus://host:port/name; search: a server for its part milvus",
    )
    group = verb.add_argument_group("only for search")
    group.add_argument(
        "--area",
        nargs="+",
        dest="parts",
        metavar="PART",
        help="build, matrix, large, service, milvus; default: all of them",
    )
    group.add_argument("--large-rows", type=console.count, metavar="N", help="vectors of the part large (1000000)")
    group.add_argument("--large-width", type=console.count, metavar="N", help="their numbers (512)")
    group.add_argument("--milvus-rows", type=console.count, metavar="N", help="vectors of the part milvus (20000)")
    group.add_argument("--pictures", type=console.count, metavar="N", help="pictures of the part build (1000)")
    group.add_argument("--requests", type=console.count, metavar="N", help="searches at once, part service (64)")
    group.add_argument("--model", type=Path, metavar="RUN", help="of build and service; default: a small untrained one")
    group.add_argument("--workers", type=console.count, metavar="N", help="loading processes of build (0)")


def _add_store(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("only for store")
    group.add_argument("--kills", type=console.count, metavar="N", help="how often the writer is killed (1)")
    group.add_argument("--seed", type=console.count, metavar="S", help="of the moments of the kills (0)")
    group.add_argument("--keep", action="store_true", default=None, help="leave the store there at the end")


def run(options: argparse.Namespace) -> None:
    """Measure, print the table, and compare."""
    from vireid.bench.comparison import compare, read
    from vireid.bench.run import BenchOptions, bench
    from vireid.training.progress import Terminal

    earlier = None if options.compare is None else read(options.compare)
    asked = BenchOptions(
        areas=tuple(dict.fromkeys(options.areas)),
        quick=options.quick,
        rounds=options.rounds,
        growth=options.growth,
        options=_of_areas(options),
    )
    found = bench(asked, Terminal())
    print_lines(found, quick=options.quick)
    console.write_json(options.json, found.to_json(console.command()))
    if options.compare is not None and earlier is not None:
        print_compared(compare(earlier, found.lines, found.surroundings), options.compare)


def _of_areas(options: argparse.Namespace) -> Mapping[str, Mapping[str, Any]]:
    """Area → the values of its options that were given.

    Raises:
        BadInput: no area that is measured takes one of them.
    """
    measured = options.areas or ["search"]
    found: dict[str, dict[str, Any]] = {}
    for name, takers in TAKEN_BY.items():
        if (value := getattr(options, name)) is None:
            continue
        if not (own := [area for area in takers if area in measured]):
            option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise BadInput(f"{option} is only for {' and '.join(takers)}: vireid bench {takers[-1]} {option} …")
        for area in own:
            found.setdefault(area, {})[name] = value
    return found


def print_lines(found: Benched, *, quick: bool) -> None:
    """The table, what is said below it, what is left out, and the machine."""
    from vireid.bench.words import GROWTH_HEADER, HEADER, cells, growth_cells

    measured = [one for one in found.lines if "exponent" not in one.figures]
    if measured:
        print(console.table(HEADER, [cells(one) for one in measured], left=4))
        print("seconds are medians of wall time (processor time); ratios are medians over rounds (smallest–largest)")
    if grown := [one for one in found.lines if "exponent" in one.figures]:
        print()
        print(console.table(GROWTH_HEADER, [growth_cells(one) for one in grown], left=2))
    _print_below(found.lines)
    for what, why in found.left_out.items():
        print(f"{what}: not measured: {why}")
    machine = found.surroundings.hardware
    print(f"{machine.processor}, {machine.cores} cores, {machine.threads} threads")
    if quick:
        print("--quick: the sizes are too small to say anything about speed")


def _print_below(lines: tuple[Line, ...]) -> None:
    for line in lines:
        for note in line.notes:
            print(note)


def print_compared(compared: Compared, file: Path) -> None:
    """What is different from an earlier run, the slower lines last."""
    print(f"compared with {file}: {compared.lines} lines, {len(compared.slower)} slower")
    for said in (*compared.notes, *compared.slower):
        print(said)
