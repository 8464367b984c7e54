"""How fast a gallery is, as ratios to named baselines that are measured in the same run.

Two contenders that do the same work run in turns, first one of them, then the other, and in the next round the other
way round. So what else the machine does meets both. Each is called once before, without being measured. A ratio is the
median of the ratios of the rounds.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.settings import Count, options
from vireid.data.stored import as_json
from vireid.gallery.row import Row, id_of
from vireid.training.progress import Progress, Quiet

SOURCE = "bench"
MODEL = "be" * 32
"""The fingerprint of the model that the made-up vectors pretend to be from."""
BATCH = 1000
"""Rows that are made and stored at a time."""
PEOPLE = 10
"""Vectors around each centre. Half of the best 20 are of others, so that the choice at the end is a close one."""
CAMERAS = 6
TOP = 20
REST = 0.1
"""Seconds before each measurement."""
MEMORY = 1.15
"""How much more memory must be free than the arrays need."""
AREAS = ("build", "matrix", "large", "service", "milvus")


@options
class BenchOptions:
    """What `vireid bench search` is asked to do.

    Attributes:
        areas: what is measured, of `AREAS`: building an index from pictures; a search in `rows` × `width` and a filter
            there; a search in `large_rows` × `large_width`; requests over HTTP; the adapter of Milvus.
        rows, width: of the area `matrix`.
        large_rows, large_width: of the area `large`.
        milvus_rows: rows of the area `milvus`, of `large_width`.
        pictures: how many pictures are built into an index.
        requests: how many searches are sent at the same time.
        rounds: how often each contender is measured.
        store: `milvus://host:port/name` of the area `milvus`, a name that is free; None starts milvus-lite's server if
            it is installed.
        model: a run, or an exported model, for the areas `build` and `service`; None makes a small untrained one.
        workers: loading processes of the area `build`.
    """

    areas: tuple[str, ...] = AREAS
    rows: Count = 100_000
    width: Count = 2048
    large_rows: Count = 1_000_000
    large_width: Count = 512
    milvus_rows: Count = 20_000
    pictures: Count = 1000
    requests: Count = 64
    rounds: Count = 7
    store: str | None = None
    model: Path | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if strange := sorted(set(self.areas) - set(AREAS)):
            raise unknown("area of the benchmark", strange[0], AREAS)
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
    "rounds": 2,
}
"""The sizes of `--quick`. They show that everything works, and no ratio."""


@dataclass(frozen=True)
class Ratio:
    """How long we take, compared with a baseline.

    Attributes:
        area: one of `AREAS`.
        what: what is done, with the sizes.
        baseline, ours: the two contenders, in words.
        baseline_seconds, ours_seconds: the medians over the rounds.
        value: `ours / baseline` of the seconds; of a speed, `baseline / ours`. The median over the rounds.
        target: the value that is wanted; None if the ratio is only shown.
        speed: whether larger values are better.
    """

    area: str
    what: str
    baseline: str
    ours: str
    baseline_seconds: float
    ours_seconds: float
    value: float
    target: float | None
    speed: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.speed else self.value <= self.target


@dataclass(frozen=True)
class Benched:
    """What `bench` measured.

    Attributes:
        ratios: one for each comparison.
        missing: area → why it was not measured.
        surroundings: versions, commit and machine.
    """

    ratios: tuple[Ratio, ...]
    missing: dict[str, str]
    surroundings: Any = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; each ratio with `met`."""
        ratios = [{**as_json(one), "met": one.met} for one in self.ratios]
        return {"ratios": ratios, "missing": dict(self.missing), **as_json(self.surroundings)}


class Missing(Exception):
    """An area cannot be measured here. The text says why."""


