"""Charts as SVG text, small enough to stand in a page without a plotting library.

Lines differ in colour and dash, so they can be read in grey. They have the classes `line-0`, `line-1`, …; a page can
give these other colours on a dark background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 250, 40, 34, 26, 12
COLOURS = ("#1b6ca8", "#c8553d", "#4b7a4b", "#8e5572", "#8f6f00", "#4a4e69")
DASHES = ("", "7 3", "2 3", "9 3 2 3")

Points = Sequence[tuple[float, float]]


def lines(
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    y_range: tuple[float, float] | None = None,
    ticks_x: Sequence[float] = (),
) -> str:
    """A chart of one or more lines with a legend.

    Args:
        series: name → (x, y) points, ascending in x; points that are not finite are left out.
        x: what the horizontal axis shows, with its unit.
        y: what the vertical axis shows, with its unit.
        y_range: lowest and highest y; None fits the points and includes 0.
        ticks_x: where to write numbers on the horizontal axis; empty for a few round ones.

    Returns:
        An `<svg>` element; a paragraph saying so if there is no point to draw.
    """
    kept = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return "<p class='none'>nothing to draw yet</p>"
    low_x, high_x = min(p[0] for p in every), max(p[0] for p in every)
    low_y, high_y = y_range or (min(0.0, *(p[1] for p in every)), max(p[1] for p in every))
    high_x, high_y = max(high_x, low_x + 1e-9), max(high_y, low_y + 1e-9)

    def place(px: float, py: float) -> tuple[float, float]:
        return (
            LEFT + (px - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (py - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - TOP),
        )

    named = f"{escape(y)} over {escape(x)}: {escape(', '.join(kept))}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 18 * len(kept)}" role="img" aria-label="{named}">']
    for value in round_ticks(low_y, high_y):
        _, py = place(low_x, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks_x or round_ticks(low_x, high_x):
        px, _ = place(value, low_y)
        parts.append(
            f'<text class="tick" x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x)}</text>')
    parts.append(f'<text class="axis" x="4" y="{TOP - 14}">{escape(y)}</text>')
    for number, (name, points) in enumerate(kept.items()):
        stroke = _stroke(number)
        drawn = [place(*point) for point in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in drawn)
        parts.append(f'<polyline fill="none" {stroke} points="{path}"/>')
        if len(drawn) <= 12:
            dot = f'class="dot-{number % len(COLOURS)}" fill="{COLOURS[number % len(COLOURS)]}"'
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" {dot}/>' for px, py in drawn]
        below = HEIGHT + 18 * number + 8
        parts.append(f'<line {stroke} x1="{LEFT}" x2="{LEFT + 24}" y1="{below - 4}" y2="{below - 4}"/>')
        parts.append(f'<text class="legend" x="{LEFT + 30}" y="{below}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _stroke(number: int) -> str:
    """The attributes of line `number`."""
    place = number % len(COLOURS)
    dash = f' stroke-dasharray="{DASHES[number % len(DASHES)]}"' if DASHES[number % len(DASHES)] else ""
    return f'class="line-{place}" stroke="{COLOURS[place]}" stroke-width="2"{dash}'


def intervals(rows: Mapping[str, Mapping[str, tuple[float, float, float]]], *, x: str) -> str:
    """Values with their intervals, a row for each name and a marker for each kind of value: at most two kinds.

    Args:
        rows: name → kind → (value, lower end, upper end), all finite.
        x: what the horizontal axis shows, with its unit.

    Returns:
        An `<svg>` element. The first kind has filled circles, the second one hollow triangles.
    """
    kinds = list(dict.fromkeys(kind for values in rows.values() for kind in values))
    ends = [end for values in rows.values() for value in values.values() for end in value]
    low, high = min(ends), max(ends)
    low, high = low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1
    step, top, width = 22 + 16 * len(kinds), 8, 380
    bottom = top + step * len(rows)

    def across(value: float) -> float:
        return 12 + (value - low) / (high - low) * (width - 24)

    told = "; ".join(f"{name} {kind} {v:.2f}" for name, values in rows.items() for kind, (v, _, _) in values.items())
    parts = [f'<svg viewBox="0 0 {width} {bottom + 54}" role="img" aria-label="{escape(x)}: {escape(told)}">']
    for value in round_ticks(low, high):
        px = across(value)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{px:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text class="axis" x="{width - 12}" y="{bottom + 32}" text-anchor="end">{escape(x)}</text>')
    for number, (name, values) in enumerate(rows.items()):
        py = top + step * number + 12
        parts.append(f'<text class="legend" x="12" y="{py}">{escape(name)}</text>')
        for kind, (value, start, end) in values.items():
            place = kinds.index(kind)
            line = py + 14 + 16 * place
            parts.append(
                f'<line {_stroke(place)} x1="{across(start):.1f}" x2="{across(end):.1f}" y1="{line}" y2="{line}"/>'
            )
            parts.append(_marker(place, across(value), line))
    for place, kind in enumerate(kinds):
        parts.append(_marker(place, 18 + 90 * place, bottom + 42))
        parts.append(f'<text class="legend" x="{28 + 90 * place}" y="{bottom + 46}">{escape(kind)}</text>')
    return "".join([*parts, "</svg>"])


def _marker(place: int, px: float, py: float) -> str:
    if place == 0:
        return f'<circle class="dot-0" cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{COLOURS[0]}"/>'
    shape = f"{px:.1f},{py - 5.5:.1f} {px - 5.5:.1f},{py + 4:.1f} {px + 5.5:.1f},{py + 4:.1f}"
    return f'<polygon class="line-1 hollow" points="{shape}" fill="#fff" stroke="{COLOURS[1]}" stroke-width="2"/>'


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """A few round numbers between two others.

    >>> round_ticks(0, 100)
    [0, 20, 40, 60, 80, 100]
    >>> round_ticks(1, 20)
    [5, 10, 15, 20]
    """
    raw = (high - low) / about
    scale = 10 ** math.floor(math.log10(raw))
    step = next(f * scale for f in (1, 2, 5, 10) if raw <= f * scale * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(n * step, 10) for n in range(first, last + 1)]
    return [int(v) if float(v).is_integer() else v for v in values]
