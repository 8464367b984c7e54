"""The area `store`: a store is filled by a process that is killed, filled to the end by another one, and searched.

The rows are made up (`vireid.bench.gallery.vectors.vectors_of`). What the store answers at the end is compared with a
plain loop over all vectors: ids and float64 scores must be equal.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vireid.bench.gallery import writer
from vireid.bench.gallery.stores import bare_client, free_address
from vireid.bench.gallery.vectors import BATCH, CAMERAS, TOP, part_of, queries_of, row_id, vectors_of
from vireid.bench.measure import Timed
from vireid.bench.run import Bench
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.settings import Count, Whole, options
from vireid.gallery.row import Where
from vireid.gallery.store import Hit, Store, ranked
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores.product import float32_error, scores
from vireid.training.progress import Progress, Quiet

CHECKED = 8
"""Queries whose answers are compared with the plain loop, without a filter and with one."""
MANY = 64
ONE, SIXTH, TOGETHER, COUNT = "one query", "one query, 1 of 6 cameras", f"{MANY} queries", "count"
EVERYTHING = Where(modality=Modality.VISIBLE)
CAMERA = 3
ONE_CAMERA = Where(modality=Modality.VISIBLE, cameras=(str(CAMERA),))


@options
class StoreOptions:
    """The options of `vireid bench store`.

    Attributes:
        store: a folder that is not there yet, or `milvus://host:port/name` with a free name.
        rows, width: how many vectors, and how long.
        kills: how often the writing process is killed, at random moments.
        seed: of the moments.
        keep: leave the store there at the end.
    """

    store: str = ""
    rows: Count = 100_000
    width: Count = 2048
    kills: Whole = 1
    seed: Whole = 0
    keep: bool = False

    def __post_init__(self) -> None:
        if not self.store:
            raise BadInput("the area store needs --store: a new folder, or milvus://host:port/name with a free name")


QUICK: Mapping[str, int] = {"rows": 5000, "width": 32}
"""The sizes of `--quick`."""


@dataclass(frozen=True)
class Killed:
    """What was found after a kill.

    Attributes:
        acknowledged: rows whose `upsert` had returned.
        stored: rows that the store had when it was opened again; never fewer.
        seconds: until it was open again.
    """

    acknowledged: int
    stored: int
    seconds: float


@dataclass(frozen=True)
class Filled:
    """What was found of a store that was filled in spite of kills.

    Attributes:
        rows_per_second: of the writing, with the time in which the processes start.
        killed: what was found after each kill.
        searches: the seconds of four kinds of calls: `ONE`, `SIXTH`, `TOGETHER` and `COUNT`.
        disk: bytes of a folder; None for a server.
    """

    rows_per_second: float
    killed: tuple[Killed, ...]
    searches: Timed
    disk: int | None


def fill(bench: Bench) -> Filled:
    """Fill a store in spite of kills, compare its answers, and measure its searches.

    Raises:
        BadInput: the store is there already, or cannot be used.
        RuntimeError: an acknowledged row is lost, or an answer is wrong.
    """
    asked: StoreOptions = bench.options
    _check_free(asked.store)
    draw = random.Random(asked.seed)
    goals = sorted(draw.sample(range(1, max(asked.rows // BATCH, asked.kills + 1)), asked.kills))
    done, seconds, killed = 0, 0.0, []
    for goal in [*(goal * BATCH for goal in goals), asked.rows]:
        if done == asked.rows:  # the process was faster than the kill
            break
        start = time.perf_counter()
        done, ended = write(asked, done, goal, draw.random(), bench.progress)
        seconds += time.perf_counter() - start
        if not ended:
            killed.append(_after_kill(asked, done))
            bench.progress.say(f"killed after {done:,} rows were acknowledged; {killed[-1].stored:,} are there")
    with open_gallery(asked.store) as store:
        if (count := store.count()) != asked.rows:
            raise RuntimeError(f"{asked.rows:,} rows were acknowledged, and {count:,} are there")
        check_answers(store, asked.rows, asked.width, bench.progress)
        searches = searched(store, bench)
    found = Filled(asked.rows / seconds, tuple(killed), searches, _disk(asked.store))
    if not asked.keep:
        _remove(asked.store)
    return found


def write(asked: StoreOptions, done: int, goal: int, moment: float, progress: Progress) -> tuple[int, bool]:
    """Write from row `done` on in another process, which is killed in the batch after row `goal` if more are to come.

    Args:
        asked: the store and its size.
        done: rows that are acknowledged.
        goal: after how many rows it is killed.
        moment: when in the batch, 0 to 1.
        progress: where the bar is shown.

    Returns:
        How many rows are acknowledged, and whether the process reached its end.

    Raises:
        BadInput: it failed.
    """
    words = [asked.store, str(asked.rows), str(asked.width), str(done)]
    child = subprocess.Popen([sys.executable, "-m", writer.__name__, *words], stdout=subprocess.PIPE, text=True)
    batches, last = [], time.perf_counter()
    with progress.bar(f"writing {asked.rows:,} × {asked.width}") as advance, child:
        assert child.stdout is not None
        for line in child.stdout:
            done = int(line)
            batches.append(time.perf_counter() - last)
            last += batches[-1]
            advance(done, asked.rows)
            if goal <= done < asked.rows:
                time.sleep(moment * statistics.median(batches))
                child.kill()
                done = int([line, *child.stdout][-1])  # it may have acknowledged another batch meanwhile
    if child.returncode not in (0, -signal.SIGKILL):
        raise BadInput(f"the writing process failed with code {child.returncode}; what it said stands above")
    return done, child.returncode == 0


def _after_kill(asked: StoreOptions, acknowledged: int) -> Killed:
    start = time.perf_counter()
    with open_gallery(asked.store) as store:
        seconds = time.perf_counter() - start
        stored = store.count()
        if stored < acknowledged:
            raise RuntimeError(f"{acknowledged:,} rows were acknowledged before the kill, and {stored:,} are there")
        first = acknowledged - BATCH  # the last acknowledged batch
        wanted = part_of(first, asked.rows, asked.width)
        there = store.get(row_id(n) for n in range(first, acknowledged))
        for n, vector in enumerate(wanted, first):
            row = there.get(row_id(n))
            if row is None or row.vector is None or not np.array_equal(row.vector, vector):
                raise RuntimeError(f"row {n:,} was acknowledged before the kill, and is not there unchanged")
    return Killed(acknowledged, stored, seconds)


# --- answers ----------------------------------------------------------------------------------------------------------


def check_answers(store: Store, rows: int, width: int, progress: Progress = Quiet()) -> None:  # noqa: B008 no state
    """Compare answers with a plain loop over all vectors, without a filter and with one.

    Raises:
        RuntimeError: an id or a score differs.
    """
    queries = queries_of(CHECKED, rows, width)
    wanted = plain_answers(queries, rows, width, (None, CAMERA), progress)
    for where, answers in zip((EVERYTHING, ONE_CAMERA), wanted, strict=True):
        for query, (found, right) in enumerate(zip(store.search(queries, TOP, where), answers, strict=True)):
            if found != right:
                raise RuntimeError(f"query {query}: the store's answer is not that of the plain loop")


def plain_answers(
    queries: np.ndarray, rows: int, width: int, cameras: Sequence[int | None], progress: Progress
) -> list[list[list[Hit]]]:
    """For each camera, or for all of them (None): the best vectors of each query, by a loop over the parts.

    The scores are float64 sums.
    """
    best: list[list[list[Hit]]] = [[[] for _ in queries] for _ in cameras]
    with progress.bar("comparing") as advance:
        for first, part in vectors_of(rows, width):
            near, places = queries @ part.T, np.arange(first, first + len(part))
            for camera, own in zip(cameras, best, strict=True):
                passes = np.ones(len(part), bool) if camera is None else places % CAMERAS == camera
                for q, query in enumerate(queries):
                    own[q] = _better(own[q], query, part, near[q], np.flatnonzero(passes), first)
            advance(first + len(part), rows)
    return best


def _better(
    known: list[Hit], query: np.ndarray, part: np.ndarray, near: np.ndarray, passing: np.ndarray, first: int
) -> list[Hit]:
    """The best of those that are known and of a part of the vectors, whose float32 products are near enough."""
    least = known[-1].score - 2 * float32_error(len(query)) if len(known) == TOP else -np.inf
    new = passing[near[passing] >= least]
    ids = [*(hit.id for hit in known), *(row_id(first + n) for n in new.tolist())]
    return ranked(ids, np.concatenate([[hit.score for hit in known], scores(query, part[new])]), TOP)


def searched(store: Store, bench: Bench) -> Timed:
    """The seconds of three searches and of counting."""
    many = queries_of(MANY, bench.options.rows, bench.options.width)
    calls = {
        ONE: lambda: store.search(many[:1], TOP, EVERYTHING),
        SIXTH: lambda: store.search(many[:1], TOP, ONE_CAMERA),
        TOGETHER: lambda: store.search(many, TOP, EVERYTHING),
        COUNT: lambda: store.count(ONE_CAMERA),
    }
    return bench.timed({}, others=calls)


# --- the store itself -------------------------------------------------------------------------------------------------


def _check_free(url: str) -> None:
    """Refuse a store that is there already."""
    if "://" not in url and os.path.lexists(url):
        raise BadInput(f"{url} is there already: the benchmark fills a store of its own, so give another name")
    if "://" in url:
        free_address(url)


def _disk(url: str) -> int | None:
    if "://" in url:
        return None
    return sum(file.stat().st_size for file in Path(url).iterdir() if file.is_file())


def _remove(url: str) -> None:
    """Remove the store that was made."""
    if "://" not in url:
        shutil.rmtree(url)
        return
    with bare_client(url) as (client, collection):
        client.drop_collection(collection)
