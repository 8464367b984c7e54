"""Line charts as SVG text, small enough to stand in a page without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 250, 40, 34, 26, 12
COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5572", "#b08900", "#4a4e69")

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

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 18 * len(kept)}" role="img" aria-label="{escape(y)} over {escape(x)}">'
    ]
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
        colour = COLOURS[number % len(COLOURS)]
        drawn = [place(*point) for point in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in drawn)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(drawn) <= 12:
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in drawn]
        below = HEIGHT + 18 * number + 8
        parts.append(f'<rect x="{LEFT}" y="{below - 8}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text class="legend" x="{LEFT + 20}" y="{below}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


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
