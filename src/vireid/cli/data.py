"""`vireid data check`, `vireid data split` and `vireid data synthesise`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.errors import BadInput
from vireid.data.size import Size

if TYPE_CHECKING:
    from vireid.datasets import Checkup

LAYOUTS = ("sysu-mm01", "regdb", "llcm")


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb group."""
    what = "Check, split or generate a data set."
    group = verbs.add_parser("data", help="check, split or generate data", description=what)
    group.set_defaults(verb_function=lambda options: group.print_help())
    nouns = group.add_subparsers(dest="noun", metavar="VERB")

    check = nouns.add_parser(
        "check",
        help="the dataset doctor",
        description="Count files, identities and cameras against what was published, and name every file that cannot "
        "be used. The exit code is 2 if pictures cannot be read, or if a person is in more than one split.",
    )
    check.add_argument("data", metavar="LAYOUT:PATH", help="e.g. sysu-mm01:/data/SYSU-MM01")
    console.add_fold(check, "RegDB's fold, 1 to 10 (default 1)", default=1)
    check.add_argument("--decode", action="store_true", help="also decode every picture (minutes)")
    console.add_json(check, "write what was found as JSON")
    check.set_defaults(verb_function=run_check)

    split = nouns.add_parser(
        "split",
        help="people to train, validation and test",
        description="Give each person of own pictures one split at random, and write a table that folder:TABLE reads. "
        "The shares are of people, not of pictures. Test people have pictures of both modalities.",
    )
    split.add_argument("source", metavar="TABLE|FOLDER", type=Path, help="own pictures; their split is ignored")
    console.add_output(split, "--out", "the table to write", required=True)
    for name, share in (("train", 0.5), ("val", 0.1), ("test", 0.4)):
        split.add_argument(f"--{name}", type=float, default=share, metavar="X", help=f"share, default {share}")
    split.add_argument("--seed", type=console.count, default=0, metavar="S", help="the same seed gives the same splits")
    console.add_json(split, "write the counts as JSON")
    split.set_defaults(verb_function=run_split)

    make = nouns.add_parser(
        "synthesise",
        help="write a generated world",
        description="Write a generated world of people seen by visible and infrared cameras, in a published layout.",
    )
    make.add_argument("directory", metavar="DIR", type=Path, help="a new or empty directory")
    make.add_argument("--layout", required=True, metavar="LAYOUT", choices=LAYOUTS, help=", ".join(LAYOUTS))
    make.add_argument("--identities", type=console.count, default=100, metavar="N", help="people (default 100)")
    make.add_argument(
        "--test-identities", type=console.count, metavar="N", help="people to test on (default: the published share)"
    )
    make.add_argument("--pictures", type=console.count, metavar="N", help="pictures per person and camera")
    make.add_argument("--published-counts", action="store_true", help="as many people and pictures as were published")
    make.add_argument("--seed", type=console.count, default=0, metavar="S", help="the same seed gives the same files")
    make.add_argument("--size", type=Size.parse, default=Size(288, 144), metavar="HxW", help="default 288x144")
    make.add_argument("--difficulty", type=float, default=0.5, metavar="D", help="0 easy to 1 hard (default 0.5)")
    make.add_argument(
        "--infrared", choices=("near", "thermal"), help="infrared camera: thermal (default for regdb) or near"
    )
    for factor, meaning in FACTORS.items():
        make.add_argument(f"--{factor.replace('_', '-')}", type=float, metavar="X", help=f"{meaning}, 0 to 1")
    make.add_argument("--workers", type=console.count, metavar="N", help="processes (default: one per core)")
    make.set_defaults(verb_function=run_synthesise)


FACTORS = {
    "colour_shortcut": "how well colour alone distinguishes people in visible pictures",
    "look_alikes": "how many people differ from others only in a detail",
    "one_sided_detail": "how many details are visible from one side only",
    "sensor_gap": "how far the two kinds of sensor differ",
    "occlusion": "how often people are cut or hidden",
}


def run_check(options: argparse.Namespace) -> None:
    """Print the checkup."""
    from vireid import datasets
    from vireid.training.progress import Terminal

    layout, root = datasets.parse_source(options.data)
    with Terminal().bar("checking") as advance:
        checkup = datasets.check(layout, root, fold=options.fold, decode=options.decode, progress=advance)
    print(f"{layout} at {root}")
    lines = [[name, f"{number:,}", _expected(checkup, name)] for name, number in checkup.counts.items()]
    print(console.table(["count", "found", "published"], lines))
    print("\n".join(checkup.remarks()))
    console.write_json(options.json, checkup.to_json())
    if checkup.failures:
        raise BadInput(f"{layout}:{root}: {', and '.join(checkup.failures)}; they are listed above")


def _expected(checkup: Checkup, name: str) -> str:
    """The published count as text: empty if there is none, `as found` if it is equal to the count."""
    expected = checkup.expected.get(name)
    return "" if expected is None else "as found" if expected == checkup.counts[name] else f"{expected:,}"


def run_split(options: argparse.Namespace) -> None:
    """Write the table and say what is in it."""
    from vireid.datasets.split import SplitOptions, divide

    shares = {name: getattr(options, name) for name in ("train", "val", "test")}
    done = divide(SplitOptions(source=options.source, out=options.out, seed=options.seed, **shares))
    print(f"folder:{done.out}")
    lines = [[name, *(f"{number:,}" for number in found.values())] for name, found in done.splits.items()]
    print(console.table(["split", "people", "visible", "infrared"], lines))
    print("\n".join(f"note: {note}" for note in done.notes) + ("\n" if done.notes else ""), end="")
    console.write_json(options.json, done.to_json())


def run_synthesise(options: argparse.Namespace) -> None:
    """Write the world and say what is in it."""
    from vireid.synthesis.world import World, write_world
    from vireid.training.progress import Terminal

    factors = {name: getattr(options, name) for name in FACTORS}
    infrared = options.infrared
    world = World(options.identities, options.seed, options.difficulty, infrared=infrared, **factors)
    if options.pictures == 0:
        raise BadInput("--pictures takes a whole number of 1 or more")
    with Terminal().bar("rendering") as advance:
        summary = write_world(
            options.directory,
            world,
            layout=options.layout,
            size=options.size,
            pictures=options.pictures,
            published_counts=options.published_counts,
            tested=options.test_identities,
            workers=options.workers,
            progress=advance,
        )
    print(f"{options.layout}:{options.directory}, pictures of {summary['size']}, seed {summary['seed']}")
    lines = []
    for split, found in summary["splits"].items():
        total = found["visible"] + found["infrared"]
        lines.append([split, "all", f"{found['identities']:,}", f"{total:,}"])
        for camera, counts in found["cameras"].items():
            lines.append(["", camera.replace("/", " "), f"{counts['identities']:,}", f"{counts['pictures']:,}"])
    print(console.table(["split", "camera", "identities", "pictures"], lines, left=2))
