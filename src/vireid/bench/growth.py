"""How the time of some work grows with a size: seconds at several sizes, and the exponent of a power that fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vireid.bench.measure import Clock, Contender, Line
from vireid.bench.run import Bench


def grown(bench: Bench, what: str, sizes: Mapping[int, Contender], *, unit: str, clock: Clock = "wall") -> Line:
    """Measure the same work at several sizes.

    Args:
        bench: gives the rounds.
        what: what is done.
        sizes: size → the work, in ascending order; at least two.
        unit: what the sizes count, such as "pictures in the gallery".
        clock: of the seconds.

    Returns:
        A line whose ratio is the time of the largest size over that of the smallest. Its figures are `unit`, `sizes`,
        the median `seconds` and the `exponent`: 1 if the time grows as the size does, 2 if as its square.
    """
    names = {f"{size:,} {unit}": work for size, work in sizes.items()}
    timed = bench.timed({}, others=names, rounds=3)
    seconds = [timed.median(name, clock) for name in names]
    first, *_, last = names
    line = timed.line(f"{what}, {first} to {last}", baseline=first, ours=last, larger=False, clock=clock)
    fit = exponent(list(sizes), seconds)
    return replace(line, figures={"unit": unit, "sizes": list(sizes), "seconds": seconds, "exponent": fit})


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of the straight line that fits log(seconds) to log(size) best.

    >>> round(exponent([10, 20, 40], [3.0, 12.0, 48.0]), 3)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
