"""Measure contenders that do the same work in turns, and compare them.

First one contender runs, then the other, and in the next round the other way round. So what else the machine does meets
both. Each is called once before: this call warms up, it is not measured, and its results are compared, because a ratio
of two that compute different things says nothing. A ratio is the median of the ratios of the rounds.

Two clocks are read: wall time, and the processor time of this process and of the processes that it started and that
have ended. Processor time hardly changes if the machine does other work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vireid.data.stored import as_json

REST = 0.1
"""Seconds before each measurement."""
MEMORY = 1.15
"""How much more memory must be free than the arrays need."""

Contender = Callable[[], Any]
Clock = Literal["wall", "cpu"]


class Missing(Exception):
    """Something cannot be measured here. The text says why."""


class Spent(NamedTuple):
    """Seconds by both clocks."""

    wall: float
    cpu: float


def now() -> Spent:
    """What both clocks show."""
    return Spent(time.perf_counter(), time.process_time() + _of_children())


def _of_children() -> float:
    """Processor seconds of the processes that this one started and that have ended; 0 where the system does not say."""
    ended = os.times()
    return ended.children_user + ended.children_system


@dataclass(frozen=True)
class Line:
    """What was measured of ours and of a baseline.

    Attributes:
        name: what is done, with the sizes.
        baseline, ours: the two contenders, in words.
        ratios: ours compared with the baseline in each round.
        larger: whether larger ratios are better. If so, a ratio is how many times as fast ours is: the baseline's
            seconds divided by ours. If not, it is how many times as long ours takes.
        clock: the seconds that the ratios are of.
        baseline_spent, ours_spent: the seconds of each round.
        goal: the ratio that is wanted; None if it is only shown.
        limit: the best ratio that is physically possible; None if it is not known.
        count, unit: how many things of which kind one call does, such as 64 pictures; 0 if nothing is counted.
        figures: other numbers that were found, as JSON values.
        notes: sentences for below the table.
        area: the area of the benchmark.
        quick: whether the sizes are so small that the ratio says nothing.
    """

    name: str
    baseline: str
    ours: str
    ratios: tuple[float, ...]
    larger: bool
    clock: Clock
    baseline_spent: tuple[Spent, ...]
    ours_spent: tuple[Spent, ...]
    goal: float | None = None
    limit: float | None = None
    count: int = 0
    unit: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    area: str = ""
    quick: bool = False

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None if there is none, or if the sizes are too small to say."""
        if self.goal is None or self.quick:
            return None
        return self.ratio >= self.goal if self.larger else self.ratio <= self.goal

    @property
    def rate(self) -> float | None:
        """Things a second, by the median of the seconds of ours; None if nothing is counted."""
        return self.count / _median(self.ours_spent, self.clock) if self.count else None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, the ratio as a number, with its smallest and largest value beside it."""
        spent = {"baseline_spent", "ours_spent", "ratios", "larger"}
        own = {name: value for name, value in vars(self).items() if name not in spent}
        rounds = [
            {"ratio": ratio, "baseline": theirs._asdict(), "ours": mine._asdict()}
            for ratio, theirs, mine in zip(self.ratios, self.baseline_spent, self.ours_spent, strict=True)
        ]
        found = {"ratio": self.ratio, "ratio_min": min(self.ratios), "ratio_max": max(self.ratios)}
        better = "larger" if self.larger else "smaller"
        return as_json({**own, **found, "better": better, "reached": self.reached, "rate": self.rate, "rounds": rounds})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Line:
        """A line from the values that `to_json` returned. Other values are ignored."""
        names = ("name", "baseline", "ours", "clock", "goal", "limit", "count", "unit", "figures", "area", "quick")
        rounds = values["rounds"]
        return cls(
            **{name: values[name] for name in names},
            ratios=tuple(one["ratio"] for one in rounds),
            larger=values["better"] == "larger",
            baseline_spent=tuple(Spent(**one["baseline"]) for one in rounds),
            ours_spent=tuple(Spent(**one["ours"]) for one in rounds),
            notes=tuple(values["notes"]),
        )


def _median(spent: tuple[Spent, ...], clock: Clock) -> float:
    return statistics.median(getattr(one, clock) for one in spent)


@dataclass(frozen=True)
class Timed:
    """Contender → the seconds of each round, by both clocks. All have equally many rounds."""

    spent: Mapping[str, tuple[Spent, ...]]

    def median(self, name: str, clock: Clock = "wall") -> float:
        """The median of a contender's rounds, in seconds."""
        return _median(self.spent[name], clock)

    def line(
        self,
        name: str,
        *,
        baseline: str,
        ours: str,
        goal: float | None = None,
        limit: float | str | None = None,
        larger: bool = True,
        clock: Clock = "wall",
    ) -> Line:
        """Compare two contenders, round by round.

        Args:
            name: what is done, with the sizes.
            baseline, ours: the two contenders.
            goal: the ratio that is wanted.
            limit: the best possible ratio, or the contender whose ratio is that: one that does only the part of the
                work that nobody can leave out.
            larger: whether a ratio is how many times as fast ours is, and not how many times as long it takes.
            clock: of the ratios. Take `cpu` for work of one thread.
        """
        best = statistics.median(self._ratios(baseline, limit, larger, clock)) if isinstance(limit, str) else limit
        ratios = self._ratios(baseline, ours, larger, clock)
        both = self.spent[baseline], self.spent[ours]
        return Line(name, baseline, ours, ratios, larger, clock, *both, goal=goal, limit=best)

    def _ratios(self, baseline: str, ours: str, larger: bool, clock: Clock) -> tuple[float, ...]:
        pairs = [
            (getattr(mine, clock), getattr(theirs, clock))
            for mine, theirs in zip(self.spent[ours], self.spent[baseline], strict=True)
        ]
        return tuple(theirs / mine if larger else mine / theirs for mine, theirs in pairs)

    def with_fixed(self, name: str, seconds: float) -> Timed:
        """The same, and a contender that takes this time in each round: for a goal that is a rate."""
        rounds = len(next(iter(self.spent.values())))
        return Timed({**self.spent, name: (Spent(seconds, seconds),) * rounds})


