"""The generated world: files by several processes, against one process, against a rate, and against the ray caster.

The contenders write the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vireid.bench.growth import grown
from vireid.bench.measure import Line, counted
from vireid.bench.run import Bench
from vireid.data.size import Size
from vireid.synthesis import World, write_world
from vireid.synthesis.layout import Picture
from vireid.synthesis.world import plan, render_person

RATE = 150.0
"""Pictures a second that two cores are to write, as files of 144×288 pixels."""
ONE, TWO, DRAWING = "one process", "two processes", "the ray caster alone, one process"
LAYOUT, EACH = "llcm", 3


def measure(bench: Bench) -> Iterator[Line]:
    """The same small world by one process and by two."""
    world, size = sized(bench)
    drawn = plan(world, LAYOUT, pictures=EACH).pictures
    timed = bench.timed(
        {ONE: writing(bench.folder, world, size, 1), TWO: writing(bench.folder, world, size, 2)},
        agree=lambda wanted, found: wanted == found,
        others={DRAWING: lambda: drawing(world, drawn, size)},
        rounds=3,
    )
    fixed = f"{RATE:.0f} pictures a second"
    timed = timed.with_fixed(fixed, len(drawn) / RATE)
    what = f"files, {len(drawn)} pictures of {size}"
    lines = [
        timed.line(what, baseline=ONE, ours=TWO, limit=2.0),
        timed.line(what, baseline=fixed, ours=TWO, goal=1.0),
        timed.line(what, baseline=DRAWING, ours=ONE, limit=1.0, larger=False, clock="cpu"),
    ]
    yield from (counted(line, len(drawn), "pictures") for line in lines)


def growth(bench: Bench) -> Iterator[Line]:
    """The time against the processes."""
    world, size = sized(bench)
    works = {workers: writing(bench.folder, world, size, workers) for workers in (1, 2)}
    yield grown(bench, "files", works, unit="processes")


def sized(bench: Bench) -> tuple[World, Size]:
    """The world, and the size of its pictures."""
    return World(bench.size(16, 4), infrared="near"), bench.size(Size(288, 144), Size(24, 12))


def drawing(world: World, pictures: Iterable[Picture], size: Size) -> None:
    """Draw the pictures, and write nothing."""
    for one in pictures:
        render_person(world, one.identity, camera=one.camera, modality=one.modality, moment=one.moment, size=size)


def writing(folder: Path, world: World, size: Size, workers: int) -> Callable[[], str]:
    """A call that writes the world, and returns one hash of all its files."""
    numbers = itertools.count()

    def write() -> str:
        root = folder / f"world-{workers}-{next(numbers)}"
        write_world(root, world, layout=LAYOUT, size=size, pictures=EACH, workers=workers)
        found = hashlib.sha256()
        for file in sorted(root.rglob("*.jpg")):
            found.update(file.read_bytes())
        shutil.rmtree(root)
        return found.hexdigest()

    return write