def bench(asked: BenchOptions, progress: Progress = Quiet()) -> Benched:  # noqa: B008 has no state
    """Measure the areas that were asked for, one after another.

    Everything that is written lies in a temporary folder (`TMPDIR` chooses where) and is removed.

    Raises:
        BadInput: the server or the model cannot be used.
        RuntimeError: two contenders that must find the same pictures did not.
    """
    from vireid.gallery.bench import requests as bench_service
    from vireid.gallery.bench import vectors as bench_search
    from vireid.training.run import surroundings

    work: dict[str, Callable[[BenchOptions, Path, Progress], list[Ratio]]] = {
        "build": bench_service.build_ratios,
        "matrix": bench_search.matrix_ratios,
        "large": bench_search.large_ratios,
        "service": bench_service.service_ratios,
        "milvus": bench_search.milvus_ratios,
    }
    ratios: list[Ratio] = []
    missing: dict[str, str] = {}
    for area in (one for one in AREAS if one in asked.areas):
        progress.say(f"measuring {area}")
        with tempfile.TemporaryDirectory(prefix="vireid-bench-") as folder:
            try:
                ratios += work[area](asked, Path(folder), progress)
            except Missing as why:
                missing[area] = str(why)
                progress.say(f"  {why}")
    return Benched(tuple(ratios), missing, surroundings())


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """Contender → the seconds of each round. All have equally many rounds."""

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """The median of a contender's rounds, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, area: str, what: str, ours: str, baseline: str, target: float | None, **kind: bool) -> Ratio:
        """Compare two contenders, round by round. With `speed=True`, larger is better."""
        pairs = list(zip(self.seconds[ours], self.seconds[baseline], strict=True))
        values = [theirs / mine if kind.get("speed") else mine / theirs for mine, theirs in pairs]
        medians = self.median(baseline), self.median(ours)
        return Ratio(area, what, baseline, ours, *medians, statistics.median(values), target, **kind)


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Measure contenders in turns, every second round in the opposite order, after one call of each to warm up.

    Each begins after a rest: the threads of a matrix product go on spinning for a while after it.
    """
    for run in contenders.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            time.sleep(REST)
            start = clock()
            contenders[name]()
            found[name].append(clock() - start)
    return Timed({name: tuple(seconds) for name, seconds in found.items()})


def need(memory: float, disk: float, folder: Path, *, free: float | None = None) -> None:
    """Check that there is enough room, before an area is begun.

    Args:
        memory, disk: bytes that are needed.
        folder: where the disk is needed.
        free: bytes of free memory; None asks the system.

    Raises:
        Missing: there is not; the sentence has the sizes.
    """
    there = free_memory() if free is None else free
    if there is not None and there < memory * MEMORY:
        raise Missing(f"needs {memory * MEMORY / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free")
    if (left := shutil.disk_usage(folder).free) < disk:
        raise Missing(f"needs {disk / 1e9:.1f} GB in {folder.parent}, and {left / 1e9:.1f} GB are free")


def free_memory() -> float | None:
    """Bytes of memory that can be used without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("MemAvailable")


# --- made-up vectors --------------------------------------------------------------------------------------------------


def vectors_of(count: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """`count` vectors in parts of up to 1,000: (position of the first, N×width float32 of length one).

    They lie around centres, 10 around each, with a cosine of about 0.7 to it, as pictures of one person do. A part
    depends on its position only.
    """
    for first in range(0, count, BATCH):
        yield first, part_of(first, count, width)


def part_of(first: int, count: int, width: int) -> np.ndarray:
    """The part of `vectors_of` that begins at a multiple of 1,000."""
    draw = np.random.default_rng((7, first, width))
    centres = draw.standard_normal((BATCH // PEOPLE, width), dtype=np.float32)
    found = centres.repeat(PEOPLE, axis=0) + draw.standard_normal((BATCH, width), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[: min(BATCH, count - first)]


def queries_of(count: int, rows: int, width: int) -> np.ndarray:
    """Queries near some of the vectors: count×width float32 of length one, with a cosine of about 0.7 to a vector."""
    draw = np.random.default_rng(8)
    found = np.empty((count, width), np.float32)
    for number, place in enumerate(np.linspace(0, rows - 1, count).astype(int).tolist()):
        part = part_of(place - place % BATCH, rows, width)
        noise = draw.standard_normal(width)
        near = part[place % BATCH].astype(np.float64) + noise / np.linalg.norm(noise)
        found[number] = near / np.linalg.norm(near)
    return found


def rows_of(first: int, vectors: np.ndarray) -> list[Row]:
    """The rows of some vectors: visible pictures of six cameras."""
    row = partial(Row, SOURCE, modality=Modality.VISIBLE)
    return [
        row(str(n), f"{n:064x}", camera=str(n % CAMERAS), time=n, vector=vector)
        for n, vector in enumerate(vectors, first)
    ]


def row_id(n: int) -> str:
    """The id of the row with this number."""
    return id_of(SOURCE, str(n))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