def counted(line: Line, count: int, unit: str) -> Line:
    """The line, and how many things one call does: the table then shows how many of them a second."""
    return replace(line, count=count, unit=unit)


def interleaved(
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    agree: Callable[[Any, Any], bool] | None = None,
    others: Mapping[str, Contender] | None = None,
    calls: int = 1,
    clock: Callable[[], Spent] = now,
) -> Timed:
    """Measure contenders in turns, every second round in the opposite order, after one call of each to warm up.

    Each begins after a rest: the threads of a matrix product go on spinning for a while after it.

    Args:
        contenders: name → what is measured, all of them the same work. The first one is the baseline.
        rounds: how often each is measured.
        agree: compares what the baseline returned with what another contender returned, before anything is measured.
        others: contenders that do other work than the baseline, such as a lower limit, and are not compared with it.
        calls: how often a contender is called in a round. More than once for work of less than some milliseconds; the
            seconds are those of one call.
        clock: gives both times.

    Raises:
        RuntimeError: a contender does not agree with the baseline.
    """
    _compare(contenders, agree)
    everyone = {**contenders, **(others or {})}
    for run in (others or {}).values():
        run()
    found: dict[str, list[Spent]] = {name: [] for name in everyone}
    for number in range(rounds):
        for name in list(everyone)[:: -1 if number % 2 else 1]:
            time.sleep(REST)
            start = clock()
            for _ in range(calls):
                everyone[name]()
            end = clock()
            found[name].append(Spent((end.wall - start.wall) / calls, (end.cpu - start.cpu) / calls))
    return Timed({name: tuple(spent) for name, spent in found.items()})


def _compare(contenders: Mapping[str, Contender], agree: Callable[[Any, Any], bool] | None) -> None:
    """Call each contender once, and compare what it returns with what the first one returned."""
    if not contenders:
        return
    baseline, *rest = contenders
    wanted = contenders[baseline]()
    for name in rest:
        found = contenders[name]()
        if agree is not None and not agree(wanted, found):
            raise RuntimeError(f"'{name}' computes something else than '{baseline}': a ratio of the two says nothing")


def close(tolerance: float) -> Callable[[Any, Any], bool]:
    """A comparison of two results: numbers, arrays, tensors, or tuples of them.

    Args:
        tolerance: how much two values may differ, as a part of the largest absolute value of the baseline's array.
    """

    def agree(wanted: Any, found: Any) -> bool:
        if isinstance(wanted, tuple):
            return len(wanted) == len(found) and all(agree(*pair) for pair in zip(wanted, found, strict=True))
        first, second = (_array(one) for one in (wanted, found))
        if first.shape != second.shape:
            return False
        return bool(np.all(np.abs(first - second) <= tolerance * np.abs(first).max(initial=0)))

    return agree


def _array(one: Any) -> np.ndarray:
    return np.asarray(one.detach().float() if isinstance(one, torch.Tensor) else one, dtype=np.float64)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A `with` block in which torch computes with one thread, so that processor time is that of one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def computes_bfloat16() -> bool:
    """Whether this processor has arithmetic for bfloat16, so that a convolution does not take twice as long in it.

    Without it, a training step takes ten times as long as in float32, and nobody would use it.
    """
    spent = {}
    for kind in (torch.float32, torch.bfloat16):
        images, weights = torch.ones(2, 128, 24, 24, dtype=kind), torch.ones(128, 128, 3, 3, dtype=kind)
        best = []
        for _ in range(4):
            start = time.process_time()
            torch.nn.functional.conv2d(images, weights)
            best.append(time.process_time() - start)
        spent[kind] = min(best)
    return spent[torch.bfloat16] <= 2 * spent[torch.float32]


def need(memory: float, disk: float, folder: Path, *, free: float | None = None) -> None:
    """Check that there is enough room, before something is begun.

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
