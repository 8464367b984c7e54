"""The cells of the tables that `vireid bench` prints."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from vireid.bench.measure import Line, Spent

HEADER = ("area", "what", "baseline", "ours", "baseline s", "ours s", "a second", "ratio", "goal", "limit", "")
GROWTH_HEADER = ("area", "what", "seconds", "exponent")
REACHED = {True: "reached", False: "not reached", None: ""}


def cells(line: Line) -> list[str]:
    """One line of the table, see `HEADER`. Ratios have the smallest and the largest one of the rounds in brackets."""
    sign = "≥" if line.larger else "≤"
    return [
        line.area,
        line.name,
        line.baseline,
        line.ours,
        both_clocks(line.baseline_spent),
        both_clocks(line.ours_spent),
        "" if line.rate is None else f"{line.rate:,.0f} {line.unit}/s",
        f"{line.ratio:.2f} ({min(line.ratios):.2f}–{max(line.ratios):.2f})",
        "–" if line.goal is None else f"{sign} {line.goal:.3g}",
        "–" if line.limit is None else f"{line.limit:.3g}",
        REACHED[line.reached],
    ]


def both_clocks(rounds: Sequence[Spent]) -> str:
    """The medians of wall and processor seconds.

    >>> both_clocks([Spent(1.0, 2.0)]), both_clocks([Spent(0.00123, 0.0012)])
    ('1.00 (2.00)', '0.00123 (0.0012)')
    """
    wall, cpu = (median(seconds) for seconds in zip(*rounds, strict=True))
    return f"{_short(wall)} ({_short(cpu)})"


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.3g}"


def growth_cells(line: Line) -> list[str]:
    """One line of the second table, see `GROWTH_HEADER`: area, what, the seconds of each size, and the exponent."""
    figures = line.figures
    pairs = zip(figures["sizes"], figures["seconds"], strict=True)
    return [
        line.area,
        line.name,
        ", ".join(f"{size:,}: {_short(seconds)}" for size, seconds in pairs),
        f"{figures['exponent']:.2f}",
    ]
